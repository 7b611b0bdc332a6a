// The partial sums of split attention: part (SPLITS, K), ml (SPLITS, HEADS, 2) with the maximum and the weight.
  constexpr int E = (K + THREADS - 1) / THREADS;
  __shared__ float share[SPLITS * HEADS];
  int used = splits_used(positions[1], SPLITS);
  for (int h = warp; h < HEADS; h += WARPS) {  // a lane for each split
    static_assert(SPLITS <= 32, "one warp");
    float mine = lane < used ? ml[(lane * HEADS + h) * 2] : -1e30f;
    float weight = lane < used ? ml[(lane * HEADS + h) * 2 + 1] : 0.0f;
    float keep = expf(mine - warp_max(mine)), total = warp_sum(weight * keep);
    if (lane < used) share[lane * HEADS + h] = keep / total;
  }
  __syncthreads();
  float o[E];
  #pragma unroll
  for (int e = 0; e < E; e++) o[e] = 0.0f;
  #pragma unroll 4
  for (int s = 0; s < used; s++) {
    #pragma unroll
    for (int e = 0; e < E; e++) {
      int i = tid + e * THREADS;
      if (K % THREADS == 0 || i < K) o[e] += part[s * K + i] * share[s * HEADS + i / (K / HEADS)];
    }
  }
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (K % THREADS == 0 || i < K) xs[at(i)] = static_cast<T>(o[e]);
  }
