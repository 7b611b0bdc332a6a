"""A quick profile of each workload, by ``pytest perf/ -k profile``: too long for a session that did not name it."""

import argparse
import sys
from pathlib import Path

import pytest

from gemma3n_perf.cli import profile as command
from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.pytest_plugin.options import sources
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.workload.workload import Workload

pytest_plugins = ("gemma3n_perf.profile.collecting",)

PARTS = "histogram,floor,split,contexts,engines,trace"


def test_profile(workload: Workload, suite: SuiteSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part that needs no duel is measured; the record stays in pytest's own folder."""
    if workload.engine:
        pytest.skip("a profile takes mlx-vlm's model apart, step by step")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    record = tmp_path / "profile.json"
    options = ["--workload", str(workload), "--quick", "--parts", PARTS, "--json", str(record)]
    source = sources(suite.options).get(workload.checkpoint)
    if source is not None:
        options += ["--checkpoint", source]
    with capsys.disabled():
        code = command.run(parser.parse_args(options), sys.stdout)
    if code:
        raise NotMeasuredError(
            f"a part was not measured: see above and {record}", expected="every part that needs no duel"
        )
