"""What blocks take by the clock of the process that asks for them, beside what the arms' own clocks say.

Opinion: an arm's process runs the code that is measured, so what it says of itself is a claim. Seen from outside, a
block takes a little longer than its own clock says, by the same in both arms. An arm of which more lies outside its
clock than of the other hides time: its clock is slow, or it works where nobody looks.
"""

import math
import statistics
from dataclasses import dataclass, field

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.errors import InvalidError

HIDDEN, ERRORS, FEW = 0.01, 4.0, 10
"""How much of an arm's blocks may lie outside its clock, more than of the other's: a fraction, and so many standard
errors beyond; ``FEW`` blocks have twice as many, for their spread is hardly known."""
_LEAST = 5
_LEAST_SPREAD = 0.005
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
        hidden = {arm: statistics.median(elapsed - claimed for elapsed, claimed in self.blocks[arm]) for arm in ARMS}
        for arm, other in (ARMS, ARMS[::-1]):
            # A slow clock hides a part of each block, however long that one took.
            shares = [(elapsed - claimed - hidden[other]) / elapsed for elapsed, claimed in self.blocks[arm]]
            share, n = statistics.median(shares), len(shares)
            spread = max(statistics.median(abs(one - share) for one in shares), _LEAST_SPREAD)
            if share > HIDDEN + ERRORS * (1 + FEW / n) * _MEDIAN_ERROR * spread / math.sqrt(n):
                whole = statistics.median(elapsed for elapsed, _ in self.blocks[arm])
                return InvalidError(
                    f"a block of the {arm} takes {1000 * whole:.2f} ms, of which {1000 * hidden[arm]:.2f} lie "
                    f"outside its own clock, and {1000 * hidden[other]:.2f} of one of the {other}",
                    expected=f"the same of both, within {100 * HIDDEN:.0f} % of a block",
                    remedy="time nothing but the step: a fusion may not touch a clock, nor work between steps",
                )
        return None
