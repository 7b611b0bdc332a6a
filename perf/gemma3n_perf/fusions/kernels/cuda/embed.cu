// One token's rows of both embeddings, dequantized: h0 (H) and pl (LAYERS * P).
  int i = blockIdx.x * THREADS + threadIdx.x;
  long long id = (long long)token[0];
  if (i < H) {
    h0[i] = static_cast<T>(rounded<T>(weight(we, se, be, H, (int)id, i)) * rounded<T>(sqrtf((float)H)));
  } else if (i - H < WIDE) {
    int row = id < LIMIT ? (int)id : 0;
    float v = rounded<T>(weight(wp, sp, bp, WIDE, row, i - H));
    pl[i - H] = static_cast<T>(v * rounded<T>(sqrtf((float)P)));
  }
