"""Evidence on this machine: the checks, the duels and the records behind ``pytest perf/ --fusion NAME``."""

import datetime as dt
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from gemma3n_perf.cli import forge as forge_command
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.fusion_duels import measuring
from gemma3n_perf.fusions.registered import Registered
from gemma3n_perf.gate import policy_file as gate_policy_file
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.check_processes import CheckProcesses
from gemma3n_perf.gate.facts import Parity
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import Check, Dependencies, Duels, EvidenceSpec, gather
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.store.files import write_over
from gemma3n_perf.store.local import data_folder
from gemma3n_perf.workload import forge, skeleton
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import defaults

if TYPE_CHECKING:
    from gemma3n_perf.fusions.parity import Parity as FusionParity

SESSION_S = Policy().budget_s
"""Seconds of measuring that each session of a duel may take, unless a budget was given."""

Machine = Callable[[Path | None, TextIO], AbstractContextManager[dueling.Here]]


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed: ``workloads`` () are those of the policy; ``budget_s`` is for all workloads together."""

    names: tuple[str, ...]
    workloads: tuple[str, ...] = ()
    budget_s: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def run(
    request: Request,
    baselines: Path,
    err: TextIO,
    *,
    check: Check | None = None,
    machine: Machine = dueling.machine,
    aside: Path | None = None,
) -> tuple[tuple[Evidence, Path], ...]:
    """Gather evidence for every fusion and write it; returns the records with their paths.

    Records are written after every launch, in the place of older ones. Those are put into ``aside`` first, by default
    a folder of the user's own data, by class, name and date: what a worse attempt replaces is not lost.

    Raises UsageError, MachineBusyError, NotComparableError for a chip class that may hold several variants, and what
    loading and measuring raise.
    """
    from gemma3n_perf.fusions.parity import ENV

    with ExitStack() as held:
        here = held.enter_context(machine(baselines, err))
        require_known(here.chip)
        policy = _policy(baselines)
        workloads = request.workloads or usual(policy, here)
        for name in dict.fromkeys(workload.split("/")[0] for workload in workloads):
            if name in PRESETS and not forge.is_forged(PRESETS[name], here.root):
                forge_command.forge_locked(PRESETS[name], here.root)
        sessions = policy.sessions if policy else 2
        budget_s = request.budget_s / len(workloads) if request.budget_s else sessions * SESSION_S
        asked = EvidenceSpec(request.names, workloads, budget_s, sessions, policy)
        sources = dict(request.sources)
        checks = check or CheckProcesses(here.chip, here.root, sources, here.tools.note)
        duels = measuring(here, sources)

        def measure(*duel: Any) -> Duels:
            # What makes outputs comparable is not how decode runs: the arms start without it.
            _restore(before)
            return duels(*duel)

        # Set while outputs are compared: CUDA's products else round float32 to 10 bits.
        before = {variable: os.environ.get(variable) for variable in ENV}
        os.environ.update(ENV)
        held.callback(_restore, before)
        means = Dependencies(
            chip=here.chip, stack=here.stack, sources=Registered(),
            check=checks, measure=measure,
            now=partial(dt.datetime.now, dt.UTC), note=here.tools.note,
            keep=(kept := _Kept(baselines, aside or data_folder() / "evidence")).write,
        )  # fmt: skip
        return tuple((one, kept.write(one)) for one in gather(asked, means))


@dataclass(slots=True)
class _Kept:
    """Writes records, and puts aside what was there before this run."""

    baselines: Path
    aside: Path
    seen: set[Path] = field(default_factory=set)

    def write(self, record: Evidence) -> Path:
        path = store.path_of(self.baselines, record.chip.chip_class, record.fusion)
        if path not in self.seen and path.is_file():
            changed = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
            name = f"{path.stem}_{changed:%Y%m%dT%H%M%S}.json"
            write_over(self.aside / record.chip.chip_class / name, path.read_bytes())
        self.seen.add(path)
        return store.write(self.baselines, record)


def _restore(before: Mapping[str, str | None]) -> None:
    for variable, value in before.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


def usual(policy: GatePolicy | None, here: dueling.Here) -> tuple[str, ...]:
    """The workloads that the policy asks of this class; elsewhere the chip's customary texts."""
    if policy is not None and here.chip.chip_class in policy.classes:
        return policy.classes[here.chip.chip_class].workloads
    texts = {workload.checkpoint: str(workload) for workload in reversed(defaults(here.chip.vendor))}
    return tuple(reversed(texts.values()))


def outputs(plain: Any, fused: Any) -> Parity:
    """Compare an unfused model with a fused one that shares its weights, by ``fusions.parity``."""
    from gemma3n_perf.fusions.parity import changed, parity

    weights = [dict(skeleton.named_arrays(model.language_model.parameters())) for model in (plain, fused)]
    return facts(parity(plain, fused, weights_changed=changed(weights[0], weights[1])))


def facts(found: "FusionParity") -> Parity:
    """What the gate is told of a comparison; its figures are kept as they are."""
    finite = not found.not_finite and math.isfinite(found.fused_error)
    return Parity(found.passed, finite, "; ".join(found.reasons), msgspec.to_builtins(found))


def _policy(baselines: Path) -> GatePolicy | None:
    path = baselines / gate_policy_file.NAME
    return gate_policy_file.read(path) if path.exists() else None
