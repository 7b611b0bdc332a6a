"""The lock, resolved by uv for Macs that are not at hand: markers and wheels by macOS and Python, nothing built."""

import os
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

LOCK = Path(__file__).parents[2] / "requirements.lock"
UNREACHABLE = (
    "error sending request",
    "failed to fetch",
    "client error",
    "network connectivity is disabled",
    "dns error",
)


def resolve(folder: Path, macos: str, python: str) -> subprocess.CompletedProcess[str]:
    """Resolve the lock for an Apple machine, dependencies included; skips where no index can be reached."""
    command = [
        find_uv_bin(), "pip", "install", "--dry-run", "--requirement", str(LOCK), "--require-hashes",
        "--only-binary", ":all:", "--python-platform", "aarch64-apple-darwin", "--python-version", python,
        "--target", str(folder),
    ]  # fmt: skip
    environ = os.environ | {"MACOSX_DEPLOYMENT_TARGET": macos}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)
    if done.returncode and any(words in done.stderr.lower() for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("macos", ["14.0", "15.0", "26.0"])
def test_the_lock_resolves_on_a_mac(tmp_path: Path, macos: str, python: str) -> None:
    """Every package has a wheel there, MLX its Metal backend, and Linux's backends stay away."""
    done = resolve(tmp_path, macos, python)
    assert done.returncode == 0, done.stderr
    names = {line.removeprefix(" + ").partition("==")[0] for line in done.stderr.splitlines() if line.startswith(" + ")}
    assert {"mlx", "mlx-metal", "mlx-vlm", "mlx-lm", "pytest-benchmark", "asv"} <= names
    assert not {"mlx-cpu", "mlx-cuda-12", "mlx-cuda-13"} & names


def test_a_macos_before_14_is_refused(tmp_path: Path) -> None:
    """MLX has no wheel for it, so that the test above can fail."""
    done = resolve(tmp_path, "13.0", "3.12")
    assert done.returncode != 0
    assert "mlx" in done.stderr
