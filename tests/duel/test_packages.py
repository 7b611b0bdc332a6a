import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from gemma3n_perf.duel.environments import Environments, installed_requirements
from gemma3n_perf.duel.packages import BACKENDS, Origins, released, requirements
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.shell import Done, run_command
from tests.rehearsal.upstream import git, repository

NANO = "nano/text/pp32-tg32"
HERE = {"mlx": "mlx==0.32.4", "mlx-cpu": "mlx-cpu==0.32.4", "mlx-vlm": "mlx-vlm==0.7.10"}
TAG = str(next(iter(sys_tags())))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of a package of two commits, with a tag on the first."""
    root = tmp_path / "src" / "mlx-vlm"
    root.mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "mlx_vlm"\nversion = "1"\n')
    git(root, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "Nobody"), ("user.email", "nobody@example.org"), ("commit.gpgsign", "false")):
        git(root, "config", name, value)
    for text in ("1", "2"):
        (root / "a.py").write_text(text)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "-m", text)
    git(root, "tag", "-a", "v1", "-m", "v1", "HEAD^")
    return root


@pytest.fixture
def origins(tmp_path: Path) -> Origins:
    """Origins with real git."""
    return Origins(tmp_path / "cache", run_command)


def test_a_clean_checkout_is_its_commit(clone: Path, origins: Origins) -> None:
    """Installed as git has it, whichever clone it is in, and at any revision."""
    head, first = git(clone, "rev-parse", "HEAD"), git(clone, "rev-parse", "HEAD^")
    found = origins.package("mlx-vlm", str(clone))
    assert (found.key, found.changed) == (head, "")
    assert found.requirement == f"mlx-vlm @ git+{clone.as_uri()}@{head}"
    for place in (f"{clone}#v1", f"{clone}#HEAD^", f"{clone.as_uri()}#v1", f"git+{clone.as_uri()}#{first}"):
        assert origins.package("mlx-vlm", place).key == first
    assert origins.package("mlx-vlm", clone.as_uri()).key == head


@pytest.mark.parametrize(
    "place", ["{clone}#no-such", "{uri}#no-such", "{clone}/missing", "{clone}/missing#v1", "x.whl"]
)
def test_a_place_that_does_not_exist_is_refused(clone: Path, origins: Origins, place: str) -> None:
    """It is a mistake of the request."""
    with pytest.raises(UsageError) as caught:
        origins.package("mlx-vlm", place.format(clone=clone, uri=clone.as_uri()))
    assert caught.value.expected


def test_a_tree_with_changes_is_copied_and_marked(clone: Path, origins: Origins) -> None:
    """As it is now, new files with it and ignored ones without; an edit later is another package."""
    (clone / ".gitignore").write_text("ignored.py\n")
    (clone / "ignored.py").touch()
    (clone / "new.py").touch()
    (clone / "a.py").write_text("3")
    found = origins.package("mlx-vlm", str(clone))
    assert found.changed == str(clone)
    (copy,) = (origins.cache / "sources").iterdir()
    assert sorted(one.name for one in copy.iterdir()) == [".gitignore", "a.py", "new.py", "pyproject.toml"]
    assert origins.package("mlx-vlm", str(clone)) == found
    (clone / "a.py").write_text("4")
    assert (copy / "a.py").read_text() == "3"
    assert origins.package("mlx-vlm", str(clone)).key != found.key


def test_a_copy_without_git_is_marked_as_well(tmp_path: Path, origins: Origins) -> None:
    """It belongs to no commit either, even within another repository; caches in it count for nothing."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "kernel.cpp").write_text("1")
    before = origins.package("mlx-vlm", str(tmp_path))
    assert before.changed
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").touch()
    (tmp_path / "cache").rename(tmp_path / "build")
    assert origins.package("mlx-vlm", str(tmp_path)).key == before.key


def test_a_checkout_of_another_package_is_refused(clone: Path, origins: Origins, tmp_path: Path) -> None:
    """And so is a folder that is none."""
    with pytest.raises(UsageError, match="is a checkout of mlx-vlm"):
        origins.package("mlx-lm", str(clone))
    with pytest.raises(UsageError, match="no Python project"):
        origins.package("mlx-vlm", str(tmp_path))


def test_a_branch_alone_is_one_of_the_packages_home(tmp_path: Path) -> None:
    """Its commit is what is installed; a full commit needs no asking, and offline nothing is said to be missing."""
    reply = Done(0, "aaa\trefs/tags/v1\nbbb\trefs/tags/v1^{}\n", "")
    assert Origins(tmp_path, lambda argv, timeout_s: reply).package("mlx-vlm", "v1").key == "bbb"
    offline = Origins(tmp_path, lambda argv, timeout_s: Done(128, "", "Could not resolve host"))
    assert offline.package("mlx-vlm", "c" * 40).key == "c" * 40
    with pytest.raises(ArmUnavailableError, match="Could not resolve host"):
        offline.package("mlx-vlm", "main")
    with pytest.raises(UsageError, match="password"):
        offline.package("mlx-vlm", "https://me:secret@host/mlx-vlm#main")


def wheel(
    folder: Path, name: str, version: str, *, tag: str = TAG, needs: str = "", files: tuple[str, ...] = ()
) -> Path:
    """Write a wheel that holds empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n{needs}")
        for file in files:
            packed.writestr(file, "")
    return path


def test_a_wheel_of_mlx_brings_its_backend(tmp_path: Path, origins: Origins) -> None:
    """The library in it; else the wheel beside it of its own version; else the release that it names."""
    needs = 'Requires-Dist: mlx-cpu==0.33.0; extra == "cpu"\n'
    named = origins.package("mlx", str(wheel(tmp_path / "dist", "mlx", "0.33.0", needs=needs)))
    assert requirements(HERE, [named])[1] == "mlx-cpu==0.33.0"
    wheel(tmp_path / "dist", "mlx_cpu", "0.32.0")
    beside = wheel(tmp_path / "dist", "mlx_cpu", "0.33.0")
    found = origins.package("mlx", str(tmp_path / "dist" / "mlx-*.whl"))
    assert requirements(HERE, [found])[1] == f"mlx-cpu @ {beside.as_uri()}"
    assert found.key != named.key
    whole = origins.package("mlx", str(wheel(tmp_path / "whole", "mlx", "0.33.0", files=("mlx/lib/libmlx.so",))))
    assert [one.split()[0] for one in requirements(HERE, [whole])] == ["mlx", "mlx-vlm==0.7.10"]
    ours = released("mlx-cpu", "0.33.1")
    assert "mlx-cpu==0.33.1" in requirements(HERE, [found, ours])


def test_a_wheel_that_cannot_be_used_is_refused(tmp_path: Path, origins: Origins) -> None:
    """Another package's, another Python's, several at once, and a file that is none."""
    for path, found in (
        (wheel(tmp_path / "a", "numpy", "1.0"), "a wheel of numpy"),
        (wheel(tmp_path / "b", "mlx", "1.0", tag="cp27-cp27m-win32"), "another Python or platform"),
        (wheel(tmp_path / "c", "mlx", "1.0").with_name("mlx-*.whl"), ""),
        (tmp_path / "mlx-1.0-py3-none-any.whl", "no wheel"),
    ):
        if found == "":
            wheel(tmp_path / "c", "mlx", "1.1")
            found = "several wheels"
        elif found == "no wheel":
            path.write_text("text")
        with pytest.raises(UsageError, match=found):
            origins.package("mlx", str(path))


def relabelled(name: str, version: str, folder: Path) -> Path:
    """Pack an installed distribution into a wheel of another version."""
    folder.mkdir(exist_ok=True)
    found = metadata.distribution(name)
    tag = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)[0]
    label = name.replace("-", "_")
    own, names = f"{label}-{version}.dist-info", []
    path = folder / f"{label}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for file in found.files or ():
            inside = re.sub(r"^[^/]+\.dist-info/", f"{own}/", str(file))
            if file.suffix == ".pyc" or ".." in file.parts or file.name in ("RECORD", "INSTALLER", "REQUESTED"):
                continue
            content = Path(str(file.locate())).read_bytes()
            if file.name == "METADATA":
                content = re.sub(rb"(?m)^Version: .*$", f"Version: {version}".encode(), content, count=1)
            packed.writestr(inside, content)
            names.append(inside)
        packed.writestr(f"{own}/RECORD", "".join(f'"{one}",,\n' for one in (*names, f"{own}/RECORD")))
    return path


def duel(baseline: str, candidate: str) -> Mapping[str, object]:
    """Duel two arms for a moment, through the command; return its record."""
    options = ["--workload", NANO, "--allow-busy", "--budget", "6", "--json"]
    command = [sys.executable, "-m", "gemma3n_perf", "duel", baseline, candidate, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode in (0, 1, 3), done.stdout[-2000:] + done.stderr
    found: Mapping[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_an_arm_from_an_address_of_a_clone_is_duelled(tmp_path: Path) -> None:
    """For real: git, uv, two environments and two processes; and a tree with changes beside it."""
    root = repository(tmp_path)
    (root / "new.txt").touch()
    found = duel(f"mlx-vlm@{root.as_uri()}#main", f"mlx-vlm@{root}")
    assert found["launches"]
    assert "which is no commit" in json.dumps(found)


@pytest.mark.skipif("mlx-cpu" not in installed_requirements(), reason="packs the CPU build of MLX")
@pytest.mark.slow
def test_an_arm_from_a_relabelled_wheel_of_mlx_with_its_backend_is_duelled(tmp_path: Path) -> None:
    """The worker runs on the wheel, and says so."""
    version = metadata.version("mlx") + "+mine"
    for name in ("mlx", next(one for one in BACKENDS if one in installed_requirements())):
        relabelled(name, version, tmp_path / "dist")
    found = duel("here", f"mlx@{tmp_path}/dist/mlx-*.whl")
    assert found["launches"]
    assert found["stacks"]["candidate"]["mlx"] == version  # type: ignore[index]


def test_a_release_that_does_not_exist_exits_2_with_the_nearest() -> None:
    """Through the command, from the package index."""
    command = [sys.executable, "-m", "gemma3n_perf", "duel", "here", "mlx-lm==99.0", "--allow-busy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "cannot be built here" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 2, done.stderr
    assert "the nearest that exist: mlx-lm==" in done.stderr


def test_a_place_is_looked_at_once(clone: Path, tmp_path: Path) -> None:
    """An edit while arms are made ready does not make two packages of one."""
    (clone / "new.py").touch()
    made = Environments(tmp_path / "cache", run_command, HERE)
    before = made.package("mlx-vlm", f"@{clone}")
    (clone / "new.py").write_text("1")
    assert made.package("mlx-vlm", f"@{clone}") is before


def test_a_branch_of_another_remote_is_not_the_one_asked_for(clone: Path, origins: Origins, tmp_path: Path) -> None:
    """git lists every name that ends as the one asked for, and a clone holds those of its own remote too."""
    mine = tmp_path / "mine" / "mlx-vlm"
    mine.parent.mkdir()
    git(mine.parent, "clone", "--quiet", clone.as_uri(), "mlx-vlm")
    git(mine, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-m", "slower")
    head = git(mine, "rev-parse", "HEAD")
    assert head != git(clone, "rev-parse", "HEAD")
    git(mine, "update-ref", "refs/heads/zz/main", "HEAD^")
    for place in (mine.as_uri(), f"{mine.as_uri()}#main", f"{mine.as_uri()}#HEAD"):
        assert origins.package("mlx-vlm", place).key == head
    with pytest.raises(UsageError):
        origins.package("mlx-vlm", f"{mine.as_uri()}#*")
