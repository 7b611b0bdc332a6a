"""Duels of known truth, many at once: the adapter behind ``gemma3n-perf validate``.

Every duel of a round has blocks, looks and a budget of its own; they share the launches, and the baseline's process.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.duel import memory
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.arms import parse, parts
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.launch_plan import launch_pairs
from gemma3n_perf.duel.record import DuelRecord
from gemma3n_perf.duel.run import Here, job
from gemma3n_perf.duel.scheduler import ComparisonKey, ComparisonState, Rules, measure_all
from gemma3n_perf.duel.validation_record import HERE, SCHEMA, PowerDuel, PowerHead, PowerLaunch, PowerRecord
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.steps import by_shape, estimate
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.store import noise

_OF_HERE = ("fusion:", "env:", "engine:")


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


def round_of_duels(
    planted_duels: Sequence[PlantedDuel],
    workload: str,
    budget_s: float,
    machine: Here,
    *,
    number: int,
    policy: Policy | None = None,
    arm: str = HERE,
    late: Callable[[], bool] = lambda: False,
) -> list[PowerDuel]:
    """Measure all duels through the same launches, each until its verdict or its budget's end; both arms are ``arm``.

    Once it is ``late``, duels that have their fewest launches have no more.

    The caller holds the measuring lock. Raises UsageError, and the error of a duel that failed.
    """
    if not planted_duels:
        raise UsageError("no effects to plant", expected="for instance --effects 0 2 -2")
    policy = policy or Policy()
    both = parse(arm)
    first, *others = machine.builder.build(both, [both for _ in planted_duels], same=None)
    arms: tuple[ReadyArm, ...] = (
        first,
        *(
            replace(arm, name=f"{i}:{planted_duel.planted:+.4g}", planted=planted_duel.slowdown)
            for i, (arm, planted_duel) in enumerate(zip(others, planted_duels, strict=True))
        ),
    )
    by_name = dict(zip((arm.name for arm in arms[1:]), planted_duels, strict=True))

    def judged(key: ComparisonKey, one: ComparisonState) -> Judgement:
        planted_duel = by_name[key[1]]
        launches = estimates([planted_duel.named(launch) for launch in one.launches])
        return judge(launches, policy, budget_s=budget_s, budget_spent=one.spent)

    def settled(state: Mapping[ComparisonKey, ComparisonState]) -> frozenset[ComparisonKey]:
        return frozenset(key for key, one in state.items() if late() or should_stop(judged(key, one)))

    arms, processes = memory.fit(arms, (workload,), {}, machine.root, machine.chip)
    rules = Rules(budget_s, policy.min_launches, most_candidates=max(processes - 1, 1))
    jobs = [job(workload, {}, machine.root)]
    state = measure_all(jobs, arms, machine.tools, rules, settled=settled, pairs=launch_pairs(policy, rules))
    for one in state.values():
        if isinstance(one.failure, PerfError):
            raise one.failure
    date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    busy, measured = tuple(caution.found for caution in machine.cautions), list[PowerDuel]()
    for key, one in state.items():
        planted_duel, found = by_name[key[1]], judged(key, one)
        launches = tuple(_launch(planted_duel.named(launch)) for launch in one.launches)
        duel = PowerDuel(
            date, machine.stack.commit, number, planted_duel.planted, planted_duel.truth, budget_s,
            found.verdict.value, found.effect, found.low, found.high, launches, arm, busy,
        )  # fmt: skip
        measured.append(duel)
    return measured


def adopted(record: DuelRecord, number: int) -> PowerDuel:
    """Make round ``number`` of a duel that was measured alone: of this tree against itself, with a plant or without.

    Raises UsageError for a duel whose truth is not known, of several workloads, or that measured nothing.
    """
    planted_duel = _planted_duel(record)
    if len(record.duels) != 1:
        raise UsageError(f"{len(record.duels)} workloads", expected="one: rates of two workloads do not mix")
    (one,) = record.duels
    found = one.judgement
    if not one.raw or found.verdict in (Verdict.NOT_MEASURED, Verdict.INVALID):
        raise UsageError(
            f"{one.workload} was not measured: {found.reason}", expected="a duel that ended with a verdict"
        )
    return PowerDuel(
        record.date, record.stacks[ARMS[0]].commit, number, planted_duel.planted, planted_duel.truth, record.budget_s,
        found.verdict.value, found.effect, found.low, found.high, tuple(_launch(launch) for launch in one.raw),
        arm_of(record.arms[ARMS[0]]), tuple(caution.found for caution in found.cautions if caution.code == "busy"),
    )  # fmt: skip


def arm_of(text: str) -> str:
    """Name what an arm of a campaign is made of, its plant aside: ``here``, or fusions, variables and engines of here.

    Raises UsageError for one that is not this tree in this environment.
    """
    found = [part for part in parts(text) if part != HERE and not part.startswith("plant:")]
    if not all(part.startswith(_OF_HERE) for part in found):
        raise UsageError(f"the arm {text}", expected=f"here, or {', '.join(f'{kind}...' for kind in _OF_HERE)}")
    parse(text)
    return "+".join(found) or HERE


def _planted_duel(record: DuelRecord) -> PlantedDuel:
    slowed = [record.planted[arm] for arm in ARMS]
    if len({arm_of(record.arms[arm]) for arm in ARMS}) > 1 or record.sessions != 1 or min(slowed) < 0 or all(slowed):
        raise UsageError(
            f"{record.arms[ARMS[0]]} against {record.arms[ARMS[1]]}, {record.sessions} session(s)",
            expected="an arm against itself in one session: here here --aa, or here here+plant:+2%",
        )
    return PlantedDuel(slowed[1] if slowed[1] else 1 / (1 + slowed[0]) - 1)


def _launch(launch: Launch) -> PowerLaunch:
    steps = tuple(tuple(_rounded(block) for block in launch.step_s(arm)) for arm in ARMS)
    return PowerLaunch(
        launch.seconds,
        _rounded(launch.tpot_s(ARMS[0])),
        _rounded(launch.tpot_s(ARMS[1])),
        steps if all(steps) else (),
    )


def _rounded(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(time, 8) for time in times)


def head(workload: str, machine: Here) -> PowerHead:
    """Return what a campaign begun here has in common."""
    return PowerHead(SCHEMA, machine.chip, workload, machine.stack)


def head_of(record: DuelRecord) -> PowerHead:
    """Return what a campaign has in common that begins with a duel measured alone."""
    return PowerHead(SCHEMA, record.chip, record.workload, record.stacks[ARMS[0]])


def calibration(record: PowerRecord) -> noise.NoiseRecord:
    """Make a calibration of a campaign's A/A duels, one a round: those of a round share their processes.

    Only those count that recorded their steps as the last one did, and whose arms have no fusion: others have another
    spread. Raises UsageError for fewer than two, and for duels that stopped before their budget: those that stop at
    what they see show too little noise.
    """
    alike = [one for one in record.duels if not one.planted and one.arm == HERE]
    with_steps = [all(launch.steps_s for launch in one.launches) for one in alike]
    alike = [one for one, has in zip(alike, with_steps, strict=True) if has == with_steps[-1]]
    kept = list({one.round: one for one in reversed(alike)}.values())[::-1]
    early = sum(one.verdict != Verdict.INCONCLUSIVE.value for one in alike)
    if early or len(kept) < 2:
        found = f"{early} of {len(alike)} A/A duels ended with an answer" if early else f"{len(kept)} A/A duel(s)"
        raise UsageError(
            f"the campaign of {record.head.chip.chip_class}: {found}",
            expected="A/A duels of two rounds or more, each of which used its budget",
            remedy="gemma3n-perf calibrate, on a machine of the class",
        )
    duels = [noise.aa_duel(record.head.workload, launch_estimates(one.launches)) for one in kept]
    cautions = tuple(dict.fromkeys(caution for one in kept for caution in one.cautions))
    return noise.calibration(duels, max(one.date for one in kept), record.head.chip, record.head.stack, cautions)


def launch_estimates(launches: Sequence[PowerLaunch]) -> tuple[LaunchEstimate, ...]:
    """Reduce recorded launches as the judge reads them. Raises InvalidError for times that are not positive."""
    return by_shape(
        [estimate(one.baseline_s, one.candidate_s, steps=one.steps_s, seconds=one.seconds) for one in launches]
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Recorded duels of one arm and truth, judged again: how many of each verdict, and how many verdicts changed."""

    arm: str
    truth: float
    duels: int
    verdicts: Mapping[str, int]
    changed: int


def judged_again(record: PowerRecord) -> list[Tally]:
    """Judge every duel of a record by today's rules, from its launches alone."""
    found = list[Tally]()
    for arm, truth in sorted({(one.arm, one.truth) for one in record.duels}):
        alike = [one for one in record.duels if (one.arm, one.truth) == (arm, truth)]
        said = [
            judge(launch_estimates(one.launches), Policy(), budget_s=one.budget_s, budget_spent=True).verdict.value
            for one in alike
        ]
        changed = sum(one.verdict != now for one, now in zip(alike, said, strict=True))
        found.append(Tally(arm, truth, len(alike), Counter(said), changed))
    return found
