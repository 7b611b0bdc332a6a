"""How a CUDA kernel is described and called here, and the device functions that all of them use.

Opinion: on CUDA a decode step costs host time per kernel, so a kernel does as much as its inputs allow; sums are
float32 whatever the model's type, and only what the unfused model stores is rounded to that type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

Make = Callable[..., Any]


def source(name: str) -> str:
    """Return the CUDA text ``cuda/NAME.cu``: the body of a kernel, a part of one, or what all begin with."""
    return (Path(__file__).parent / "cuda" / f"{name}.cu").read_text()


HEADER = source("header")


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
