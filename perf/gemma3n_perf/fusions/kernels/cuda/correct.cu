// ff (H) is what down_proj gave, al the residual before it: c (PLANES, H) are the corrected planes, gi the gate's input.
// All that is read is read first, as in predict.
  constexpr int E = (H + THREADS - 1) / THREADS, COEFS = PLANES * PLANES;
  constexpr bool EVEN = H % THREADS == 0;
  __shared__ float red[8 * 32];
  __shared__ float mix[COEFS];
  int tid = threadIdx.x;
  float x[E], residual[E], norm[E], out[E], route[PLANES][E], before[PLANES][E], square[1] = {0.0f};
  for (int i = tid; i < COEFS; i += THREADS) mix[i] = coefs[i];
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    bool inside = EVEN || i < H;
    x[e] = inside ? f32(ff[i]) : 0.0f;
    residual[e] = inside ? f32(al[i]) : 0.0f;
    norm[e] = inside ? f32(ffw_norm[i]) : 0.0f;
    out[e] = inside ? f32(out_scale[i]) : 0.0f;
    float share = inside ? f32(router_norm[i]) : 0.0f;
    for (int j = 0; j < PLANES; j++) {
      route[j][e] = inside ? share * weight(wr, sr, br, H, j, i) : 0.0f;
      before[j][e] = inside ? f32(p[j * H + i]) : 0.0f;
    }
    square[0] += x[e] * x[e];
  }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / H + eps[0]);
  float sums[1 + PLANES];
  for (int m = 0; m <= PLANES; m++) sums[m] = 0.0f;
  #pragma unroll
  for (int e = 0; e < E; e++) {
    x[e] = rounded<T>(residual[e] + rounded<T>(x[e] * scale * norm[e]));
    sums[0] += x[e] * x[e];
    for (int j = 0; j < PLANES; j++) sums[1 + j] += x[e] * route[j][e];
  }
  block_sum<THREADS, 1 + PLANES>(sums, red);
  float small = rsqrtf(sums[0] / H + eps[0]) / H;
  float modality[PLANES];
  for (int j = 0; j < PLANES; j++) modality[j] = tanhf(rounded<T>(sums[1 + j] * small));
  for (int j = 0; j < PLANES; j++) {
    float k = 1.0f;
    for (int m = 0; m < PLANES; m++) k += mix[j * PLANES + m] * modality[m];
    #pragma unroll
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      if (!EVEN && i >= H) continue;
      T v = static_cast<T>(rounded<T>(x[e] - before[0][e]) * k + before[j][e]);
      c[j * H + i] = v;
      if (j == 0) gi[i] = static_cast<T>(f32(v) * out[e]);
    }
  }
