"""Kernels' bodies as phases of one launch: its blocks wait for each other where one phase reads what another wrote.

Opinion: on CUDA the host pays for each graph node and the GPU for each kernel's start and end, more than for the work
of a decode step. A barrier of all blocks costs a microsecond. It needs all of them on the GPU at once, so there is at
most one block a multiprocessor, and it loops over what a launch of its own would give to many.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import precompiled
from gemma3n_perf.fusions.kernels.addresses import Addressed
from gemma3n_perf.fusions.kernels.common import HEADER, Kernels, Make, Shapes

_SHARED = re.compile(r"__shared__ (\w+) (\w+)((?:\[[^\]]+\])+);")
_OWN_BYTES = 36_864
"""Shared memory for what a phase declares besides the input of a product."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A launch whose blocks all run at once: a power of two of them, ``threads`` each."""

    blocks: int
    threads: int


def new_counter(start: int = 0) -> mx.array:
    """What counts arrivals at barriers, of one launch after the other: ``start`` is a multiple of the grid's blocks.

    Launches that share it must wait for each other. Made by a kernel, it lies in the device's memory, not the host's.
    """
    return mx.full((64,), start, mx.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What one phase gives to another: an array that exists while the kernel runs."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def bytes(self) -> int:
        """Size, up to whole lines of the cache."""
        return -(-math.prod(self.shape) * self.dtype.size // 128) * 128


class Phases:
    """Has the call of ``Kernels``, but notes what it would launch; ``launch`` runs all of it as one kernel."""

    def __init__(self, kernels: Kernels, grid: Grid, counter: mx.array) -> None:
        self._kernels, self._counter = kernels, counter
        self.threads, self.blocks = grid.threads, grid.blocks
        self._parameters: dict[int, tuple[str, mx.array]] = {}
        self._tables: dict[int, tuple[str, int, int]] = {}  # a parameter, where its addresses go, and how many
        self._values: list[Value] = []
        self._text: list[str] = []
        self._unseen: set[str] = set()  # what blocks wrote since the last barrier
        self._aliases: dict[str, str] = {}  # what every block made for itself since then
        self._local = self._locals = self._staged = self._busy = 0
        self._type: mx.Dtype | None = None
        self._starts = [0]  # of each stretch without a barrier, in the text

    def __call__(
        self, name: str, source: str, inputs: Mapping[str, Any], outputs: Shapes, dtype: mx.Dtype, *,
        blocks: int, threads: int, constants: dict[str, Any], shared_memory: int = 0, everywhere: bool = False,
        ahead: str = "",
    ) -> list[Value]:  # fmt: skip
        """Note a phase of ``blocks`` blocks. One that is ``everywhere`` is run by each block of the grid for itself.

        Then a phase that follows needs no barrier to read what it gave; only the first block's result is kept.
        """
        self._type = constants["T"]
        if any(isinstance(each, Value) and each.name in self._unseen for each in inputs.values()):
            self._barrier()
        made = [Value(f"value{len(self._values) + i}", tuple(shape), dtype) for i, shape in enumerate(outputs.values())]
        self._values += made
        self._staged = max(self._staged, shared_memory)
        sizes = {label: int(v) for label, v in constants.items() if label != "T"} | {"THREADS": self.threads}
        known = [f"constexpr int {label} = {size};" for label, size in sizes.items()]
        if ahead:
            given = [f"const auto* {label} = {self._pointer(v)};" for label, v in inputs.items() if label[0] in "wsb"]
            at = self._starts[max(len(self._starts) - 2, 0)]  # a stretch before it is needed, memory is idle
            self._text.insert(at, "\n".join([f"{{ // ahead: {name}", *given, *known, ahead, "}"]))
            self._starts = [each + 1 if each > at else each for each in self._starts]
        before = [f"const auto* {label} = {self._pointer(each)};" for label, each in inputs.items()] + known
        for label, value in zip(outputs, made, strict=True):
            before.append(f"auto* {label} = {self._own(value) if everywhere else value.name};")
        loop = "const int vb = 0;"
        if not everywhere:
            self._unseen |= {value.name for value in made}
            start = f"(blockIdx.x + {self.blocks - self._busy % self.blocks}) % {self.blocks}"
            loop = f"for (int vb = {start}; vb < {blocks}; vb += {self.blocks})"
            self._busy += blocks
        body = _pooled(source.replace("blockIdx.x", "vb"))
        self._text += [f"{{ // {name}", *before, loop, "{", "__syncthreads();", body, "}", "}"]
        return made

    def after(self, array: mx.array) -> None:
        """Let the launch wait until ``array`` is there, though no phase reads it."""
        self._pointer(array)

    def launch(self, name: str, results: Sequence[Value]) -> list[mx.array]:
        """Run all phases; the arrays of ``results``."""
        types = list(dict.fromkeys(value.dtype for value in self._values))
        scratch = dict.fromkeys(types, 0)
        placed = []
        for value in self._values:
            if value in results:
                continue
            place = f"scratch{types.index(value.dtype)} + {scratch[value.dtype] // value.dtype.size}"
            placed.append(f"auto* {value.name} = {place};")
            scratch[value.dtype] += value.bytes
        used = {kind: size for kind, size in scratch.items() if size}
        outputs: dict[str, tuple[int, ...]] = {value.name: value.shape for value in results}
        outputs |= {f"scratch{types.index(kind)}": (size // kind.size,) for kind, size in used.items()}
        kinds = [value.dtype for value in results] + list(used)
        shared = -(-(self._locals + self._staged + _OWN_BYTES) // 16) * 16
        copies = [
            f"for (int i = threadIdx.x; i < {size}; i += {self.threads}) addresses[{start} + i] = {label}[i];"
            for label, start, size in self._tables.values()
        ]
        text = "\n".join(
            [
                "extern __shared__ float stage[];",
                "char* pool = reinterpret_cast<char*>(stage);",
                f"constexpr int LOCALS = {self._locals}, POOL = {shared};",
                "unsigned int* arrived = const_cast<unsigned int*>(counter);",
                "long long* addresses = reinterpret_cast<long long*>(pool + POOL);",
                *copies,
                "__syncthreads();",
                *placed,
                *self._text,
            ]
        )
        inputs = {label: array for label, array in self._parameters.values()} | {"counter": self._counter}
        digest = hashlib.sha256(f"{HEADER}{self._type}{text}".encode()).hexdigest()
        arrays = self._kernels(
            f"{name}_{digest[:8]}",
            text,
            inputs,
            outputs,
            kinds,
            blocks=self.blocks,
            threads=self.threads,
            constants={"T": self._type, "RESIDENT": 1},
            shared_memory=shared + 8 * sum(size for _, _, size in self._tables.values()),
        )
        return arrays[: len(results)]

    def _barrier(self) -> None:
        self._text.append(f"grid_barrier<{self.blocks}>(arrived);")
        self._unseen.clear()
        self._aliases.clear()
        self._starts.append(len(self._text))
        self._local = self._busy = 0

    def _pointer(self, each: Any) -> str:
        if isinstance(each, Value):
            return self._aliases.get(each.name, each.name)
        if isinstance(each, Addressed):
            start = sum(size for _, _, size in self._tables.values())
            table = self._tables.setdefault(id(each.table), (self._pointer(each.table), start, each.size))
            kind = "T" if each.dtype == self._type else precompiled.TYPES[each.dtype]
            return f"reinterpret_cast<const {kind}*>(addresses[{table[1] + each.index}])"
        return self._parameters.setdefault(id(each), (f"a{len(self._parameters)}", each))[0]

    def _own(self, value: Value) -> str:
        """Where a block puts a result that each makes for itself: the first one's is everybody's."""
        alias = f"{value.name}_own"
        self._text.append(
            f"auto* {alias} = blockIdx.x == 0 ? {value.name} : "
            f"reinterpret_cast<decltype({value.name})>(pool + {self._local});"
        )
        self._aliases[value.name] = alias
        self._local += value.bytes
        self._locals = max(self._locals, self._local)
        return alias


Runner = Kernels | Phases
"""What runs a kernel's body: in a launch of its own, or as one phase of many."""


def _pooled(body: str) -> str:
    """Let what a phase keeps in shared memory lie where others' lay: together they would not fit."""
    last = "LOCALS"

    def placed(found: re.Match[str]) -> str:
        nonlocal last
        kind, label, sizes = found.groups()
        here, last = last, f"after_{label}"
        return (
            f"auto& {label} = *reinterpret_cast<{kind}(*){sizes}>(pool + {here}); "
            f"constexpr int {last} = {here} + (sizeof({kind}{sizes}) + 15) / 16 * 16; "
            f'static_assert({last} <= POOL, "shared memory");'
        )

    return _SHARED.sub(placed, body)


def composed(kernels: Kernels, grid: Grid, name: str, function: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    """Return ``function(phases, ...)`` as one kernel of a counter and these: it returns the values to keep."""

    def run(counter: mx.array, *given: Any) -> list[mx.array]:
        phases = Phases(kernels, grid, counter)
        return phases.launch(name, function(phases, *given))

    return run


def grid(make: Make) -> Grid:
    """A grid for this GPU: half of a power of two may stay idle, none may be waited for in vain."""
    blocks = 1 << (precompiled.multiprocessors().bit_length() - 1)
    # Without launch bounds a thread may take 255 of a multiprocessor's 65,536 registers.
    return Grid(blocks, 512 if isinstance(make, precompiled.Precompiled) else 256)
