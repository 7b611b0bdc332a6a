"""What a duel prints: the verdict in a sentence, a table of the workloads, and every caution with its remedy."""

import io
import re
from collections.abc import Mapping

from rich.table import Table

from gemma3n_perf.report import units
from gemma3n_perf.report.terminal import frame, laid_out
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict

WORST_FIRST = (
    Verdict.INVALID,
    Verdict.LOSS,
    Verdict.NOT_MEASURED,
    Verdict.INCONCLUSIVE,
    Verdict.WIN,
    Verdict.NO_CHANGE,
)
"""Which workload's verdict decides the exit code of a duel over several."""

_COMMIT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28}\b")


def deciding(judgements: Mapping[str, Judgement]) -> str:
    """Return the workload whose verdict decides: the first of the worst."""
    return min(judgements, key=lambda name: WORST_FIRST.index(judgements[name].verdict))


def sentence(workload: str, judgement: Judgement, baseline: str, candidate: str) -> str:
    """Say in one sentence what was found: ``loss: CANDIDATE is 2.00 % slower than BASELINE ...``."""
    effect, verdict = judgement.effect, judgement.verdict
    if verdict in (Verdict.NOT_MEASURED, Verdict.INVALID) or effect is None:
        return f"{verdict}: {workload}: {judgement.reason}"
    size = f"{100 * abs(effect):.2f} %"
    how = {Verdict.WIN: f"{size} faster than", Verdict.LOSS: f"{size} slower than", Verdict.NO_CHANGE: "as fast as"}
    found = f"it cannot be told whether {candidate} is faster or slower than {baseline}"
    found = f"{candidate} is {how[verdict]} {baseline}" if verdict in how else found
    return f"{judgement.word}: {found} on {workload}: {judgement.reason}"


def interval(judgement: Judgement) -> str:
    """Return ``-2.00 % [-2.61, -1.38]``; a dash where nothing is known."""
    return units.effect(judgement.effect, judgement.low, judgement.high)


def exit_code(judgements: Mapping[str, Judgement], ttfts: Mapping[str, Judgement]) -> int:
    """Return the code of the deciding workload; a loss of TTFT alone is one too, and nothing else of TTFT decides."""
    verdict = judgements[deciding(judgements)].verdict
    loses = any(one.verdict is Verdict.LOSS for one in ttfts.values())
    return Verdict.LOSS.exit_code if loses and verdict is not Verdict.INVALID else verdict.exit_code


def render(
    judgements: Mapping[str, Judgement], baseline: str, candidate: str, ttfts: Mapping[str, Judgement] | None = None
) -> str:
    """Return all that a duel has to say, of ``ttfts`` too, at most 118 columns wide where names allow."""
    out = io.StringIO()
    for name, judgement in judgements.items():
        out.write(sentence(name, judgement, baseline, candidate) + "\n")
    for name, judgement in (ttfts or {}).items():
        out.write(f"TTFT: {sentence(f'prefill of {name}', judgement, baseline, candidate)}\n")
    out.write(_table(judgements))
    seen: list[str] = []
    for name, judgement in judgements.items():
        for caution in judgement.cautions:
            if caution.found not in seen:
                seen.append(caution.found)
                where = f"{name}: " if len(judgements) > 1 and caution.code not in ("dirty", "planted") else ""
                out.write(f"caution: {where}{caution.found}\n  next: {caution.remedy}\n")
    return _COMMIT.sub(r"\1", out.getvalue())


def _table(judgements: Mapping[str, Judgement]) -> str:
    level = max(judgement.level for judgement in judgements.values())
    table = Table(box=frame(), pad_edge=False)
    table.add_column("workload")
    for title in (f"effect [{100 * level:.4g} %]", "launches", "measured", "noise floor"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, one in judgements.items():
        floor = f", {100 * one.noise_floor:.2f} %" if one.noise_floor is not None else ""
        measured = f"{one.measured_s:.0f} s"
        status = "not calibrated" if one.noise is NoiseStatus.MISSING else one.noise.value
        noise = "-" if one.effect is None else status + floor
        table.add_row(name, interval(one), str(one.launches), measured, noise, one.word)
    return laid_out(table, dense=True)
