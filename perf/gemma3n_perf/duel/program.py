"""The program that decides decode speed, as a checkout declares it, from a folder or from git's objects.

Two checkouts whose parts all agree declare the same program. The standard library alone: planning needs no
environment. ``installed`` says what a process really runs.
"""

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gemma3n_perf.duel.parts import digest, labelled
from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.hardware.git import Repository

SUITE = "gemma3n_perf"
ADMITTED = "admitted fusions"
"""The part that names the fusions in use."""

DATA = "fusions"
"""The one folder of the suite whose files other than Python's, sources of kernels, are part of the program."""

_FOLDER = f"perf/{SUITE}/"
_ROOTS = ("duel/worker.py", "duel/forkserver.py", "measure/worker.py")
"""What a worker is started from; the last one before version 0.2.0."""

_FORGING = "workload/presets.py"
_LOCK, _CUDA_LOCK = "requirements.lock", "requirements-cuda.lock"
_BACKENDS = ("mlx-cpu", "mlx-cuda-", "mlx-metal", "nvidia-")
PACKAGES = frozenset(
    {
        "anyio",
        "certifi",
        "charset-normalizer",
        "filelock",
        "h11",
        "httpcore2",
        "httpx2",
        "huggingface-hub",
        "idna",
        "jinja2",
        "markupsafe",
        "mlx",
        "mlx-lm",
        "mlx-vlm",
        "msgspec",
        "numpy",
        "packaging",
        "pillow",
        "platformdirs",
        "psutil",
        "pyyaml",
        "regex",
        "requests",
        "safetensors",
        "sentencepiece",
        "tokenizers",
        "tqdm",
        "transformers",
        "truststore",
        "typing-extensions",
        "urllib3",
    }
)
"""What a worker has imported once it decodes, which a test compares: most through transformers, mlx-lm through older
releases of mlx-vlm. With MLX's backends and NVIDIA's libraries, they are the lines of a lock file that decide."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout: the ``names`` of its files, relative to the top and with slashes, and what reads one as text."""

    names: frozenset[str]
    read: Callable[[str], str]


def folder(root: Path) -> Tree:
    """The working tree at ``root``, as it is on disk."""
    patterns = (f"{_FOLDER}**/*", "baselines/*/fusions/admitted.json", "*.lock", "pyproject.toml")
    found = (path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    names = frozenset(path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts)
    return Tree(names, lambda name: (root / name).read_bytes().decode(errors="replace"))


def revision(repository: Repository, ref: str = "HEAD") -> Tree:
    """A commit, read from git's objects without checking it out. Raises UsageError, ArmUnavailableError."""
    commit = repository.require(ref, ref)

    def git(*argv: str) -> str:
        done = repository.git(*argv)
        return done.checked(UsageError, f"git {argv[0]} failed", expected="a clone that holds the commit's files")

    listed = git("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit)
    return Tree(frozenset(name for name in listed.split("\0") if name), lambda name: git("show", f"{commit}:{name}"))


def declared(tree: Tree, chip_class: str) -> dict[str, str]:
    """Return the parts that ``tree`` declares for a chip class, whose fusions and backend are its own.

    Raises MalformedRecordError for a file that does not parse.
    """
    fusions = _admitted(tree, chip_class)
    parts = {f"source {name}": digest(text) for name, text in _sources(tree, fused=bool(fusions)).items()}
    lock = lock_of(chip_class)
    if lock in tree.names:
        parts |= {f"package {name}": labelled(*entry) for name, entry in _locked(tree.read(lock)).items()}
    if fusions:
        parts[ADMITTED] = labelled("+".join(fusions))
    if python := _python(tree):
        parts["python"] = labelled(python)
    if (presets := _FOLDER + _FORGING) in tree.names:
        version = re.search(r"^FORMAT = (.+)$", tree.read(presets), re.MULTILINE)
        parts["forge format"] = labelled(version[1] if version else "unknown")
    return dict(sorted(parts.items()))


def lock_of(chip_class: str) -> str:
    """Return the name of the lock file that a chip class installs."""
    return _CUDA_LOCK if chip_class.startswith("nvidia-") else _LOCK


def decides(package: str) -> bool:
    """Whether a worker imports a package, by its normalized name."""
    return package in PACKAGES or package.startswith(_BACKENDS)


def is_data(name: str) -> bool:
    """Whether a file below ``DATA`` is read while decoding rather than imported."""
    path = PurePosixPath(name)
    return path.suffix not in (".py", ".pyc") and not path.name.startswith(".")


def _sources(tree: Tree, *, fused: bool) -> dict[str, str]:
    """Return the text of every file of the suite that a worker imports, however deep, and of a fusion's kernels.

    A worker with a fusion imports the module of every fusion, and one without none.
    """
    inside = {name.removeprefix(_FOLDER) for name in tree.names if name.startswith(_FOLDER)}
    found: dict[str, str] = {}
    todo = [name for name in _ROOTS if name in inside]
    if fused:
        below = sorted(name for name in inside if name.startswith(f"{DATA}/"))
        todo += [name for name in below if is_data(name) or "\nFUSION" in tree.read(_FOLDER + name)]
    while todo:
        name = todo.pop()
        if name in found or (name.startswith(f"{DATA}/") and not fused):
            continue
        found[name] = tree.read(_FOLDER + name)
        # The package's own __init__ imports what decode does not need, when that is asked for.
        if name.endswith(".py") and name != "__init__.py":
            todo += [one for one in _imports(name, found[name]) if one in inside]
    return found


def _imports(name: str, text: str) -> Iterable[str]:
    """Yield the files that a module of the suite may import, wherever in it; not all exist."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # all of them mean that Python refuses it
        raise MalformedRecordError(f"{_FOLDER}{name} does not parse: {error}", expected="Python") from error
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = PurePosixPath(SUITE, name).parts[: -node.level] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            modules |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    for module in modules:
        parts = module.split(".")
        if parts[0] == SUITE:
            yield from ("/".join((*parts[1:end], "__init__.py")) for end in range(1, len(parts) + 1))
            yield f"{'/'.join(parts[1:])}.py"


def _admitted(tree: Tree, chip_class: str) -> tuple[str, ...]:
    name = f"baselines/{chip_class}/fusions/admitted.json"
    if name not in tree.names:
        return ()
    try:
        return tuple(map(str, json.loads(tree.read(name))["fusions"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedRecordError(
            f"{name} does not parse: {error}", expected='{"schema": 1, "fusions": [...]}', remedy="restore it from git"
        ) from error


def _locked(text: str) -> dict[str, tuple[str, str]]:
    """Return versions, and the lines with versions, markers and hashes, of each package that decides."""
    found: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        lines = [line.strip(" \\") for line in entry.splitlines() if not line.lstrip().startswith("#")]
        match = re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*(?:==\s*([^\s;\\]+)|@\s*(\S+))", entry)
        if match is None:
            continue
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        if decides(name):
            version, content = match[2] or match[3], "\n".join(filter(None, lines))
            # A package may have a line for each platform or Python.
            versions, contents = found.get(name, ("", ""))
            found[name] = f"{versions} or {version}" if versions else version, contents + content + "\n"
    return found


def _python(tree: Tree) -> str:
    if "pyproject.toml" not in tree.names:
        return ""
    try:
        return str(tomllib.loads(tree.read("pyproject.toml")).get("project", {}).get("requires-python", ""))
    except (tomllib.TOMLDecodeError, AttributeError, RecursionError) as error:
        raise MalformedRecordError(f"pyproject.toml does not parse: {error}", expected="TOML") from error
