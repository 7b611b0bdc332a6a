// Planes 1.. of the last layer's output, with the normed per-layer projection still to be added.
  __shared__ float red[32];
  float square[1] = {0.0f};
  for (int i = tid; i < K; i += THREADS) square[0] += f32(pe[i]) * f32(pe[i]);
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / K + eps[0]);
  for (int i = tid; i < K; i += THREADS)
    xs[at(i)] = static_cast<T>(f32(x[(matrix + 1) * K + i]) + rounded<T>(f32(pe[i]) * scale * f32(pe_norm[i])));
