// gelu_topk: what lies below mean + multiplier * deviation of the gate is cut off.
  constexpr int E = (K + THREADS - 1) / THREADS;
  __shared__ float red[32];
  float gate[E], up[E], sum[1] = {0.0f};
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    gate[e] = K % THREADS == 0 || i < K ? f32(x[i]) : 0.0f;
    up[e] = K % THREADS == 0 || i < K ? f32(x[K + i]) : 0.0f;
    sum[0] += gate[e];
  }
  block_sum<THREADS, 1>(sum, red);
  float mean = sum[0] / K;
  float square[1] = {0.0f};
  #pragma unroll
  for (int e = 0; e < E; e++) {
    float d = K % THREADS == 0 || tid + e * THREADS < K ? gate[e] - mean : 0.0f;
    square[0] += d * d;
  }
  block_sum<THREADS, 1>(square, red);
  float cutoff = mean + sqrtf(square[0] / K) * multiplier[0];
  #pragma unroll
  for (int e = 0; e < E; e++) {
    int i = tid + e * THREADS;
    if (K % THREADS == 0 || i < K)
      xs[at(i)] = static_cast<T>(rounded<T>(gelu(fmaxf(0.0f, gate[e] - cutoff))) * up[e]);
  }
