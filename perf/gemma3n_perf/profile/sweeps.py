"""Knobs against the default, as duels: a setting is suggested only where a duel calls it a win.

Opinion: a knob is measured alone and together with its twin, for one limit can hide the other; and a variable that this
build of MLX never reads is not a setting that makes no difference, it is no setting.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.profile.types import Knob, Sweep
from gemma3n_perf.stats.verdicts import Judgement, Verdict

OPS, MB = "MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER"
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    # The published sweep found its win at 1000 operations, and a second limit that binds while the first is swept.
    "apple": (f"{OPS}=1000", f"{MB}=1000", f"{OPS}=1000+{MB}=1000", f"{OPS}=200"),
    # MLX closes a CUDA graph after so many operations or megabytes: 100 and 1,000 on an H100 (mlx 0.32.4, device.cpp).
    "nvidia": ("MLX_USE_CUDA_GRAPHS=0", f"{OPS}=400", f"{OPS}=400+{MB}=10000", f"{MB}=10000"),
    # No knob of MLX schedules work on a CPU; joining elementwise operations is the one setting that its decode reads.
    "cpu": ("MLX_DISABLE_COMPILE=1",),
}

_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=[^+\s]+")

Compete = Callable[[Sequence[str]], Mapping[str, Judgement]]
"""Duels candidates, arms in words, against ``here``; returns a judgement for each."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Variables set together, such as ``MLX_MAX_OPS_PER_BUFFER=1000+MLX_MAX_MB_PER_BUFFER=1000``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """Read NAME=VALUE, several joined by +. Raises UsageError."""
        parts = text.split("+")
        names = [part.partition("=")[0] for part in parts]
        if not all(_SETTING.fullmatch(part) for part in parts) or len(set(names)) != len(names):
            raise UsageError(
                f"the setting {text!r} is not understood",
                expected="NAME=VALUE, several joined by +, each name once",
                remedy=f"pass --knob {OPS}=1000",
            )
        return cls(text)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables it sets."""
        return tuple(part.partition("=")[0] for part in self.text.split("+"))

    @property
    def arm(self) -> str:
        """The arm in words: this environment with the variables set."""
        return "+".join(["here", *(f"env:{part}" for part in self.text.split("+"))])


def measure(
    settings: Sequence[Setting], compete: Compete, *, reads: Callable[[str], bool | None], present: Mapping[str, str]
) -> Sweep:
    """Put all settings to duels; one that MLX does not read, or that is set already, is not-measured with the reason.

    ``reads`` tells whether this MLX knows a variable (None: cannot be told); ``present`` are those of this process.
    """
    refused = {one.text: reason for one in settings if (reason := _refusal(one, reads, present))}
    fit = [one for one in settings if one.text not in refused]
    judged = _judged(fit, compete) if fit else {}
    knobs = []
    for one in settings:
        if one.text in refused:
            knobs.append(Knob(one.text, str(Verdict.NOT_MEASURED), refused[one.text]))
            continue
        found = judged[one.text]
        if isinstance(found, str):
            knobs.append(Knob(one.text, str(Verdict.NOT_MEASURED), found))
        else:
            verdict = str(found.verdict)
            knobs.append(Knob(one.text, verdict, found.reason, found.effect, found.low, found.high, found.launches))
    return Sweep(tuple(knobs), suggestion(knobs))


def suggestion(knobs: Sequence[Knob]) -> str | None:
    """Return the winning setting with the largest lower end, or None where nothing won."""
    wins = [one for one in knobs if one.verdict == Verdict.WIN and one.low is not None]
    return max(wins, key=lambda one: one.low or 0.0).setting if wins else None


def library_reads(folder: Path) -> Callable[[str], bool | None]:
    """Return a function that looks for a variable's name in MLX's compiled libraries below ``folder``."""
    libraries = [path for pattern in ("*.so", "*.so.*", "*.dylib") for path in folder.rglob(pattern)]

    def reads(name: str) -> bool | None:
        if not libraries:
            return None
        try:
            return any(_holds(path, name.encode()) for path in libraries)
        except OSError:
            return None

    return reads


def _holds(path: Path, name: bytes) -> bool:
    import mmap

    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(name) >= 0


def _refusal(one: Setting, reads: Callable[[str], bool | None], present: Mapping[str, str]) -> str | None:
    unknown = [name for name in one.names if reads(name) is False]
    if unknown:
        return f"this build of MLX does not read {', '.join(unknown)}"
    already = [name for name in one.names if name in present]
    if already:
        return (
            f"{', '.join(already)} is set already in this environment, so the default is not what it is judged against"
        )
    return None


def _judged(settings: Sequence[Setting], compete: Compete) -> dict[str, Judgement | str]:
    """Judge all at once; where that fails as a whole, each by itself, so that one that crashes costs only itself."""
    try:
        found = compete([one.arm for one in settings])
        return {one.text: found[one.arm] for one in settings}
    except PerfError as error:
        if len(settings) == 1:
            return {settings[0].text: error.found}
    alone: dict[str, Judgement | str] = {}
    for one in settings:
        alone |= _judged([one], compete)
    return alone
