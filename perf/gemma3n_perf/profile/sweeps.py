"""Knobs against the default, as duels: a setting is suggested only where a duel calls it a win.

A knob is measured alone and together with its twin, for one limit can hide the other; and a variable that this
build of MLX never reads is not a setting that makes no difference, it is no setting.
"""

import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.profile.types import Knob, Sweep
from gemma3n_perf.stats.verdicts import Judgement, Verdict, not_measured

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
"""Duels candidates, given as texts of arms, against ``here``; returns a judgement for each."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Variables set together, such as ``MLX_MAX_OPS_PER_BUFFER=1000+MLX_MAX_MB_PER_BUFFER=1000``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """Read NAME=VALUE, several joined by +. Raises UsageError."""
        setting = cls(text)
        if not all(map(_SETTING.fullmatch, setting.parts)) or len(set(setting.names)) != len(setting.names):
            raise UsageError(
                f"the setting {text!r} is not understood",
                expected="NAME=VALUE, several joined by +, each name once",
                remedy=f"pass --knob {OPS}=1000",
            )
        return setting

    @property
    def parts(self) -> list[str]:
        """Each variable with its value."""
        return self.text.split("+")

    @property
    def names(self) -> tuple[str, ...]:
        """The variables it sets."""
        return tuple(part.partition("=")[0] for part in self.parts)

    @property
    def arm(self) -> str:
        """The arm as text: this environment with the variables set."""
        return "+".join(["here", *(f"env:{part}" for part in self.parts)])


def measure(
    settings: Sequence[Setting], compete: Compete, *, reads: Callable[[str], bool | None], present: Mapping[str, str]
) -> Sweep:
    """Put all settings to duels; one that MLX does not read, or that is set already, is not-measured with the reason.

    ``reads`` says whether this MLX knows a variable (None: unknown); ``present`` are those of this process.
    """
    refused = {one: not_measured(why) for one in settings if (why := _refusal(one, reads, present))}
    found = refused | _judged([one for one in settings if one not in refused], compete)
    judged = ((one.text, found[one]) for one in settings)
    knobs = tuple(
        Knob(text, of.verdict.value, of.reason, of.effect, of.low, of.high, of.launches) for text, of in judged
    )
    return Sweep(knobs, suggestion(knobs))


def suggestion(knobs: Sequence[Knob]) -> str | None:
    """Return the winning setting with the largest lower end, or None where nothing won."""
    wins = [(one.low, one.setting) for one in knobs if one.verdict == Verdict.WIN and one.low is not None]
    return max(wins, key=lambda one: one[0])[1] if wins else None


def library_reads(folder: Path) -> Callable[[str], bool | None]:
    """Return a function that looks for a variable's name in MLX's compiled libraries below ``folder``."""
    libraries = [path for pattern in ("*.so", "*.so.*", "*.dylib") for path in folder.rglob(pattern)]

    def reads(name: str) -> bool | None:
        try:
            return any(_holds(path, name.encode()) for path in libraries) if libraries else None
        except OSError:
            return None

    return reads


def _holds(path: Path, name: bytes) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(name) >= 0


def _refusal(one: Setting, reads: Callable[[str], bool | None], present: Mapping[str, str]) -> str:
    """Return why a setting cannot be put to a duel; nothing where it can."""
    if unknown := [name for name in one.names if reads(name) is False]:
        return f"this build of MLX does not read {', '.join(unknown)}"
    already = ", ".join(name for name in one.names if name in present)
    found = f"{already} is set already in this environment, so the default is not what it is judged against"
    return found if already else ""


def _judged(settings: Sequence[Setting], compete: Compete) -> dict[Setting, Judgement]:
    """Judge all at once; where that fails as a whole, each by itself, so that one that crashes costs only itself."""
    if not settings:
        return {}
    try:
        found = compete([one.arm for one in settings])
    except PerfError as error:
        if len(settings) == 1:
            return {settings[0]: not_measured(error.found)}
        return {one: result for each in settings for one, result in _judged([each], compete).items()}
    return {one: found[one.arm] for one in settings}
