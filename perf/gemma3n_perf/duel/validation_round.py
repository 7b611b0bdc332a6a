"""A round of ``gemma3n-perf validate``: duels of known truth, many at once.

Every duel has blocks, looks and a budget of its own; they share the launches, and the baseline's process. A round that
was cut short can go on: what counts of its launches is all in its duels.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.duel import memory
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.launch_plan import launch_pairs
from gemma3n_perf.duel.run import Here, job
from gemma3n_perf.duel.scheduler import ComparisonKey, Rules, States, measure_all, next_s
from gemma3n_perf.duel.validation_record import HERE, PowerDuel, PowerLaunch
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.steps import by_shape, estimate
from gemma3n_perf.stats.verdicts import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class PlantedDuel:
    """One duel of a round: ``planted`` is the time added to the candidate's blocks; below zero, to the baseline's."""

    planted: float

    @property
    def truth(self) -> float:
        """The effect on throughput that this is."""
        return 1 / (1 + self.planted) - 1

    @property
    def slowdown(self) -> float:
        """What the arm that is slowed is slowed by: nothing can be made faster, so the other one is."""
        return self.planted if self.planted >= 0 else self.truth

    def named(self, launch: Launch) -> Launch:
        """Return a launch with the arms in their parts: the slowed process is the baseline's where planted below 0."""
        if self.planted >= 0:
            return launch
        other = dict(zip(ARMS, reversed(ARMS), strict=True))
        pairs, discarded = (
            tuple((replace(a, arm=other[a.arm]), replace(b, arm=other[b.arm])) for a, b in kept)
            for kept in (launch.pairs, launch.discarded)
        )
        return replace(launch, pairs=pairs, discarded=discarded)


def planned(
    planted_duels: Sequence[PlantedDuel], budget_s: float, machine: Here, *, number: int, arm: str = HERE
) -> list[PowerDuel]:
    """Return the duels of a round before its first launch, of ``budget_s`` seconds each; both arms are ``arm``."""
    if not planted_duels:
        raise UsageError("no effects to plant", expected="for instance --effects 0 2 -2")
    return [
        PowerDuel(
            _now(), machine.stack.commit, number, one.planted, one.truth, budget_s, Verdict.INCONCLUSIVE.value,
            None, None, None, (), arm,
        )
        for one in planted_duels
    ]  # fmt: skip


def is_open(duel: PowerDuel, policy: Policy) -> bool:
    """Whether a duel needs another launch: nothing is shown yet, and its budget holds one."""
    few = len(duel.launches) < policy.min_launches
    return few or not (_spent(duel) or should_stop(_judged(duel, policy)))


def go_on(
    duels: Sequence[PowerDuel],
    workload: str,
    machine: Here,
    *,
    policy: Policy | None = None,
    late: Callable[[], bool] = lambda: False,
    launched: Callable[[list[PowerDuel]], None] = lambda duels: None,
) -> list[PowerDuel]:
    """Measure the open duels of a round through the same launches, each until its verdict or its budget's end.

    Once it is ``late``, duels that have their fewest launches have no more. ``launched`` is given the whole round after
    every launch from the one on that gives each duel its fewest. The caller holds the measuring lock. Raises the error
    of a duel that failed.
    """
    policy = policy or Policy()
    named = {f"{i}:{duel.planted:+.4g}": duel for i, duel in enumerate(duels)}
    going = {name: duel for name, duel in named.items() if is_open(duel, policy)}
    both = parse(duels[0].arm)
    first, *others = machine.builder.build(both, [both for _ in going], same=None)
    arms: tuple[ReadyArm, ...] = (
        first,
        *(
            replace(arm, name=name, planted=PlantedDuel(duel.planted).slowdown)
            for arm, (name, duel) in zip(others, going.items(), strict=True)
        ),
    )
    date, commit = _now(), machine.stack.commit
    busy = tuple(caution.found for caution in machine.cautions)

    def with_launches(key: ComparisonKey, launches: Sequence[Launch]) -> PowerDuel:
        duel = going[key[1]]
        new = (recorded(PlantedDuel(duel.planted).named(launch)) for launch in launches)
        return replace(duel, launches=(*duel.launches, *new))

    def settled(states: States) -> frozenset[ComparisonKey]:
        return frozenset(
            key
            for key, one in states.items()
            if one.failure is None and (late() or not is_open(with_launches(key, one.launches), policy))
        )

    def whole(states: States) -> list[PowerDuel]:
        found = {key[1]: with_launches(key, one.launches) for key, one in states.items()}
        return [
            _ended(duel, found[name], date, commit, busy, policy)
            if name in found and found[name].launches != duel.launches
            else duel
            for name, duel in named.items()
        ]

    def keep(states: States) -> None:
        found = whole(states)
        if all(len(duel.launches) >= policy.min_launches for duel in found):
            launched(found)

    arms, processes = memory.fit(arms, (workload,), {}, machine.root, machine.chip)
    fewest = policy.min_launches - min((len(duel.launches) for duel in going.values()), default=0)
    budget_s = max(duel.budget_s - duel.measured_s for duel in going.values())
    rules = Rules(budget_s, max(1, fewest), most_candidates=max(processes - 1, 1))
    pairs = launch_pairs(policy, replace(rules, budget_s=duels[0].budget_s, min_launches=policy.min_launches))
    jobs = [job(workload, {}, machine.root)]
    states = measure_all(jobs, arms, machine.tools, rules, settled=settled, pairs=pairs, launched=keep)
    for one in states.values():
        if isinstance(one.failure, PerfError):
            raise one.failure
    return whole(states)


def _ended(
    begun: PowerDuel, duel: PowerDuel, date: str, commit: str | None, busy: tuple[str, ...], policy: Policy
) -> PowerDuel:
    found, cautions = _judged(duel, policy), (*begun.cautions, *busy)
    if begun.launches and begun.commit != commit:
        cautions = (*cautions, f"its first {len(begun.launches)} launches are of commit {begun.commit or 'unknown'}")
    return replace(
        duel, date=date, commit=commit, verdict=found.verdict.value, effect=found.effect, low=found.low,
        high=found.high, cautions=tuple(dict.fromkeys(cautions)),
    )  # fmt: skip


def _judged(duel: PowerDuel, policy: Policy) -> Judgement:
    return judge(launch_estimates(duel.launches), policy, budget_s=duel.budget_s, budget_spent=_spent(duel))


def _spent(duel: PowerDuel) -> bool:
    return next_s(duel.measured_s, len(duel.launches)) > duel.budget_s - duel.measured_s


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def launch_estimates(launches: Sequence[PowerLaunch]) -> tuple[LaunchEstimate, ...]:
    """Reduce recorded launches as the judge reads them. Raises InvalidError for times that are not positive."""
    return by_shape(
        [estimate(one.baseline_s, one.candidate_s, steps=one.steps_s, seconds=one.seconds) for one in launches]
    )


def recorded(launch: Launch) -> PowerLaunch:
    """Return what is kept of a launch: times, rounded to 100 ns."""
    steps = tuple(tuple(_rounded(block) for block in launch.step_s(arm)) for arm in ARMS)
    return PowerLaunch(
        launch.seconds,
        _rounded(launch.tpot_s(ARMS[0])),
        _rounded(launch.tpot_s(ARMS[1])),
        steps if all(steps) else (),
    )


def _rounded(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(time, 7) for time in times)
