"""Old commits stay arms: their worker is found by its path, speaks an older protocol, and reads today's checkpoint."""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.duel import record
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.machine import Machine, open_machine
from gemma3n_perf.hardware.shell import run_command

BEFORE_ROOMS = "f47fb4f"
"""The last commit whose worker lives in ``measure``."""
HERE = Path(__file__).parents[2]


def test_a_commit_of_before_the_rooms_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command itself: it ends with a verdict, or with the reason why its loader reads no checkpoint."""
    if Repository(HERE, run_command).commit(BEFORE_ROOMS) is None:
        pytest.skip(f"this clone holds no {BEFORE_ROOMS}: it is shallow, or no clone")
    monkeypatch.setattr(dueling, "open_machine", partial(open_machine, lock=tmp_path / "lock"))
    # Other tests run beside this one: their load is no fault of a program.
    real = dueling.here

    def calm(baselines: Path | None, opened: Machine, *others: Any) -> dueling.Here:
        return real(baselines, replace(opened, faults_of=lambda conditions: ()), *others)

    monkeypatch.setattr(dueling, "here", calm)
    out, err, file = io.StringIO(), io.StringIO(), tmp_path / "duel.json"
    argv = ["duel", f"ref:{BEFORE_ROOMS}", "here", "--budget", "5", "--allow-busy", "--json", str(file)]
    code = program.run(argv, out, err)
    assert file.exists(), err.getvalue()
    found = record.DUELS.read(file)
    codes = {"win": 0, "no-change": 0, "loss": 1, "inconclusive": 3, "not-measured": 4}
    assert code == codes[found.verdict]
    (one,) = found.duels
    if found.verdict == "not-measured":
        assert "checkpoint" in one.judgement.reason
    else:
        assert found.launches >= 3
        assert str(found.stacks["baseline"].commit).startswith(BEFORE_ROOMS)
    assert out.getvalue().startswith(found.verdict)
