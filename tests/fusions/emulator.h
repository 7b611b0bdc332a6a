// Runs a CUDA kernel's source on a CPU: every thread of a block is a coroutine that yields where CUDA would wait.
// Kernels include this alone; the scheduler is compiled once, from emulator.cpp.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>
#define __device__
#define __shared__ static
struct Index { unsigned x, y, z; };
struct uint4 { unsigned x, y, z, w; };
extern "C" {
extern Index blockIdx, threadIdx;
void __syncthreads();
void rest(unsigned);
float exchanged(float v, int mask);
int launch(int blocks, int threads, void (*kernel)());
}
template <typename T> static inline T min(T a, T b) { return a < b ? a : b; }
template <typename T> static inline T max(T a, T b) { return a > b ? a : b; }
static inline float __shfl_xor_sync(unsigned, float v, int mask) { return exchanged(v, mask); }
static inline float __uint_as_float(unsigned v) { float f; memcpy(&f, &v, 4); return f; }
static inline unsigned atomicAdd(unsigned* at, unsigned v) { unsigned old = *at; *at += v; return old; }
static inline void __threadfence() {}
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
static inline void sincosf_(float a, float* s, float* c) { *s = sinf(a); *c = cosf(a); }
#define sincosf sincosf_
#define __nanosleep rest  // the C library has one of this name
