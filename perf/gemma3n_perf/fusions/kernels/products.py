"""Matrix times one vector, several matrices a launch, with what comes before and after it in the same kernel.

At batch 1 a product is a stream of weights, so its input may be recomputed by every block for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma3n_perf.fusions.kernels.common import Kernels, Weights, source

THREADS = 256
WARPS = THREADS // 32

_PLAIN = "for (int i = tid; i < K; i += THREADS) xs[at(i)] = x[X_STEP * matrix + i];"

_ATTENTION = source("product_attention")
_SPARSE = source("product_sparse")
_LAST = source("product_last")
_SOURCE = source("product")
_DOT_4BIT = source("dot_4bit")
_DOT_DENSE = source("dot_dense")

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
