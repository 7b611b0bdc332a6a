// ff (H) is what down_proj gave, al the residual before it: c (PLANES, H) are the corrected planes, gi the gate's input.
  constexpr int E = (H + THREADS - 1) / THREADS;
  __shared__ float red[8 * 32];
  int tid = threadIdx.x;
  float x[E], square[1] = {0.0f};
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    x[e] = i < H ? f32(ff[i]) : 0.0f;
    square[0] += x[e] * x[e];
  }
  if constexpr (NORMED) {
    block_sum<THREADS, 1>(square, red);
    float scale = rsqrtf(square[0] / H + eps[0]);
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      if (i < H) x[e] = rounded<T>(f32(al[i]) + rounded<T>(x[e] * scale * f32(ffw_norm[i])));
    }
  }
  float sums[1 + PLANES];
  for (int m = 0; m <= PLANES; m++) sums[m] = 0.0f;
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i >= H) continue;
    sums[0] += x[e] * x[e];
    float y = x[e] * f32(router_norm[i]);
    for (int j = 0; j < PLANES; j++) sums[1 + j] += y * weight(wr, sr, br, H, j, i);
  }
  block_sum<THREADS, 1 + PLANES>(sums, red);
  float norm = rsqrtf(sums[0] / H + eps[0]) / H;
  float modality[PLANES];
  for (int j = 0; j < PLANES; j++) modality[j] = tanhf(rounded<T>(sums[1 + j] * norm));
  for (int j = 0; j < PLANES; j++) {
    float k = 1.0f;
    for (int m = 0; m < PLANES; m++) k += coefs[j * PLANES + m] * modality[m];
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      if (i >= H) continue;
      float innovation = rounded<T>(x[e] - f32(p[i]));
      T v = static_cast<T>(innovation * k + f32(p[j * H + i]));
      c[j * H + i] = v;
      if (j == 0) gi[i] = static_cast<T>(f32(v) * f32(out_scale[i]));
    }
  }
