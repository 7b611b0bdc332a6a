// c (PLANES, H) and pe (H) give the layer's input; p (PLANES, H) are its predictions, xn (H) the active one, normed.
// All that is read is read first: between barriers of the block nothing hides how far memory is.
  constexpr int E = (H + THREADS - 1) / THREADS, COEFS = PLANES * PLANES * PLANES;
  constexpr bool EVEN = H % THREADS == 0;
  __shared__ float red[8 * 32];
  __shared__ float mix[COEFS];
  int tid = threadIdx.x;
  float h[PLANES][E], route[PLANES][E], lacking[E], early[E], late[E], sums[1 + PLANES];
  sums[0] = 0.0f;
  for (int i = tid; i < COEFS; i += THREADS) mix[i] = coefs[i];
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    bool inside = EVEN || i < H;
    for (int j = 0; j < PLANES; j++) h[j][e] = inside ? f32(c[j * H + i]) : 0.0f;
    float norm = inside ? f32(router_norm[i]) : 0.0f;
    for (int j = 0; j < PLANES; j++) route[j][e] = inside ? norm * weight(wr, sr, br, H, j, i) : 0.0f;
    late[e] = inside ? f32(input_norm[i]) : 0.0f;
    lacking[e] = early[e] = 0.0f;
    if constexpr (NORMED) {
      lacking[e] = inside ? f32(pe[i]) : 0.0f;
      early[e] = inside ? f32(pe_norm[i]) : 0.0f;
      sums[0] += lacking[e] * lacking[e];
    }
  }
  if constexpr (NORMED) block_sum<THREADS, 1>(sums, red);
  float scale = rsqrtf(sums[0] / H + eps[0]);
  for (int m = 0; m <= PLANES; m++) sums[m] = 0.0f;
  #pragma unroll
  for (int e = 0; e < E; e++) {
    float add = NORMED ? rounded<T>(lacking[e] * scale * early[e]) : 0.0f;
    for (int j = 1; j < PLANES; j++) h[j][e] = rounded<T>(h[j][e] + add);
    sums[0] += h[0][e] * h[0][e];
    for (int j = 0; j < PLANES; j++) sums[1 + j] += h[0][e] * route[j][e];
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
      for (int m = 0; m < PLANES; m++) k[i] += mix[(j * PLANES + i) * PLANES + m] * modality[m];
    }
    #pragma unroll
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      float v = 0.0f;
      for (int m = 0; m < PLANES; m++) v += h[m][e] * k[m];
      v = rounded<T>(v + h[j][e]);
      if (EVEN || i < H) p[j * H + i] = static_cast<T>(v);
      if (j == 0) { active[e] = v; square[0] += v * v; }
    }
  }
  block_sum<THREADS, 1>(square, red);
  scale = rsqrtf(square[0] / H + eps[0]);
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (EVEN || i < H) xn[i] = static_cast<T>(active[e] * scale * late[e]);
  }
