"""Matrix times one vector, several matrices a launch, with what comes before and after it in the same kernel.

At batch 1 a product is a stream of weights, so its input may be recomputed by every block for nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels.common import source
from gemma3n_perf.fusions.kernels.phases import Runner
from gemma3n_perf.fusions.kernels.plan import Linear, Plan

AT_ONCE = 4
"""Rows of weights that a warp reads side by side: more are code that does not fit its cache."""

PROLOGUES = {
    "plain": source("product_plain"),
    "attention": source("product_attention"),
    "sparse": source("product_sparse"),
    "last": source("product_last"),
}
_STORE = "if (row + r < TOTAL) out[row + r] = static_cast<T>(y);"
EPILOGUES = {
    "store": _STORE,
    "geglu": "y = rounded<T>(gelu(rounded<T>(y))) * rounded<T>(acc[ROWS + r]); " + _STORE,
    "gate": "if (row + r < TOTAL) y = rounded<T>(gelu(rounded<T>(y))) * f32(per_layer[layer[0] * TOTAL + row + r]); "
    + _STORE,
    "softcap": "y = rounded<T>(tanhf(rounded<T>(rounded<T>(y) / cap[0]))) * cap[0]; " + _STORE,
}


def labelled(suffix: object, linear: Linear) -> dict[str, mx.array]:
    """A linear layer as a kernel's inputs: weight w, scales s and biases b, each with the suffix."""
    return {f"{kind}{suffix}": array for kind, array in zip("wsb", linear, strict=True)}


def _filled(text: str, parts: Mapping[str, str]) -> str:
    for key, value in parts.items():
        text = text.replace(f"@{key}@", value)
    return text


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

    def __call__(self, kernels: Runner, inputs: Mapping[str, Any], weights: Sequence[Linear], **constants: int) -> Any:
        """The products, shape (1, 1, sum of rows), or (1, 1, rows) where paired."""
        for index, each in enumerate(weights):
            inputs = {**inputs, **labelled(index, each)}
        warps, rows = kernels.threads // 32, self._rows_a_warp(kernels)
        blocks = -(-self._total // (warps * rows))
        if kernels.blocks and self.prologue != "last":
            blocks = min(blocks, kernels.blocks)
        (out,) = kernels(
            self.name,
            self.source(rows, pooled=kernels.blocks is not None),
            inputs,
            {"out": (1, 1, self._total)},
            self.plan.dtype,
            blocks=blocks,
            threads=kernels.threads,
            constants={
                "T": self.plan.dtype, "K": self.width, "TOTAL": self._total, "ROWS": rows,
                "PAIRS": 2 if self.paired else 1, "THREADS": kernels.threads, "X_AT": 0, "BLOCKS": blocks, **constants,
            },
            shared_memory=self.staged() if kernels.blocks or self.staged() > 40_000 else 0,
            ahead=self.ahead(rows),
        )  # fmt: skip
        return out

    @property
    def _total(self) -> int:
        return self.rows[0] if self.paired else sum(self.rows)

    def _rows_a_warp(self, kernels: Runner) -> int:
        """Rows that a warp computes side by side: two, or where blocks are few, such that all of these have work."""
        most, rows = AT_ONCE // 2 if self.paired else AT_ONCE, 2
        if kernels.blocks:
            rows = 1
            while rows < most and rows * kernels.blocks * (kernels.threads // 32) < self._total:
                rows *= 2
        if self.prologue == "last":  # whose input is another for each matrix: no block may work on two
            while rows > 1 and self.rows[0] % (rows * (kernels.threads // 32)):
                rows //= 2
        for each in self.rows[:-1]:  # nor may the rows side by side be of two matrices
            while each % rows:
                rows //= 2
        return rows

    @property
    def chunk(self) -> int:
        """Weights that a lane reads at once: 32 of four bits, or 16 bytes of dense ones."""
        return 32 if self.plan.quantized else 16 // self.plan.dtype.size

    def staged(self) -> int:
        """Bytes of shared memory that the input takes."""
        item = int(self.plan.dtype.size)
        pad = 16 if self.chunk * item > 16 else 0
        return self.width // self.chunk * (self.chunk * item + pad)

    def source(self, rows: int, *, pooled: bool) -> str:
        """The kernel's body, ``rows`` a warp. Where it is not ``pooled``, a wide input needs memory from the launch."""
        quantized, (last, select, pointers) = self.plan.quantized, self._of_rows()
        even = all(each % rows == 0 for each in self.rows)
        parts = {
            "CHUNK": str(self.chunk),
            "STAGE": f"{'' if pooled else 'alignas(16) '}__shared__ T xs[NC * STRIDE];"
            if pooled or self.staged() <= 40_000
            else "extern __shared__ float stage[]; T* xs = reinterpret_cast<T*>(stage);",
            "MATRIX": f"first / {self.rows[0]}" if self.prologue == "last" else "0",
            "PROLOGUE": PROLOGUES[self.prologue],
            "WTYPE": "unsigned int" if quantized else "T",
            "SELECT": select,
            "POINTERS": f"int n = {'local + r % ROWS' if even else f'min(local + r % ROWS, {last})'}; {pointers}",
            "LOAD": source("load_4bit") if quantized else source("load_dense"),
            "DOT": source("dot_4bit") if quantized else source("dot_dense"),
            "EPILOGUE": EPILOGUES[self.epilogue],
        }
        return _filled(source("product"), parts)

    def ahead(self, rows: int) -> str:
        """What asks for the first weights; nothing where the last rows might lie beyond the matrix."""
        if any(each % rows for each in self.rows):
            return ""
        item, quantized = self.plan.dtype.size, self.plan.quantized
        return _filled(
            source("ahead"),
            {
                "WTYPE": "unsigned int" if quantized else "T",
                "SELECT": self._of_rows()[1],
                "ROW_BYTES": str(self.width // 2 if quantized else self.width * item),
                "GROUP_BYTES": str(self.width // 64 * item if quantized else 0),
                "PAIR": "" if self.paired else "// ",
            },
        )

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
