template <typename T> __device__ inline float f32(T x) { return static_cast<float>(x); }
template <typename T> __device__ inline float rounded(float x) { return static_cast<float>(static_cast<T>(x)); }
__device__ inline float warp_sum(float v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
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
