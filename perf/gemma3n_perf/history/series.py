"""From result files to series: one workload on one chip class, in commit order, with its steps and what duels said."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gemma3n_perf.history.asv_files import TIME, ResultFile, Value
from gemma3n_perf.history.confirmations import Confirmed
from gemma3n_perf.history.detect import Step, steps
from gemma3n_perf.stats.spread import NoiseFloor

MINIMUM_EFFECT = 0.005
"""As in ``verdict.policy.Policy``: what counts as a change at all."""


@dataclass(frozen=True, slots=True)
class Point:
    """One commit's value of a workload."""

    commit: str
    value: Value


@dataclass(frozen=True, slots=True)
class Found:
    """A step, the commits on its two sides, and the duel that was fought over it, if any.

    ``standing`` is ``suspected`` without a duel, ``confirmed`` where the duel found the step's direction, ``refuted``
    where it found none or the other, ``open`` where it could not tell.
    """

    step: Step
    before: str
    after: str
    confirmed: Confirmed | None = None

    @property
    def standing(self) -> str:
        """One word for where it stands."""
        if self.confirmed is None:
            return "suspected"
        expected = "loss" if self.step.slower else "win"
        verdict = self.confirmed.verdict
        if verdict == expected:
            return "confirmed"
        return "refuted" if verdict in ("win", "loss", "no-change") else "open"


@dataclass(frozen=True, slots=True)
class Series:
    """One workload on one chip class: points in commit order, and the steps in them."""

    chip_class: str
    workload: str
    points: tuple[Point, ...]
    found: tuple[Found, ...] = field(default_factory=tuple)


def series(
    files: Iterable[ResultFile],
    order: Sequence[str],
    *,
    noise: Mapping[str, NoiseFloor | None],
    confirmed: Mapping[tuple[str, str, str, str], Confirmed],
) -> tuple[Series, ...]:
    """Arrange results into series. ``order`` is the repository's commits, oldest first: dates are not asked.

    ``noise`` is by chip class, ``confirmed`` by (chip class, workload, commit before, commit after).
    """
    place = {commit: index for index, commit in enumerate(order)}
    points: dict[tuple[str, str], list[Point]] = {}
    for one in files:
        if one.commit not in place or TIME not in one.entries:
            continue
        for workload, value in one.entries[TIME].values.items():
            points.setdefault((one.machine, workload), []).append(Point(one.commit, value))
    made = []
    for (chip_class, workload), listed in sorted(points.items()):
        ordered = tuple(sorted(listed, key=lambda point: place[point.commit]))
        made.append(Series(chip_class, workload, ordered, _found(chip_class, workload, ordered, noise, confirmed)))
    return tuple(made)


def _found(
    chip_class: str,
    workload: str,
    points: tuple[Point, ...],
    noise: Mapping[str, NoiseFloor | None],
    confirmed: Mapping[tuple[str, str, str, str], Confirmed],
) -> tuple[Found, ...]:
    measured = [(point.commit, point.value.result) for point in points if point.value.result is not None]
    floor = noise.get(chip_class)
    found = steps(
        [value for _, value in measured if value is not None],
        floor=max(MINIMUM_EFFECT, floor.effect if floor else 0.0),
        least_scatter=floor.launch_sd if floor else 0.0,
    )
    made = []
    for step in found:
        before, after = measured[step.after - 1][0], measured[step.after][0]
        made.append(Found(step, before, after, confirmed.get((chip_class, workload, before, after))))
    return tuple(made)
