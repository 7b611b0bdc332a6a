"""What decides decode speed, as declared by a checkout and as installed where it runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from gemma3n_perf.duel import installed, parts, program
from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.hardware.git import Repository
from tests.hardware.test_stack import git

CHECKOUT = Path(__file__).parents[2]
SUITE = "perf/gemma3n_perf/"
ADMITTED = "baselines/cpu-x/fusions/admitted.json"
LOCK = """# Made by: make lock
mlx==0.32.3 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via gemma3n-perf
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:cc
numpy==2.5.0 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
pytest==9.0.0 \\
    --hash=sha256:ee
ruff==0.15.0 \\
    --hash=sha256:ff
"""
FILES = {
    f"{SUITE}__init__.py": "def f():\n    from gemma3n_perf.report import page\n",
    f"{SUITE}duel/__init__.py": "",
    f"{SUITE}duel/worker.py": (
        "def load():\n    from gemma3n_perf.decode.decoder import Decoder\n"
        "    from gemma3n_perf.fusions import registry\n    from . import protocol\n"
    ),
    f"{SUITE}duel/protocol.py": "",
    f"{SUITE}decode/__init__.py": "",
    f"{SUITE}decode/decoder.py": "import numpy\nfrom gemma3n_perf import errors\n",
    f"{SUITE}errors.py": "",
    f"{SUITE}report/page.py": "",
    f"{SUITE}fusions/__init__.py": "",
    f"{SUITE}fusions/registry.py": "",
    f"{SUITE}fusions/parity.py": "",
    f"{SUITE}fusions/one.py": "from gemma3n_perf.fusions import shared\n\nFUSION = 1\n",
    f"{SUITE}fusions/shared.py": "",
    f"{SUITE}fusions/kernels/cuda/one.cu": "",
    f"{SUITE}workload/presets.py": "FORMAT = 2\n",
    ADMITTED: '{"schema": 1, "fusions": ["one"]}',
    "requirements.lock": LOCK,
    "requirements-cuda.lock": LOCK,
    "pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.11"\n',
    "docs/method.md": "",
    "tests/test_x.py": "",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository of one commit that is laid out as this one is."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "part", "sentence"),
    [
        ("docs/method.md", "", "x", None, None),
        ("tests/test_x.py", "", "x", None, None),
        (f"{SUITE}report/page.py", "", "x = 1", None, None),
        (f"{SUITE}fusions/parity.py", "", "x = 1", None, None),
        ("requirements.lock", "ruff==0.15.0", "ruff==0.15.1", None, None),
        ("requirements.lock", "sha256:ee", "sha256:e0", None, None),
        ("requirements.lock", "# via gemma3n-perf", "# via gemma3n-perf, asv", None, None),
        ("requirements-cuda.lock", "mlx==0.32.3", "mlx==0.32.4", None, None),
        ("pyproject.toml", '"x"', '"y"', None, None),
        (f"{SUITE}decode/decoder.py", "numpy", "time", "source decode/decoder.py", "decode/decoder.py changed"),
        (f"{SUITE}errors.py", "", "x = 1", "source errors.py", "errors.py changed"),
        (f"{SUITE}duel/protocol.py", "", "x = 1", "source duel/protocol.py", "duel/protocol.py changed"),
        (f"{SUITE}fusions/one.py", "= 1", "= 2", "source fusions/one.py", "fusions/one.py changed"),
        (f"{SUITE}fusions/shared.py", "", "x = 1", "source fusions/shared.py", "fusions/shared.py changed"),
        (
            f"{SUITE}fusions/kernels/cuda/one.cu",
            "",
            "x",
            "source fusions/kernels/cuda/one.cu",
            "fusions/kernels/cuda/one.cu changed",
        ),
        (ADMITTED, '"one"', '"one", "two"', "admitted fusions", "admitted fusions one -> one+two"),
        ("requirements.lock", "mlx==0.32.3", "mlx==0.32.4", "package mlx", "mlx 0.32.3 -> 0.32.4"),
        ("requirements.lock", "sha256:bb", "sha256:b0", "package mlx", "mlx 0.32.3 changed"),
        (
            "requirements.lock",
            "numpy==2.5.0",
            "numpy==2.5.1",
            "package numpy",
            "numpy 2.4.6 or 2.5.0 -> 2.4.6 or 2.5.1",
        ),
        ("pyproject.toml", ">=3.11", ">=3.12", "python", "python >=3.11 -> >=3.12"),
    ],
)
def test_a_change_of_a_checkout_changes_the_part_that_names_it(
    checkout: Path, name: str, old: str, new: str, part: str | None, sentence: str | None
) -> None:
    """Or none, where nothing that decodes changed; in a working tree, and from git alone, as it was and as it is."""
    repository = Repository(checkout)
    before = program.declared(program.folder(checkout), "cpu-x")
    (checkout / name).write_text(FILES[name].replace(old, new, 1))
    after = program.declared(program.folder(checkout), "cpu-x")
    assert program.declared(program.revision(repository), "cpu-x") == before
    git(checkout, "commit", "-q", "-a", "-m", "second")
    assert program.declared(program.revision(repository), "cpu-x") == after
    assert program.declared(program.revision(repository, "HEAD~1"), "cpu-x") == before
    assert parts.differences(before, after) == ([sentence] if sentence else [])
    assert {one for one in before | after if before.get(one) != after.get(one)} == ({part} if part else set())
    assert (parts.whole(before) == parts.whole(after)) is (part is None)


def test_the_forge_format_is_a_part_of_its_own(checkout: Path) -> None:
    """The checkpoint's bytes depend on it, whether or not the worker reads that module."""
    before = program.declared(program.folder(checkout), "cpu-x")
    (checkout / SUITE / "workload/presets.py").write_text("FORMAT = 3\n")
    assert parts.differences(before, program.declared(program.folder(checkout), "cpu-x")) == ["forge format 2 -> 3"]


def test_a_class_has_its_own_fusions_and_backend(checkout: Path) -> None:
    """Where no fusion is admitted a worker imports none, and on CUDA another lock file is installed."""
    here = program.folder(checkout)
    plain, cuda = program.declared(here, "apple-m4"), program.declared(here, "nvidia-h200")
    assert not [part for part in plain if "fusions" in part]
    assert plain == cuda
    (checkout / "requirements-cuda.lock").write_text(LOCK.replace("0.32.3", "0.32.4"))
    (checkout / SUITE / "fusions" / "one.py").write_text("FUSION = 2\n")
    assert program.declared(here, "apple-m4") == plain
    assert parts.differences(cuda, program.declared(here, "nvidia-h200")) == ["mlx 0.32.3 -> 0.32.4"]


def test_several_files_are_named_in_one_sentence() -> None:
    """The first few of them, and how many more; what is new and what is gone apart."""
    before = {f"source {name}.py": "1" for name in "abcdef"} | {"source old.py": "1", "package mlx": "1.0 a"}
    after = {f"source {name}.py": "2" for name in "abcdef"} | {"source new.py": "1", "source newer.py": "1"}
    assert parts.differences(before, after) == [
        "mlx 1.0 is gone",
        "a.py, b.py, c.py and 3 more changed",
        "old.py is gone",
        "new.py, newer.py are new",
    ]


def test_what_does_not_parse_is_named(checkout: Path) -> None:
    """A checkout that declares nothing legible is not the same as another."""
    for name in (ADMITTED, "pyproject.toml", f"{SUITE}decode/decoder.py"):
        (checkout / name).write_text("{")
        with pytest.raises(MalformedRecordError, match=Path(name).name):
            program.declared(program.folder(checkout), "cpu-x")
        (checkout / name).write_text(FILES[name])
    with pytest.raises(UsageError, match="no commit"):
        program.revision(Repository(checkout), "nowhere")


def test_planning_needs_python_alone(checkout: Path) -> None:
    """No site-packages, and nothing checked out."""
    script = (
        "import json, sys; from pathlib import Path\n"
        "from gemma3n_perf.duel import program; from gemma3n_perf.hardware.git import Repository\n"
        "print(json.dumps(program.declared(program.revision(Repository(Path(sys.argv[1]))), 'cpu-x')))"
    )
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT / "perf")}
    command = (sys.executable, "-S", "-P", "-c", script, str(checkout))
    done = subprocess.run(command, env=environ, capture_output=True, check=True)
    assert json.loads(done.stdout) == program.declared(program.folder(checkout), "cpu-x")


@pytest.fixture
def process(tmp_path: Path) -> installed.Process:
    """Return a process with one package in Python, MLX in two packages that share a folder, and a suite."""
    for name, text in {
        "site/mlx/core.so": "core",
        "site/mlx/lib/libmlx.so": "\0MLX_X\0OTHER_NAME\0",
        "site/mlx/lib/m.metallib": "m",
        "site/mlx_vlm/utils.py": "os.environ.get('IN_PYTHON')\n",
        "site/mlx-0.32.3.dist-info/RECORD": "mlx/core.so,sha256=x,4\n",
        "site/mlx_metal-0.32.3.dist-info/RECORD": "mlx/lib/libmlx.so,,\nmlx/lib/m.metallib,,\n",
        "site/mlx_vlm-0.7.10.dist-info/RECORD": "mlx_vlm/utils.py,,\n",
        "site/paths.pth": "/somewhere\n",
        "gemma3n_perf/decode/decoder.py": "",
        "gemma3n_perf/fusions/one.cu": "",
        "standard/os.py": "",
        "system/libc.so.6": "c",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = {
        "mlx.core": "site/mlx/core.so",
        "mlx_vlm.utils": "site/mlx_vlm/utils.py",
        "os": "standard/os.py",
        "gemma3n_perf.decode.decoder": "gemma3n_perf/decode/decoder.py",
        "made": "nowhere.py",
    }
    faked = {name: cast("ModuleType", SimpleNamespace(__file__=str(tmp_path / path))) for name, path in modules.items()}
    site = str(tmp_path / "site")
    return installed.Process(
        modules=faked | {"builtins": cast("ModuleType", SimpleNamespace())},
        mapped=(f"{site}/mlx/lib/libmlx.so",),
        search=(site, str(tmp_path), "gone.zip"),
        environ={"HOME": "/", "PYTHONPATH": "x", "HF_TOKEN": "x"},
        hook_folders=(site,),
        suite=tmp_path / "gemma3n_perf",
        standard=tmp_path / "standard",
    )


def test_what_is_installed_is_told_by_package_and_file(process: installed.Process, tmp_path: Path) -> None:
    """Each file under the package that installed it, and libraries with what Metal loads beside them."""
    found = installed.installed(process, {"nano": "1"}, tmp_path / "cache")
    assert list(found) == [
        "checkpoint nano",
        "file mlx mlx/core.so",
        "file mlx-metal mlx/lib/libmlx.so",
        "file mlx-metal mlx/lib/m.metallib",
        "file mlx-vlm mlx_vlm/utils.py",
        "file python os.py",
        "package mlx",
        "package mlx-metal",
        "package mlx-vlm",
        "python",
        "source decode/decoder.py",
    ]


@pytest.mark.parametrize(
    ("name", "text", "part", "sentence"),
    [
        (
            "site/mlx_vlm/utils.py",
            "x = 1\n",
            "file mlx-vlm mlx_vlm/utils.py",
            "mlx-vlm 0.7.10: mlx_vlm/utils.py changed",
        ),
        (
            "site/mlx/lib/libmlx.so",
            "x",
            "file mlx-metal mlx/lib/libmlx.so",
            "mlx-metal 0.32.3: mlx/lib/libmlx.so changed",
        ),
        (
            "gemma3n_perf/decode/decoder.py",
            "x = 1\n",
            "source decode/decoder.py",
            "decode/decoder.py changed",
        ),
        ("site/hook.pth", "import os; os.nice(5)\n", "hook hook.pth", "hook hook.pth is new"),
        ("site/path.pth", "/elsewhere\n", None, None),
        ("site/mlx_vlm/unused.py", "x", None, None),
    ],
)
def test_a_change_of_an_environment_changes_the_part_that_names_it(
    process: installed.Process, tmp_path: Path, name: str, text: str, part: str | None, sentence: str | None
) -> None:
    """An edit, a hook; and nothing for what is not loaded."""
    before = installed.installed(process, {}, tmp_path / "cache")
    (tmp_path / name).write_text(text)
    after = installed.installed(process, {}, tmp_path / "cache")
    assert parts.differences(before, after) == ([sentence] if sentence else [])
    assert {one for one in before | after if before.get(one) != after.get(one)} == ({part} if part else set())


@pytest.mark.parametrize("name", ["MLX_ANYTHING", "OTHER_NAME", "IN_PYTHON", "OMP_NUM_THREADS", "LD_PRELOAD"])
def test_a_variable_that_is_read_is_a_part(process: installed.Process, tmp_path: Path, name: str) -> None:
    """MLX's own, those its libraries and its models in Python name, and those of what it stands on."""
    before = installed.installed(process, {}, tmp_path / "cache")
    first = installed.installed(
        replace(process, environ={**process.environ, name: "1", "SHELL": "x"}), {}, tmp_path / "cache"
    )
    second = installed.installed(replace(process, environ={name: "2"}), {}, tmp_path / "cache")
    assert parts.differences(before, first) == [f"{name} 1 is new"]
    assert parts.differences(first, second) == [f"{name} 1 -> 2"]


def test_a_version_stands_for_the_files_of_its_package(process: installed.Process, tmp_path: Path) -> None:
    """One sentence, however many files differ."""
    before = installed.installed(process, {"nano": "1"}, tmp_path / "cache")
    (tmp_path / "site/mlx_vlm/utils.py").write_text("x")
    (tmp_path / "site/mlx_vlm-0.7.10.dist-info").rename(tmp_path / "site/mlx_vlm-0.8.0.dist-info")
    after = installed.installed(process, {"nano": "2"}, tmp_path / "cache")
    assert parts.differences(before, after) == ["checkpoint nano changed", "mlx-vlm 0.7.10 -> 0.8.0"]


def test_customizing_modules_libraries_of_the_system_and_kernels_are_parts(
    process: installed.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fusion's kernels only where a fusion is loaded; and not what MLX compiles into the temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "made"))
    (tmp_path / "made").mkdir()
    for name in ("made/jit.so", "sitecustomize.py"):
        (tmp_path / name).write_text("x")
    before = installed.installed(process, {}, tmp_path / "cache")
    loaded = {"sitecustomize": "sitecustomize.py", "gemma3n_perf.fusions.registry": "gemma3n_perf/fusions/registry.py"}
    modules = {
        name: cast("ModuleType", SimpleNamespace(__file__=str(tmp_path / path))) for name, path in loaded.items()
    }
    outside = (*process.mapped, str(tmp_path / "system/libc.so.6"), str(tmp_path / "made/jit.so"))
    more = replace(process, modules={**process.modules, **modules}, mapped=outside, search=process.search[:1])
    after = installed.installed(more, {}, tmp_path / "cache")
    assert after.keys() - before.keys() == {
        "hook sitecustomize",
        "source fusions/one.cu",
        f"file system {tmp_path / 'system/libc.so.6'}",
    }


WORKER = """
import json, sys
from pathlib import Path
import msgspec
from gemma3n_perf.duel import protocol, worker
loader = worker.MlxVlmLoader()
load = protocol.Load("nano/text/pp40-tg64", "nano", sys.argv[1], "mlx_vlm", 0.0, fusions=tuple(sys.argv[3:]))
replies = []
requests = (load, protocol.Prepare(), protocol.Block(4, 1, 1))
worker.serve([msgspec.json.encode(one) for one in requests], replies.append, loader)
assert isinstance(replies[-1], protocol.Timed), replies
from gemma3n_perf.duel import installed
found = installed.installed(installed.this_process(), {"nano": replies[1].checkpoint_digest}, Path(sys.argv[2]))
print(json.dumps(found))
"""


def test_what_a_worker_has_loaded_is_what_a_checkout_declares(nano_root: Path, tmp_path: Path) -> None:
    """Sources as they are here, no package that a lock file's line would be ignored for, and MLX's library."""
    (tmp_path / "baselines/cpu-x/fusions").mkdir(parents=True)
    (tmp_path / ADMITTED).write_text('{"schema": 1, "fusions": ["stacked-altup"]}')
    (tmp_path / "perf").symlink_to(CHECKOUT / "perf")
    for fusions, chip_class in (((), "cpu-y"), (("stacked-altup",), "cpu-x")):
        command = (sys.executable, "-P", "-c", WORKER, str(nano_root), str(tmp_path / "cache"), *fusions)
        environ = os.environ | {"PYTHONPATH": str(CHECKOUT / "perf"), "MLX_FOR_A_TEST": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        declared = program.declared(program.folder(tmp_path), chip_class)
        ours = {part: value for part, value in found.items() if part.startswith("source ")}
        for later in ("hashes", "installed", "parts", "program"):
            ours.pop(f"source duel/{later}.py")
        assert {part: value for part, value in ours.items() if declared.get(part) != value} == {}
        assert {"source duel/worker.py", "source decode/engines/mlx_vlm.py"} <= ours.keys()
        assert any(part.startswith("source fusions/") for part in ours) is bool(fusions)
        packages = [part.removeprefix("package ") for part in found if part.startswith("package ")]
        assert [name for name in packages if not program.decides(name)] == []
        assert {"mlx", "mlx-vlm", "numpy", "transformers"} <= set(packages)
        assert any("libmlx" in part for part in found)
        assert found["variable MLX_FOR_A_TEST"].startswith("1 ")
