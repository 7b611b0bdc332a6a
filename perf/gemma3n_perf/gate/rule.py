"""The gate: a measured win on each required chip class, in every session, or no admission.

Opinion: the verdict that a piece of evidence states of itself is not read. Its launches are judged again here, all
cells of a change as one family, and whatever is missing, stale or odd refuses by its own name.
"""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gemma3n_perf.gate.change import PLUS, parts
from gemma3n_perf.gate.evidence import conflicting, objections, worst
from gemma3n_perf.gate.facts import Cell, Decision, EvidenceFacts, Objection, Ruling, WorkloadFacts
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.stats.estimates import by_session
from gemma3n_perf.stats.judge import judge, judge_session
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Judgement, Verdict, finite

_MEASURE = "pytest perf/ --fusion {name}, on a machine of class {chip_class}"
_Row = tuple[Cell, WorkloadFacts | None]
"""A cell, with its duel where that is left to judge."""


def rule(
    names: Sequence[str],
    evidence: Sequence[EvidenceFacts],
    policy: GatePolicy,
    *,
    today: dt.date,
    noise: Mapping[str, NoiseFloor] | None = None,
) -> Ruling:
    """Judge the evidence of every fusion and composition in ``names`` and say which may enter.

    A fusion answers for every required class, and for any other it brings evidence of that counts. A composition
    answers for the classes it brings evidence of, and enters only where each of its parts has entered: see
    docs/gate.md. ``noise`` are calibrated noise floors by class.
    """
    table: list[_Row] = []
    for name in names:
        there = [one.chip_class for one in evidence if one.fusion == name]
        required = () if PLUS in name and there else policy.required
        for chip_class in dict.fromkeys([*required, *there]):
            table += _lay_out(name, chip_class, evidence, policy, today)
    cells = _judged(table, policy, noise or {}, today)
    decisions: dict[str, Decision] = {}
    for name in sorted(names, key=lambda one: PLUS in one):
        decisions[name] = _decide(name, [cell for cell in cells if cell.fusion == name], decisions)
    return Ruling(tuple(decisions[name] for name in names), cells, policy.session_sd)


def best(ruling: Ruling, chip_class: str) -> str | None:
    """Return the admitted fusion or composition with the largest effect on a class, or None."""
    found = [one for one in ruling.decisions if one.admitted and chip_class in one.wins]
    return max(found, key=lambda one: one.wins[chip_class]).fusion if found else None


def goals(ruling: Ruling, policy: GatePolicy, chip_class: str) -> Iterator[str]:
    """Yield what the policy aims at on a class, as sentences, beside the largest win of each workload."""
    for workload, factor in policy.classes[chip_class].goals.items() if chip_class in policy.classes else ():
        cells = (cell for cell in ruling.cells if (cell.chip_class, cell.workload) == (chip_class, workload))
        wins = [(cell.effect, cell.fusion) for cell in cells if cell.verdict is Verdict.WIN and cell.effect is not None]
        effect, name = max(wins, default=(0.0, ""))
        reached = f"{name} has {1 + effect:.2f} times stock's throughput" if wins else "no fusion wins"
        met = "reached" if 1 + effect >= factor else "not reached"
        yield f"{workload} on {chip_class}: {reached}; the goal of {factor:g} times is {met}"


def _lay_out(
    name: str, chip_class: str, evidence: Sequence[EvidenceFacts], policy: GatePolicy, today: dt.date
) -> Iterator[_Row]:
    found = [one for one in evidence if (one.fusion, one.chip_class) == (name, chip_class)]
    required = policy.workloads(chip_class)
    measured = {one.workload: one for record in found for one in record.workloads}
    how = _MEASURE.format(name=name, chip_class=chip_class)
    against: Sequence[Objection] = ()
    if found:
        against = conflicting(found) if len(found) > 1 else objections(found[0], evidence, policy, today)
    for workload in list(dict.fromkeys([*required, *measured])) or ["any"]:
        needed = workload in required or chip_class not in policy.classes
        cell = Cell(name, chip_class, workload, Verdict.NOT_MEASURED, "", how, required=needed)
        one = measured.get(workload)
        if not found:
            cell = replace(cell, reason="there is no evidence of this class")
        elif against:
            first = worst(against)
            reason = "; ".join(each.found for each in against)
            # Nothing waits for another class, and what is stale says nothing of it.
            needed = needed and (chip_class in policy.required or first.verdict is not Verdict.NOT_MEASURED)
            cell = replace(cell, verdict=first.verdict, reason=reason, remedy=first.remedy, required=needed)
        elif found[0].off:
            reason = "off on this class, and the decode graph is unchanged there"
            cell = replace(cell, verdict=None, reason=reason, remedy="")
        elif one is None:
            what = "does not hold this workload" if workload in required else "holds no workload"
            cell = replace(cell, reason=f"the evidence of this class {what}")
        elif one.failure is not None:
            cell = replace(cell, verdict=one.failure.verdict, reason=one.failure.found, remedy=one.failure.remedy)
        else:
            yield cell, one
            continue
        yield cell, None


def _judged(
    table: Sequence[_Row], policy: GatePolicy, noise: Mapping[str, NoiseFloor], today: dt.date
) -> tuple[Cell, ...]:
    """Judge all open cells as one family by Holm's procedure, then ask whether each win repeats."""
    left = {_name(cell): (cell, facts) for cell, facts in table if facts is not None}

    def one(name: str, shares: int) -> Judgement:
        cell, facts = left[name]
        rules, floor = replace(policy.judging, shares=shares), noise.get(cell.chip_class)
        return judge(facts.launches, rules, budget_s=facts.budget_s, noise=floor, today=today, budget_spent=facts.spent)

    judged = step_down(list(left), one)
    return tuple(
        cell if facts is None else _repeated(cell, facts, judged[_name(cell)], policy, noise.get(cell.chip_class))
        for cell, facts in table
    )


def _name(cell: Cell) -> str:
    return f"{cell.fusion}|{cell.chip_class}|{cell.workload}"


def _repeated(
    cell: Cell, facts: WorkloadFacts, judgement: Judgement, policy: GatePolicy, noise: NoiseFloor | None
) -> Cell:
    """A win counts where so many sessions show it, each by itself."""
    sessions = by_session(facts.launches)
    alone = [judge_session(launches, policy.judging, noise) for launches in sessions]
    again = f"measure {policy.sessions} sessions in one go: {cell.remedy}"
    longer = f"measure longer: pytest perf/ --fusion {cell.fusion} --budget {2 * facts.budget_s:.0f}"
    cell = replace(
        cell, verdict=judgement.verdict, reason=judgement.reason,
        remedy="" if judgement.verdict.decided else longer,
        effect=judgement.effect, low=finite(judgement.low), high=finite(judgement.high),
        sessions=tuple(one.effect or 0.0 for one in alone),
    )  # fmt: skip
    if judgement.verdict.is_claim and facts.doubt is not None:
        return replace(cell, verdict=Verdict.INCONCLUSIVE, reason=facts.doubt, remedy=again)
    if judgement.verdict is not Verdict.WIN:
        return cell
    if len(sessions) < policy.sessions:
        found = f"measured in {len(sessions)} session only, and a win must repeat in {policy.sessions}"
        return replace(cell, verdict=Verdict.NOT_MEASURED, reason=found, remedy=again)
    won = [number for number, one in enumerate(alone, start=1) if one.verdict is Verdict.WIN]
    if len(won) < len(alone):
        seen = f"only in session {', '.join(map(str, won))} of {len(alone)}" if won else "in no session by itself"
        return replace(cell, verdict=Verdict.INCONCLUSIVE, reason=f"all sessions together win, {seen}", remedy=again)
    return cell


def _decide(name: str, cells: Sequence[Cell], before: Mapping[str, Decision]) -> Decision:
    reasons = _reasons(cells)
    wins = {
        chip_class: _mean([cell.effect or 0.0 for cell in cells if cell.chip_class == chip_class and cell.required])
        for chip_class in dict.fromkeys(cell.chip_class for cell in cells)
        if any(cell.chip_class == chip_class and cell.verdict is Verdict.WIN for cell in cells)
    }
    if not reasons and not wins:
        found = f"{name}: off on every class that was looked at, so it wins nowhere"
        off = Objection(Verdict.NO_CHANGE, found, "enable it where it wins, or leave it out")
        reasons = _reasons([replace(cell, required=True) for cell in cells]) or [off]
    for part in parts(name) if PLUS in name else ():
        one = before.get(part)
        if one is None or not one.admitted:
            why = Verdict.NOT_MEASURED if one is None else worst(one.reasons).verdict
            reasons.append(Objection(why, f"{name}: its part {part} was not admitted", f"see {part}, or leave it out"))
    return Decision(name, not reasons, tuple(reasons), {} if reasons else wins)


def _reasons(cells: Sequence[Cell]) -> list[Objection]:
    """One reason for all workloads of a class that share it."""
    groups: dict[tuple[str, Verdict, str, str], list[str]] = {}
    for cell in cells:
        if cell.refuses and cell.verdict is not None:
            groups.setdefault((cell.chip_class, cell.verdict, cell.reason, cell.remedy), []).append(cell.workload)
    found = []
    for (chip_class, verdict, reason, remedy), workloads in groups.items():
        everything = workloads == [cell.workload for cell in cells if cell.chip_class == chip_class]
        where = chip_class if everything else f"{chip_class}, {', '.join(workloads)}"
        found.append(Objection(verdict, f"{cells[0].fusion} on {where}: {reason}", remedy, chip_class))
    return found


def _mean(effects: Sequence[float]) -> float:
    """Effects average as ratios do."""
    return math.expm1(math.fsum(math.log1p(one) for one in effects) / len(effects)) if effects else 0.0
