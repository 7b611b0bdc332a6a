template <typename T> __device__ inline float f32(T x) { return static_cast<float>(x); }
template <typename T> __device__ inline float rounded(float x) { return static_cast<float>(static_cast<T>(x)); }
__device__ inline float warp_sum(float v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
__device__ inline float warp_max(float v) {
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
// Sums of M values over a block of THREADS threads; red holds M * 32 floats and may be reused after the call.
template <int THREADS, int M> __device__ inline void block_sum(float* v, float* red) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int m = 0; m < M; m++) v[m] = warp_sum(v[m]);
  __syncthreads();
  if (lane == 0) for (int m = 0; m < M; m++) red[m * 32 + warp] = v[m];
  __syncthreads();
  for (int m = 0; m < M; m++) {
    float t = lane < THREADS / 32 ? red[m * 32 + lane] : 0.0f;
    v[m] = warp_sum(t);
  }
}
__device__ inline float gelu(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
// One 4-bit weight of a row-major matrix with K columns and groups of 64.
template <typename T>
__device__ inline float weight(const unsigned int* w, const T* s, const T* b, int K, int row, int i) {
  unsigned int q = (w[(size_t)row * (K / 8) + i / 8] >> (4 * (i % 8))) & 15u;
  size_t g = (size_t)row * (K / 64) + i / 64;
  return f32(s[g]) * (float)q + f32(b[g]);
}
template <typename T>
__device__ inline float weight(const T* w, const T*, const T*, int K, int row, int i) {
  return f32(w[(size_t)row * K + i]);
}
// Attention over n positions is split between at most `splits` blocks, each of 32 positions or more.
__device__ inline int split_step(int n, int splits) { return max(32, (n + splits - 1) / splits); }
__device__ inline int splits_used(int n, int splits) { return (n + split_step(n, splits) - 1) / split_step(n, splits); }
// Waits until all GRID blocks of this launch have come here, and shows each what the others wrote. count is a multiple
// of GRID between launches; it may wrap around.
template <int GRID> __device__ inline void grid_barrier(unsigned int* count) {
  static_assert((GRID & (GRID - 1)) == 0, "a power of two");
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    unsigned int target = (atomicAdd(count, 1u) / GRID + 1) * GRID;
    volatile unsigned int* seen = count;
    while ((int)(*seen - target) < 0) __nanosleep(20);
    __threadfence();
  }
  __syncthreads();
}
// Brings rows [row, row + rows) of a matrix nearer, ahead of their use; where they are not whole 16 bytes, does nothing.
__device__ inline void ask(const void* matrix, int row, int bytes, int rows) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const char* at = reinterpret_cast<const char*>(matrix) + (size_t)row * bytes;
  if (bytes > 0 && bytes * rows % 16 == 0)
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(at), "r"(bytes * rows) : "memory");
#endif
}
