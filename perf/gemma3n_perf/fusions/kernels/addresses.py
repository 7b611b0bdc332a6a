"""Arrays that a kernel finds by address: the host pays for each array that it hands to a launch, and a layer has fifty.

A table holds where they lie. It keeps them, so none moves or is freed while a kernel may read it.
"""

from dataclasses import dataclass
from functools import cache

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from gemma3n_perf.fusions.kernels.common import Kernels
from gemma3n_perf.fusions.kernels.plan import Arrays

Entries = tuple[tuple[str, mx.Dtype], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Names and types of a table's arrays, in order. Two of the same are one object."""

    entries: Entries

    def of(self, table: mx.array) -> Arrays:
        """The arrays of ``table``, int64 of shape (entries,), as a kernel's phases take them."""
        size = len(self.entries)
        leaves = [(name, Addressed(table, i, size, dtype)) for i, (name, dtype) in enumerate(self.entries)]
        found: Arrays = tree_unflatten(leaves)
        return found


_layout = cache(Layout)


@dataclass(frozen=True, slots=True, eq=False)
class Addressed:
    """Entry ``index`` of a ``table`` of ``size`` addresses: an array of ``dtype``."""

    table: mx.array
    index: int
    size: int
    dtype: mx.Dtype


class Table:
    """The addresses of ``arrays``, a tree of them. ``array`` holds them, int64; ``layout`` says which is which."""

    def __init__(self, kernels: Kernels, arrays: Arrays) -> None:
        flat: list[tuple[str, mx.array]] = tree_flatten(arrays)  # type: ignore[assignment]
        self._kept = [mx.contiguous(array) for _, array in flat]
        mx.eval(self._kept)
        labels = [f"a{i}" for i in range(len(flat))]
        lines = [f"    out[{i}] = (long long){label};" for i, label in enumerate(labels)]
        (self.array,) = kernels(
            "addresses",
            "\n".join(["  if (threadIdx.x == 0) {", *lines, "  }"]),
            dict(zip(labels, self._kept, strict=True)),
            {"out": (len(flat),)},
            mx.int64,
            blocks=1,
            threads=32,
            constants={"COUNT": len(flat)},
        )
        mx.eval(self.array)
        self.layout = _layout(tuple((name, array.dtype) for name, array in flat))
