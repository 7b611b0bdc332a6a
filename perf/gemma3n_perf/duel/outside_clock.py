"""What blocks take by the clock of the process that asks for them, beside what the arms' own clocks say.

Opinion: an arm's process runs the code that is measured, so what it says of itself is a claim. Seen from outside, a
block takes a little longer than its own clock says, by the same in both arms. An arm of which more lies outside its
clock than of the other hides time: its clock is slow, or it works where nobody looks. Where blocks
rewind first, that takes no longer before many steps than before few, and what a slow clock hides does.
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
HIDDEN_REWINDING, HIDDEN_BEFORE, HIDDEN_BEFORE_FEW = 0.1, 0.05, 0.25
"""The same where a block rewinds each time, which arms may do a little differently; and of all blocks between two
rewinds, where there are three rewinds or more, and where there are two: a busy machine may have held up both."""
UNCOUNTED = 0.08
"""How much more of an arm's blocks may lie in the tokens at their ends, which do not count, than of the other's: a
fraction. Fusions on an H200 and an H100 have up to 0.06."""
IDLE_SHARE, IDLE_SHARE_AFTER, IDLE_SHARE_CONTINUED = 0.05, 0.2, 0.005
"""Seconds of CPU time that a process may use in a second of another arm's blocks, and of those right after its own,
when it has a little left to do; the last where blocks go on where others ended, as on a CPU. One busy thread uses 1,
honest ones 0.03 on an H100, and at most 0.0013 on a CPU, right after a block."""
_LEAST_IDLE_S = 0.1
_LEAST, _LEAST_REWOUND = 5, 2
_LEAST_SPREAD = 0.005
_MEDIAN_ERROR = math.sqrt(math.pi / 2) * 1.4826
"""Standard error of a median, by the median absolute deviation and the square root of their number."""


_REMEDY = "time nothing but the step: a fusion may not touch a clock, nor work between steps"

Timings = list[tuple[float, float]]
"""Seconds of blocks from outside, and as their arm claims."""


@dataclass(slots=True)
class OutsideClock:
    """Seconds of the blocks of baseline and candidate, each from outside and as claimed.

    ``blocks`` went on where others ended, ``rewound`` are the others between them. Where every block rewinds, all are
    ``blocks``, and ``short`` are those of fewer steps.
    ``idle`` are seconds in which the other arm was timed, and of CPU time that the arm used in them; ``idle_after`` the
    same right after a block of its own. ``uncounted`` are the shares of blocks in tokens that do not count.
    """

    blocks: dict[str, Timings] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    rewound: dict[str, Timings] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    short: dict[str, Timings] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    idle: dict[str, tuple[float, float]] = field(default_factory=lambda: dict.fromkeys(ARMS, (0.0, 0.0)))

    idle_after: dict[str, tuple[float, float]] = field(default_factory=lambda: dict.fromkeys(ARMS, (0.0, 0.0)))
    uncounted: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})

    def add_idle(self, arm: str, elapsed_s: float, cpu_s: float, *, after: bool) -> None:
        """Remember that the other arm was timed, ``after`` a block of this one or not, and what this one used then."""
        idle = self.idle_after if after else self.idle
        total_s, used_s = idle[arm]
        idle[arm] = total_s + elapsed_s, used_s + cpu_s

    def fault(self) -> InvalidError | None:
        """Say what one arm hides, where it is more than can be by chance; None where blocks are too few."""
        rewinds = any(self.short.values())
        for arm, other in (ARMS, ARMS[::-1]):
            shares = (IDLE_SHARE, IDLE_SHARE_AFTER) if rewinds else (IDLE_SHARE_CONTINUED,) * 2
            for share, (total_s, used_s) in zip(shares, (self.idle[arm], self.idle_after[arm]), strict=True):
                if fault := works_beside(arm, other, total_s, used_s, share):
                    return fault
            if fault := self._at_the_ends(arm, other):
                return fault
            fault = _hides(arm, self.blocks[arm], self.blocks[other], HIDDEN_REWINDING if rewinds else HIDDEN)
            if rewinds and fault is None:
                fault = _hides(arm, self.blocks[arm], self.short[arm], HIDDEN, shorter=True)
            if fault := fault or self._before_blocks(arm, other):
                return fault
        return None

    def hidden_share(self) -> float | None:
        """Return how much more of a block of the candidate than of the baseline's lies outside its own clock, a
        fraction; None where blocks rewind, or are too few."""
        baseline, candidate = (self.blocks[arm] for arm in ARMS)
        if not any(self.rewound.values()) or min(len(baseline), len(candidate)) < _LEAST:
            return None
        usual = statistics.median(elapsed - claimed for elapsed, claimed in baseline)
        return statistics.median((elapsed - claimed - usual) / elapsed for elapsed, claimed in candidate)

    def _at_the_ends(self, arm: str, other: str) -> InvalidError | None:
        """Hold what lies in the tokens that do not count against the other arm's."""
        own, others = self.uncounted[arm], self.uncounted[other]
        if min(len(own), len(others)) < _LEAST:
            return None
        found, usual = statistics.median(own), statistics.median(others)
        if found - usual <= UNCOUNTED:
            return None
        return InvalidError(
            f"{100 * found:.0f} % of a block of the {arm} lie in tokens at its ends, which do not count, and "
            f"{100 * usual:.0f} % of one of the {other}",
            expected=f"the same of both, within {100 * UNCOUNTED:.0f} % of a block",
            remedy=_REMEDY,
        )

    def _before_blocks(self, arm: str, other: str) -> InvalidError | None:
        """Hold what an arm does as it rewinds, once for many blocks, against the other: a copy and a step."""
        own, others = ([elapsed - claimed for elapsed, claimed in self.rewound[one]] for one in (arm, other))
        if (number := min(len(own), len(others))) < _LEAST_REWOUND:
            return None
        usual = statistics.median(others)
        follow = math.fsum(claimed for _, claimed in (*self.blocks[arm], *self.rewound[arm])) / len(own)
        # Any one may have been disturbed, so the least of them counts; but most of them are not, and not for long.
        least = min(own), HIDDEN_BEFORE if number > _LEAST_REWOUND else HIDDEN_BEFORE_FEW
        middle = statistics.median_low(own), HIDDEN_BEFORE_FEW
        found = [(hidden, limit) for hidden, limit in (least, middle) if hidden - usual > limit * follow]
        if not found:
            return None
        hidden, limit = found[0]
        return InvalidError(
            f"as it rewinds, the {arm} works {1000 * hidden:.0f} ms outside its own clock and the {other} "
            f"{1000 * usual:.0f}, before {1000 * follow:.0f} ms of steps",
            expected=f"the same of both, within {100 * limit:.0f} % of those steps",
            remedy=_REMEDY,
        )


def works_beside(arm: str, other: str, total_s: float, used_s: float, share: float) -> InvalidError | None:
    """Say that an arm used more than a share of CPU time while the other was timed; None where it did not, or too short
    a time tells."""
    if total_s < _LEAST_IDLE_S or used_s <= share * total_s:
        return None
    return InvalidError(
        f"the {arm} used {used_s:.2f} s of CPU time in {total_s:.2f} s in which the {other} was timed",
        expected=f"an arm that rests while the other decodes, within {100 * share:g} %",
        remedy="leave no thread at work between steps: it slows the arm that is compared with",
    )


def _hides(
    arm: str, blocks: Timings, reference: Timings, limit: float, *, shorter: bool = False
) -> InvalidError | None:
    """Hold what lies outside an arm's clock against a reference: the other arm's blocks, or its own shorter ones."""
    if min(len(blocks), len(reference)) < _LEAST:
        return None
    outside = [elapsed - claimed for elapsed, claimed in reference]
    usual = statistics.median(outside)
    # What its shorter blocks take is in every block.
    less = statistics.median(elapsed for elapsed, _ in reference) if shorter else 0.0
    whole, hidden = (statistics.median(column) for column in zip(*((e, e - c) for e, c in blocks), strict=True))
    if whole <= less:
        return None
    # A slow clock hides a part of each block, however long that one took.
    shares = [(elapsed - claimed - usual) / max(elapsed - less, (whole - less) / 2) for elapsed, claimed in blocks]
    error = _median_error(shares, _LEAST_SPREAD)
    if shorter:
        error = math.hypot(error, _median_error(outside, 0.0) / (whole - less))
    if statistics.median(shares) <= limit + ERRORS * error:
        return None
    of = "a shorter one" if shorter else f"one of the {ARMS[arm == ARMS[0]]}"
    return InvalidError(
        f"a block of the {arm} takes {1000 * whole:.2f} ms, of which {1000 * hidden:.2f} lie outside its own clock, "
        f"and {1000 * usual:.2f} of {of}",
        expected=f"the same of both, within {100 * limit:g} % of a block",
        remedy=_REMEDY,
    )


def _median_error(values: Sequence[float], least: float) -> float:
    """The standard error of a median; of few values, twice as much or more."""
    middle, n = statistics.median(values), len(values)
    spread = max(statistics.median(abs(one - middle) for one in values), least)
    return (1 + FEW / n) * _MEDIAN_ERROR * spread / math.sqrt(n)
