// c (PLANES, H) and pe (H) give the layer's input; p (PLANES, H) are its predictions, xn (H) the active one, normed.
  constexpr int E = (H + THREADS - 1) / THREADS;
  __shared__ float red[8 * 32];
  int tid = threadIdx.x;
  float h[PLANES][E];
  float sums[1 + PLANES];
  sums[0] = 0.0f;
  if constexpr (NORMED) {
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      float v = i < H ? f32(pe[i]) : 0.0f;
      sums[0] += v * v;
    }
    block_sum<THREADS, 1>(sums, red);
  }
  float scale = rsqrtf(sums[0] / H + eps[0]);
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    float add = NORMED && i < H ? rounded<T>(f32(pe[i]) * scale * f32(pe_norm[i])) : 0.0f;
    for (int j = 0; j < PLANES; j++) {
      h[j][e] = i < H ? f32(c[j * H + i]) : 0.0f;
      if (j > 0) h[j][e] = rounded<T>(h[j][e] + add);
    }
  }
  for (int m = 0; m <= PLANES; m++) sums[m] = 0.0f;
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i >= H) continue;
    sums[0] += h[0][e] * h[0][e];
    float x = h[0][e] * f32(router_norm[i]);
    for (int j = 0; j < PLANES; j++) sums[1 + j] += x * weight(wr, sr, br, H, j, i);
  }
  block_sum<THREADS, 1 + PLANES>(sums, red);
  float modality[PLANES];
  float norm = rsqrtf(sums[0] / H + eps[0]) / H;
  for (int j = 0; j < PLANES; j++) modality[j] = tanhf(rounded<T>(sums[1 + j] * norm));
  float active[E];
  float square[1] = {0.0f};
  for (int j = 0; j < PLANES; j++) {
    float k[PLANES];
    for (int i = 0; i < PLANES; i++) {
      k[i] = 0.0f;
      for (int m = 0; m < PLANES; m++) k[i] += coefs[(j * PLANES + i) * PLANES + m] * modality[m];
    }
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      float v = 0.0f;
      for (int m = 0; m < PLANES; m++) v += h[m][e] * k[m];
      v = rounded<T>(v + h[j][e]);
      if (i < H) p[j * H + i] = static_cast<T>(v);
      if (j == 0) { active[e] = v; square[0] += i < H ? v * v : 0.0f; }
    }
  }
  block_sum<THREADS, 1>(square, red);
  scale = rsqrtf(square[0] / H + eps[0]);
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i < H) xn[i] = static_cast<T>(active[e] * scale * f32(input_norm[i]));
  }
