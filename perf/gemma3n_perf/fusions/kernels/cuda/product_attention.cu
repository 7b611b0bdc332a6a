// The partial sums of split attention: part (SPLITS, K), ml (SPLITS, HEADS, 2) with the maximum and the weight.
  __shared__ float share[SPLITS * HEADS];
  for (int h = tid; h < HEADS; h += THREADS) {
    float top = -1e30f, total = 0.0f;
    for (int s = 0; s < SPLITS; s++) top = fmaxf(top, ml[(s * HEADS + h) * 2]);
    for (int s = 0; s < SPLITS; s++) total += ml[(s * HEADS + h) * 2 + 1] * expf(ml[(s * HEADS + h) * 2] - top);
    for (int s = 0; s < SPLITS; s++) share[s * HEADS + h] = expf(ml[(s * HEADS + h) * 2] - top) / total;
  }
  __syncthreads();
  for (int i = tid; i < K; i += THREADS) {
    float v = 0.0f;
    for (int s = 0; s < SPLITS; s++) v += part[s * K + i] * share[s * HEADS + i / (K / HEADS)];
    xs[at(i)] = static_cast<T>(v);
  }
