// One block for each query head and split: part (SPLITS, HEADS, D) unnormalised, ml (SPLITS, HEADS, 2).
  constexpr int WARPS = THREADS / 32, PER = D / 32;
  struct alignas(sizeof(T) * PER) Row { T e[PER]; };
  __shared__ float red[32];
  __shared__ float q[D];
  __shared__ float tops[WARPS];
  __shared__ float totals[WARPS];
  __shared__ float rows[WARPS][D];
  int head = blockIdx.x % HEADS, split = blockIdx.x / HEADS;
  int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  float square[1] = {0.0f};
  for (int i = tid; i < D; i += THREADS) { float v = f32(qkv[head * D + i]); square[0] += v * v; }
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / D + eps[0]);
  for (int i = tid; i < D / 2; i += THREADS) {
    float a = rounded<T>(f32(qkv[head * D + i]) * scale * f32(q_norm[i]));
    float b = rounded<T>(f32(qkv[head * D + i + D / 2]) * scale * f32(q_norm[i + D / 2]));
    float s, c;
    sincosf((float)at[0] * inv_freq[i], &s, &c);
    q[i] = rounded<T>(a * c - b * s);
    q[i + D / 2] = rounded<T>(a * s + b * c);
  }
  __syncthreads();
  int n = at[1], CAPACITY = at[2], kv = head / (HEADS / KV);
  int step = split_step(n, SPLITS), end = min(n, (split + 1) * step);
  float mine[PER], acc[PER], top = -1e30f, total = 0.0f;
  for (int d = 0; d < PER; d++) { mine[d] = q[lane * PER + d]; acc[d] = 0.0f; }
  for (int j = split * step + warp; j < end; j += WARPS) {
    Row k = *reinterpret_cast<const Row*>(keys + ((size_t)kv * CAPACITY + j) * D + lane * PER);
    Row v = *reinterpret_cast<const Row*>(values + ((size_t)kv * CAPACITY + j) * D + lane * PER);
    float score = 0.0f;
    #pragma unroll
    for (int d = 0; d < PER; d++) score += mine[d] * f32(k.e[d]);
    score = warp_sum(score);
    float higher = fmaxf(top, score), keep = expf(top - higher), add = expf(score - higher);
    total = total * keep + add;
    #pragma unroll
    for (int d = 0; d < PER; d++) acc[d] = acc[d] * keep + add * f32(v.e[d]);
    top = higher;
  }
  for (int d = 0; d < PER; d++) rows[warp][lane * PER + d] = acc[d];
  if (lane == 0) { tops[warp] = top; totals[warp] = total; }
  __syncthreads();
  float best = -1e30f, sum = 0.0f;
  for (int w = 0; w < WARPS; w++) best = fmaxf(best, tops[w]);
  for (int w = 0; w < WARPS; w++) sum += totals[w] * expf(tops[w] - best);
  for (int i = tid; i < D; i += THREADS) {
    float o = 0.0f;
    for (int w = 0; w < WARPS; w++) o += rows[w][i] * expf(tops[w] - best);
    part[(split * HEADS + head) * D + i] = o;
  }
  if (tid == 0) { ml[(split * HEADS + head) * 2] = best; ml[(split * HEADS + head) * 2 + 1] = sum; }
