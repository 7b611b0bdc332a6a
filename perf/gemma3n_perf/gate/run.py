"""Evidence on this machine: the checks, the duels and the records behind ``pytest perf/ --fusion NAME``."""

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from gemma3n_perf.duel import run as duels
from gemma3n_perf.gate import policy_file
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import registered
from gemma3n_perf.gate.checks import CheckProcesses
from gemma3n_perf.gate.duels import measuring
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import Check, Dependencies, Duels, EvidenceSpec, gather
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.store.files import data_folder, write_over
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import defaults

SESSION_S = Policy().budget_s
"""Seconds of measuring that each session of a duel may take, unless a budget was given."""

Machine = Callable[[Path | None, TextIO], AbstractContextManager[duels.Here]]


def run(
    names: tuple[str, ...],
    baselines: Path,
    err: TextIO,
    *,
    workloads: tuple[str, ...] = (),
    budget_s: float | None = None,
    sources: Mapping[str, str] | None = None,
    check: Check | None = None,
    machine: Machine = duels.machine,
    aside: Path | None = None,
) -> tuple[tuple[Evidence, Path], ...]:
    """Gather evidence for every fusion in ``names`` and write it; returns the records with their paths.

    ``workloads`` () are those of the policy; ``budget_s`` is for all of them together; ``sources`` are checkpoints that
    are no presets. Records are written after every launch, in the place of older ones. Those are put into ``aside``
    first, by default a folder of the user's own data, by class, name and date: what a worse attempt replaces is not
    lost.

    Raises UsageError, MachineBusyError, NotComparableError for a chip class that may hold several variants, and what
    loading and measuring raise.
    """
    with machine(baselines, err) as here, _comparable_outputs() as restore:
        require_known(here.chip)
        path = baselines / policy_file.NAME
        policy = policy_file.read(path) if path.exists() else None
        workloads = workloads or usual(policy, here)
        for name in dict.fromkeys(workload.partition("/")[0] for workload in workloads):
            if name in PRESETS:
                ensure_forged(PRESETS[name], here.root, here.tools.note)
        sessions = policy.sessions if policy else 2
        each_s = budget_s / len(workloads) if budget_s else sessions * SESSION_S
        timed = measuring(here, sources)
        replaced: set[Path] = set()

        def measure(*args: Any) -> Duels:
            restore()
            return timed(*args)

        def write(record: Evidence) -> Path:
            return _replace(record, baselines, aside or data_folder() / "evidence", replaced)

        dependencies = Dependencies(
            chip=here.chip,
            stack=here.stack,
            sources=registered(),
            check=check or CheckProcesses(here.chip, here.root, sources or {}, here.tools.note),
            measure=measure,
            now=partial(dt.datetime.now, dt.UTC),
            note=here.tools.note,
            keep=write,
        )
        records = gather(EvidenceSpec(names, workloads, each_s, sessions, policy), dependencies)
        return tuple((one, write(one)) for one in records)


@contextmanager
def _comparable_outputs() -> Iterator[Callable[[], None]]:
    """Set what makes outputs comparable: CUDA's products else round float32 to 10 bits.

    That is not how decode runs, so the arms start without it: yields what restores the environment before they do.
    """
    from gemma3n_perf.fusions.parity import ENV

    before = {variable: os.environ.get(variable) for variable in ENV}

    def restore() -> None:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value

    os.environ.update(ENV)
    try:
        yield restore
    finally:
        restore()


def _replace(record: Evidence, baselines: Path, aside: Path, replaced: set[Path]) -> Path:
    """Write a record; what was there before this run goes aside, once."""
    path = store.path_of(baselines, record.chip.chip_class, record.fusion)
    if path not in replaced and path.is_file():
        changed = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
        name = f"{path.stem}_{changed:%Y%m%dT%H%M%S}.json"
        write_over(aside / record.chip.chip_class / name, path.read_bytes())
    replaced.add(path)
    return store.write(baselines, record)


def usual(policy: GatePolicy | None, here: duels.Here) -> tuple[str, ...]:
    """The workloads that the policy requires of this class; elsewhere the chip's customary texts."""
    if policy is not None and here.chip.chip_class in policy.classes:
        return policy.classes[here.chip.chip_class].workloads
    texts: dict[str, str] = {}
    for workload in defaults(here.chip.vendor):
        texts.setdefault(workload.checkpoint, str(workload))
    return tuple(texts.values())
