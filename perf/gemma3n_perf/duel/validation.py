"""A campaign of duels of known truth: what is added to it, made of it, and judged of it again."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.arms import parse, parts
from gemma3n_perf.duel.record import DuelRecord
from gemma3n_perf.duel.run import Here
from gemma3n_perf.duel.validation_record import HERE, SCHEMA, PowerDuel, PowerHead, PowerRecord
from gemma3n_perf.duel.validation_round import PlantedDuel, launch_estimates, recorded
from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import noise

_OF_HERE = ("fusion:", "env:", "engine:")


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
        found.verdict.value, found.effect, found.low, found.high, tuple(recorded(launch) for launch in one.raw),
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
