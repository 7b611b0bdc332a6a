"""How much time each part may take. A part always takes its fewest rounds; seconds decide how many more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.types import PARTS


@dataclass(frozen=True, slots=True)
class TimePlan:
    """``seconds`` for each part, at most ``rounds`` rounds of ``tokens`` tokens; ``engine_tokens`` for each engine.

    ``lengths`` are prompts of text whose decode is compared. ``duel_s`` is measuring time for each knob, of which
    ``knobs`` are tried (None: all).
    """

    rounds: int
    tokens: int
    engine_tokens: int
    lengths: tuple[int, ...]
    duel_s: float
    knobs: int | None
    seconds: Mapping[str, float]

    def scaled(self, budget_s: float) -> "TimePlan":
        """Return this pace with its parts' seconds in proportion, ``budget_s`` in all. Raises UsageError."""
        if not budget_s > 0:
            raise UsageError(f"a budget of {budget_s:g} s", expected="seconds above 0", remedy="pass --budget 120")
        factor = budget_s / sum(self.seconds.values())
        seconds = {part: value * factor for part, value in self.seconds.items()}
        return replace(self, seconds=seconds, duel_s=max(self.duel_s * min(factor, 2.0), 3.0))


_SECONDS = dict.fromkeys(PARTS, 0.0) | {
    "histogram": 6.0, "floor": 12.0, "split": 18.0, "contexts": 40.0, "engines": 35.0, "trace": 20.0, "sweep": 110.0,
}  # fmt: skip
_QUICK_SECONDS = dict.fromkeys(PARTS, 0.0) | {
    "histogram": 5.0, "floor": 5.0, "split": 10.0, "contexts": 22.0, "engines": 18.0, "trace": 18.0, "sweep": 60.0,
}  # fmt: skip
_CPU_SECONDS = {"sweep": 45.0}


def time_plan(vendor: str, checkpoint: str, *, quick: bool = False, budget_s: float | None = None) -> TimePlan:
    """Return the pace that suits a chip's vendor and a checkpoint; ``budget_s`` scales its parts."""
    small = checkpoint == "nano"
    lengths = (40, 140, 296, 552) if small else (64, 320, 1088, 2112)
    if quick:
        found = TimePlan(10, 12, 16, lengths if small else lengths[1:], 9.0, 3, _QUICK_SECONDS)
    else:
        found = TimePlan(24, 16, 24, lengths, 24.0, None, _SECONDS)
    if vendor == "cpu":
        found = replace(found, seconds={**found.seconds, **_CPU_SECONDS}, duel_s=min(found.duel_s, 15.0))
        if not small:  # seconds a token: the fewest rounds of the fewest tokens are all that there is time for
            found = replace(found, rounds=6, tokens=2, engine_tokens=2, lengths=(4, 12))
    return found.scaled(budget_s) if budget_s is not None else found


def until(clock: Clock, seconds: float) -> Callable[[int], bool]:
    """Return a function of rounds done that says when the time from now on is spent."""
    begin = clock()
    return lambda done: clock() - begin + (clock() - begin) / max(done, 1) > seconds
