"""A machine that duels without processes: arms that need no building, whose duels take place in an arena."""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.arms import Arm, slowdowns
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.types import Stack
from tests.duel.arena import Arena, arm
from tests.fakes import CHIP, STACK, WORKLOAD

NOW = dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC)


class FakeBuilder:
    """Makes any arm ready at once, or raises what it is given."""

    def __init__(self, raises: PerfError | None = None) -> None:
        self.raises = raises
        self.asked: list[tuple[str, str, bool | None]] = []

    def build(self, baseline: Arm, candidates: Sequence[Arm], *, same: bool | None = False) -> tuple[ReadyArm, ...]:
        """Return the baseline and its candidates, with what is planted in them."""
        self.asked += [(baseline.text, one.text, same) for one in candidates]
        if self.raises is not None:
            raise self.raises
        alone = len(candidates) == 1
        first = arm("baseline", baseline.text, planted=slowdowns(baseline, candidates[0])[0])
        others = [
            arm("candidate" if alone else f"{number}:{one.text}", one.text, planted=slowdowns(baseline, one)[1])
            for number, one in enumerate(candidates)
        ]
        return (first, *others)


def machine(arena: Arena, baselines: Path, *, stack: Stack = STACK, raises: PerfError | None = None) -> dueling.Here:
    """Return a machine whose duels take place in ``arena``."""
    return dueling.Here(CHIP, stack, FakeBuilder(raises), arena.tools, baselines, Path("/root"))  # type: ignore[arg-type]


@contextmanager
def opened(here: dueling.Here) -> Iterator[dueling.Here]:
    """Stand in for holding the machine's lock."""
    yield here


def asked(baseline: str = "here", candidate: str = "ref:x", **changes: Any) -> dueling.DuelSpec:
    """Return a duel in words, 60 s on the fakes' workload."""
    options: dict[str, Any] = {"workloads": (WORKLOAD,), "budget_s": 60.0} | changes
    return dueling.DuelSpec(baseline, (candidate,), **options)
