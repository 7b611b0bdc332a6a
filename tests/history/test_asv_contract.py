"""What this suite relies on in asv 0.6.6 that its manual does not promise. A failure here means: read asv again."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from asv.step_detect import detect_regressions, solve_potts_approx
from asv_runner.discovery import get_benchmark_from_name

from gemma3n_perf.errors import BadConditionsError, MachineBusyError, PerfError
from gemma3n_perf.hardware.shell import Done, run_command
from gemma3n_perf.history import asv_files, asv_plugin
from gemma3n_perf.history.asv_files import RATE, TIME
from gemma3n_perf.history.publishing import asv_configuration
from gemma3n_perf.history.results import Value
from studies import synthetic_history as synthetic

COMMITS, CLASSES, WORKLOADS = 12, 2, 2


def publish(folder: Path) -> Done:
    """Run ``asv publish`` as a user would."""
    argv = (sys.executable, "-m", "asv", "publish", "--no-pull", "--config", str(folder / "asv.conf.json"))
    return run_command(argv, 120.0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small invented history with flaws, published by asv: half a file, no machine, a commit that is gone."""
    folder = tmp_path_factory.mktemp("asv") / "h"
    synthetic.generate(folder, COMMITS, CLASSES, WORKLOADS)
    files = asv_files.result_files(folder / "results")
    files[0].write_bytes(files[0].read_bytes()[:200])
    stray = folder / "results" / "nobody"
    stray.mkdir()
    shutil.copyfile(files[1], stray / files[1].name)
    gone = json.loads(files[2].read_bytes()) | {"commit_hash": "f" * 40}
    (files[2].parent / "ffffffff-suite.json").write_text(json.dumps(gone))
    done = publish(folder)
    assert done.code == 0, done.err
    return folder


def index(folder: Path) -> dict[str, Any]:
    """Read what asv's pages start from."""
    found: dict[str, Any] = json.loads((folder / "html" / "index.json").read_bytes())
    return found


def graph(folder: Path, machine: str, name: str) -> list[Any]:
    """Read one line of a plot."""
    (path,) = (path for path in (folder / "html" / "graphs").rglob(f"{name}.json") if f"machine-{machine}" in str(path))
    found: list[Any] = json.loads(path.read_bytes())
    return found


def test_the_version_that_was_read() -> None:
    """The pin and these tests belong together."""
    assert (metadata.version("asv"), metadata.version("asv_runner")) == ("0.6.6", "0.3.2")


def test_keys_of_the_machine_become_axes(published: Path) -> None:
    """And no others: neither Python nor an operating system."""
    params = index(published)["params"]
    assert set(params) == {"machine", "chip_class", "vendor", "gpu_cores", "memory", "branch"}
    assert params["machine"] == ["synthetic-1", "synthetic-2"]


def test_results_are_published_in_commit_order_by_workload(published: Path) -> None:
    """One line a machine, one value a workload."""
    found = graph(published, "synthetic-2", TIME)
    assert [revision for revision, _ in found] == sorted(revision for revision, _ in found)
    assert len(found) == COMMITS
    assert all(len(values) == WORKLOADS for _, values in found)
    assert found[0][1][0] == pytest.approx(0.02, rel=0.05)


def test_half_a_file_and_unknown_machines_are_skipped(published: Path) -> None:
    """One point is missing, and nobody is no machine."""
    assert len(graph(published, "synthetic-1", TIME)) == COMMITS - 1
    assert sorted(index(published)["machines"]) == ["synthetic-1", "synthetic-2"]


def test_a_commit_that_is_gone_is_left_out(published: Path) -> None:
    """The rest publishes."""
    assert "f" * 40 not in index(published)["revision_to_hash"].values()


def test_throughput_is_never_a_regression(tmp_path: Path) -> None:
    """A doubled time is one; tok/s that doubled is none, for its detection is off by null."""
    folder = tmp_path / "h"
    synthetic.generate(folder, 12, 1, 1)
    files = {path.name[:8]: path for path in asv_files.result_files(folder / "results")}
    order = run_command(("git", "-C", str(folder / "repository"), "rev-list", "--reverse", "main"), 60.0).out.split()

    def names(rows: list[Any]) -> set[str]:
        return {row[0].split("(")[0] for row in rows}

    for factor, expected in ((2.0, {TIME}), (0.5, set[str]())):
        for place, commit in enumerate(order):
            value = 0.01 * (factor if place >= 6 else 1.0)
            one = asv_files.read_result(files[commit[:8]])
            (workload,) = one.times
            one.times[workload] = Value(value, (value,))
            asv_files.write_result(folder / "results", one)
        assert publish(folder).code == 0
        rows = json.loads((folder / "html" / "regressions.json").read_bytes())["regressions"]
        assert names(rows) == expected


def test_only_up_is_worse() -> None:
    """asv knows no other direction."""
    assert detect_regressions([(0, 5, 1.0, 1.0, 0.0), (5, 9, 2.0, 2.0, 0.0)], 0.05)[2]
    assert not detect_regressions([(0, 5, 2.0, 2.0, 0.0), (5, 9, 1.0, 1.0, 0.0)], 0.05)[2]


def test_the_solver_takes_a_penalty() -> None:
    """And returns exclusive right ends and levels."""
    rights, levels, _ = solve_potts_approx([1.0, 1.0, 2.0, 2.0], [1.0] * 4, gamma=0.1, min_size=2)
    assert (list(rights), list(levels)) == ([2, 4], [1.0, 2.0])


def test_a_track_that_returns_samples_gets_statistics(tmp_path: Path) -> None:
    """Undocumented: samples and a number make median, quartiles and an interval of a track benchmark."""
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "__init__.py").touch()
    (suite / "decode.py").write_text(
        "def setup_cache():\n    return 3.0\n"
        "def track_it(cache, name):\n    return {'samples': [1.0, 2.0, cache], 'number': 1}\n"
        "track_it.params = [['x']]\ntrack_it.unit = 'seconds'\n"
    )
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(tmp_path / "r")], check=True)
    who = ["-c", "user.name=s", "-c", "user.email=s@localhost"]
    subprocess.run(
        ["git", "-C", str(tmp_path / "r"), *who, "commit", "--quiet", "--allow-empty", "-m", "c"], check=True
    )
    (tmp_path / "asv.conf.json").write_text(
        json.dumps(
            {"version": 1, "project": "p", "repo": "r", "branches": ["HEAD"], "environment_type": "existing",
             "benchmark_dir": "suite", "results_dir": "results", "html_dir": "html", "pythons": ["same"]}
        )
    )  # fmt: skip
    machines = tmp_path / "home" / ".asv-machine.json"
    machines.parent.mkdir()
    machines.write_text(json.dumps({"m": {"machine": "m", "chip_class": "m"}, "version": 1}))
    asv = ("env", f"HOME={machines.parent}", sys.executable, "-m", "asv", "run")
    options = ("--config", str(tmp_path / "asv.conf.json"), "--machine", "m", "--set-commit-hash", "HEAD")
    done = run_command((*asv, *options, "--record-samples"), 120.0)
    assert done.code == 0, done.out + done.err
    (path,) = asv_files.result_files(tmp_path / "results")
    data = json.loads(path.read_bytes())
    row = dict(zip(data["result_columns"], data["results"]["decode.track_it"], strict=False))
    assert row["result"] == [2.0]
    assert row["samples"] == [[1.0, 2.0, 3.0]]
    assert row["stats_q_75"][0] > row["stats_q_25"][0]
    assert data["params"] == {"machine": "m", "chip_class": "m", "python": data["params"]["python"]}


def test_a_minus_sign_would_cut_a_name_short(tmp_path: Path) -> None:
    """asv takes what follows a minus for the number of a parameter, so no name here has one."""
    with pytest.raises(ValueError, match="invalid"):
        get_benchmark_from_name(str(tmp_path), "decode.track-it")
    assert "-" not in TIME + RATE


def test_commits_are_compared_by_asvs_own_commands(tmp_path: Path) -> None:
    """``asv continuous`` measures two commits, each with its own code; ``asv compare`` reads both."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=s", "-c", "user.email=s@localhost")
    run_command(("git", "init", "--quiet", "--initial-branch=main", str(tmp_path)), 60.0)
    (tmp_path / "perf").mkdir()
    for value in (1, 3):
        (tmp_path / "perf" / "thing.py").write_text(f"VALUE = {value}\n")
        run_command((*git, "add", "perf"), 60.0)
        run_command((*git, "commit", "--quiet", "-m", f"c{value}"), 60.0)
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "__init__.py").touch()
    (tmp_path / "suite" / "bench.py").write_text("import thing\n\n\ndef track_value():\n    return thing.VALUE\n")
    # Without the plugin's own check of the machine, on which other tests run.
    (tmp_path / "plain.py").write_text("from gemma3n_perf.history.asv_plugin import Checkout\n")
    conf = json.loads(asv_configuration("p", tmp_path, ["main"], tmp_path / "results", tmp_path / "html"))
    conf |= {"plugins": [".plain"], "environment_type": "checkout", "env_dir": "env", "benchmark_dir": "suite"}
    (tmp_path / "asv.conf.json").write_text(json.dumps(conf))
    (tmp_path / ".asv-machine.json").write_text(json.dumps({"m": {"machine": "m"}, "version": 1}))

    def asv(*argv: str) -> Done:
        paths = os.pathsep.join(filter(None, sys.path))
        wrapped = ("env", f"HOME={tmp_path}", f"PYTHONPATH={paths}", "sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path))
        return run_command((*wrapped, sys.executable, "-m", "asv", *argv), 300.0)

    done = asv("continuous", "main~1", "main", "--machine", "m")
    assert "PERFORMANCE DECREASED" in done.out, done.last_output
    assert done.code == 1
    compared = asv("compare", "main~1", "main", "--machine", "m")
    assert compared.code == 0
    row = next(line for line in compared.out.splitlines() if "bench.track_value" in line)
    assert [cell.strip() for cell in row.split("|")][2:4] == ["1", "3"]


@pytest.mark.parametrize(
    ("argv", "raised", "code"),
    [
        (["run"], BadConditionsError("a compiler runs", remedy="close it"), 4),
        (["continuous", "A", "B"], MachineBusyError("somebody measures"), 4),
        (["compare", "A", "B"], BadConditionsError("a compiler runs"), 0),
        (["run", "--bench", "just-discover"], BadConditionsError("a compiler runs"), 0),
    ],
)
def test_asv_ends_at_once_on_a_machine_that_is_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], raised: PerfError, code: int
) -> None:
    """With one line, where it would measure; reading and discovering go on."""

    def refuse(*_: object) -> None:
        raise raised

    monkeypatch.setattr(asv_plugin, "open_machine", refuse)
    monkeypatch.setattr(sys, "argv", ["asv", *argv])
    if code == 0:
        asv_plugin.setup()
        return
    with pytest.raises(SystemExit) as ended:
        asv_plugin.setup()
    assert ended.value.code == code
    assert capsys.readouterr().err.count("\n") == 1
