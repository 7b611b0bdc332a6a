"""The software of one arm: versions, backend, knobs, the suite's commit and the driver."""

import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError
from gemma3n_perf.hardware import apple, nvidia
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Stack

# Packages besides mlx and mlx-vlm whose version can change what is measured or how.
PACKAGES = (
    "gemma3n-perf",
    "mlx-cpu",
    "mlx-cuda-12",
    "mlx-cuda-13",
    "mlx-lm",
    "mlx-metal",
    "numpy",
    "scipy",
    "transformers",
)
# Places the suite itself writes to; what changes there changes no measurement.
RESULTS = ("baselines", "docs")


def current_stack(
    repo: Path | None,
    *,
    system: System | None = None,
    environ: Mapping[str, str] = os.environ,
    version: Callable[[str], str | None] | None = None,
    wheel: Callable[[str], str | None] | None = None,
) -> Stack:
    """Return the software this process runs with.

    ``repo`` is the checkout whose commit is recorded, see ``suite_checkout``; None, a folder outside git, or git that
    cannot answer leaves commit and dirty unknown. Changes under ``baselines/`` and ``docs/`` do not make a checkout
    dirty.
    """
    system = system or this_machine()
    version = version or installed
    backend = system.accelerator().backend
    mac = system.platform == "darwin"
    commit, dirty = _state(Repository(repo)) if repo else (None, None)
    built_for = mlx_wheel(wheel or wheel_platform) if mac else None
    chip, version_of_macos = (apple.brand(system) or "", apple.macos(system)) if mac else ("", None)
    return Stack(
        python=platform.python_version(),
        os=_operating_system(system),
        mlx=version("mlx") or "unknown",
        mlx_vlm=version("mlx-vlm"),
        backend=backend,
        knobs={name: value for name, value in sorted(environ.items()) if name.startswith("MLX_")},
        packages={name: found for name in PACKAGES if (found := version(name)) is not None},
        commit=commit,
        dirty=dirty,
        driver=nvidia.driver(system) if backend == "cuda" else None,
        power_mode=apple.power_mode(system) if mac else None,
        wheel=built_for,
        neural_accelerator=apple.neural_accelerator(chip, version_of_macos, built_for),
    )


def suite_checkout() -> Path | None:
    """Return the git checkout this package is run from, or None where it was installed."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / ".git").exists() else None


def installed_release(package: Path | None = None) -> tuple[str, Path] | None:
    """Return version and folder of a release installed beside ``package``, the folder of this one; None without one."""
    running = (package or Path(__file__).resolve().parents[1]).resolve()
    try:
        found = metadata.distribution("gemma3n-perf")
    except metadata.PackageNotFoundError:
        return None
    place = Path(str(found.locate_file("gemma3n_perf"))).resolve()
    return (found.version, place.parent) if (place / "__init__.py").is_file() and place != running else None


def in_checkout(name: str, given: Path | None = None) -> Path:
    """Return the folder that was ``given``, else ``name`` of this checkout, or of the working directory without one."""
    return given or (suite_checkout() or Path()) / name


def shipped_baselines(package: Path | None = None) -> Path:
    """Return the baselines that come with this suite: those of its checkout, or what an installed release carries."""
    package = package or Path(__file__).resolve().parents[1]
    beside = package.parents[1] / "baselines"
    return beside if (package.parents[1] / "pyproject.toml").is_file() and beside.is_dir() else package / "baselines"


def recorded(baselines: Path, name: str) -> Path:
    """Return ``name`` of ``baselines``; where an installed release finds none there, its own."""
    found = baselines / name
    return found if found.exists() or suite_checkout() else shipped_baselines() / name


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def wheel_platform(package: str) -> str | None:
    """Return the platform that an installed distribution's wheel was built for, such as ``macosx_14_0_arm64``."""
    try:
        text = metadata.distribution(package).read_text("WHEEL") or ""
    except metadata.PackageNotFoundError:
        return None
    tags = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:")]
    return tags[0].rpartition("-")[2] if tags else None


def mlx_wheel(wheel: Callable[[str], str | None] = wheel_platform) -> str | None:
    """Return the platform that MLX was built for: that of its Metal library, which holds the kernels, or its own."""
    return next(filter(None, map(wheel, ("mlx-metal", "mlx"))), None)


def _state(checkout: Repository) -> tuple[str | None, bool | None]:
    try:
        return checkout.commit(), checkout.is_dirty(":(top)", *(f":(top,exclude){folder}" for folder in RESULTS))
    except ArmUnavailableError:  # decode can be measured without git; what needs history says what is wrong with it
        return None, None


def _operating_system(system: System) -> str:
    if system.platform == "darwin":
        version = system.line(("sysctl", "-n", "kern.osproductversion"))
        return f"macOS {version}" if version else "macOS"
    lines = (system.read("/etc/os-release") or "").splitlines()
    names = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    kernel = system.line("/proc/sys/kernel/osrelease")
    return ", ".join([*names[:1], *([f"Linux {kernel}"] if kernel else [])]) or system.platform
