"""Paths, names and files that no one should give a command: a named error with its exit code, and no traceback."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.ci.cli import main as ci
from gemma3n_perf.gate.change import touched
from gemma3n_perf.hardware.git import Repository
from tests.rehearsal.upstream import git

LONG = "a" * 300
DUEL = ("duel", "here", "here+plant:+1%", "--workload", "nano/text/pp40-tg64", "--explain")
PACKAGE = ("duel", "here", "mlx-vlm@{}", "--workload", "nano/text/pp40-tg64", "--explain")


def project(folder: Path) -> Path:
    """Make a project that calls itself mlx-vlm."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "mlx-vlm"\n')
    return folder


def unreadable(folder: Path) -> Path:
    """Make a project whose name is of a type that no reader should wait for."""
    folder.mkdir()
    os.mkfifo(folder / "pyproject.toml")
    return folder


def nested(folder: Path) -> Path:
    """Make a project whose file nests deeper than Python's stack."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text("x = " + "[" * 5000)
    return folder


def damaged(folder: Path) -> Path:
    """Make a wheel whose compressed metadata is damaged."""
    folder.mkdir()
    path = folder / "mlx_vlm-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("mlx_vlm-9.9.dist-info/METADATA", "x" * 9999)
    data = bytearray(path.read_bytes())
    place = data.index(b"METADATA") + len("METADATA")
    data[place : place + 4] = b"\xff" * 4
    path.write_bytes(data)
    return path


def typed(*argv: str) -> tuple[int, str, str]:
    """Run a command; returns its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    return program.run(argv, out, err), out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("argv", "make", "said"),
    [
        (("upstream", "~nosuchuser/x", "~nosuchuser/y"), None, "neither a folder nor a wheel"),
        ((*DUEL, "--json", LONG), None, "File name too long"),
        ((*DUEL, "--baselines", LONG), None, "File name too long"),
        (("upstream", "{}", "{}"), unreadable, "does not say which package it is"),
        (("upstream", "{}", "{}"), nested, "does not say which package it is"),
        (PACKAGE, damaged, "is no wheel"),
        (tuple(one.replace("{}", "{}/**.whl") for one in PACKAGE), project, "no such wheel"),
    ],
)
def test_places_that_cannot_be_used_exit_2(
    argv: tuple[str, ...], make: Callable[[Path], Path] | None, said: str, tmp_path: Path
) -> None:
    """Whether the system, a library or this program notices."""
    place = str(make(tmp_path / "made")) if make else ""
    code, _, err = typed(*(one.replace("{}", place) for one in argv))
    assert (code, said in err, "Traceback" in err) == (2, True, False), err


def test_a_file_of_any_name_is_part_of_a_package(tmp_path: Path) -> None:
    """Also one that is not UTF-8."""
    folder = project(tmp_path / "mlx-vlm")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).touch()
    code, out, err = typed(*(one.replace("{}", str(folder)) for one in PACKAGE))
    assert (code, "nothing was measured" in out) == (0, True), err


def test_a_relative_cache_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For git and for addresses of packages as well, which take it from elsewhere."""
    monkeypatch.setenv("GEMMA3N_PERF_CACHE", "kept")
    monkeypatch.chdir(tmp_path)
    folder = project(tmp_path / "mlx-vlm")
    code, out, err = typed(*(one.replace("{}", str(folder)) for one in PACKAGE))
    assert (code, "nothing was measured" in out) == (0, True), err
    assert os.environ["GEMMA3N_PERF_CACHE"] == str(tmp_path / "kept")


def test_a_working_directory_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4: nothing is wrong with the request."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = typed(*DUEL, "--json", "x.json")
    assert (code, "Traceback" in err) == (4, False)
    assert "the working directory is not there any more" in err


def test_a_variable_that_cannot_be_recorded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session would be measured, and could not be written."""
    monkeypatch.setenv("MLX_FOO", os.fsdecode(b"\xff"))
    code, _, err = typed("chip", "--json", "-")
    assert (code, "MLX_FOO is not UTF-8" in err, "Traceback" in err) == (2, True, False)


def test_a_fusion_is_begun_whole_or_not_at_all(tmp_path: Path) -> None:
    """What is in the way of its test keeps its module from being written, too."""
    (tmp_path / "perf" / "gemma3n_perf" / "fusions").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "fusions").touch()
    code, _, err = typed("fusion", "new", "my-fusion", "--into", str(tmp_path))
    assert (code, "Traceback" in err) == (2, False), err
    assert list((tmp_path / "perf").rglob("*.py")) == []


def test_asvs_own_errors_are_named(tmp_path: Path) -> None:
    """Its file of machines is the user's."""
    (tmp_path / "machines.json").write_text("{")
    code, _, err = typed("history", "machine", "--file", str(tmp_path / "machines.json"))
    assert (code, "cannot be written" in err, "Traceback" in err) == (2, True, False), err


def test_a_link_that_leads_to_itself_is_a_file_like_others(tmp_path: Path) -> None:
    """In a change that is gated."""
    root = tmp_path / "clone"
    (root / "baselines").mkdir(parents=True)
    git(root, "init", "--quiet")
    git(root, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-m", "first")
    (root / "loop").symlink_to("loop")
    assert touched("HEAD", Repository(root), root / "baselines").changed == ("loop",)


@pytest.mark.parametrize("option", ["--comment", "--summary"])
def test_a_step_of_ci_on_a_full_disk_is_no_loss(option: str, tmp_path: Path) -> None:
    """Exit 1 would be one."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a full device")
    places = {"--comment": str(tmp_path / "comment"), option: "/dev/full"}
    out, err = io.StringIO(), io.StringIO()
    argv = ["answer", "--plan", "", *(part for pair in places.items() for part in pair)]
    assert ci(argv, out, err) == 4
    assert "no room is left to write" in err.getvalue()
    assert "Traceback" not in err.getvalue()


def test_a_step_of_ci_waits_for_no_pipe(tmp_path: Path) -> None:
    """Nothing may ever come of it."""
    os.mkfifo(tmp_path / "pipe")
    out, err = io.StringIO(), io.StringIO()
    assert ci(["post", str(tmp_path / "pipe"), "--repo", "a/b", "--number", "1"], out, err) == 5
    assert "no regular file" in err.getvalue()
