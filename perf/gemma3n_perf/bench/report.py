"""From a session's measurements and comparisons to the report that its user reads."""

import statistics
from collections.abc import Sequence

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.report import describe
from gemma3n_perf.report.rows import UNMEASURED, Notice, Reference, Report, Row
from gemma3n_perf.stats.estimates import throughput_interval
from gemma3n_perf.store.files import SHORT_COMMIT
from gemma3n_perf.store.published import Publication, references_for
from gemma3n_perf.workload.workload import Workload

SHOWN_TRIPWIRES = 6


def build(
    chip: Chip,
    stack: Stack,
    compared: Sequence[Compared],
    *,
    asked: bool,
    missing: Sequence[tuple[str, str]] = (),
    published: Sequence[Publication] = (),
    notices: Sequence[Notice] = (),
    planted: float = 0.0,
) -> Report:
    """Lay out one session. ``asked`` says whether a comparison was wanted; ``missing`` are workloads that were not
    measured, each with the reason.
    """
    rows = [row(one, asked=asked) for one in compared]
    rows += [Row(name, verdict="not-measured", baseline_label=UNMEASURED, note=reason) for name, reason in missing]
    found = [*notices]
    for one in compared:
        found += _notices(one, asked=asked)
    return Report(
        heading=f"{describe.chip(chip)}; {describe.stack(stack)}; {_commit(stack)}",
        rows=tuple(rows),
        notices=tuple(dict.fromkeys(found)),
        references=tuple(_references(published, chip, stack, [one.measurement for one in compared])),
        planted=planted,
    )


def _commit(stack: Stack) -> str:
    if stack.commit is None:
        return "commit unknown"
    return f"commit {stack.commit[:SHORT_COMMIT]}{' with uncommitted changes' if stack.dirty else ''}"


def row(compared: Compared, *, asked: bool) -> Row:
    """One line of the table. The throughput's interval is over the runs of this session."""
    one, judgement = compared.measurement, compared.judgement
    speed = throughput_interval([run.tpot_s for run in one.runs])
    tpot = one.session_tpot_s
    floor = one.streamed_bytes / one.copy_bandwidth if one.copy_bandwidth else None
    return Row(
        workload=one.workload,
        tokps=1 / tpot,
        tokps_low=speed.low if len(one.runs) > 1 else None,
        tokps_high=speed.high if len(one.runs) > 1 else None,
        tpot_s=tpot,
        ttft_s=statistics.median(one.ttft_s) if one.ttft_s else None,
        floor_share=floor / tpot if floor is not None else None,
        change=judgement.effect if asked else None,
        change_low=judgement.low if asked else None,
        change_high=judgement.high if asked else None,
        verdict=judgement.verdict.value if asked else None,
        baseline_label=compared.label if asked else "",
        note=one.soft_tokens or "",
    )


def _notices(compared: Compared, *, asked: bool) -> list[Notice]:
    one = compared.measurement
    found = []
    if one.discarded:
        reasons = ", ".join(sorted({fault for run in one.discarded for fault in run.faults}))
        found.append(
            Notice(
                f"{one.workload}: {len(one.discarded)} runs were discarded ({reasons}), {len(one.runs)} count",
                "close what else runs on this machine; gemma3n-perf chip shows its present state",
            )
        )
    if not one.prefill_reproducible:
        found.append(
            Notice(
                f"{one.workload}: prefilling one prompt twice gave different first tokens: a prefill kernel of this "
                "MLX is not reproducible",
                "its TTFT times work that may be wrong; decode repeats exactly from its fixed position and stands",
            )
        )
    if one.soft_tokens == "forged soft tokens":
        found.append(
            Notice(
                f"{one.workload}: its image is 256 forged soft tokens, not a vision tower's",
                "use e2b-4bit or larger to measure the tower",
            )
        )
    if not asked:
        return found
    judgement = compared.judgement
    verdict = judgement.verdict.value
    if verdict not in ("no-change", "win"):
        found.append(Notice(f"{one.workload}: {verdict}: {judgement.reason}", _REMEDY[verdict]))
    if compared.tripwires:
        shown = "; ".join(compared.tripwires[:SHOWN_TRIPWIRES])
        rest = len(compared.tripwires) - SHOWN_TRIPWIRES
        found.append(
            Notice(
                f"{one.workload}: exact counts changed: {shown}{f'; and {rest} more' if rest > 0 else ''}",
                "if that is intended, record a new baseline; if not, look at the change that did it",
            )
        )
    found += [Notice(f"{one.workload}: {caution.found}", caution.remedy) for caution in compared.cautions]
    return found


_REMEDY = {
    "loss": "find the change that did it: gemma3n-perf bisect GOOD BAD",
    "inconclusive": "duel the two versions, which tells far smaller changes: gemma3n-perf duel ref:BASELINE here",
    "not-measured": "record a baseline here: gemma3n-perf baseline save, then gemma3n-perf baseline promote",
    "invalid": "make both sides decode the same tokens of the same checkpoint, then measure again",
}


def _references(
    published: Sequence[Publication], chip: Chip, stack: Stack, measurements: Sequence[Measurement]
) -> list[Reference]:
    found = []
    for one in measurements:
        workload = Workload.parse(one.workload)
        for reference in references_for(published, chip, workload.checkpoint, workload.modality, knobs=stack.knobs):
            figure = reference.figure
            found.append(Reference(one.workload, figure.tokps, reference.engine, figure.chip, reference.source))
    return found
