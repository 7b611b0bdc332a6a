"""How a CUDA kernel is described and called here, and the device functions that all of them use.

Opinion: on CUDA a decode step costs host time per kernel, so a kernel does as much as its inputs allow; sums are
float32 whatever the model's type, and only what the unfused model stores is rounded to that type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

Make = Callable[..., Any]

HEADER = r"""
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
"""


@dataclass(frozen=True, slots=True)
class Weights:
    """A linear layer's arrays as a kernel takes them: dense layers repeat the weight where scales would be."""

    arrays: tuple[mx.array, mx.array, mx.array]
    quantized: bool

    @classmethod
    def of(cls, layer: Any) -> "Weights":
        """The arrays of an ``nn.Linear``, ``nn.Embedding`` or a quantized one."""
        if "scales" in layer:
            return cls((layer.weight, layer.scales, layer.biases), True)
        return cls((layer.weight, layer.weight, layer.weight), False)


def fits(layer: Any) -> bool:
    """Whether a kernel can read this layer: dense, or 4 bits in affine groups of 64, and no bias."""
    if "bias" in layer:
        return False
    if "scales" not in layer:
        return True
    return bool(layer.bits == 4 and layer.group_size == 64 and getattr(layer, "mode", "affine") == "affine")


@dataclass(slots=True)
class Kernels:
    """Builds each kernel once. ``make`` has the signature of ``mx.fast.cuda_kernel``; tests pass an emulator."""

    make: Make
    built: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __call__(
        self,
        name: str,
        source: str,
        inputs: Sequence[tuple[str, mx.array]],
        outputs: Sequence[tuple[str, tuple[int, ...], Any]],
        *,
        blocks: int,
        threads: int,
        constants: dict[str, Any],
        shared_memory: int = 0,
    ) -> list[mx.array]:
        """Run ``blocks`` blocks of ``threads``; ``constants`` are ints and dtypes known when compiling."""
        key = (name, source)
        if key not in self.built:
            self.built[key] = self.make(
                name=f"gemma3n_{name}",
                input_names=[label for label, _ in inputs],
                output_names=[label for label, _, _ in outputs],
                source=source,
                header=HEADER,
                ensure_row_contiguous=True,
                shared_memory=shared_memory,
            )
        arrays: list[mx.array] = self.built[key](
            inputs=[array for _, array in inputs],
            template=[*constants.items()],
            grid=(blocks * threads, 1, 1),
            threadgroup=(threads, 1, 1),
            output_shapes=[shape for _, shape, _ in outputs],
            output_dtypes=[dtype for _, _, dtype in outputs],
        )
        return arrays


def threads_for(width: int) -> int:
    """Threads of a block that holds one row of ``width`` elements: whole warps, at most 512.

    The builder of a kernel gives no launch bounds, so a block must fit whatever registers its threads take.
    """
    return max(32, min(512, width // 2 // 32 * 32))
