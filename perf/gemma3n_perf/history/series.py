"""From result files to series: one workload on one chip class, in commit order, with its steps and what duels said."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gemma3n_perf.history import detect
from gemma3n_perf.history.results import ResultFile, Value
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor

Key = tuple[str, str, str, str]
"""Of a confirmation: chip class, workload, commit before, commit after."""


@dataclass(frozen=True, slots=True)
class Point:
    """One commit's value of a workload."""

    commit: str
    value: Value


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a duel said of a step: the verdict on the later commit, ``effect`` in throughput with a 95 % interval."""

    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    date: str


@dataclass(frozen=True, slots=True)
class Step:
    """A ``change`` of level, the commits on its two sides, and what a duel of them said, if there was one."""

    change: detect.Change
    before: str
    after: str
    confirmation: Confirmation | None = None

    @property
    def standing(self) -> str:
        """``suspected`` without a duel, ``confirmed`` or ``refuted`` by one, ``open`` where it could not tell."""
        if self.confirmation is None:
            return "suspected"
        if self.confirmation.verdict == ("loss" if self.change.slower else "win"):
            return "confirmed"
        return "refuted" if self.confirmation.verdict in ("win", "loss", "no-change") else "open"


@dataclass(frozen=True, slots=True)
class Series:
    """One workload on one chip class: points in commit order, and the steps in them."""

    chip_class: str
    workload: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...] = ()


def series(
    files: Iterable[ResultFile],
    order: Sequence[str],
    *,
    noise: Mapping[str, NoiseFloor],
    confirmed: Mapping[Key, Confirmation],
) -> tuple[Series, ...]:
    """Arrange results into series. ``order`` is the repository's commits, oldest first: dates do not count.

    ``noise`` is by chip class.
    """
    place = {commit: index for index, commit in enumerate(order)}
    points: dict[tuple[str, str], list[Point]] = {}
    for one in sorted((one for one in files if one.commit in place), key=lambda one: place[one.commit]):
        for workload, value in one.times.items():
            points.setdefault((one.machine, workload), []).append(Point(one.commit, value))
    made = []
    for (chip_class, workload), listed in sorted(points.items()):
        steps = tuple(
            Step(change, before, after, confirmed.get((chip_class, workload, before, after)))
            for change, before, after in _changes(listed, noise.get(chip_class))
        )
        made.append(Series(chip_class, workload, tuple(listed), steps))
    return tuple(made)


def _changes(points: Iterable[Point], floor: NoiseFloor | None) -> list[tuple[detect.Change, str, str]]:
    measured = [(point.commit, point.value.result) for point in points if point.value.result is not None]
    found = detect.changes(
        [value for _, value in measured],
        floor=max(Policy().minimum_effect, floor.effect if floor else 0.0),
        least_scatter=floor.launch_sd if floor else 0.0,
    )
    return [(one, measured[one.after - 1][0], measured[one.after][0]) for one in found]
