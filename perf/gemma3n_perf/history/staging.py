"""The results that are published: a copy of all that can be used, one series a chip class, and the names of the rest.

Opinion: asv must never meet a file that it cannot read, and must never see what would split a series: its own
``asv run`` records the Python version as an axis, an import does not.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import ENV, RATE, TIME, Entry, ResultFile
from gemma3n_perf.history.importing import Derived, Refusal


@dataclass(frozen=True, slots=True)
class Staged:
    """What was staged: the files used, those that were not, and what is to be said of those that were."""

    files: tuple[ResultFile, ...]
    machines: dict[str, dict[str, str]]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]


def read_all(results: Path) -> Staged:
    """Read every result below ``results``; results of one machine and commit become one file.

    Named and left out: files that do not parse, and all of a machine that has no sound ``machine.json``.
    """
    machines: dict[str, dict[str, str]] = {}
    refused: list[Refusal] = []
    notes: list[str] = []
    found: dict[tuple[str, str], ResultFile] = {}
    for folder in sorted({path.parent for path in asv_files.result_files(results)}):
        try:
            machines[folder.name] = asv_files.read_machine(folder)
        except MalformedRecordError as error:
            refused.append(Refusal(folder, error.found))
    for path in asv_files.result_files(results):
        if path.parent.name not in machines:
            continue
        try:
            one = asv_files.read_result(path)
        except MalformedRecordError as error:
            refused.append(Refusal(path, error.found))
            continue
        if one.machine != path.parent.name:
            refused.append(Refusal(path, f"{path}: results of machine {one.machine} in the folder of another"))
            continue
        if one.others:
            notes.append(f"{path.name}: {', '.join(sorted(one.others))} is no benchmark of this suite (renamed?); kept")
        if any(entry.version != "1" for entry in one.entries.values()):
            notes.append(f"{path.name}: measured by another version of the benchmark; left out")
            continue
        one = replace(one, params=dict(machines[one.machine]), env=ENV, others={})
        key = (one.machine, one.commit)
        found[key] = _joined(found[key], one) if key in found else one
    return Staged(tuple(found.values()), machines, tuple(refused), tuple(notes))


def stage(target: Path, staged: Staged, commits: Collection[str]) -> tuple[ResultFile, ...]:
    """Write what is published below ``target``; returns the files of ``commits`` among it."""
    disk = Derived()
    for axes in staged.machines.values():
        asv_files.write_machine(target, axes, disk)
    kept = tuple(one for one in staged.files if one.commit in commits)
    for one in kept:
        asv_files.write_result(target, one, disk)
    asv_files.write_benchmarks(target, workloads_of(kept), disk)
    return kept


def strangers(staged: Staged, commits: Collection[str]) -> tuple[str, ...]:
    """Say which results belong to commits that are not in the history: rebased away, or the clone is shallow."""
    away = sorted({(one.machine, one.commit) for one in staged.files if one.commit not in commits})
    return tuple(f"{machine}: {commit[:12]} is not in this history (rebased?); kept" for machine, commit in away)


def workloads_of(files: Iterable[ResultFile]) -> list[str]:
    """Return all workloads that the files hold values of."""
    return sorted({name for one in files for entry in one.entries.values() for name in entry.values})


def _joined(one: ResultFile, other: ResultFile) -> ResultFile:
    """Join two files of one commit: what the suite's own environment holds goes first, the other fills gaps."""
    first, second = (one, other) if len(_samples(one)) >= len(_samples(other)) else (other, one)
    entries = {}
    for name in (TIME, RATE):
        values = {
            **(second.entries[name].values if name in second.entries else {}),
            **(first.entries[name].values if name in first.entries else {}),
        }
        entries[name] = Entry(values, (first.entries.get(name) or second.entries[name]).started_at)
    return replace(first, entries=entries)


def _samples(one: ResultFile) -> list[float]:
    return [sample for entry in one.entries.values() for value in entry.values.values() for sample in value.samples]


def asv_configuration(repo: Path, results: Path, html: Path, branches: list[str], project: str) -> bytes:
    """Return an ``asv.conf.json`` for publishing what was staged."""
    document = {
        "version": 1,
        "project": project,
        "repo": str(repo),
        "branches": branches,
        "benchmark_dir": ".",
        "results_dir": str(results),
        "html_dir": str(html),
        "environment_type": "existing",
        "regressions_first_commits": {rf"{RATE.replace('.', chr(92) + '.')}.*": None},
    }
    return json.dumps(document, indent=4).encode() + b"\n"
