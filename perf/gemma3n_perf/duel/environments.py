"""The packages of an arm: this environment's, with others in their place, installed by uv.

Opinion: an arm differs from ``here`` in what was asked for and in nothing else, so every other package is pinned to
the version that is here. Built beside its final name and moved there whole; kept, by content, for the next duel.
"""

import difflib
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_version

from gemma3n_perf.duel.packages import BACKENDS, HOMES, Origins, Package, released, requirements
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.file_lock import locked
from gemma3n_perf.hardware.shell import Done, Run

FORMAT = 2
_NOT_NEEDED = frozenset({"gemma3n-perf", "mypy", "pip", "ruff", "shtab", "uv"})
_BUILD_S = 1800.0
_NEAREST_S = 60.0
_MISSING = re.compile(r"(?:no version of |cause )([\w.-]+)==(\d[\w.+!-]*\w|\d)")
_NETWORK = ("dns error", "error sending request", "failed to fetch", "connect", "network", "timed out", "offline")
_ABSENT = ("no version of", "was not found in the package registry", "no wheels with a matching", "has no usable")


@functools.cache
def installed_requirements(*path: str) -> Mapping[str, str]:
    """Return the packages of this environment, or along ``path``, each as what installs the same again."""
    found: dict[str, str] = {}
    for one in metadata.distributions(path=list(path)) if path else metadata.distributions():
        about = one.metadata  # parsed anew every time
        name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
        if name in found or name in _NOT_NEEDED:
            continue
        found[name] = f"{name}=={about['Version']}"
        origin = json.loads(one.read_text("direct_url.json") or "{}")
        if "vcs_info" in origin:
            found[name] = f"{name} @ git+{origin['url']}@{origin['vcs_info']['commit_id']}"
        elif "dir_info" in origin:
            found[name] = f"{name} @ {origin['url']}"
    return found


@dataclass(frozen=True, slots=True)
class Environments:
    """Environments below ``cache``, made by ``uv`` for the interpreter ``python``; ``found`` are packages by origin."""

    cache: Path
    run: Run
    here: Mapping[str, str]
    python: str = sys.executable
    uv: str | None = None
    found: dict[tuple[str, str], Package] = field(default_factory=dict)

    def package(self, name: str, origin: str) -> Package:
        """Return the package that ``==VERSION`` or ``@PLACE`` names, found once. Raises as ``Origins.package`` does."""
        if name not in self.here and name not in HOMES:
            near = difflib.get_close_matches(name, self.here, 3)
            raise UsageError(
                f"{name} is no package of this environment",
                expected=f"one of its packages{', for instance ' + ', '.join(near) if near else ''}",
                remedy="uv pip list shows them; another release of this suite is ref:COMMIT or installed",
            )
        if origin.startswith("=="):
            return released(name, origin[2:])
        if (name, origin) not in self.found:
            self.found[name, origin] = Origins(self.cache, self.run).package(name, origin[1:])
        return self.found[name, origin]

    def require_released(self, package: Package) -> None:
        """Ask uv's cache and then the index for a release. Raises UsageError naming the nearest where there is none.

        Where the index does not answer, nothing is raised: building the environment will say so.
        """
        if package.version is None:
            return
        done = self._compiled(package.requirement, "--offline")
        done = done if done.code == 0 else self._compiled(package.requirement)
        if done.code != 0 and isinstance(error := self._explained(done, [package]), UsageError):
            raise error

    def others(self, places: Iterable[tuple[str, str]]) -> list[Package]:
        """Return the packages that names and places stand for, without releases that this environment has already."""
        found = [self.package(*one) for one in places]
        return [one for one in found if not self._is_here(one)]

    def _is_here(self, package: Package) -> bool:
        name, _, version = self.here.get(package.name, "").partition("==")
        return bool(name and version) and package.key == canonicalize_version(version)

    def interpreter(self, packages: Sequence[Package]) -> Path:
        """Return the Python of an environment with ``packages`` in place of those here, built where it is missing.

        Raises UsageError for a version that does not exist, ArmUnavailableError where it cannot be had from here.
        """
        listed = requirements(self.here, packages)
        keys = " ".join(one.key for one in packages if one.version is None)
        content = [str(FORMAT), sys.version, os.path.realpath(self.python), keys, *listed]
        folder = self.cache / "environments" / hashlib.sha256("\n".join(content).encode()).hexdigest()[:20]
        python = folder / "bin" / "python"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock", _BUILD_S, "building this environment"):
            if not (folder / ".complete").is_file() or not python.exists():
                self._build(folder, listed, packages)
        return python

    def _build(self, folder: Path, listed: tuple[str, ...], packages: Sequence[Package]) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        try:
            self._uv(packages, "venv", "--quiet", "--no-project", "--python", self.python, str(partial))
            named = partial / "requirements.txt"
            named.write_text("\n".join(listed) + "\n", encoding="utf-8")
            pip = ("pip", "install", "--quiet", "--python", str(partial / "bin" / "python"))
            # mlx-audio pins one mlx; without dependencies nothing argues with what was asked for.
            fresh = [word for one in packages if one.version is None for word in ("--refresh-package", one.name)]
            self._uv(packages, *pip, "--no-deps", *fresh, "--requirement", str(named))
            others = [one.requirement for one in packages if not _is_mlx(one.name)]
            if others:
                # Another mlx-vlm may need what is not here; mlx, and whatever else was named, stay as listed.
                kept = [text for text in listed if _is_mlx(text)] + others
                (partial / "overrides.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
                overriding = ("--override", str(partial / "overrides.txt"))
                self._uv(packages, *pip, *overriding, *others)
                names = {one.name for one in packages}
                if {"mlx", "mlx-vlm"} <= names and "mlx-lm" not in names and not self._imports(partial, "mlx_lm"):
                    # The mlx-lm that is here needs a newer mlx than was asked for: the oldest that mlx-vlm accepts.
                    oldest = ("--resolution", "lowest-direct", "--reinstall-package", "mlx-lm", "mlx-lm")
                    self._uv(packages, *pip, *overriding, *oldest, *others)
            (partial / ".complete").touch()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _imports(self, folder: Path, module: str) -> bool:
        return self.run((str(folder / "bin" / "python"), "-c", f"import {module}"), _BUILD_S).code == 0

    def _uv(self, packages: Sequence[Package], *argv: str) -> None:
        done = self.run((self.uv or find_uv(), *argv), _BUILD_S)
        if done.code != 0:
            raise self._explained(done, packages)

    def _explained(self, done: Done, packages: Sequence[Package]) -> UsageError | ArmUnavailableError:
        named, said = ", ".join(one.requirement for one in packages), done.err.lower()
        if any(text in said for text in _ABSENT) and not any(text in said for text in _NETWORK):
            missing = [(one[1], one[2]) for one in _MISSING.finditer(done.err)]
            missing = missing or [(one.name, one.version) for one in packages if one.version]
            nearest = [text for name, version in dict.fromkeys(missing) if (text := self._nearest(name, version))]
            return UsageError(
                f"{named} does not exist for this Python and platform{'' if nearest else f': {done.last_output}'}",
                expected="a released version that has a wheel for this machine",
                remedy="; ".join(nearest) or "look the releases up on the package index",
            )
        return ArmUnavailableError(
            f"an environment with {named} cannot be built here: {done.last_output}",
            expected="uv, the package index or a cache that holds the packages, and what builds them from source",
            remedy="check the network, and run again: what was fetched is kept",
        )

    def _nearest(self, name: str, version: str) -> str:
        """Say which releases below and above a version there are for this Python and platform; "" if none."""
        found = []
        for bound, resolution in (("<", "highest"), (">", "lowest")):
            done = self._compiled(f"{name}{bound}{version}", "--resolution", resolution)
            found += re.findall(r"^[\w.-]+==[^\s;]+", done.out, re.MULTILINE)
        return f"the nearest that exist: {' and '.join(found)}" if found else ""

    def _compiled(self, requirement: str, *options: str) -> Done:
        """Have uv choose a release, by the index alone."""
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "listed.in"
            listed.write_text(f"{requirement}\n", encoding="utf-8")
            alone = ("--no-deps", "--no-header", "--no-annotate", "--python", self.python)
            argv = (self.uv or find_uv(), "pip", "compile", "--quiet", *alone, *options, str(listed))
            return self.run(argv, _NEAREST_S)


def _is_mlx(requirement: str) -> bool:
    return re.split(r"[ =@]", requirement)[0] in ("mlx", *BACKENDS)


def find_uv() -> str:
    """Return the uv of this environment, or the first on the path."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def without_neighbours(package: Path, cache: Path) -> Path:
    """Return a folder that holds the gemma3n_perf of ``package``, and nothing else where that is a site-packages.

    An arm's own packages come after this folder: an mlx beside an installed gemma3n_perf would take their place.
    """
    if next(package.glob("*.dist-info"), None) is None:
        return package
    folder = cache / "suites" / hashlib.sha256(str(package).encode()).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "gemma3n_perf").symlink_to(package / "gemma3n_perf")
    return folder
