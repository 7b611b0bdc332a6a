// One token's rows of both embeddings, dequantized: h0 (H) and pl (LAYERS * P).
  __shared__ int known[1];
  if (threadIdx.x == 0) known[0] = (int)token[0];  // it may lie in the host's memory: asked for once
  __syncthreads();
  int i = blockIdx.x * THREADS + threadIdx.x, id = known[0];
  if (i < H) {
    h0[i] = static_cast<T>(rounded<T>(weight(we, se, be, H, id, i)) * rounded<T>(sqrtf((float)H)));
  } else if (i - H < WIDE) {
    int row = id < LIMIT ? id : 0;
    float v = rounded<T>(weight(wp, sp, bp, WIDE, row, i - H));
    pl[i - H] = static_cast<T>(v * rounded<T>(sqrtf((float)P)));
  }
