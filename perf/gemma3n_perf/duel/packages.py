"""What an arm has in place of a package of here: a release, a wheel, a folder, or a revision of a clone.

Opinion: what is installed never changes while it is measured. A commit is installed as git has it, and a tree with
changes, or without git, is copied first, known by its content, and marked as not repeatable.
"""

import hashlib
import os
import re
import shutil
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, canonicalize_version, parse_wheel_filename
from packaging.version import Version

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.store.files import contents

BACKENDS = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
HOMES = {
    "mlx": "https://github.com/ml-explore/mlx",
    "mlx-lm": "https://github.com/ml-explore/mlx-lm",
    "mlx-vlm": "https://github.com/Blaizzy/mlx-vlm",
}
"""Repositories whose branches, tags and commits can be named alone."""

_URL = re.compile(r"(?:git\+)?((?:https?|ssh|file)://.+)")
_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@")
_NOT_SOURCE = frozenset({".git", ".venv", "__pycache__", "build", "dist", ".mypy_cache", ".pytest_cache"})
_NEEDED_BACKEND = re.compile(rf"^Requires-Dist: ({'|'.join(BACKENDS)})==([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """One package of an arm, by its normalized name.

    ``requirement`` installs it, ``key`` is its content: a version, a commit or a digest. ``version`` is None for what
    is not a release. ``changed`` is where it lies, if it belongs to no commit. ``backend`` are requirements of MLX's
    backends by name that go with it; none are left beside one that brings its own (None: those of here stay).
    """

    name: str
    requirement: str
    key: str
    version: str | None = None
    changed: str = ""
    backend: Mapping[str, str] | None = None


def released(name: str, version: str) -> Package:
    """Return a release. MLX's backends follow its version."""
    followers = {one: f"{one}=={version}" for one in BACKENDS} if name == "mlx" else None
    return Package(name, f"{name}=={version}", canonicalize_version(version), version, backend=followers)


def requirements(here: Mapping[str, str], packages: Iterable[Package]) -> tuple[str, ...]:
    """Return all requirements of an arm: those of ``here``, with ``packages`` in their place."""
    found, named = dict(here), {one.name: one for one in packages}
    for one in named.values():
        if one.backend is not None:
            found = {name: one.backend.get(name, "") if name in BACKENDS else text for name, text in found.items()}
    found |= {name: one.requirement for name, one in named.items()}
    return tuple(found[name] for name in sorted(found) if found[name])


@dataclass(frozen=True, slots=True)
class Origins:
    """Finds packages that are no releases. Copies of trees go below ``cache``; ``run`` runs git."""

    cache: Path
    run: Run

    def package(self, name: str, place: str) -> Package:
        """Return the package at ``place``: PATH, PATH#REV, URL#REV, or a revision of the package's known home.

        Raises UsageError for what is not there, ArmUnavailableError for what cannot be reached or read.
        """
        if match := _URL.fullmatch(place):
            url, _, ref = match[1].partition("#")
            return self._remote(name, url, ref or "HEAD")
        if place.endswith(".whl"):
            return _wheel(name, _one_file(name, place))
        path = Path(os.path.expanduser(place))
        if path.is_dir():
            return self._folder(name, path.resolve())
        folder, mark, ref = place.rpartition("#")
        path = Path(os.path.expanduser(folder))
        if mark and path.is_dir():
            commit = Repository(path.resolve(), self.run).commit(ref)
            if commit is None:
                raise _absent(name, place, f"{folder} has no commit {ref!r}", "a branch, tag or commit of that clone")
            return self._commit(name, path.resolve(), commit)
        if name not in HOMES or mark or place.startswith((".", "/", "~")):
            expected = f"a checkout or wheel of {name}, or {name}@URL#REV"
            raise _absent(name, place, "there is no such folder or wheel", expected)
        return self._remote(name, HOMES[name], place)

    def _remote(self, name: str, url: str, ref: str) -> Package:
        if _PASSWORD.match(url):
            raise UsageError(f"{name}@URL holds a password", expected="an address alone", remedy="a credential helper")
        commit = ref if re.fullmatch(r"[0-9a-f]{40}", ref) else self._listed(name, url, ref)
        return Package(name, f"{name} @ git+{url}@{commit}", commit, backend=_own(name))

    def _listed(self, name: str, url: str, ref: str) -> str:
        listed = (
            Repository(Path(), self.run)
            .git("ls-remote", "--", url, ref, f"{ref}^{{}}")
            .checked(
                ArmUnavailableError,
                f"{name}@{url}#{ref} cannot be looked up",
                expected=f"the repository {url}, reachable from here",
                remedy=f"check the network, or clone it and give {name}@PATH#REV",
            )
        )
        # git lists all names that end so, those of other remotes too. An annotated tag's ^{} is what it points to.
        commits = {line.partition("\t")[2]: line.partition("\t")[0] for line in listed.split("\n") if "\t" in line}
        for full in (ref, f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
            if full in commits:
                return commits[full]
        raise _absent(name, f"{url}#{ref}", f"it has no branch or tag {ref!r}", "a branch, tag or full commit id")

    def _folder(self, name: str, path: Path) -> Package:
        require_project(name, path)
        repository = Repository(path, self.run)
        tracked = repository.git("ls-files", "-z", "--", "pyproject.toml", "setup.py")
        if tracked.code and (path / ".git").exists():
            raise ArmUnavailableError(
                f"{name}@{path}: git cannot read this checkout: {tracked.last_output}",
                expected="a checkout that git reads",
                remedy="do what git says, or install git",
            )
        if tracked.code or not tracked.out:  # a folder of its own, though it may lie within another repository
            files = (one for one in path.rglob("*") if not _NOT_SOURCE & set(one.relative_to(path).parts))
            return self._copied(name, path, files)
        commit = repository.commit()
        if commit and repository.is_dirty(".") is False:
            return self._commit(name, path, commit)
        listed = repository.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").checked(
            ArmUnavailableError, f"{name}@{path}: git cannot list its files"
        )
        return self._copied(name, path, (path / one for one in listed.split("\0") if one))

    def _commit(self, name: str, path: Path, commit: str) -> Package:
        repository = Repository(path, self.run)
        error = ArmUnavailableError, f"{name}@{path}: git cannot say where its top is"
        top = Path(repository.git("rev-parse", "--show-toplevel").checked(*error).strip())
        prefix = repository.git("rev-parse", "--show-prefix").checked(*error).strip().rstrip("/")
        below = f"#subdirectory={prefix}" if prefix else ""
        return Package(name, f"{name} @ git+{top.as_uri()}@{commit}{below}", commit + below, backend=_own(name))

    def _copied(self, name: str, path: Path, files: Iterable[Path]) -> Package:
        """Copy a tree, known by what was copied: an edit meanwhile makes it another, and never half of each."""
        folder = self.cache / "sources"
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(name.encode())
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as made:
            partial = Path(made) / "tree"
            partial.mkdir()
            for file in sorted(one for one in set(files) if one.is_file()):
                content, inside = file.read_bytes(), file.relative_to(path)
                digest.update(os.fsencode(inside) + f"\0{len(content)}\0".encode() + content)
                (partial / inside).parent.mkdir(parents=True, exist_ok=True)
                (partial / inside).write_bytes(content)
                shutil.copymode(file, partial / inside)
            copy = folder / digest.hexdigest()[:20]
            if not copy.exists():
                partial.rename(copy)
        return Package(name, f"{name} @ {copy.as_uri()}", digest.hexdigest(), None, str(path), _own(name))


def project_name(path: Path) -> str | None:
    """Return the normalized name of the project at ``path``, or None for one that does not say it in the open."""
    name: object = None
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        name = tomllib.loads(contents(path / "pyproject.toml").decode()).get("project", {}).get("name")
    if name is None and (path / "setup.py").is_file():
        match = re.search(r"\bname\s*=\s*[\"']([\w.-]+)[\"']", contents(path / "setup.py").decode(errors="replace"))
        name = match[1] if match else None
    return canonicalize_name(str(name)) if name else None


def require_project(name: str, path: Path) -> None:
    """Raise UsageError where the folder holds no Python project, or that of another package."""
    if not any((path / one).is_file() for one in ("pyproject.toml", "setup.py")):
        raise UsageError(f"{name}@{path} is no Python project", expected=f"a checkout of {name}")
    found = project_name(path)
    if found not in (None, name):
        raise UsageError(f"{name}@{path} is a checkout of {found}", expected=f"a checkout of {name}")


def _own(name: str) -> dict[str, str] | None:
    """The backends of a build from source: MLX's holds them all."""
    return {} if name == "mlx" else None


def _one_file(name: str, place: str) -> Path:
    path = Path(os.path.expanduser(place))
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    found = [path] if path.is_file() else [one for one in beside if fnmatchcase(one.name, path.name)]
    if len(found) != 1:
        many = ", ".join(one.name for one in found[:5])
        raise _absent(name, place, f"it is several wheels: {many}" if found else "there is no such wheel", "one wheel")
    return found[0].resolve()


def _wheel(name: str, path: Path) -> Package:
    try:
        found, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as opened:
            names = opened.namelist()
            metadata = next(one for one in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            text = opened.read(metadata).decode(errors="replace")
    except (InvalidWheelFilename, zipfile.BadZipFile, zlib.error, StopIteration, OSError, RuntimeError) as error:
        raise UsageError(f"{name}@{path} is no wheel: {error}", expected=f"a wheel of {name}") from error
    if found != name:
        raise UsageError(f"{name}@{path} is a wheel of {found}", expected=f"a wheel of {name}")
    if not tags & set(sys_tags()):
        raise UsageError(
            f"{name}@{path} is for another Python or platform: {', '.join(sorted(map(str, tags)))}",
            expected=f"a wheel for {next(iter(sys_tags()))} or what goes with it",
            remedy="build it here: pip wheel --no-deps",
        )
    backend = _backends(path, version, names, text) if name == "mlx" else None
    digest = hashlib.sha256(path.read_bytes())
    for one in (backend or {}).values():
        digest.update(one.encode())
    return Package(name, f"{name} @ {path.as_uri()}", digest.hexdigest(), backend=backend)


def _backends(path: Path, version: Version, names: Iterable[str], metadata: str) -> dict[str, str]:
    """Return the backends of a wheel of mlx: none where it holds the library itself, else the wheels beside it of its
    own version, else the releases that it names."""
    if any(one.startswith("mlx/lib/libmlx.") for one in names):
        return {}
    found = {match[1]: f"{match[1]}=={match[2]}" for match in _NEEDED_BACKEND.finditer(metadata)}
    for beside in sorted(path.parent.glob("mlx_*.whl")):
        try:
            name, other, _, tags = parse_wheel_filename(beside.name)
        except InvalidWheelFilename:
            continue
        if name in BACKENDS and other == version and tags & set(sys_tags()):
            found[name] = f"{name} @ {beside.as_uri()}"
    return found


def _absent(name: str, place: str, found: str, expected: str) -> UsageError:
    return UsageError(f"{name}@{place}: {found}", expected=expected)
