// Plane 0 of c and the others unembedded in u, brought to one magnitude, averaged and normed.
  constexpr int E = (H + THREADS - 1) / THREADS;
  constexpr bool EVEN = H % THREADS == 0;
  __shared__ float red[8 * 32];
  int tid = threadIdx.x;
  float v[PLANES][E], sums[PLANES];
  for (int j = 0; j < PLANES; j++) {
    sums[j] = 0.0f;
    #pragma unroll
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      v[j][e] = (EVEN || i < H) ? (j ? f32(u[(j - 1) * H + i]) : f32(c[i])) : 0.0f;
      sums[j] += v[j][e] * v[j][e];
    }
  }
  block_sum<THREADS, PLANES>(sums, red);
  float square[1] = {0.0f};
  #pragma unroll
  for (int e = 0; e < E; e++) {
    float total = v[0][e];
    for (int j = 1; j < PLANES; j++) total += rounded<T>(v[j][e] * (sqrtf(sums[0] / H) / sqrtf(sums[j] / H)));
    v[0][e] = rounded<T>(total / PLANES);
    square[0] += v[0][e] * v[0][e];
  }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / H + eps[0]);
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (EVEN || i < H) out[i] = static_cast<T>(v[0][e] * scale * f32(norm[i]));
  }
