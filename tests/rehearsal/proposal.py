"""The fusion that the rehearsal proposes, with evidence of every required class: the committed one where it counts.

Where no machine of a class has measured the sources as they are, its evidence is synthetic, and the rehearsal says so.
"""

import datetime as dt
from dataclasses import replace
from pathlib import Path

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.errors import UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.gate import admission
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import FUSIONS, Checkout, registered
from gemma3n_perf.gate.policy import POLICY_FILE, GatePolicy, read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Verdict
from tests.gate.evidence_files import NOTE, checked, workload
from tests.rehearsal.github import Clone

_STACK = Stack("3.11.7", "Linux 6.1", "0.32.4", "0.7.10", "cpu")


def completed(clone: Clone) -> tuple[str, Path, dict[str, Path], tuple[str, ...]]:
    """Choose a fusion that is on for every required class, and give it evidence where it has none that wins today.

    Returns its name, its module, its evidence by class, and the classes whose evidence is synthetic.
    """
    baselines = clone.root / "baselines"
    policy = read_policy(baselines / POLICY_FILE)
    won = _won(clone, policy)

    def fit(name: str) -> tuple[bool, int]:
        everywhere = all(registry.enabled(name, _chip(one)) for one in policy.required)
        return everywhere, sum((name, one) in won for one in policy.required)

    name = max(registry.names(), key=fit)
    records = {one: store.path_of(baselines, one, name) for one in policy.required}
    lacking = tuple(one for one in policy.required if (name, one) not in won)
    stack = next((store.read(path).stacks["baseline"] for one, path in records.items() if one not in lacking), _STACK)
    commit = clone.git("rev-parse", "HEAD").strip()
    for one in lacking:
        store.write(baselines, _synthetic(name, one, commit, policy.workloads(one), stack))
    module = Path(registry.get(name).file).relative_to(Path(registry.__file__).parent)
    return name, clone.root / FUSIONS / module, records, lacking


def _won(clone: Clone, policy: GatePolicy) -> set[tuple[str, str]]:
    """Return fusion and class of all evidence that the gate takes for a win, as the checkout is today."""
    today = dt.datetime.now(dt.UTC).date()
    here = Checkout(Repository(clone.root), clone.root / "baselines", registered, today)
    try:
        cells = admission.gate(here, policy).ruling.cells
    except UsageError:  # there is no evidence
        return set()
    refused = {(one.fusion, one.chip_class) for one in cells if one.refuses}
    return {(one.fusion, one.chip_class) for one in cells if one.verdict is Verdict.WIN} - refused


def _synthetic(fusion: str, chip_class: str, commit: str, workloads: tuple[str, ...], stack: Stack) -> store.Evidence:
    """Return evidence of a win of 5 %, of blocks that no machine measured."""
    stacks = dict.fromkeys(ARMS, replace(stack, commit=commit, dirty=False))
    made = tuple(workload(name, seed=number) for number, name in enumerate(workloads))
    checks = tuple(checked(name) for name in dict.fromkeys(one.split("/")[0] for one in workloads))
    today = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return store.Evidence(
        store.SCHEMA, fusion, "win", "as measured", True, registry.digest(fusion), commit, False, today,
        _chip(chip_class), stacks, checks, made, (NOTE,),
    )  # fmt: skip


def _chip(chip_class: str) -> Chip:
    return Chip(chip_class, chip_class.split("-")[0], chip_class)
