"""From a session's measurements and comparisons to the report that its user reads."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gemma3n_perf.bench.comparison import SAME_PROGRAM, Compared
from gemma3n_perf.bench.table import UNKNOWN, Report, Row
from gemma3n_perf.decode.decoder import NOT_REPRODUCIBLE
from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.duel.report import interval
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import refusal
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.report import describe, units
from gemma3n_perf.stats.estimates import throughput_interval
from gemma3n_perf.stats.verdicts import Caution, Verdict
from gemma3n_perf.store.accepted import FOLDER
from gemma3n_perf.store.published import Publication, references_for
from gemma3n_perf.workload.workload import Workload

_REMEDY = {
    Verdict.LOSS: "look at what differs; of many commits or releases, gemma3n-perf bisect finds those that did it",
    Verdict.INCONCLUSIVE: "measure longer, on a quieter machine: gemma3n-perf duel {arm} here --budget 400",
    Verdict.NOT_MEASURED: "put right what it names, or compare with another arm: --against ARM",
    Verdict.INVALID: "make both sides decode the same tokens of the same checkpoint, then measure again",
}

_TTFT_REMEDY = {
    Verdict.LOSS: "look at what a prefill does since; gemma3n-perf profile shows where it spends its time",
    Verdict.INCONCLUSIVE: "decode stands; more launches tell more: gemma3n-perf duel {arm} here --budget 400",
    Verdict.NOT_MEASURED: "decode stands; compare with a newer commit, on a quiet machine",
    Verdict.INVALID: "decode stands; use an MLX whose prefill is right to measure TTFT",
}


def build(
    chip: Chip,
    stack: Stack,
    compared: Sequence[Compared],
    *,
    requested: bool,
    missing: Mapping[str, str] | None = None,
    published: Sequence[Publication] = (),
    cautions: Sequence[Caution] = (),
    planted: float = 0.0,
    against: str = "",
    arm: str = "",
) -> Report:
    """Lay out one session. ``requested`` says whether a comparison was, ``against`` with what, and ``arm`` its arm;
    ``missing`` has the reason of each workload that was not measured.
    """
    rows = [row(one, requested=requested) for one in compared]
    rows += [Row(name, verdict=Verdict.NOT_MEASURED, note=reason) for name, reason in (missing or {}).items()]
    found = [*cautions, *(caution for one in compared for caution in _cautions(one, arm, requested=requested))]
    references = []
    for one in compared:
        workload = Workload.parse(one.workload)
        figures = references_for(published, chip, workload.checkpoint, workload.modality, knobs=stack.knobs)
        references += [(str(workload), figure) for figure in figures]
    return Report(
        heading=f"{describe.chip(chip)}; {describe.stack(stack)}; commit {describe.commit(stack)}",
        rows=tuple(rows),
        cautions=tuple(dict.fromkeys(found)),
        references=tuple(references),
        planted=planted,
        against=against,
    )


def row(compared: Compared, *, requested: bool) -> Row:
    """One line of the table. The throughput's interval is over the runs of this session."""
    one, judgement = compared.measurement, compared.judgement
    measured = Row(compared.workload)
    if one is not None:
        tpot = one.session_tpot_s
        measured = Row(
            workload=one.workload,
            tokps=1 / tpot,
            tokps_interval=throughput_interval([run.tpot_s for run in one.runs]) if len(one.runs) > 1 else UNKNOWN,
            tpot_s=tpot,
            ttft_s=statistics.median(one.ttft_s) if one.ttft_s else None,
            floor_share=one.streamed_bytes / one.copy_bandwidth / tpot if one.copy_bandwidth else None,
            note=one.soft_tokens or "",
        )
    notes = [compared.stored, measured.note]
    if compared.ttft is not None and compared.ttft.verdict.decided:
        effect = units.effect(compared.ttft.effect, compared.ttft.low, compared.ttft.high, 1)
        notes.append(f"TTFT: {compared.ttft.word}, speed of prefill {effect}")
    if not requested:
        return replace(measured, note="; ".join(filter(None, notes)))
    if compared.is_same_program:
        notes.insert(0, f"{judgement.verdict}: {SAME_PROGRAM}")
    return replace(
        measured,
        change=None if compared.is_same_program else judgement.effect,
        change_interval=(judgement.low, judgement.high),
        verdict=judgement.verdict,
        word=judgement.word,
        ttft=compared.ttft.verdict if compared.ttft else None,
        note="; ".join(filter(None, notes)),
        differs=compared.causes if compared.is_explained else (),
    )


def _cautions(compared: Compared, arm: str, *, requested: bool) -> list[Caution]:
    judgement = compared.judgement
    found = list(_of_measurement(compared.measurement)) if compared.measurement else []
    accepted = compared.accepted
    named = f"baselines/{FOLDER}/{accepted.name}.toml accepts it: {accepted.why}" if accepted else ""
    if requested and judgement.verdict in _REMEDY:
        remedy = named if compared.is_accepted else _REMEDY[judgement.verdict].format(arm=arm)
        if accepted and not compared.is_accepted and judgement.verdict is Verdict.LOSS:
            remedy += f" (baselines/{FOLDER}/{accepted.name}.toml accepts {units.percent(accepted.effect, 1)})"
        found.append(Caution(judgement.verdict, f"{judgement.verdict}: {judgement.reason}", remedy))
    if requested and compared.ttft is not None and compared.ttft.verdict in _TTFT_REMEDY:
        ttft = compared.ttft
        found.append(
            Caution("ttft", f"TTFT: {ttft.verdict}: {ttft.reason}", _TTFT_REMEDY[ttft.verdict].format(arm=arm))
        )
    if requested and compared.rises:
        remedy = named or "show that it wins, have it accepted (docs/measuring.md), or undo the change that did it"
        found.append(Caution("counts-changed", f"exact counts rose: {'; '.join(compared.rises)}", remedy))
    if requested:
        found += compared.cautions
    return [replace(caution, found=f"{compared.workload}: {caution.found}") for caution in found]


def _of_measurement(one: Measurement) -> Iterator[Caution]:
    if one.discarded:
        reasons = ", ".join(sorted({fault for run in one.discarded for fault in run.faults}))
        yield Caution(
            "runs-discarded",
            f"{len(one.discarded)} runs were discarded ({reasons}), {len(one.runs)} count",
            "close what else runs on this machine; gemma3n-perf chip shows its present state",
        )
    if not one.prefill_reproducible:
        yield Caution(
            "prefill-differs",
            f"{NOT_REPRODUCIBLE}: a prefill kernel of this MLX is not reproducible",
            "its TTFT times work that may be wrong; decode repeats exactly from its fixed position and stands",
        )
    if one.soft_tokens == "forged soft tokens":
        yield Caution(
            "forged-soft-tokens",
            "its image is 256 forged soft tokens, not a vision tower's",
            "use e2b-4bit or larger to measure the tower",
        )


def evidence_lines(record: Evidence, path: Path) -> list[str]:
    """Sum up the evidence of a fusion: its verdict, each workload's, where it was written, and what to do next."""
    error = refusal(record)
    verdict = record.verdict if record.enabled else "off"
    dirty = " (measured with uncommitted changes: the gate will refuse it)" if record.dirty is not False else ""
    return [
        f"gemma3n-perf: {record.fusion} on {record.chip.chip_class}: {verdict}: {record.reason}",
        *(f"  {one.workload}: {interval(one.judgement)}, {one.judgement.verdict}" for one in record.workloads),
        f"  {path}{dirty}",
        *([f"  next: {error.remedy}"] if error else []),
    ]
