// gelu_topk: what lies below mean + multiplier * deviation of the gate is cut off.
  __shared__ float red[32];
  float sum[1] = {0.0f};
  for (int i = tid; i < K; i += THREADS) sum[0] += f32(x[i]);
  block_sum<THREADS, 1>(sum, red);
  float mean = sum[0] / K;
  float square[1] = {0.0f};
  for (int i = tid; i < K; i += THREADS) { float d = f32(x[i]) - mean; square[0] += d * d; }
  block_sum<THREADS, 1>(square, red);
  float cutoff = mean + sqrtf(square[0] / K) * multiplier[0];
  for (int i = tid; i < K; i += THREADS)
    xs[at(i)] = static_cast<T>(rounded<T>(gelu(fmaxf(0.0f, f32(x[i]) - cutoff))) * f32(x[K + i]));
