// attn (H) is what o_proj gave, ll (H) LAUREL's right half: al (H) = residual, fn (H) = its norm.
// All that is read is read first, as in predict.
  constexpr int E = (H + THREADS - 1) / THREADS;
  constexpr bool EVEN = H % THREADS == 0;
  __shared__ float red[8 * 32];
  int tid = threadIdx.x;
  float a[E], l[E], na[E], nl[E], straight[E], active[E], late[E], sums[2] = {0.0f, 0.0f};
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    bool inside = EVEN || i < H;
    a[e] = inside ? f32(attn[i]) : 0.0f;
    l[e] = inside ? f32(ll[i]) : 0.0f;
    straight[e] = inside ? f32(xn[i]) : 0.0f;
    active[e] = inside ? f32(p[i]) : 0.0f;
    late[e] = inside ? f32(ffw_norm[i]) : 0.0f;
    na[e] = inside ? f32(attn_norm[i]) : 0.0f;
    nl[e] = inside ? f32(laurel_norm[i]) : 0.0f;
    sums[0] += a[e] * a[e];
    sums[1] += l[e] * l[e];
  }
  block_sum<THREADS, 2>(sums, red);
  float sa = rsqrtf(sums[0] / H + eps[0]), sl = rsqrtf(sums[1] / H + eps[0]);
  float square[1] = {0.0f};
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    float laurel = rounded<T>(straight[e] + rounded<T>(l[e] * sl * nl[e]));
    float gated = rounded<T>(active[e] + rounded<T>(a[e] * sa * na[e]));
    a[e] = rounded<T>(rounded<T>(gated + laurel) * 0.7071067811865476f);
    square[0] += a[e] * a[e];
    if (EVEN || i < H) al[i] = static_cast<T>(a[e]);
  }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / H + eps[0]);
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (EVEN || i < H) fn[i] = static_cast<T>(a[e] * scale * late[e]);
  }
