import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma3n_perf.hardware.stack import current_stack, installed_release, suite_checkout, wheel_platform
from tests.hardware.replay import Machine, recorded

VERSIONS = {"mlx": "0.32.4", "mlx-vlm": "0.7.10", "mlx-metal": "0.32.4", "numpy": "2.4.6"}


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, without the user's own settings."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "code.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def commit_of(repo: Path | None) -> tuple[str | None, bool | None]:
    """Return commit and dirty flag as the stack tells them."""
    stack = current_stack(repo, system=recorded("epyc-9b45"), environ={}, version=VERSIONS.get)
    return stack.commit, stack.dirty


def test_git_that_cannot_answer_leaves_the_commit_unknown(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decode can be measured without git."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert commit_of(checkout) == (None, None)


def test_versions_knobs_and_system_of_a_mac() -> None:
    """Only packages that are there are listed, and only MLX's variables are knobs."""
    environ = {"MLX_MAX_OPS_PER_BUFFER": "1000", "PATH": "/bin", "MLX_MAX_MB_PER_BUFFER": "40"}
    stack = current_stack(None, system=recorded("m1-ultra-64"), environ=environ, version=VERSIONS.get)
    assert (stack.mlx, stack.mlx_vlm, stack.backend, stack.os) == ("0.32.4", "0.7.10", "metal", "macOS 26.2")
    assert stack.knobs == {"MLX_MAX_MB_PER_BUFFER": "40", "MLX_MAX_OPS_PER_BUFFER": "1000"}
    assert stack.packages == {"mlx-metal": "0.32.4", "numpy": "2.4.6"}
    assert (stack.driver, stack.commit, stack.dirty) == (None, None, None)


def test_a_mac_s_power_mode_and_wheel_are_recorded() -> None:
    """The Metal library's wheel tells which kernels it carries, else MLX's own; elsewhere neither is asked."""
    mac = Machine("m1-ultra-64")
    mac.commands["pmset -g"] = "Currently in use:\n powermode 2\n"
    metal = {"mlx-metal": "macosx_26_0_arm64", "mlx": "macosx_14_0_arm64"}
    for known, wheel in ((metal, "macosx_26_0_arm64"), ({"mlx": metal["mlx"]}, "macosx_14_0_arm64"), ({}, None)):
        stack = current_stack(None, system=mac.system, environ={}, version=VERSIONS.get, wheel=known.get)
        assert (stack.power_mode, stack.wheel, stack.neural_accelerator) == ("high", wheel, False)
    linux = current_stack(None, system=recorded("epyc-9b45"), environ={}, wheel=metal.get)
    assert (linux.power_mode, linux.wheel, linux.neural_accelerator) == (None, None, None)
    newest = Machine("m5-max")
    for tag, taken in (("macosx_26_0_arm64", True), ("macosx_15_0_arm64", False)):
        stack = current_stack(None, system=newest.system, environ={}, wheel={"mlx-metal": tag}.get)
        assert stack.neural_accelerator is taken


def test_a_wheel_s_platform_is_read_from_its_own_file() -> None:
    """This environment's MLX was installed from one."""
    assert (wheel_platform("mlx") or "").startswith(("manylinux", "macosx", "linux"))
    assert wheel_platform("no-such-package") is None


def test_the_driver_is_told_where_mlx_runs_on_cuda() -> None:
    """NVML counts CUDA's version in thousands."""
    assert current_stack(None, system=recorded("h100"), environ={}).driver == "580.159.04 (CUDA 13.0)"


def test_a_linux_system_is_named_with_its_kernel() -> None:
    """Distribution first."""
    machine = Machine("epyc-9b45")
    machine.files |= {"/etc/os-release": 'ID=x\nPRETTY_NAME="Debian 12"\n', "/proc/sys/kernel/osrelease": "6.1.0\n"}
    assert current_stack(None, system=machine.system, environ={}).os == "Debian 12, Linux 6.1.0"


def test_a_clean_checkout_has_its_commit(checkout: Path) -> None:
    """The commit is the full hash."""
    assert commit_of(checkout) == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("path", ["perf/code.py", "perf/new.py", "Makefile"])
def test_any_change_to_sources_makes_it_dirty(checkout: Path, path: str) -> None:
    """A new file that git does not know yet is a change, too; a subfolder is judged with the whole checkout."""
    (checkout / path).write_text("2\n")
    assert commit_of(checkout)[1] is True
    assert commit_of(checkout / "perf")[1] is True


@pytest.mark.parametrize("path", ["baselines/cpu/0001.json", "docs/baselines.md"])
def test_results_do_not_make_it_dirty(checkout: Path, path: str) -> None:
    """Saving one baseline must not spoil the next session's."""
    (checkout / path).parent.mkdir(parents=True)
    (checkout / path).write_text("{}\n")
    assert commit_of(checkout)[1] is False


def test_outside_git_and_before_the_first_commit(tmp_path: Path) -> None:
    """No repository: both unknown. Nothing committed: no commit, and all of it is change."""
    (tmp_path / "file").write_text("1\n")
    assert commit_of(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == (None, True)
    assert commit_of(None) == (None, None)


def test_this_suite_knows_its_own_checkout() -> None:
    """It is the folder above perf/, or nothing where the package was installed."""
    root = suite_checkout()
    assert root is None or (root / "perf" / "gemma3n_perf" / "hardware" / "stack.py").exists()


def test_what_an_editable_install_leaves_is_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts the benchmarks into site-packages, without a package around them."""
    found = SimpleNamespace(version="9.9", locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr("gemma3n_perf.hardware.stack.metadata.distribution", lambda name: found)
    (tmp_path / "gemma3n_perf" / "pytest_plugin").mkdir(parents=True)
    assert installed_release() is None
    (tmp_path / "gemma3n_perf" / "__init__.py").touch()
    assert installed_release() == ("9.9", tmp_path)
