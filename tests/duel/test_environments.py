import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest

from gemma3n_perf.duel.environments import Environments, PackageSpec, installed_requirements, requirements
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.shell import Done, run_command

HERE = {name: f"{name}=={version}" for name, version in
        (("mlx", "0.32.4"), ("mlx-cpu", "0.32.4"), ("mlx-vlm", "0.7.10"), ("numpy", "2.4"))}  # fmt: skip


@dataclass
class FakeUv:
    """Makes an empty environment, or fails as it is told; keeps what it was asked."""

    fails: str = ""
    imports: bool = True
    calls: list[tuple[str, ...]] = field(default_factory=list)
    listed: str = ""

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Done:
        """Run a command."""
        self.calls.append(tuple(argv))
        if argv[1] == "-c":
            return Done(0 if self.imports else 1, "", "")
        if argv[1] == "venv":
            python = Path(argv[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        elif "--requirement" in argv:
            self.listed = Path(argv[-1]).read_text()
            return Done(1, "", self.fails) if self.fails else Done(0, "", "")
        return Done(0, "", "")


def environments(tmp_path: Path, uv: FakeUv) -> Environments:
    """Return environments made by a fake uv."""
    return Environments(tmp_path, uv, HERE, uv="uv")


def test_mlx_and_its_backend_change_together() -> None:
    """The CPU build stays the CPU build, at mlx's version; all else is as it is here."""
    assert requirements(HERE, PackageSpec(mlx="0.32.3")) == (
        "mlx==0.32.3", "mlx-cpu==0.32.3", "mlx-vlm==0.7.10", "numpy==2.4",
    )  # fmt: skip
    cuda = HERE | {"mlx-cuda-13": "mlx-cuda-13==0.32.4"}
    del cuda["mlx-cpu"]
    assert "mlx-cuda-13==0.31.0" in requirements(cuda, PackageSpec(mlx="0.31.0"))
    assert not any("mlx-cpu" in one for one in requirements(cuda, PackageSpec(mlx="0.31.0")))


def test_mlx_vlm_is_replaced_alone() -> None:
    """By a version, or by where it comes from."""
    assert "mlx-vlm==0.7.9" in requirements(HERE, PackageSpec(mlx_vlm="0.7.9"))
    assert "mlx-vlm @ file:///src" in requirements(HERE, PackageSpec(source="mlx-vlm @ file:///src"))
    assert "mlx==0.32.4" in requirements(HERE, PackageSpec(mlx_vlm="0.7.9"))


def test_this_environment_is_listed_as_it_is(tmp_path: Path) -> None:
    """With its own mlx and numpy, once each; without this suite and its tools."""
    found = installed_requirements()
    assert found["numpy"] == f"numpy=={metadata.version('numpy')}"
    assert found["mlx"].startswith("mlx==")
    assert not {"gemma3n-perf", "ruff", "pip"} & found.keys()


def test_a_package_from_git_or_a_folder_is_listed_with_its_origin(tmp_path: Path) -> None:
    """A version alone would install another package."""
    for name, origin in (
        ("one", '{"url": "https://x/one", "vcs_info": {"vcs": "git", "commit_id": "abc"}}'),
        ("two", '{"url": "file:///two", "dir_info": {"editable": true}}'),
    ):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "direct_url.json").write_text(origin)
    found = installed_requirements(metadata.distributions(path=[str(tmp_path)]))
    assert found == {"one": "one @ git+https://x/one@abc", "two": "two @ file:///two"}


def test_an_environment_is_built_once(tmp_path: Path) -> None:
    """By content: the same wish finds it, another does not."""
    uv = FakeUv()
    made = environments(tmp_path, uv)
    python = made.interpreter(PackageSpec(mlx="0.32.3"))
    assert python.exists()
    assert uv.listed.splitlines() == ["mlx==0.32.3", "mlx-cpu==0.32.3", "mlx-vlm==0.7.10", "numpy==2.4"]
    calls = len(uv.calls)
    assert environments(tmp_path, uv).interpreter(PackageSpec(mlx="0.32.3")) == python
    assert len(uv.calls) == calls
    assert made.interpreter(PackageSpec(mlx="0.32.2")) != python


def test_mlx_installs_without_arguing_and_mlx_vlm_with_its_own_needs(tmp_path: Path) -> None:
    """Another package pins mlx exactly, so nothing is resolved, except what another mlx-vlm needs besides mlx."""
    uv = FakeUv()
    environments(tmp_path, uv).interpreter(PackageSpec(mlx="0.32.3"))
    assert [call[1:3] for call in uv.calls] == [("venv", "--quiet"), ("pip", "install")]
    assert "--no-deps" in uv.calls[1]
    uv.calls.clear()
    environments(tmp_path, uv).interpreter(PackageSpec(mlx="0.32.3", mlx_vlm="0.7.9"))
    assert uv.calls[2][-1] == "mlx-vlm==0.7.9"
    assert "--override" in uv.calls[2]
    assert "--no-deps" not in uv.calls[2]


def test_an_mlx_too_old_for_the_mlx_lm_that_is_here_has_an_older_one(tmp_path: Path) -> None:
    """The oldest that its mlx-vlm accepts; without it nothing could be imported."""
    uv = FakeUv(imports=False)
    environments(tmp_path, uv).interpreter(PackageSpec(mlx="0.30.6", mlx_vlm="0.4.4"))
    assert uv.calls[-1][-2:] == ("mlx-lm", "mlx-vlm==0.4.4")
    assert "lowest-direct" in uv.calls[-1]
    uv = FakeUv()
    environments(tmp_path, uv).interpreter(PackageSpec(mlx="0.31.2", mlx_vlm="0.4.4"))
    assert not any("lowest-direct" in call for call in uv.calls)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """The next try starts from nothing, and succeeds."""
    uv = FakeUv(fails="error: Failed to fetch: dns error: failed to lookup address")
    made = environments(tmp_path, uv)
    with pytest.raises(ArmUnavailableError, match=r"mlx==0\.32\.3 cannot be built here"):
        made.interpreter(PackageSpec(mlx="0.32.3"))
    assert [path.name for path in (tmp_path / "environments").iterdir() if not path.name.endswith(".lock")] == []
    uv.fails = ""
    assert made.interpreter(PackageSpec(mlx="0.32.3")).exists()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Because there is no version of mlx==9.9.9 and you require mlx==9.9.9, it cannot be used", UsageError),
        ("Because mlx==0.1 has no wheels with a matching Python ABI tag", UsageError),
        ("error: Failed to fetch: `https://x`\nCaused by: error sending request", ArmUnavailableError),
        ("Because there is no version of mlx and the network was disabled", ArmUnavailableError),
        ("No space left on device", ArmUnavailableError),
    ],
)
def test_a_missing_version_is_told_from_a_missing_network(tmp_path: Path, said: str, error: type[Exception]) -> None:
    """The first is a mistake of the request, the second only means that nothing was measured."""
    with pytest.raises(error):
        environments(tmp_path, FakeUv(fails=said)).interpreter(PackageSpec(mlx="9.9.9"))


def test_a_folder_of_mlx_vlm_is_known_by_its_content(tmp_path: Path) -> None:
    """Outside git, a changed source is another arm."""
    folder = tmp_path / "mlx-vlm"
    folder.mkdir()
    made = Environments(tmp_path, run_command, HERE)
    with pytest.raises(UsageError, match="no Python project"):
        made.source(str(folder))
    (folder / "pyproject.toml").touch()
    (folder / "a.py").write_text("1")
    before = made.source(str(folder))
    assert before.source == f"mlx-vlm @ {folder.as_uri()}"
    (folder / "a.py").write_text("2")
    assert made.source(str(folder)).key != before.key


def test_a_dirty_checkout_of_mlx_vlm_is_refused(tmp_path: Path) -> None:
    """What was measured must be there to measure again."""
    folder = tmp_path / "mlx-vlm"
    folder.mkdir()
    (folder / "pyproject.toml").touch()

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        return Done(0, " M a.py\n" if "status" in argv else "abc\n", "")

    with pytest.raises(UsageError, match="uncommitted changes"):
        Environments(tmp_path, run, HERE).source(str(folder))


def test_a_git_reference_of_mlx_vlm_becomes_a_commit(tmp_path: Path) -> None:
    """A branch moves, so its commit is what is installed; a full commit needs no asking."""

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        return Done(0, "aaa\trefs/tags/v1\nbbb\trefs/tags/v1^{}\n" if "v1" in argv else "", "")

    made = Environments(tmp_path, run, HERE)
    assert made.source("v1").key == "bbb"
    assert made.source("c" * 40).key == "c" * 40
    with pytest.raises(UsageError, match="no branch or tag"):
        made.source("v2")
    with pytest.raises(UsageError, match="no such folder"):
        made.source("./missing")


def test_offline_a_git_reference_is_unavailable(tmp_path: Path) -> None:
    """Nothing is measured, and nobody is told that it does not exist."""
    made = Environments(tmp_path, lambda argv, timeout_s: Done(128, "", "Could not resolve host"), HERE)
    with pytest.raises(ArmUnavailableError, match="Could not resolve host"):
        made.source("main")


def test_the_interpreter_is_part_of_the_content(tmp_path: Path) -> None:
    """Another Python is another environment."""
    uv = FakeUv()
    ours = Environments(tmp_path, uv, HERE, python=sys.executable, uv="uv").interpreter(PackageSpec(mlx="1"))
    theirs = Environments(tmp_path, uv, HERE, python="/other/python", uv="uv").interpreter(PackageSpec(mlx="1"))
    assert ours != theirs
