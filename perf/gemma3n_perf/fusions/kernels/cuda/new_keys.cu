// One block for each new key head, then one for each value head; a thread for each of the head's elements.
  __shared__ float red[32];
  __shared__ float x[D];
  static_assert(D <= THREADS, "a thread for each element");
  int head = blockIdx.x % KV, tid = threadIdx.x;
  bool is_key = blockIdx.x < KV, inside = tid < D;
  float v = inside ? f32(qkv[(HEADS + (is_key ? 0 : KV) + head) * D + tid]) : 0.0f;
  float square[1] = {v * v};
  block_sum<THREADS, 1>(square, red);
  v *= rsqrtf(square[0] / D + eps[0]);
  if (inside) x[tid] = is_key ? rounded<T>(v * f32(k_norm[tid])) : v;
  __syncthreads();
  if (inside && !is_key) values[head * D + tid] = static_cast<T>(v);
  if (inside && is_key) {
    int half = tid % (D / 2);
    float angle = (float)at[0] * inv_freq[half], s, c;
    sincosf(angle, &s, &c);
    float a = x[half], b = x[half + D / 2];
    keys[head * D + tid] = static_cast<T>(tid < D / 2 ? a * c - b * s : a * s + b * c);
  }
