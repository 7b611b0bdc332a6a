"""The wheel in an environment that holds nothing else of this project: what an installed release can do."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gemma3n_perf.duel.environments import find_uv, installed_requirements
from gemma3n_perf.gate import record
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import Scratch

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = Chip("stand-in-2c", "cpu", "Stand-in", cpu_cores=2, memory_bytes=8 * 2**30)
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
FUSE = """
import json, sys
from pathlib import Path
import msgspec, gemma3n_perf
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload import forge, load
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
forge.ensure_forged(PRESETS["nano"], checkpoints_root())
model = load.load(load.inspect("nano", checkpoints_root()), with_towers=False)
before = type(model.language_model.model.layers[0].altup)
names = gemma3n_perf.fuse(model, chip=msgspec.json.decode(sys.argv[1], type=Chip))
after = type(model.language_model.model.layers[0].altup)
print(json.dumps([gemma3n_perf.__file__, names, before is not after]))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def build(tree: Path, out: Path) -> Path:
    """Build the wheel of a source tree, without fetching anything."""
    argv = (find_uv(), "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
    done = subprocess.run((*argv, "--out-dir", str(out), str(tree)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree, with evidence of a stand-in class that the gate would have admitted."""
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    shutil.copytree(ROOT / "perf", tree / "perf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "baselines/published", tree / "baselines/published")
    for name in (*SOURCES, "baselines/policy.toml"):
        shutil.copy(ROOT / name, tree / name)
    evidence = Scratch(folder / "scratch").evidence("fake-cpu-2c")
    assert evidence.verdict == Verdict.WIN.value
    admitted.write(tree / "baselines", STAND_IN.chip_class, (evidence.fusion,), grounds=record.grounds(evidence))
    return build(tree, folder / "dist")


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install it beside the packages that this environment has, and return what runs a program of it elsewhere."""
    folder, uv = tmp_path_factory.mktemp("installed"), find_uv()
    (folder / "requirements.txt").write_text("\n".join(installed_requirements().values()))
    (folder / "empty").mkdir()
    python = str(folder / "env/bin/python")
    pip = (uv, "pip", "install", "--quiet", "--no-deps", "--python", python)
    subprocess.run((uv, "venv", "--quiet", "--python", sys.executable, str(folder / "env")), check=True)
    listed = ("--requirement", str(folder / "requirements.txt"))
    if subprocess.run((*pip, "--offline", *listed), capture_output=True).returncode:
        subprocess.run((*pip, *listed), check=True)
    subprocess.run((*pip, str(wheel)), check=True)
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data"), "COLUMNS": "100"}

    def call(program: str, *argv: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        command = (str(folder / "env/bin" / program), *argv)
        cwd = cwd or folder / "empty"
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300)

    return call


def test_the_wheel_carries_what_an_installed_release_asks_for(wheel: Path) -> None:
    """What was admitted and on what grounds, the policy, what others published, the benchmarks; no whole evidence."""
    with zipfile.ZipFile(wheel) as files:
        carried = [name.removeprefix("gemma3n_perf/") for name in files.namelist() if "/baselines/" in name]
        benches = [name for name in files.namelist() if "/bench_" in name]
        kept = files.read(f"gemma3n_perf/baselines/{STAND_IN.chip_class}/fusions/admitted.json")
    published = {f"baselines/published/{path.name}" for path in (ROOT / "baselines/published").glob("*.json")}
    assert set(carried) == {
        "baselines/policy.toml", f"baselines/{STAND_IN.chip_class}/fusions/admitted.json", *published
    }  # fmt: skip
    assert published
    short = msgspec.json.decode(kept, type=admitted.Admitted)
    assert short.grounds is not None
    assert {one.workload for one in short.grounds.workloads} == {"nano/text/pp40-tg64"}
    assert set(benches) == {
        f"gemma3n_perf/pytest_plugin/bench_{name}.py" for name in ("decode", "fusions", "graph", "memory", "prefill")
    }


def test_fuse_applies_what_was_admitted(run: Run) -> None:
    """On its class; on another, nothing. The package is the installed one."""
    done = run("python", "-c", FUSE, msgspec.json.encode(STAND_IN).decode())
    assert done.returncode == 0, done.stderr
    file, names, changed = json.loads(done.stdout.splitlines()[-1])
    assert "site-packages" in file
    assert (names, changed) == (["stacked-altup"], True)
    other = Chip("another-2c", "cpu", "Another")
    done = run("python", "-c", FUSE, msgspec.json.encode(other).decode())
    assert json.loads(done.stdout.splitlines()[-1])[1:] == [[], False]


@pytest.mark.slow
def test_a_duel_in_an_empty_folder_gives_a_verdict(run: Run, tmp_path: Path) -> None:
    """Of the installed release, with a quarter planted. It leaves nothing where it was typed."""
    options = ("--allow-busy", "--wait", "120", "--budget", "8", "--json", str(tmp_path / "duel.json"))
    done = run("gemma3n-perf", "duel", "here", "here+plant:+25%", *options)
    assert (done.returncode, done.stdout.partition(":")[0]) == (1, "loss"), done.stdout + done.stderr
    assert json.loads((tmp_path / "duel.json").read_text())["verdict"] == "loss"


def test_an_arm_finds_its_own_packages(run: Run) -> None:
    """And not those that lie beside the installed suite: its PYTHONPATH holds the suite alone."""
    code = """
from pathlib import Path
import gemma3n_perf
from gemma3n_perf.duel.environments import without_neighbours
from gemma3n_perf.workload.presets import checkpoints_root
found = without_neighbours(Path(gemma3n_perf.__file__).parents[1], checkpoints_root().parent)
print(*sorted(path.name for path in found.iterdir()), (found / "gemma3n_perf/duel/worker.py").is_file())
"""
    done = run("python", "-c", code)
    assert done.stdout == "gemma3n_perf True\n", done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (("chip",), 0, "suite            0."),
        (("graph", "nano"), 0, "quantized_matmul"),
        (("forge", "nano"), 0, "nano-v"),
        (("workloads",), 0, "nano/text/pp40-tg64"),
        (("fusion", "list"), 0, "stacked-altup"),
        (("doctor", "--wait", "0"), None, "memory"),
        (("gate",), 2, "git checkout"),
        (("duel", "here", "ref:main", "--allow-busy"), 2, "needs the repository"),
        (("baseline", "list"), 0, "no baseline"),
    ],
)
def test_commands_work_outside_a_checkout(run: Run, argv: tuple[str, ...], code: int | None, text: str) -> None:
    """What needs one says so."""
    done = run("gemma3n-perf", *argv)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_another_project_runs_the_benches(run: Run, tmp_path: Path) -> None:
    """By their name in the installed package; the project's own tests and settings are left alone."""
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    argv = ("-p", "gemma3n_perf.pytest_plugin.plugin", "--pyargs", "gemma3n_perf.pytest_plugin")
    done = run("pytest", *argv, "-k", "graph", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    own = run("pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "1 passed" in own.stdout
