"""Matrix times one vector, several matrices a launch, with what comes before and after it in the same kernel.

At batch 1 a product is a stream of weights, so its input may be recomputed by every block for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma3n_perf.fusions.kernels.common import Kernels, source
from gemma3n_perf.fusions.kernels.plan import Linear, Plan

THREADS = 256

PROLOGUES = {
    "plain": "for (int i = tid; i < K; i += THREADS) xs[at(i)] = x[X_STEP * matrix + i];",
    "attention": source("product_attention"),
    "sparse": source("product_sparse"),
    "last": source("product_last"),
}
_STORE = "if (row + r < TOTAL) out[row + r] = static_cast<T>(y);"
EPILOGUES = {
    "store": _STORE,
    "geglu": "y = rounded<T>(gelu(rounded<T>(y))) * rounded<T>(acc[ROWS + r]); " + _STORE,
    "gate": "if (row + r < TOTAL) y = rounded<T>(gelu(rounded<T>(y))) * f32(per_layer[row + r]); " + _STORE,
    "softcap": "y = rounded<T>(tanhf(rounded<T>(rounded<T>(y) / cap[0]))) * cap[0]; " + _STORE,
}


def labelled(suffix: object, linear: Linear) -> dict[str, mx.array]:
    """A linear layer as a kernel's inputs: weight w, scales s and biases b, each with the suffix."""
    return {f"{kind}{suffix}": array for kind, array in zip("wsb", linear, strict=True)}


@dataclass(frozen=True, slots=True)
class Product:
    """Matrices of ``width`` columns times one vector, results one after the other.

    ``rows`` of each matrix. With ``paired``, two matrices of equal rows meet in the epilogue and give one result.
    """

    plan: Plan
    name: str
    rows: tuple[int, ...]
    width: int
    prologue: str = "plain"
    epilogue: str = "store"
    paired: bool = False
    rows_per_warp: int = 2

    def __call__(
        self, kernels: Kernels, inputs: dict[str, mx.array], weights: Sequence[Linear], **constants: int
    ) -> mx.array:
        """The products, shape (1, 1, sum of rows), or (1, 1, rows) where paired."""
        total = self.rows[0] if self.paired else sum(self.rows)
        for index, each in enumerate(weights):
            inputs = inputs | labelled(index, each)
        (out,) = kernels(
            self.name,
            self.source(),
            inputs,
            {"out": (1, 1, total)},
            self.plan.dtype,
            blocks=-(-total // (THREADS // 32 * self.rows_per_warp)),
            threads=THREADS,
            constants={
                "T": self.plan.dtype, "K": self.width, "TOTAL": total, "ROWS": self.rows_per_warp,
                "PAIRS": 2 if self.paired else 1, "THREADS": THREADS, "X_STEP": 0, **constants,
            },
            shared_memory=self.staged(),
        )  # fmt: skip
        return out

    @property
    def chunk(self) -> int:
        """Weights that a lane reads at once: 32 of four bits, or 16 bytes of dense ones."""
        return 32 if self.plan.quantized else 16 // self.plan.dtype.size

    def staged(self) -> int:
        """Bytes of shared memory to ask for at launch, where the input is too wide for what a kernel has by itself."""
        item = self.plan.dtype.size
        size = self.chunk * (self.width // self.chunk + 4 // item) * item
        return size if size > 40_000 else 0

    def source(self) -> str:
        """The kernel's body."""
        quantized, (last, select, pointers) = self.plan.quantized, self._of_rows()
        parts = {
            "CHUNK": str(self.chunk),
            "STAGE": "extern __shared__ float stage[]; T* xs = reinterpret_cast<T*>(stage);"
            if self.staged()
            else "__shared__ T xs[CH * STRIDE];",
            "MATRIX": f"first / {self.rows[0]}" if self.prologue == "last" else "0",
            "PROLOGUE": PROLOGUES[self.prologue],
            "WTYPE": "unsigned int" if quantized else "T",
            "SELECT": select,
            "POINTERS": f"int n = min(local + r % ROWS, {last}); {pointers}",
            "DOT": source("dot_4bit") if quantized else source("dot_dense"),
            "EPILOGUE": EPILOGUES[self.epilogue],
        }
        text = source("product")
        for key, value in parts.items():
            text = text.replace(f"@{key}@", value)
        return text

    def _of_rows(self) -> tuple[str, str, str]:
        """The last row that may be read, how a row's matrix is selected, and the pointers to it."""
        if self.paired:
            pointers = "const auto* wr = r < ROWS ? w : w1; const T* sr = r < ROWS ? s : s1; "
            pointers += "const T* br = r < ROWS ? b : b1;"
            return str(self.rows[0] - 1), "w = w0; s = s0; b = b0; local = row;", pointers
        lines, start = [], 0
        for index, rows in enumerate(self.rows):
            test = "else " if index else ""
            if index < len(self.rows) - 1:
                test += f"if (row < {start + rows}) "
            lines.append(f"{test}{{ w = w{index}; s = s{index}; b = b{index}; local = row - {start}; }}")
            start += rows
        pointers = "const auto* wr = w; const T* sr = s; const T* br = b;"
        return "local + (TOTAL - 1 - row)", "\n  ".join(lines), pointers
