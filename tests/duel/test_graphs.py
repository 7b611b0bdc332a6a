import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.decode import graph
from gemma3n_perf.duel import graphs
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.workload import load

PERF = Path(__file__).parents[2] / "perf"
ARM = ReadyArm("candidate", "here", (sys.executable,), {"PYTHONPATH": str(PERF)}, "mlx_vlm", 0.0, (), ())


def test_an_arms_own_code_counts_what_this_one_does(tmp_path: Path) -> None:
    """In a process of its own, without weights."""
    found = graphs.count(ARM, "nano", 57)
    assert found is not None
    assert found.operations == graph.count(load.config_of("nano", tmp_path), position=57).operations


@pytest.mark.parametrize("arm", [replace(ARM, fusions=("fused-qkv",)), replace(ARM, argv=("/bin/false",))])
def test_what_cannot_be_counted_is_unknown(arm: ReadyArm) -> None:
    """Its command applies no fusions, and an old commit has none."""
    assert graphs.count(arm, "nano", 57) is None
