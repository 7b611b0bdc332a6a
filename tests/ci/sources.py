"""A checkout to rehearse in: this one as it lies there, with synthetic evidence for one of its fusions."""

import datetime as dt
from pathlib import Path

from gemma3n_perf.fusions import registry
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.hardware.types import Chip, Stack
from tests.gate.evidence_files import NOTE, checked, workload
from tests.rehearsal.github import Clone

ROOT = Path(__file__).resolve().parents[2]


def source(folder: Path) -> Clone:
    """Return a clone of this checkout with evidence of a win on every required class, for a fusion that is on there.

    Whatever evidence this checkout holds is left out, so that its state does not change what the tests see.
    """
    clone = Clone.of(ROOT, folder)
    for path in (folder / "baselines").glob("*/fusions/*.json"):
        path.unlink()
    commit = clone.save("no evidence")
    policy = read_policy(folder / "baselines" / "policy.toml")
    name = next(name for name in registry.names() if all(registry.get(name).enabled(_chip(c)) for c in policy.required))
    for chip_class in policy.required:
        store.write(folder / "baselines", record(name, chip_class, commit, policy.classes[chip_class].workloads))
    clone.save("synthetic evidence")
    return clone


def record(fusion: str, chip_class: str, commit: str, workloads: tuple[str, ...]) -> store.Evidence:
    """Return synthetic evidence of a win of 5 %."""
    stack = Stack("3.11.7", "Linux 6.1", "0.32.4", "0.7.10", "cpu", commit=commit, dirty=False)
    made = tuple(workload(name, seed=number) for number, name in enumerate(workloads))
    checks = tuple(checked(name) for name in dict.fromkeys(one.split("/")[0] for one in workloads))
    today = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return store.Evidence(
        store.SCHEMA, fusion, "win", "as measured", True, registry.digest(fusion), commit, False, today,
        _chip(chip_class), {"baseline": stack, "candidate": stack}, checks, made, (NOTE,),
    )  # fmt: skip


def _chip(chip_class: str) -> Chip:
    return Chip(chip_class, chip_class.split("-")[0], chip_class)
