"""A workload is a checkpoint, a modality and a shape, named by a frozen id.

Opinion: the id is the whole identity. Two numbers with different ids are never compared, so a
change of meaning needs a new id, never a new value behind an old one.
"""

import re
from dataclasses import dataclass, replace

from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload.presets import PRESETS, preset, usage

MODALITIES = ("text", "image")
IMAGE_TOKENS = 256
WARM_TOKENS = 4
"""Tokens decoded after the prompt and before the fixed position every run is rewound to."""

KV_STEP = 256
"""Positions by which MLX's KV cache grows. A step that grows it does more than others."""

MOST_BATCH, VERIFIED, KV_BITS = 64, range(2, 9), (4, 8)
PREFILLS = 4
"""Prefills of one run where a shape times nothing else."""

WIDE_CONTEXTS = (1240, 4096, 16_384)
"""Prompt tokens of the longer contexts that ``--set wide`` measures."""

WIDE_ENGINES = ("stream_generate", "mlx_lm")
"""Engines that it measures beside the default one."""

SETS = ("default", "wide")
_ID = re.compile(
    r"(?P<checkpoint>[a-z0-9][a-z0-9._-]*)/(?P<modality>[a-z]+)/(?P<shape>pp\d{1,9}-tg\d{1,9}(?:-[a-z]+\d{1,9})*)"
    r"(?:@(?P<engine>[a-z][a-z0-9_-]*))?"
)
_SHAPE = re.compile(
    r"pp(?P<prompt>\d{1,9})-tg(?P<generate>\d{1,9})"
    r"(?:-b(?P<batch>\d{1,9}))?(?:-v(?P<verify>\d{1,9}))?(?:-kv(?P<kv_bits>\d{1,9}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """Token counts of one run: ``prompt`` tokens of prefill, then ``generate`` timed decode steps.

    Each step takes ``batch`` sequences forward, each by ``verify`` tokens: 1, or as many as speculative decoding
    verifies in one forward, all of them accepted. Times are of a step, whatever it holds. ``kv_bits`` are those of a
    quantized KV cache, in layers of full attention; 0 where it is not. With ``tg0`` each step is a whole prefill.
    """

    prompt: int
    generate: int
    batch: int = 1
    verify: int = 1
    kv_bits: int = 0
    prefill_alone: bool = False

    def __str__(self) -> str:
        parts = [f"pp{self.prompt}-tg{0 if self.prefill_alone else self.generate}"]
        parts += [f"b{self.batch}"] if self.batch > 1 else []
        parts += [f"v{self.verify}"] if self.verify > 1 else []
        parts += [f"kv{self.kv_bits}"] if self.kv_bits else []
        return "-".join(parts)

    @property
    def rows(self) -> int:
        """Tokens of one step, all sequences together."""
        return self.batch * self.verify

    @property
    def positions(self) -> int:
        """Positions of the KV cache that a run fills, warm tokens included."""
        return self.prompt + (0 if self.prefill_alone else (WARM_TOKENS + self.generate) * self.verify)

    @property
    def is_plain(self) -> bool:
        """Whether a step is one token of one sequence over a KV cache as mlx-vlm makes it."""
        return self.rows == 1 and not self.kv_bits and not self.prefill_alone

    @property
    def grows_cache(self) -> bool:
        """Whether the KV cache grows while a run is timed, so that its steps are not all alike."""
        start, end = self.prompt + WARM_TOKENS, self.prompt + WARM_TOKENS + self.generate
        return start // KV_STEP != end // KV_STEP or self.prompt % KV_STEP > KV_STEP - 2 * WARM_TOKENS

    @property
    def is_known_of_old(self) -> bool:
        """Whether workers before protocol 9 know the shape, too."""
        return self.is_plain and not self.grows_cache

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read ``pp320-tg64``, ``pp320-tg64-b4`` or ``pp320-tg64-v4``. Raises UsageError for anything else."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"shape {text!r} is not understood",
                expected="ppN-tgM, for instance pp320-tg64 (N prompt tokens, then M timed decode steps), "
                "with -bB for a batch of B, -vK for K tokens verified in each step, -kvQ for a KV cache of Q bits, "
                "in this order; tg0 times prefills alone",
                remedy="pass --shape pp320-tg64",
            )
        prompt, generate, batch, verify, bits = (None if count is None else int(count) for count in match.groups())
        assert prompt is not None
        assert generate is not None
        shape = cls(prompt, generate or PREFILLS, batch or 1, verify or 1, bits or 0, prefill_alone=generate == 0)
        if prompt < 1 or generate == 1:
            raise UsageError(
                f"shape {text} is empty",
                expected="at least 1 prompt token, and 2 decode steps or none: tg0 times prefills alone",
            )
        known = (batch is None or 2 <= batch <= MOST_BATCH, verify is None or verify in VERIFIED)
        if not all((*known, bits is None or bits in KV_BITS)) or (shape.prefill_alone and verify is not None):
            raise UsageError(
                f"shape {text} is none that is measured",
                expected=f"-b2 to -b{MOST_BATCH}, -v{VERIFIED[0]} to -v{VERIFIED[-1]}, -kv4 or -kv8; no -v beside tg0",
            )
        if str(shape) != text:  # one workload, one id
            raise UsageError(f"shape {text} is written {shape}", expected=str(shape))
        return shape


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """What is decoded: ``checkpoint`` name, ``modality`` and ``shape``. ``str()`` is the frozen id.

    ``engine`` names the one that decodes it in every arm, by ``decode.engines``; empty where that is each arm's own.
    """

    checkpoint: str
    modality: str
    shape: Shape
    engine: str = ""

    def __str__(self) -> str:
        return f"{self.checkpoint}/{self.modality}/{self.shape}{self.engine and f'@{self.engine}'}"

    @property
    def bare(self) -> "Workload":
        """The same work, whatever engine does it."""
        return replace(self, engine="")

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """Read a frozen id such as ``e2b-4bit/text/pp320-tg64``. Raises UsageError naming the part that is wrong."""
        match = _ID.fullmatch(text)
        if match is None:
            raise UsageError(
                f"workload {text!r} is not understood",
                expected="CHECKPOINT/MODALITY/SHAPE or CHECKPOINT/MODALITY/SHAPE@ENGINE, "
                "for instance nano/text/pp40-tg64",
                remedy="gemma3n-perf workloads lists those this chip measures by default",
            )
        return cls.make(match["checkpoint"], match["modality"], Shape.parse(match["shape"]), match["engine"] or "")

    @classmethod
    def make(cls, checkpoint: str, modality: str, shape: Shape, engine: str = "") -> "Workload":
        """Check the combination. An image prompt must hold its 256 soft tokens and some text."""
        if modality not in MODALITIES:
            raise UsageError(f"modality {modality!r} is unknown", expected=" or ".join(MODALITIES))
        if modality == "image" and shape.prompt <= IMAGE_TOKENS:
            raise UsageError(
                f"an image prompt of {shape.prompt} tokens is too short",
                expected=f"more than {IMAGE_TOKENS} tokens: an image alone takes {IMAGE_TOKENS}",
                remedy=f"use a shape of pp{IMAGE_TOKENS + 64} or more",
            )
        if modality == "image" and not shape.is_plain:
            raise UsageError(
                f"an image in {shape}: what is more than ppN-tgM is measured with text alone",
                expected="a shape ppN-tgM with 2 steps or more, or --modality text",
            )
        return cls(checkpoint, modality, shape, engine)


def customary(checkpoint: str, vendor: str) -> tuple[Workload, ...]:
    """The modalities and shapes a checkpoint is measured with on a vendor's chips ('cpu', 'nvidia', 'apple')."""
    usual = usage(checkpoint)
    parts = [text.split("/") for text in (usual.cpu_shapes if vendor == "cpu" else usual.shapes)]
    return tuple(Workload.make(checkpoint, modality, Shape.parse(shape)) for modality, shape in parts)


def wide(checkpoint: str, vendor: str) -> tuple[Workload, ...]:
    """What ``--set wide`` adds to the customary workloads: longer contexts, one across the sliding window, a long
    generation, batches, verification, quantized KV caches, prefills, other weights and engines.

    Nothing where a checkpoint is too slow for its own shapes, as on a CPU.
    """
    usual = usage(checkpoint)
    if vendor == "cpu" and not usual.fits_cpu:
        return ()
    first = next(one.shape for one in customary(checkpoint, vendor) if one.modality == "text")
    window = preset(checkpoint).text["sliding_window"] if checkpoint in PRESETS else 512
    n, m = first.prompt, first.generate
    shapes = (
        Shape(window - m // 2, m),
        *(Shape(context, m) for context in WIDE_CONTEXTS),
        Shape(n, 16 * m),
        *(Shape(n, m, batch=count) for count in (2, 4, 8)),
        *(Shape(n, m, verify=count) for count in (2, 4, 8)),
        *(Shape(n, m, kv_bits=bits) for bits in KV_BITS),
        Shape.parse(f"pp{window}-tg0"),
    )
    # A prefill in two chunks takes a CPU many seconds.
    chunked = () if vendor == "cpu" else (Shape.parse(f"pp{WIDE_CONTEXTS[1]}-tg0"),)
    return (
        *(Workload.make(checkpoint, "text", shape) for shape in (*shapes, *chunked)),
        *(Workload.make(other, "text", first) for other in usual.variants),
        *(Workload.make(checkpoint, "text", first, engine) for engine in WIDE_ENGINES),
    )


def prompt_length(checkpoint: str, modality: str) -> int:
    """Prompt tokens of the checkpoint's first customary workload of that modality, on a GPU."""
    return next(one.shape.prompt for one in customary(checkpoint, "") if one.modality == modality)


def wide_defaults(vendor: str) -> tuple[Workload, ...]:
    """What ``--set wide`` adds to ``defaults``."""
    return tuple(one for name in dict.fromkeys(w.checkpoint for w in defaults(vendor)) for one in wide(name, vendor))


def defaults(vendor: str) -> tuple[Workload, ...]:
    """Workloads that suit a chip's vendor: nano on a CPU, the released 4-bit sizes on a GPU."""
    suited = [preset.name for preset in PRESETS.values() if vendor in preset.usage.default_on]
    return tuple(workload for name in suited for workload in customary(name, vendor))
