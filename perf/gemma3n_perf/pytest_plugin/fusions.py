"""``pytest perf/ --fusion NAME``: from the plugin's options to a session of evidence, and what is printed of it.

The registry and the checks are imported when a fusion is asked for, and not before: they bring MLX along.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from gemma3n_perf.duel.report import interval
from gemma3n_perf.errors import PerfError
from gemma3n_perf.fusions.registered import Registered
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import expand, refusal
from gemma3n_perf.pytest_plugin.options import Options

Kept = tuple[tuple[Evidence, Path], ...]


def fusions(options: Options) -> tuple[str, ...]:
    """The fusions and compositions asked for, ``all`` spelt out. Raises UsageError for an unknown one."""
    return expand(options.fusions, Registered()) if options.fusions else ()


def gather(options: Options, workloads: Sequence[str], sources: Mapping[str, str], err: TextIO) -> Kept:
    """Measure and write evidence; ``workloads`` count where a checkpoint, modality or shape was asked for."""
    from gemma3n_perf.gate import run as evidence_run

    chosen = options.checkpoints or options.modalities or options.shapes
    request = evidence_run.Request(
        fusions(options), tuple(workloads) if chosen else (), options.time_budget, dict(sources)
    )
    return evidence_run.run(request, options.baselines, err)


def described(kept: Kept) -> list[str]:
    """Lines for the end of the session: each record's verdict, its workloads' effects, and where it lies."""
    lines = []
    for record, path in kept:
        word = record.verdict if record.enabled else "off"
        lines.append(f"gemma3n-perf: {record.fusion} on {record.chip.chip_class}: {word}: {record.reason}")
        lines += [f"  {one.workload}: {interval(one.judgement)}, {one.judgement.verdict}" for one in record.workloads]
        dirty = " (measured with uncommitted changes: the gate will refuse it)" if record.dirty is not False else ""
        lines.append(f"  {path}{dirty}")
    return lines


def require_no_refusal(record: Evidence) -> None:
    """Raise what a record's verdict is, where that is a loss, invalid or not measured."""
    error: PerfError | None = refusal(record)
    if error is not None:
        raise error
