// attn (H) is what o_proj gave, ll the left half of LAUREL at LEFT of its buffer: al = residual, fn = its norm.
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
