// raw holds the per-layer projection (LAYERS, P), then the planes' projections (PLANES - 1, H), all of h0.
  __shared__ float red[2 * 32];
  int tid = threadIdx.x;
  if (blockIdx.x < LAYERS) {
    int at = blockIdx.x * P;
    float square[1] = {0.0f};
    float factor = rounded<T>(rsqrtf((float)H));
    for (int i = tid; i < P; i += THREADS) { float v = rounded<T>(f32(raw[at + i]) * factor); square[0] += v * v; }
    block_sum<THREADS, 1>(square, red);
    float scale = rsqrtf(square[0] / P + eps[0]);
    for (int i = tid; i < P; i += THREADS) {
      float v = rounded<T>(rounded<T>(f32(raw[at + i]) * factor) * scale * f32(layer_norm[i]));
      pli[at + i] = static_cast<T>(rounded<T>(v + f32(pl[at + i])) * rounded<T>(0.7071067811865476f));
    }
  } else {
    int j = blockIdx.x - LAYERS;
    const T* y = raw + LAYERS * P + (j - 1) * H;
    float sums[2] = {0.0f, 0.0f};
    for (int i = tid; i < H; i += THREADS) {
      sums[0] += f32(h0[i]) * f32(h0[i]);
      if (j > 0) sums[1] += f32(y[i]) * f32(y[i]);
    }
    block_sum<THREADS, 2>(sums, red);
    float ratio = sqrtf(sums[0] / H) / sqrtf(sums[1] / H);
    for (int i = tid; i < H; i += THREADS)
      c[j * H + i] = j > 0 ? static_cast<T>(f32(y[i]) * ratio) : h0[i];
  }
