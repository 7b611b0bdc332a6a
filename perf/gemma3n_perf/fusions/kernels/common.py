"""How a CUDA kernel is described and called here, and the device functions that all of them use.

Opinion: on CUDA a decode step costs host time per kernel, so a kernel does as much as its inputs allow; sums are
float32 whatever the model's type, and only what the unfused model stores is rounded to that type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

Make = Callable[..., Any]
Shapes = Mapping[str, tuple[int, ...]]


@cache
def source(name: str) -> str:
    """Return the CUDA text ``cuda/NAME.cu``: the body of a kernel, a part of one, or what all begin with."""
    return (Path(__file__).parent / "cuda" / f"{name}.cu").read_text()


HEADER = source("header")


@dataclass(slots=True)
class Kernels:
    """Builds each kernel once. ``make`` has the signature of ``mx.fast.cuda_kernel``; tests pass an emulator.

    ``threads`` are those of a block where the kernel may choose; ``blocks`` is how many run at once, where that counts.
    """

    make: Make
    threads: int = 256
    blocks: int | None = None
    built: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __call__(
        self, name: str, source: str, inputs: Mapping[str, Any], outputs: Shapes, dtype: mx.Dtype | list[mx.Dtype], *,
        blocks: int, threads: int, constants: dict[str, Any], shared_memory: int = 0, everywhere: bool = False,
        ahead: str = "",
    ) -> list[Any]:  # fmt: skip
        """Run ``blocks`` blocks of ``threads``; ``constants`` are ints and dtypes known when compiling.

        ``outputs`` are names and shapes, all of one ``dtype`` or each of its own. ``Phases`` alone uses ``everywhere``
        and ``ahead``.
        """
        key = (name, source)
        if key not in self.built:
            self.built[key] = self.make(
                name=f"gemma3n_{name}",
                input_names=list(inputs),
                output_names=list(outputs),
                source=source,
                header=HEADER,
                ensure_row_contiguous=True,
                shared_memory=shared_memory,
            )
        arrays: list[mx.array] = self.built[key](
            inputs=list(inputs.values()),
            template=list(constants.items()),
            grid=(blocks * threads, 1, 1),
            threadgroup=(threads, 1, 1),
            output_shapes=list(outputs.values()),
            output_dtypes=dtype if isinstance(dtype, list) else [dtype] * len(outputs),
        )
        return arrays


def threads_for(width: int) -> int:
    """Threads of a block that holds one row of ``width`` elements: whole warps, at most 512.

    The builder of a kernel gives no launch bounds, so a block must fit whatever registers its threads take.
    """
    return max(32, min(512, width // 2 // 32 * 32))
