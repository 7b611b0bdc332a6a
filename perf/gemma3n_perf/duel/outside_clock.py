"""What blocks take by the clock of the process that asks for them, beside what the arms' own clocks say.

Opinion: an arm's process runs the code that is measured, so what it says of itself is a claim. Seen from outside, a
block takes a little longer than its own clock says, by the same in both arms. An arm of which more lies outside its
clock than of the other hides time: its clock is slow, or it works where nobody looks. Blocks that rewind first may
rewind faster in one arm; but that takes no longer before many steps than before few, and what a slow clock hides does.
An arm that uses the CPU while another's block is timed slows that one.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.errors import InvalidError

HIDDEN, ERRORS, FEW = 0.01, 4.0, 10
"""How much of an arm's blocks may lie outside its clock, more than of what they are held against: a fraction, and so
many standard errors beyond; ``FEW`` blocks have twice as many, for their spread is hardly known."""
IDLE_SHARE = 0.1
"""Seconds of CPU time that a process may use in a second of another arm's blocks. On an H100 honest ones use 0.03; one
busy thread uses 1."""
_LEAST_IDLE_S = 0.1
_LEAST = 5
_LEAST_SPREAD = 0.005
_MEDIAN_ERROR = math.sqrt(math.pi / 2) * 1.4826
"""Standard error of a median, by the median absolute deviation and the square root of their number."""


@dataclass(slots=True)
class OutsideClock:
    """Seconds of the blocks of baseline and candidate, each from outside and as claimed.

    ``blocks`` went on where others ended. Where every block rewinds, they did, and ``short`` are those of fewer steps.
    ``idle`` are seconds in which the other arm was timed, and of CPU time that the arm used in them.
    """

    blocks: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    short: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    idle: dict[str, tuple[float, float]] = field(default_factory=lambda: dict.fromkeys(ARMS, (0.0, 0.0)))

    def add(self, arm: str, elapsed_s: float, claimed_s: float, *, short: bool = False) -> None:
        """Remember a block."""
        (self.short if short else self.blocks)[arm].append((elapsed_s, claimed_s))

    def add_idle(self, arm: str, elapsed_s: float, cpu_s: float) -> None:
        """Remember that the other arm was timed, and how much CPU time this one used meanwhile."""
        total_s, used_s = self.idle[arm]
        self.idle[arm] = total_s + elapsed_s, used_s + cpu_s

    def fault(self) -> InvalidError | None:
        """Say what one arm hides, where it is more than can be by chance; None where blocks are too few."""
        rewinds = any(self.short.values())
        for arm, other in (ARMS, ARMS[::-1]):
            total_s, used_s = self.idle[arm]
            if total_s >= _LEAST_IDLE_S and used_s > IDLE_SHARE * total_s:
                return InvalidError(
                    f"the {arm} used {used_s:.2f} s of CPU time in {total_s:.2f} s in which the {other} was timed",
                    expected=f"an arm that rests while the other decodes, within {100 * IDLE_SHARE:.0f} %",
                    remedy="leave no thread at work between steps: it slows the arm that is compared with",
                )
            if fault := _hides(arm, self.blocks[arm], self.short[arm] if rewinds else self.blocks[other], rewinds):
                return fault
        return None


def _hides(
    arm: str, blocks: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]], rewinds: bool
) -> InvalidError | None:
    """Hold what lies outside an arm's clock against a reference: its own shorter blocks, or the other arm's blocks."""
    if min(len(blocks), len(reference)) < _LEAST:
        return None
    outside = [elapsed - claimed for elapsed, claimed in reference]
    usual = statistics.median(outside)
    # What its shorter blocks take is in every block.
    less = statistics.median(elapsed for elapsed, _ in reference) if rewinds else 0.0
    whole, hidden = (statistics.median(column) for column in zip(*((e, e - c) for e, c in blocks), strict=True))
    if whole <= less:
        return None
    # A slow clock hides a part of each block, however long that one took.
    shares = [(elapsed - claimed - usual) / max(elapsed - less, (whole - less) / 2) for elapsed, claimed in blocks]
    error = _median_error(shares, _LEAST_SPREAD)
    if rewinds:
        error = math.hypot(error, _median_error(outside, 0.0) / (whole - less))
    if statistics.median(shares) <= HIDDEN + ERRORS * error:
        return None
    of = "a shorter one" if rewinds else f"one of the {ARMS[arm == ARMS[0]]}"
    return InvalidError(
        f"a block of the {arm} takes {1000 * whole:.2f} ms, of which {1000 * hidden:.2f} lie outside its own clock, "
        f"and {1000 * usual:.2f} of {of}",
        expected=f"the same of both, within {100 * HIDDEN:.0f} % of a block",
        remedy="time nothing but the step: a fusion may not touch a clock, nor work between steps",
    )


def _median_error(values: Sequence[float], least: float) -> float:
    """The standard error of a median; of few values, twice as much or more."""
    middle, n = statistics.median(values), len(values)
    spread = max(statistics.median(abs(one - middle) for one in values), least)
    return (1 + FEW / n) * _MEDIAN_ERROR * spread / math.sqrt(n)
