"""What blocks take by the clock of the process that asks for them, beside what the arms' own clocks say.

Opinion: an arm's process runs the code that is measured, so what it says of itself is a claim. Seen from outside, a
block takes a little longer than its own clock says, by the same in both arms. An arm of which more lies outside its
clock than of the other hides time: its clock is slow, or it works where nobody looks.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.errors import InvalidError

HIDDEN, ERRORS = 0.01, 4.0
"""What one arm may hide more than the other: a fraction of its blocks, and so many standard errors beyond."""
_LEAST = 20
"""Blocks of an arm that tell anything."""
_MEDIAN_ERROR = math.sqrt(math.pi / 2) * 1.4826
"""Standard error of a median, by the median absolute deviation and the square root of their number."""


@dataclass(slots=True)
class OutsideClock:
    """Seconds of the blocks of baseline and candidate that went on where others ended: from outside, and as claimed."""

    blocks: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {arm: [] for arm in ARMS})

    def add(self, arm: str, elapsed_s: float, claimed_s: float) -> None:
        """Remember a block."""
        self.blocks[arm].append((elapsed_s, claimed_s))

    def fault(self) -> InvalidError | None:
        """Say what one arm hides, where it is more than can be by chance; None where blocks are too few."""
        if min(map(len, self.blocks.values())) < _LEAST:
            return None
        (ours, our_error), (theirs, their_error) = (_hidden(self.blocks[arm]) for arm in ARMS)
        more = theirs - ours
        whole = statistics.median(elapsed for elapsed, _ in self.blocks[ARMS[more > 0]])
        if abs(more) <= HIDDEN * whole + ERRORS * math.hypot(our_error, their_error):
            return None
        return InvalidError(
            f"a block of the {ARMS[more > 0]} takes {1000 * whole:.2f} ms, of which {1000 * max(ours, theirs):.2f} lie "
            f"outside its own clock, and {1000 * min(ours, theirs):.2f} of one of the {ARMS[more <= 0]}",
            expected=f"the same of both, within {100 * HIDDEN:.0f} % of a block",
            remedy="time nothing but the step: a fusion may not touch a clock, nor work between steps",
        )


def _hidden(blocks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of what lies outside the clock, and its standard error, seconds."""
    hidden = [elapsed - claimed for elapsed, claimed in blocks]
    middle = statistics.median(hidden)
    spread = statistics.median(abs(one - middle) for one in hidden)
    return middle, _MEDIAN_ERROR * spread / math.sqrt(len(hidden))
