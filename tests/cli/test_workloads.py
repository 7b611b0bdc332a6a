import argparse
import io
from pathlib import Path

import pytest

from gemma3n_perf.cli import workloads as command
from gemma3n_perf.workload.workload import defaults, wide_defaults
from tests.fakes import CHIP


def test_every_workload_is_a_line_and_every_checkpoint_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are what the options take; a checkpoint that is not there comes with the command that makes it."""
    monkeypatch.setattr(command, "detect", lambda: CHIP)
    monkeypatch.setattr(command, "checkpoints_root", lambda: tmp_path)
    out = io.StringIO()
    assert command.run(argparse.Namespace(), out) == 0
    lines = out.getvalue().splitlines()
    known = [*defaults(CHIP.vendor), *wide_defaults(CHIP.vendor)]
    assert [line.strip() for line in lines if line.startswith("  ")] == [str(one) for one in known]
    states = [line for line in lines if "gemma3n-perf forge" in line]
    assert len(states) == len({one.checkpoint for one in known})
