"""Matrix times one vector, several matrices a launch, with what comes before and after it in the same kernel.

Opinion: at batch 1 a product is a stream of weights, so its input may be recomputed by every block for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma3n_perf.fusions.kernels.common import Kernels, Weights

THREADS = 256
WARPS = THREADS // 32

_PLAIN = "for (int i = tid; i < K; i += THREADS) xs[at(i)] = x[X_STEP * matrix + i];"

# The partial sums of split attention: part (SPLITS, K), ml (SPLITS, HEADS, 2) with the maximum and the weight.
_ATTENTION = r"""
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
"""

# gelu_topk: what lies below mean + multiplier * deviation of the gate is cut off.
_SPARSE = r"""
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
"""

# Planes 1.. of the last layer's output, with the normed per-layer projection still to be added.
_LAST = r"""
  __shared__ float red[32];
  float square[1] = {0.0f};
  for (int i = tid; i < K; i += THREADS) square[0] += f32(pe[i]) * f32(pe[i]);
  block_sum<THREADS, 1>(square, red);
  float scale = rsqrtf(square[0] / K + eps[0]);
  for (int i = tid; i < K; i += THREADS)
    xs[at(i)] = static_cast<T>(f32(x[(matrix + 1) * K + i]) + rounded<T>(f32(pe[i]) * scale * f32(pe_norm[i])));
"""

_SOURCE = r"""
  constexpr int CH = @CHUNK@, NC = K / CH, PAD = 4 / sizeof(T), STRIDE = NC + PAD;
  @STAGE@
  auto at = [](int i) { return (i % CH) * STRIDE + i / CH; };
  int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  int first = blockIdx.x * (THREADS / 32) * ROWS;
  int matrix = @MATRIX@;
  @PROLOGUE@
  __syncthreads();
  int row = first + warp * ROWS;
  if (row >= TOTAL) return;
  const @WTYPE@* w; const T* s; const T* b; int local;
  @SELECT@
  float acc[PAIRS * ROWS];
  for (int r = 0; r < PAIRS * ROWS; r++) acc[r] = 0.0f;
  #pragma unroll 1
  for (int c = lane; c < NC; c += 32) {
    float v[CH];
    float total = 0.0f;
    #pragma unroll
    for (int j = 0; j < CH; j++) { v[j] = f32(xs[j * STRIDE + c]); total += v[j]; }
    #pragma unroll
    for (int r = 0; r < PAIRS * ROWS; r++) {
      @POINTERS@
      @DOT@
    }
  }
  #pragma unroll
  for (int r = 0; r < PAIRS * ROWS; r++) acc[r] = warp_sum(acc[r]);
  if (lane == 0) {
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float y = acc[r];
      @EPILOGUE@
    }
  }
"""

_DOT_4BIT = r"""
      uint4 q = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
      float sc = f32(sr[(size_t)n * (K / 64) + c / 2]), bi = f32(br[(size_t)n * (K / 64) + c / 2]);
      unsigned int words[4] = {q.x, q.y, q.z, q.w};
      float a = 0.0f;
      #pragma unroll
      for (int m = 0; m < 4; m++) {
        #pragma unroll
        for (int k = 0; k < 8; k++) {
          if constexpr (sizeof(T) == 4) {
            a += (float)((words[m] >> (4 * k)) & 15u) * v[8 * m + k];
          } else {
            // 1 + n/16 as bits: cheaper than converting an integer, exact enough for 16-bit inputs.
            unsigned int bits = k < 5 ? words[m] << (19 - 4 * k) : words[m] >> (4 * k - 19);
            a += __uint_as_float((bits & 0x00780000u) | 0x3f800000u) * v[8 * m + k];
          }
        }
      }
      if constexpr (sizeof(T) != 4) a = 16.0f * (a - total);
      acc[r] += sc * a + bi * total;
"""

_DOT_DENSE = r"""
      uint4 q = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
      const T* e = reinterpret_cast<const T*>(&q);
      #pragma unroll
      for (int j = 0; j < CH; j++) acc[r] += f32(e[j]) * v[j];
"""

_STORE = "if (row + r < TOTAL) out[row + r] = static_cast<T>(y);"
EPILOGUES = {
    "store": _STORE,
    "geglu": "y = rounded<T>(gelu(rounded<T>(y))) * rounded<T>(acc[ROWS + r]); " + _STORE,
    "gate": "if (row + r < TOTAL) y = rounded<T>(gelu(rounded<T>(y))) * f32(per_layer[row + r]); " + _STORE,
    "softcap": "y = rounded<T>(tanhf(rounded<T>(rounded<T>(y) / cap[0]))) * cap[0]; " + _STORE,
}
PROLOGUES = {"plain": _PLAIN, "attention": _ATTENTION, "sparse": _SPARSE, "last": _LAST}


@dataclass(frozen=True, slots=True)
class Product:
    """Matrices of ``width`` columns times one vector, results one after the other.

    ``rows`` of each matrix. With ``paired``, two matrices of equal rows meet in the epilogue and give one result.
    ``per_matrix``: each matrix has an input vector of its own, one after the other.
    """

    name: str
    rows: tuple[int, ...]
    width: int
    quantized: bool
    prologue: str = "plain"
    epilogue: str = "store"
    paired: bool = False
    per_matrix: bool = False
    rows_per_warp: int = 2

    def __call__(
        self,
        kernels: Kernels,
        inputs: Sequence[tuple[str, mx.array]],
        weights: Sequence[Weights],
        dtype: mx.Dtype,
        constants: dict[str, int] | None = None,
    ) -> mx.array:
        """The products, shape (1, 1, sum of rows), or (1, 1, rows) where paired."""
        total = self.rows[0] if self.paired else sum(self.rows)
        per_block = WARPS * self.rows_per_warp
        arrays = list(inputs)
        for index, each in enumerate(weights):
            arrays += [(f"{kind}{index}", a) for kind, a in zip("wsb", each.arrays, strict=True)]
        sizes: dict[str, object] = {
            "T": dtype, "K": self.width, "TOTAL": total, "ROWS": self.rows_per_warp, "PAIRS": 2 if self.paired else 1,
            "THREADS": THREADS, "X_STEP": self.width if self.per_matrix else 0,
        }  # fmt: skip
        (out,) = kernels(
            self.name,
            self.source(dtype),
            arrays,
            [("out", (1, 1, total), dtype)],
            blocks=-(-total // per_block),
            threads=THREADS,
            constants=sizes | (constants or {}),
            shared_memory=self.staged(dtype),
        )
        return out

    def staged(self, dtype: mx.Dtype) -> int:
        """Bytes of shared memory to ask for at launch, where the input is too wide for what a kernel has by itself."""
        chunk = 32 if self.quantized else 16 // dtype.size
        size = chunk * (self.width // chunk + 4 // dtype.size) * dtype.size
        return size if size > 40_000 else 0

    def source(self, dtype: mx.Dtype) -> str:
        """The kernel's body. Chunks of 32 four-bit weights, or of 16 bytes of dense ones, a lane."""
        chunk = 32 if self.quantized else 16 // dtype.size
        parts = {
            "CHUNK": str(chunk),
            "STAGE": "extern __shared__ float stage[]; T* xs = reinterpret_cast<T*>(stage);"
            if self.staged(dtype)
            else "__shared__ T xs[CH * STRIDE];",
            "MATRIX": f"first / {self.rows[0]}" if self.per_matrix or self.prologue == "last" else "0",
            "PROLOGUE": PROLOGUES[self.prologue],
            "WTYPE": "unsigned int" if self.quantized else "T",
            "SELECT": self._select(),
            "POINTERS": self._pointers(),
            "DOT": _DOT_4BIT if self.quantized else _DOT_DENSE,
            "EPILOGUE": EPILOGUES[self.epilogue],
        }
        text = _SOURCE
        for key, value in parts.items():
            text = text.replace(f"@{key}@", value)
        return text

    def _select(self) -> str:
        if self.paired:
            return "w = w0; s = s0; b = b0; local = row;"
        lines, start = [], 0
        for index, rows in enumerate(self.rows):
            test = "else " if index else ""
            if index < len(self.rows) - 1:
                test += f"if (row < {start + rows}) "
            lines.append(f"{test}{{ w = w{index}; s = s{index}; b = b{index}; local = row - {start}; }}")
            start += rows
        return "\n  ".join(lines)

    def _pointers(self) -> str:
        last = "min(local + r % ROWS, " + (f"{self.rows[0] - 1})" if self.paired else "local + (TOTAL - 1 - row))")
        if self.paired:
            return (
                f"int n = {last}; const auto* wr = r < ROWS ? w : w1; const T* sr = r < ROWS ? s : s1; "
                "const T* br = r < ROWS ? b : b1;"
            )
        return f"int n = {last}; const auto* wr = w; const T* sr = s; const T* br = b;"
