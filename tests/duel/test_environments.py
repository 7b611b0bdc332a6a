import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.environments import (
    Environments,
    installed_requirements,
    without_neighbours,
)
from gemma3n_perf.duel.packages import released, requirements
from gemma3n_perf.duel.protocol import PROTOCOL, Hello
from gemma3n_perf.duel.startup import _hello
from gemma3n_perf.errors import ArmUnavailableError, InvalidError, UsageError
from gemma3n_perf.hardware.shell import Done

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
    assert requirements(HERE, [released("mlx", "0.32.3")]) == (
        "mlx==0.32.3", "mlx-cpu==0.32.3", "mlx-vlm==0.7.10", "numpy==2.4",
    )  # fmt: skip
    cuda = HERE | {"mlx-cuda-13": "mlx-cuda-13==0.32.4"}
    del cuda["mlx-cpu"]
    assert "mlx-cuda-13==0.31.0" in requirements(cuda, [released("mlx", "0.31.0")])
    assert not any("mlx-cpu" in one for one in requirements(cuda, [released("mlx", "0.31.0")]))


def test_mlx_vlm_is_replaced_alone() -> None:
    """By a version, or by where it comes from."""
    assert "mlx-vlm==0.7.9" in requirements(HERE, [released("mlx-vlm", "0.7.9")])
    assert "mlx==0.32.4" in requirements(HERE, [released("mlx-vlm", "0.7.9")])


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
    found = installed_requirements(str(tmp_path))
    assert found == {"one": "one @ git+https://x/one@abc", "two": "two @ file:///two"}


def test_an_environment_is_built_once(tmp_path: Path) -> None:
    """By content: the same wish finds it, another does not."""
    uv = FakeUv()
    made = environments(tmp_path, uv)
    python = made.interpreter([released("mlx", "0.32.3")])
    assert python.exists()
    assert uv.listed.splitlines() == ["mlx==0.32.3", "mlx-cpu==0.32.3", "mlx-vlm==0.7.10", "numpy==2.4"]
    calls = len(uv.calls)
    assert environments(tmp_path, uv).interpreter([released("mlx", "0.32.3")]) == python
    assert len(uv.calls) == calls
    assert made.interpreter([released("mlx", "0.32.2")]) != python


def test_mlx_installs_without_arguing_and_mlx_vlm_with_its_own_needs(tmp_path: Path) -> None:
    """Another package pins mlx exactly, so nothing is resolved, except what another mlx-vlm needs besides mlx."""
    uv = FakeUv()
    environments(tmp_path, uv).interpreter([released("mlx", "0.32.3")])
    assert [call[1:3] for call in uv.calls] == [("venv", "--quiet"), ("pip", "install")]
    assert "--no-deps" in uv.calls[1]
    uv.calls.clear()
    environments(tmp_path, uv).interpreter([released("mlx", "0.32.3"), released("mlx-vlm", "0.7.9")])
    assert uv.calls[2][-1] == "mlx-vlm==0.7.9"
    assert "--override" in uv.calls[2]
    assert "--no-deps" not in uv.calls[2]


def test_an_mlx_too_old_for_the_mlx_lm_that_is_here_has_an_older_one(tmp_path: Path) -> None:
    """The oldest that its mlx-vlm accepts; without it nothing could be imported."""
    uv = FakeUv(imports=False)
    environments(tmp_path, uv).interpreter([released("mlx", "0.30.6"), released("mlx-vlm", "0.4.4")])
    assert uv.calls[-1][-2:] == ("mlx-lm", "mlx-vlm==0.4.4")
    assert "lowest-direct" in uv.calls[-1]
    uv = FakeUv()
    environments(tmp_path, uv).interpreter([released("mlx", "0.31.2"), released("mlx-vlm", "0.4.4")])
    assert not any("lowest-direct" in call for call in uv.calls)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """The next try starts from nothing, and succeeds."""
    uv = FakeUv(fails="error: Failed to fetch: dns error: failed to lookup address")
    made = environments(tmp_path, uv)
    with pytest.raises(ArmUnavailableError, match=r"mlx==0\.32\.3 cannot be built here"):
        made.interpreter([released("mlx", "0.32.3")])
    assert [path.name for path in (tmp_path / "environments").iterdir() if not path.name.endswith(".lock")] == []
    uv.fails = ""
    assert made.interpreter([released("mlx", "0.32.3")]).exists()


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
        environments(tmp_path, FakeUv(fails=said)).interpreter([released("mlx", "9.9.9")])


def test_a_release_that_does_not_exist_names_the_nearest_that_do(tmp_path: Path) -> None:
    """Below and above, as the package index has them for this Python."""

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        if "compile" in argv:
            line = Path(argv[-1]).read_text().strip()
            return Done(0, {"mlx<0.32.9": "mlx==0.32.4\n", "mlx>0.32.9": "mlx==0.33.0 ; x\n"}[line], "")
        return FakeUv(fails="Because there is no version of mlx==0.32.9 and you require it")(argv, timeout_s)

    with pytest.raises(UsageError) as caught:
        Environments(tmp_path, run, HERE, uv="uv").interpreter([released("mlx", "0.32.9")])
    assert caught.value.remedy == "the nearest that exist: mlx==0.32.4 and mlx==0.33.0"


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("Because there is no version of mlx==0.32.9 and you require it", True),
        ("error: Failed to fetch: dns error: failed to lookup address", False),
        ("", False),
    ],
)
def test_a_release_is_looked_up_before_anything_is_built(tmp_path: Path, said: str, raised: bool) -> None:
    """In uv's cache, then on the index. Where nobody answers, building says so; a package with a place is none."""
    asked = list[tuple[str, ...]]()

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        asked.append(tuple(argv))
        line = Path(argv[-1]).read_text().strip()
        if line == "mlx==0.32.9":
            return Done(1, "", said) if said else Done(0, line, "")
        return Done(0, "mlx==0.32.4\n" if "<" in line else "", "")

    made = Environments(tmp_path, run, HERE, uv="uv")
    if raised:
        with pytest.raises(UsageError, match=r"mlx==0\.32\.9 does not exist") as caught:
            made.require_released(released("mlx", "0.32.9"))
        assert caught.value.remedy == "the nearest that exist: mlx==0.32.4"
    else:
        made.require_released(released("mlx", "0.32.9"))
    assert ["--offline" in argv for argv in asked][:2] == ([True, False] if said else [True])
    assert not (tmp_path / "environments").exists()


def test_a_package_that_is_not_here_is_refused_with_those_of_like_name(tmp_path: Path) -> None:
    """A typo in a name is a mistake of the request."""
    made = environments(tmp_path, FakeUv())
    with pytest.raises(UsageError, match="nunpy is no package") as caught:
        made.package("nunpy", "==1.0")
    assert "numpy" in (caught.value.expected or "")
    assert made.package("mlx-lm", "==0.31.0").requirement == "mlx-lm==0.31.0"


def test_the_interpreter_is_part_of_the_content(tmp_path: Path) -> None:
    """Another Python is another environment."""
    uv = FakeUv()
    ours = Environments(tmp_path, uv, HERE, python=sys.executable, uv="uv").interpreter([released("mlx", "1")])
    theirs = Environments(tmp_path, uv, HERE, python="/other/python", uv="uv").interpreter([released("mlx", "1")])
    assert ours != theirs


def test_an_installed_suite_is_found_without_its_neighbours(tmp_path: Path) -> None:
    """Or an arm with another mlx would import the one that lies beside the suite. A checkout serves as it is."""
    for name in ("gemma3n_perf", "mlx", "mlx-0.32.4.dist-info"):
        (tmp_path / "site" / name).mkdir(parents=True)
    (tmp_path / "perf" / "gemma3n_perf").mkdir(parents=True)
    for _ in range(2):
        found = without_neighbours(tmp_path / "site", tmp_path / "cache")
        assert [path.name for path in found.iterdir()] == ["gemma3n_perf"]
        assert (found / "gemma3n_perf").resolve() == tmp_path / "site/gemma3n_perf"
    assert without_neighbours(tmp_path / "perf", tmp_path / "cache") == tmp_path / "perf"


def test_an_arm_that_runs_on_another_mlx_than_it_names_is_invalid() -> None:
    """However it came to import it."""
    arm = ReadyArm("candidate", "here+mlx==0.32.1", (), {}, "", 0.0, (), ())
    worker = SimpleNamespace(receive=lambda timeout_s: Hello(PROTOCOL, 1, {"mlx": "0.32.4"}))
    with pytest.raises(InvalidError, match=r"here\+mlx==0\.32\.1 runs on mlx 0\.32\.4"):
        _hello(worker, arm, 1.0)
    assert _hello(worker, replace(arm, text="mlx==0.32.4+ref:main"), 1.0).pid == 1
