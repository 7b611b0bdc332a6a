"""A workload is a checkpoint, a modality and a shape, named by a frozen id.

Opinion: the id is the whole identity. Two numbers with different ids are never compared, so a
change of meaning needs a new id, never a new value behind an old one.
"""

import re
from dataclasses import dataclass

from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload.presets import PRESETS, usage

MODALITIES = ("text", "image")
IMAGE_TOKENS = 256
WARM_TOKENS = 4
"""Tokens decoded after the prompt and before the fixed position every run is rewound to."""

KV_STEP = 256
_ID = re.compile(r"(?P<checkpoint>[a-z0-9][a-z0-9._-]*)/(?P<modality>[a-z]+)/(?P<shape>pp\d+-tg\d+)")
_SHAPE = re.compile(r"pp(?P<prompt>\d+)-tg(?P<generate>\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """Token counts of one run: ``prompt`` tokens of prefill, then ``generate`` timed decode steps."""

    prompt: int
    generate: int

    def __str__(self) -> str:
        return f"pp{self.prompt}-tg{self.generate}"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read ``pp320-tg64``. Raises UsageError for anything else, and for shapes that cannot be timed fairly."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"shape {text!r} is not understood",
                expected="ppN-tgM, for instance pp320-tg64 (N prompt tokens, then M timed decode steps)",
                remedy="pass --shape pp320-tg64",
            )
        shape = cls(int(match["prompt"]), int(match["generate"]))
        if shape.prompt < 1 or shape.generate < 2:
            raise UsageError(f"shape {text} is empty", expected="at least 1 prompt token and 2 decode steps")
        start, end = shape.prompt + WARM_TOKENS, shape.prompt + WARM_TOKENS + shape.generate
        if start // KV_STEP != end // KV_STEP or shape.prompt % KV_STEP > KV_STEP - 2 * WARM_TOKENS:
            raise UsageError(
                f"shape {text} crosses a multiple of {KV_STEP} tokens while it is timed",
                expected="a run that stays between two KV cache growths, which add operations of their own",
                remedy=f"pick N and M so that N+{WARM_TOKENS} and N+{WARM_TOKENS}+M lie between the same "
                f"multiples of {KV_STEP}",
            )
        return shape


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """What is decoded: ``checkpoint`` name, ``modality`` and ``shape``. ``str()`` is the frozen id."""

    checkpoint: str
    modality: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.checkpoint}/{self.modality}/{self.shape}"

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """Read a frozen id such as ``e2b-4bit/text/pp320-tg64``. Raises UsageError naming the part that is wrong."""
        match = _ID.fullmatch(text)
        if match is None:
            raise UsageError(
                f"workload {text!r} is not understood",
                expected="CHECKPOINT/MODALITY/SHAPE, for instance nano/text/pp40-tg64",
                remedy="gemma3n-perf workloads lists those this chip measures by default",
            )
        return cls.make(match["checkpoint"], match["modality"], Shape.parse(match["shape"]))

    @classmethod
    def make(cls, checkpoint: str, modality: str, shape: Shape) -> "Workload":
        """Check the combination. An image prompt must hold its 256 soft tokens and some text."""
        if modality not in MODALITIES:
            raise UsageError(f"modality {modality!r} is unknown", expected=" or ".join(MODALITIES))
        if modality == "image" and shape.prompt <= IMAGE_TOKENS:
            raise UsageError(
                f"an image prompt of {shape.prompt} tokens is too short",
                expected=f"more than {IMAGE_TOKENS} tokens: an image alone takes {IMAGE_TOKENS}",
                remedy=f"use a shape of pp{IMAGE_TOKENS + 64} or more",
            )
        return cls(checkpoint, modality, shape)


def customary(checkpoint: str, vendor: str) -> tuple[Workload, ...]:
    """The modalities and shapes a checkpoint is measured with on a vendor's chips ('cpu', 'nvidia', 'apple')."""
    usual = usage(checkpoint)
    parts = [text.split("/") for text in (usual.cpu_shapes if vendor == "cpu" else usual.shapes)]
    return tuple(Workload.make(checkpoint, modality, Shape.parse(shape)) for modality, shape in parts)


def prompt_length(checkpoint: str, modality: str) -> int:
    """Prompt tokens of the checkpoint's first customary workload of that modality, on a GPU."""
    return next(one.shape.prompt for one in customary(checkpoint, "") if one.modality == modality)


def defaults(vendor: str) -> tuple[Workload, ...]:
    """Workloads that suit a chip's vendor: nano on a CPU, the released 4-bit sizes on a GPU."""
    suited = [preset.name for preset in PRESETS.values() if vendor in preset.usage.default_on]
    return tuple(workload for name in suited for workload in customary(name, vendor))
