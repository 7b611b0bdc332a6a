"""The last job of the gate: artifacts in, one result out, as a comment, a summary and an exit code.

The comment is made for a phone: the verdict first, then a narrow table, then what to do. Where nothing was measured,
writing it needs nothing but Python itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf.ci.plan import Plan, State, read_classes
from gemma3n_perf.ci.post import MARKER
from gemma3n_perf.errors import NotMeasuredError, PerfError
from gemma3n_perf.gate.change import Checkout, touched
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.report.markdown import plain

if TYPE_CHECKING:
    from gemma3n_perf.bench.regression_rule import RegressionRuling
    from gemma3n_perf.gate.admission import AdmissionResult
    from gemma3n_perf.gate.facts import Objection
    from gemma3n_perf.gate.policy import GatePolicy
    from gemma3n_perf.store.accepted import Accepted


@dataclass(frozen=True, slots=True)
class Comment:
    """The comment's text, and the exit code of the job that must pass."""

    text: str
    exit_code: int


def unplanned(error: PerfError, exit_code: int) -> Comment:
    """Return the comment for a change that could not even be planned, as with a policy file that has a typo."""
    head = "not-measured: the gate could not be prepared"
    return Comment(f"{MARKER}\n### {head}\n\n{plain(str(error))}\n", exit_code)


def unmeasured(plan: Plan, links: Mapping[str, str]) -> Comment:
    """Return the comment for a change with nothing to gate, exit 0, or one that may not be measured yet, exit 4."""
    nothing = plan.state is State.NOTHING
    parts = [f"{plain(plan.reason)}.", *([f"Next: {plain(plan.remedy)}"] if plan.remedy else [])]
    head = "nothing to gate" if nothing else "not-measured: waiting for approval"
    return Comment(_joined(head, parts, plan, links), 0 if nothing else NotMeasuredError.exit_code)


def judged(
    plan: Plan,
    links: Mapping[str, str],
    here: Checkout,
    log: TextIO,
    *,
    artifacts: Path,
    jobs: Path,
    policy: Path,
    run_id: str,
    out: Path,
) -> Comment:
    """Gather the evidence, put it to the gate and return what it says; ``log`` takes what a terminal would show.

    ``jobs`` is what the API says of the run's jobs, ``policy`` the trusted one. Evidence and the gate's JSON are
    written under ``out``. Raises what ``artifacts.read_jobs`` and the policy's reader raise, NotMeasuredError where the
    gate cannot judge.
    """
    from gemma3n_perf.bench import regression_report
    from gemma3n_perf.bench.regression_rule import CODES
    from gemma3n_perf.ci.artifacts import gather, read_jobs
    from gemma3n_perf.gate import admission, report
    from gemma3n_perf.stats.verdicts import Verdict
    from gemma3n_perf.store.files import write_over

    classes, evidence, rules = read_classes(policy), out / "evidence", read_policy(policy)
    sent = [one for one in classes if one.name in {each.name for each in plan.classes}]
    problems = gather(artifacts, read_jobs(jobs), sent, run_id, plan.pull.head, evidence)
    evidence.mkdir(parents=True, exist_ok=True)
    change = touched(plan.pull.base, here.repository, here.baselines)
    try:
        # Without a fusion in it, nothing of the change is imported.
        result = admission.gate(here, rules, change, (evidence,)) if change.files else admission.AdmissionResult()
    except PerfError as error:
        raise NotMeasuredError(
            f"gemma3n-perf gate gave no result (exit code {error.exit_code}): {error.found}",
            expected=error.expected or "evidence and a policy that can be read",
            remedy=error.remedy or "see what it says in this job's log",
        ) from error
    write_over(out / "gate.json", report.as_json(result.ruling, result.notes))
    report.write(result.ruling, result.notes, log)
    required = {one.name for one in classes if one.required} if change.files else set[str]()
    # Of a change without fusions, base against head says what its classes lack.
    spoilt = [one for one in problems if one.verdict is Verdict.INVALID and (change.files or one.chip_class is None)]
    missing = [one for one in problems if one.chip_class in required or one in spoilt]
    compared, accepted, earlier = compare(plan, rules, here, evidence, problems)
    write_over(out / "regression.json", regression_report.as_json(compared))
    codes = {result.ruling.exit_code, compared.exit_code, *(one.verdict.exit_code for one in missing)}
    text = rendered(result, plan, missing, links, compared, accepted, earlier)
    return Comment(text, min(codes, key=CODES.index))


def compare(
    plan: Plan, policy: "GatePolicy", here: Checkout, evidence: Path, problems: Sequence["Objection"]
) -> tuple["RegressionRuling", Sequence["Accepted"], Sequence["Accepted"]]:
    """Judge base against head on the classes where the program changes.

    Returns with the ruling what is accepted of this change, and of changes before it. ``problems`` are of classes that
    brought nothing. Raises MalformedRecordError for a file of what is accepted.
    """
    from gemma3n_perf.bench.outcome import in_force
    from gemma3n_perf.bench.regression import REGRESSIONS, Regression
    from gemma3n_perf.bench.regression_rule import rule_on
    from gemma3n_perf.ci.artifacts import COMPARISON
    from gemma3n_perf.store.accepted import read_accepted

    base, every = here.repository.fork(plan.pull.base), read_accepted(here.baselines)
    accepted = in_force(every, here.repository, base)

    def find(name: str) -> "Regression | Objection":
        lost = next((one for one in problems if one.chip_class == name), None)
        return lost or REGRESSIONS.read(evidence / name / COMPARISON)

    ruling = rule_on(plan.programs, find, (base, plan.pull.head), policy, here.baselines, accepted, here.today)
    return ruling, accepted, tuple(one for one in every if one not in accepted)


def rendered(
    result: "AdmissionResult",
    plan: Plan,
    missing: Sequence["Objection"] = (),
    links: Mapping[str, str] | None = None,
    compared: "RegressionRuling | None" = None,
    accepted: Sequence["Accepted"] = (),
    earlier: Sequence["Accepted"] = (),
) -> str:
    """Return the comment for the gate's result and what base against head says.

    ``missing`` are objections to classes that brought no evidence; maintainers ``accepted`` some of this change, and
    ``earlier`` some of others.
    """
    from gemma3n_perf.bench import regression_report
    from gemma3n_perf.gate import report

    heads, parts = [], list[str]()
    if compared is not None and compared.classes:
        heads.append(compared.closing)
        parts += regression_report.markdown(compared, accepted, earlier)
    if result.ruling.decisions or missing or not heads:
        heads.append(report.closing(result.ruling, missing))
        parts += report.markdown(result.ruling, result.notes, facts=result.facts, missing=missing)
    heads.sort(key=lambda head: not head.startswith("refused"))
    return _joined(plain("; ".join(heads)), parts, plan, links or {})


def _joined(head: str, parts: Sequence[str], plan: Plan, links: Mapping[str, str]) -> str:
    found = [f"{MARKER}\n### {head}", *parts]
    if plan.harness:
        names = ", ".join(plain(name, 80) for name in plan.harness[:3])
        more = f" and {len(plan.harness) - 3} more" if len(plan.harness) > 3 else ""
        found.append(f"This change also edits what measures or judges ({names}{more}): read that first.")
    linked = [f"[{name}]({url})" for name, url in links.items()]
    found.append(" · ".join([f"commit {plain(plan.pull.head[:12])}", *linked]))
    return "\n\n".join(found) + "\n"
