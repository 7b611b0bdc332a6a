"""The small things between products, each in one block of threads: norms, AltUp, LAUREL, embeddings.

Opinion: a few thousand elements fit one block, and one block may wait for itself; several kernels may only wait
for the host. E elements a thread, element ``i = tid + e * THREADS``.
"""

# c (PLANES, H) and pe (H) give the layer's input; p (PLANES, H) are its predictions, xn (H) the active one, normed.
PREDICT = r"""
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
"""

# attn (H) is what o_proj gave, ll the left half of LAUREL at LEFT of its buffer: al = residual, fn = its norm.
AFTER_ATTENTION = r"""
  constexpr int E = (H + THREADS - 1) / THREADS;
  __shared__ float red[8 * 32];
  __shared__ float left[RANK];
  int tid = threadIdx.x;
  for (int i = tid; i < RANK; i += THREADS) left[i] = f32(ll[LEFT + i]);
  __syncthreads();
  float a[E], l[E], sums[2] = {0.0f, 0.0f};
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    a[e] = i < H ? f32(attn[i]) : 0.0f;
    l[e] = 0.0f;
    #pragma unroll 8
    for (int k = 0; k < RANK && i < H; k++) l[e] += left[k] * weight(wl, sl, bl, RANK, i, k);
    l[e] = rounded<T>(l[e]);
    sums[0] += a[e] * a[e];
    sums[1] += l[e] * l[e];
  }
  block_sum<THREADS, 2>(sums, red);
  float sa = rsqrtf(sums[0] / H + eps[0]), sl_ = rsqrtf(sums[1] / H + eps[0]);
  float square[1] = {0.0f};
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i >= H) continue;
    float laurel = rounded<T>(f32(xn[i]) + rounded<T>(l[e] * sl_ * f32(laurel_norm[i])));
    float gated = rounded<T>(f32(p[i]) + rounded<T>(a[e] * sa * f32(attn_norm[i])));
    a[e] = rounded<T>(rounded<T>(gated + laurel) * 0.7071067811865476f);
    square[0] += a[e] * a[e];
    al[i] = static_cast<T>(a[e]);
  }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / H + eps[0]);
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i < H) fn[i] = static_cast<T>(a[e] * scale * f32(ffw_norm[i]));
  }
"""

# ff (H) is what down_proj gave, al the residual before it: c (PLANES, H) are the corrected planes, gi the gate's input.
CORRECT = r"""
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
"""

# One token's rows of both embeddings, dequantized: h0 (H) and pl (LAYERS * P).
EMBED = r"""
  int i = blockIdx.x * THREADS + threadIdx.x;
  long long id = (long long)token[0];
  if (i < H) {
    h0[i] = static_cast<T>(rounded<T>(weight(we, se, be, H, (int)id, i)) * rounded<T>(sqrtf((float)H)));
  } else if (i - H < WIDE) {
    int row = id < LIMIT ? (int)id : 0;
    float v = rounded<T>(weight(wp, sp, bp, WIDE, row, i - H));
    pl[i - H] = static_cast<T>(v * rounded<T>(sqrtf((float)P)));
  }
"""

# raw holds the per-layer projection (LAYERS, P), then the planes' projections (PLANES - 1, H), all of h0.
PREPARE = r"""
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
"""

# Plane 0 of c and the others unembedded in u, brought to one magnitude, averaged and normed.
FINISH = r"""
  constexpr int E = (H + THREADS - 1) / THREADS;
  __shared__ float red[8 * 32];
  int tid = threadIdx.x;
  float v[PLANES][E], sums[PLANES];
  for (int j = 0; j < PLANES; j++) {
    sums[j] = 0.0f;
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      v[j][e] = i < H ? (j ? f32(u[(j - 1) * H + i]) : f32(c[i])) : 0.0f;
      sums[j] += v[j][e] * v[j][e];
    }
  }
  block_sum<THREADS, PLANES>(sums, red);
  float square[1] = {0.0f};
  for (int e = 0; e < E; e++) {
    float total = v[0][e];
    for (int j = 1; j < PLANES; j++) total += rounded<T>(v[j][e] * (sqrtf(sums[0] / H) / sqrtf(sums[j] / H)));
    v[0][e] = rounded<T>(total / PLANES);
    square[0] += v[0][e] * v[0][e];
  }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / H + eps[0]);
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (i < H) out[i] = static_cast<T>(v[0][e] * scale * f32(norm[i]));
  }
"""
