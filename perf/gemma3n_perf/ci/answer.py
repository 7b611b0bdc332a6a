"""The last job of the gate: artifacts in, one answer out, as a comment, a summary and an exit code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.ci import comment
from gemma3n_perf.ci.plan import Plan, State
from gemma3n_perf.errors import InvalidError, NotMeasuredError

Gate = Callable[[Sequence[str]], int]
"""Runs ``gemma3n-perf gate`` with these arguments and returns its exit code."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the workflow: ``folder`` holds the artifacts, ``jobs`` what the API says of its jobs.

    ``policy`` is the trusted one. Evidence and the gate's JSON are written under ``out``.
    """

    folder: Path
    jobs: Path
    policy: Path
    run_id: str
    out: Path
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateResult:
    """The comment's text, and the exit code of the job that must pass."""

    text: str
    exit_code: int


def short(plan: Plan, links: Mapping[str, str]) -> GateResult:
    """Answer a change for which nothing was measured: 0 where there was nothing to, 4 where it may not be yet."""
    code = 0 if plan.state is State.NOTHING else NotMeasuredError.exit_code
    return GateResult(comment.without_measurement(plan, links), code)


def full(plan: Plan, run: Run, gate: Gate) -> GateResult:
    """Gather, put the evidence to the gate and render what it says.

    Raises what ``gather.read_jobs`` and the policy's reader raise; a gate that gives no answer is NotMeasuredError.
    """
    import msgspec

    from gemma3n_perf.ci.artifacts import Origin
    from gemma3n_perf.ci.classes import read_classes
    from gemma3n_perf.ci.gather import gather, read_jobs

    classes = read_classes(run.policy)
    evidence, ruling = run.out / "evidence", run.out / "gate.json"
    found = gather(run.folder, read_jobs(run.jobs), classes, Origin(run.run_id, plan.pull.head), evidence)
    evidence.mkdir(parents=True, exist_ok=True)
    argv = ["--base", plan.pull.base, "--policy", str(run.policy), "--json", str(ruling), str(evidence)]
    code = gate(argv)
    try:
        told: dict[str, Any] = msgspec.json.decode(ruling.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise NotMeasuredError(
            f"gemma3n-perf gate gave no answer (exit code {code})",
            expected="an answer as JSON",
            remedy="see what it says in this job's log",
        ) from error
    required = {one.name for one in classes if one.required}
    counts = [one for one in found.problems if one.chip_class in required or one.verdict == "invalid"]
    missing = [comment.Missing(one.chip_class, one.verdict, one.found, one.remedy) for one in counts]
    text = comment.answered(told, plan, shown(evidence), missing, run.links)
    return GateResult(text, _worst([code, *(5 if one.verdict == "invalid" else 4 for one in counts)]))


def shown(evidence: Path) -> list[comment.Shown]:
    """Return whether output and path were right, for each record of evidence that can be read."""
    from gemma3n_perf.gate.record import read

    found = []
    for path in sorted(evidence.glob("*/fusions/*.json")):
        try:
            record = read(path)
        except InvalidError:
            continue  # the gate names it, with what to do
        parity = [one.parity.passed and one.parity.finite for one in record.checked if one.parity is not None]
        ways = [
            one.dispatch.seen if record.enabled else not one.dispatch.changed for one in record.checked if one.dispatch
        ]
        name, chip_class = record.fusion, path.parent.parent.name
        found.append(comment.Shown(name, chip_class, all(parity) if parity else None, all(ways) if ways else None))
    return found


def _worst(codes: Sequence[int]) -> int:
    """The gate's own order: usage first, then invalid, loss, not measured, inconclusive."""
    order = (2, 5, 1, 4, 3, 0)
    return min(codes, key=lambda code: order.index(code) if code in order else -1)
