"""The packages of an arm: this environment's, with another mlx or mlx-vlm in their place, installed by uv.

Opinion: an arm differs from ``here`` in what was asked for and in nothing else, so every other package is pinned to
the version that is here. Built beside its final name and moved there whole; kept, by content, for the next duel.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import filelock

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Done, Run

MLX_VLM = "https://github.com/Blaizzy/mlx-vlm"
BACKENDS = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
FORMAT = 2
_NOT_NEEDED = frozenset({"gemma3n-perf", "mypy", "pip", "ruff", "uv"})
_BUILD_S = 1800.0
_NETWORK = ("dns error", "error sending request", "failed to fetch", "connect", "network", "timed out", "offline")
_ABSENT = ("no version of", "was not found in the package registry", "no wheels with a matching", "has no usable")


@dataclass(frozen=True, slots=True)
class PackageSpec:
    """What to install in place of what is here: versions, or ``source``, a requirement of mlx-vlm with its ``key``."""

    mlx: str | None = None
    mlx_vlm: str | None = None
    source: str | None = None
    key: str = ""


def installed_requirements(distributions: Iterable[metadata.Distribution] | None = None) -> dict[str, str]:
    """Return the packages of this environment, each as a requirement that installs the same again."""
    found: dict[str, str] = {}
    for one in metadata.distributions() if distributions is None else distributions:
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        if name in found or name in _NOT_NEEDED:
            continue
        found[name] = f"{name}=={one.version}"
        origin = json.loads(one.read_text("direct_url.json") or "{}")
        if "vcs_info" in origin:
            found[name] = f"{name} @ git+{origin['url']}@{origin['vcs_info']['commit_id']}"
        elif "dir_info" in origin:
            found[name] = f"{name} @ {origin['url']}"
    return found


def requirements(here: Mapping[str, str], spec: PackageSpec) -> tuple[str, ...]:
    """Return all packages of an arm. MLX's backend package (CPU, CUDA or Metal) stays and follows mlx's version."""
    packages = dict(here)
    if spec.mlx:
        packages |= {name: f"{name}=={spec.mlx}" for name in ("mlx", *(b for b in BACKENDS if b in here))}
    if spec.source or spec.mlx_vlm:
        packages["mlx-vlm"] = spec.source or f"mlx-vlm=={spec.mlx_vlm}"
    return tuple(packages[name] for name in sorted(packages))


@dataclass(frozen=True, slots=True)
class Environments:
    """Environments below ``cache``, made by ``uv`` for the interpreter ``python``."""

    cache: Path
    run: Run
    here: Mapping[str, str]
    python: str = sys.executable
    uv: str | None = None

    def interpreter(self, spec: PackageSpec) -> Path:
        """Return the Python of an environment as wished, building it where it is missing.

        Raises UsageError for a version that does not exist, ArmUnavailableError where it cannot be had from here.
        """
        packages = requirements(self.here, spec)
        content = [str(FORMAT), sys.version, os.path.realpath(self.python), spec.key, *packages]
        folder = self.cache / "environments" / hashlib.sha256("\n".join(content).encode()).hexdigest()[:20]
        python = folder / "bin" / "python"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f".{folder.name}.lock", timeout=_BUILD_S):
            if not (folder / ".complete").is_file() or not python.exists():
                self._build(folder, packages, spec)
        return python

    def source(self, origin: str) -> PackageSpec:
        """Return the wish for mlx-vlm from a folder or a git reference. Raises UsageError, ArmUnavailableError."""
        path = Path(os.path.expanduser(origin))
        if path.is_dir():
            return self._folder(path.resolve())
        if origin.startswith((".", "/", "~")):
            raise UsageError(f"mlx-vlm@{origin}: there is no such folder", expected="a checkout of mlx-vlm")
        commit = origin if re.fullmatch(r"[0-9a-f]{40}", origin) else self._remote(origin)
        return PackageSpec(source=f"mlx-vlm @ git+{MLX_VLM}@{commit}", key=commit)

    def _folder(self, path: Path) -> PackageSpec:
        if not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
            raise UsageError(f"mlx-vlm@{path} is no Python project", expected="a checkout of mlx-vlm")
        repository = Repository(path, self.run)
        if commit := repository.commit():
            if repository.is_dirty(".") is not False:
                raise UsageError(
                    f"mlx-vlm@{path} has uncommitted changes",
                    expected="a commit: a tree that changes cannot be measured again",
                    remedy="commit them there",
                )
            return PackageSpec(source=f"mlx-vlm @ {path.as_uri()}", key=commit)
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in (".py", ".toml", ".txt", ".cfg")):
            digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes() + b"\0")
        return PackageSpec(source=f"mlx-vlm @ {path.as_uri()}", key=digest.hexdigest())

    def _remote(self, ref: str) -> str:
        done = Repository(Path(), self.run).git("ls-remote", MLX_VLM, ref, f"{ref}^{{}}")
        listed = done.checked(
            ArmUnavailableError,
            f"mlx-vlm@{ref} cannot be looked up",
            expected=f"the repository {MLX_VLM}, reachable from here",
            remedy="check the network, or clone it and give mlx-vlm@PATH",
        )
        # The last line of an annotated tag is the commit that it points to.
        commits = [line.split("\t")[0] for line in listed.split("\n") if "\t" in line]
        if not commits:
            raise UsageError(f"mlx-vlm has no branch or tag {ref!r}", expected="a branch, a tag or a full commit id")
        return commits[-1]

    def _build(self, folder: Path, packages: tuple[str, ...], spec: PackageSpec) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        try:
            self._uv(spec, "venv", "--quiet", "--no-project", "--python", self.python, str(partial))
            listed = partial / "requirements.txt"
            listed.write_text("\n".join(packages) + "\n")
            pip = ("pip", "install", "--quiet", "--python", str(partial / "bin" / "python"))
            # mlx-audio pins one mlx; without dependencies nothing argues with what was asked for.
            fresh = ("--refresh-package", "mlx-vlm") if spec.source else ()
            self._uv(spec, *pip, "--no-deps", *fresh, "--requirement", str(listed))
            if spec.source or spec.mlx_vlm:
                # Another mlx-vlm may need what is not here; mlx itself stays as listed.
                (partial / "overrides.txt").write_text("\n".join(w for w in packages if _is_mlx(w)) + "\n")
                vlm = next(w for w in packages if w.startswith("mlx-vlm"))
                overriding = ("--override", str(partial / "overrides.txt"))
                self._uv(spec, *pip, *overriding, vlm)
                if spec.mlx and self.run((str(partial / "bin" / "python"), "-c", "import mlx_lm"), _BUILD_S).code:
                    # The mlx-lm that is here needs a newer mlx than was asked for: the oldest that mlx-vlm accepts.
                    oldest = ("--resolution", "lowest-direct", "--reinstall-package", "mlx-lm", "mlx-lm")
                    self._uv(spec, *pip, *overriding, *oldest, vlm)
            (partial / ".complete").touch()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _uv(self, spec: PackageSpec, *argv: str) -> None:
        done = self.run((self.uv or find_uv(), *argv), _BUILD_S)
        if done.code != 0:
            raise _explained(done, spec)


def _is_mlx(requirement: str) -> bool:
    return re.split(r"[ =@]", requirement)[0] in ("mlx", *BACKENDS)


def _explained(done: Done, spec: PackageSpec) -> UsageError | ArmUnavailableError:
    requested = ", ".join(
        text for text in (spec.mlx and f"mlx=={spec.mlx}", spec.mlx_vlm and f"mlx-vlm=={spec.mlx_vlm}", spec.source)
        if text
    )  # fmt: skip
    said = done.err.lower()
    if any(text in said for text in _ABSENT) and not any(text in said for text in _NETWORK):
        return UsageError(
            f"{requested} does not exist for this Python and platform: {done.last_output}",
            expected="a released version that has a wheel for this machine",
            remedy="look the releases up on the package index",
        )
    return ArmUnavailableError(
        f"an environment with {requested} cannot be built here: {done.last_output}",
        expected="uv, and the package index or a cache that holds the packages",
        remedy="check the network, and run again: what was fetched is kept",
    )


def find_uv() -> str:
    """Return the uv of this environment, or the first on the path."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"
