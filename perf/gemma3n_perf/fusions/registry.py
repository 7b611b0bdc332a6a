"""Every fusion by name, and compositions of them. A module of this package that defines ``FUSION`` is one."""

import ast
import hashlib
import importlib
from functools import cache
from pathlib import Path
from typing import Any

from gemma3n_perf import fusions
from gemma3n_perf.errors import InvalidError, MalformedRecordError, UsageError
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store import admitted as admitted_store

_SUITE = "gemma3n_perf"
_PACKAGE = f"{_SUITE}.fusions"
_OF_THE_SUITE = ("errors", "decode.types", "hardware.types", "store.files", "workload.presets")
"""Modules outside this package that fusions share with all that measures, and that are no part of one."""
_LONGEST_NAME = 255
_UNSEEN = frozenset({"__import__", "eval", "exec", "importlib", "runpy"})
"""What imports or runs something that ``files`` cannot tell."""
_OWN = ("patching.py", "types.py", "kernels/common.py", "kernels/precompiled.py")
"""What fusions are made with: files that may do more than a fusion may."""
_USABLE = frozenset({
    "__future__", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "itertools", "math",
    "mlx", "mlx_lm", "mlx_vlm", "numpy", "operator", "re", "types", "typing", "weakref", _PACKAGE,
    f"{_SUITE}.errors", f"{_SUITE}.decode.types", f"{_SUITE}.hardware.types",
})  # fmt: skip
"""What a fusion may import, and what lies below: it computes. Files, processes, threads, clocks and whoever calls it
are none of its business, and with them it could be another program where it is timed than where it is used."""
_REACHING = frozenset({
    "Path", "__builtins__", "__code__", "__globals__", "__subclasses__", "_getframe", "builtins", "ctypes", "f_back",
    "fromfile", "gc", "genfromtxt", "import_function", "importlib", "inspect", "load", "loadtxt", "memmap",
    "multiprocessing", "os", "pathlib", "psutil", "save", "savetxt", "savez", "savez_compressed", "shutil", "signal",
    "socket", "subprocess", "sys", "tb_frame", "tempfile", "threading", "time", "tofile",
})  # fmt: skip
"""Names, and attributes, that lead to the same from what it may import."""
_BUILTINS = frozenset({"breakpoint", "compile", "globals", "input", "locals", "open", "vars"})
_DYNAMIC = ("getattr", "setattr", "delattr")
_READS = ("importlib.metadata", "importlib.resources")
"""What reads, of the same name."""


def _modules() -> dict[str, Path]:
    """By name, found without importing any: what a module does when it is imported may be anything."""
    sources = [path for path in sorted(Path(fusions.__path__[0]).glob("*.py")) if b"\nFUSION" in path.read_bytes()]
    return {path.stem.replace("_", "-"): path for path in sources}


@cache
def _defined(source: Path) -> Fusion:
    try:
        found = importlib.import_module(f"{_PACKAGE}.{source.stem}").FUSION
    except (Exception, SystemExit) as error:  # sys.exit(0) while it is imported would end well
        raise InvalidError(
            f"{source} cannot be imported: {type(error).__name__}: {error}",
            expected="a module that defines FUSION",
            remedy="mend it, or take it away",
        ) from error
    if not isinstance(found, Fusion):
        raise InvalidError(f"FUSION of {source} is none", expected="a Fusion", remedy="see gemma3n-perf fusion new")
    if found.name != source.stem.replace("_", "-"):
        raise InvalidError(
            f"{source} defines a fusion called {found.name!r}",
            expected=source.stem.replace("_", "-"),
            remedy="name the module, or the fusion, after the other",
        )
    return found


def names() -> tuple[str, ...]:
    """All single fusions, sorted, none imported. Compositions are written ``a+b``."""
    return tuple(sorted(_modules()))


def _source(name: str) -> Path:
    try:
        return _modules()[name]
    except KeyError:
        raise UsageError(
            f"there is no fusion {name!r}",
            expected=f"one of {', '.join(names())}, or several joined by +",
            remedy="gemma3n-perf fusion list describes each; gemma3n-perf fusion new NAME starts one",
        ) from None


def get(name: str) -> Fusion:
    """The fusion, or the composition, called ``name``, imported. Raises UsageError with the known names."""
    return compose(name) if "+" in name else _defined(_source(name))


def compose(name: str) -> Fusion:
    """Several fusions as one, applied in the order given.

    Raises UsageError for a fusion named twice, and for two that replace the same function or set one knob twice.
    """
    parts = [get(part.strip()) for part in name.split("+")]
    if len(parts) == 1:
        return parts[0]
    replaced: dict[str, str] = {}
    env: dict[str, str] = {}
    for part in parts:
        for what in (*part.replaces, *part.env, f"fusion {part.name}"):
            if what in replaced:
                raise UsageError(
                    f"{name} cannot be composed: {replaced[what]} and {part.name} both replace {what}",
                    expected="fusions that replace different things",
                    remedy="leave one of them out",
                )
            replaced[what] = part.name
        env |= part.env

    def apply(model: Any) -> None:
        for part in parts:
            part.apply(model)

    changed = [part for part in parts if not part.graph.same]
    return Fusion(
        name="+".join(part.name for part in parts),
        summary="; ".join(part.summary for part in parts),
        replaces=tuple(what for part in parts for what in part.replaces),
        graph=_together([part.graph for part in changed]),
        file=parts[0].file,
        enabled=lambda chip: all(part.enabled(chip) for part in parts),
        where="; ".join(f"{part.name}: {part.where}" for part in parts),
        apply=apply,
        env=env,
    )


def _together(graphs: list[Declared]) -> Declared:
    if not graphs:
        return Declared(same=True)
    fewer = {name for graph in graphs for name in graph.fewer}
    more = {name for graph in graphs for name in graph.more}
    # What one adds and another removes says nothing about both.
    return Declared(tuple(sorted(fewer - more)), tuple(sorted(more - fewer)))


def files(name: str) -> tuple[Path, ...]:
    """The files a fusion is made of: its own, those of the suite that it imports, however deep, and those beside them
    that they name: CUDA, tables. None is imported. Raises UsageError for an unknown name.
    """
    todo = [_source(part.strip()) for part in name.split("+")]
    found: set[Path] = set()
    while todo:
        file = todo.pop().resolve()
        if file not in found:
            found.add(file)
            todo += _imports(file)
    return tuple(sorted(found))


def _imports(file: Path) -> list[Path]:
    root = Path(fusions.__path__[0]).resolve()
    if file.suffix != ".py":
        return []
    modules, sources = set[str](), list[Path]()
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.ImportFrom):
            start = _absolute(file, root, node.level) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            modules |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif name := _kernel_source(node):
            kernel = root / "kernels" / "cuda" / f"{name}.cu"
            sources += [kernel] if kernel.is_file() else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            sources += _named(file, node.value)
    of_the_suite = {f"{_SUITE}.{one}" for one in _OF_THE_SUITE}
    inside = sorted(m for m in modules - of_the_suite if m.startswith(f"{_SUITE}.") and m != _PACKAGE)
    ours = f"{_PACKAGE}."
    places = [root.joinpath(*m.removeprefix(ours).split(".")) for m in inside if m.startswith(ours)]
    places += [root.parent.joinpath(*m.split(".")[1:]) for m in inside if not m.startswith(ours)]
    packages = [path for one in places if (path := one / "__init__.py").is_file() and _does_something(path)]
    return [*(path for one in places if (path := one.with_name(f"{one.name}.py")).is_file()), *packages, *sources]


def _kernel_source(node: ast.AST) -> str | None:
    """The CUDA text that a call of ``source`` asks for; "" where it is no constant, None where it is no such call."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "source":
        return None
    first = node.args[0] if node.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _named(file: Path, text: str) -> list[Path]:
    """The file beside this one that it names, whole or by its suffix, and that is no module."""
    if not text or len(text) > _LONGEST_NAME or "\0" in text or "/" in text:
        return []
    beside = file.parent / text if not text.startswith(".") else file.with_name(file.stem + text)
    return [beside] if beside.suffix != ".py" and beside.is_file() else []


def unseen(name: str) -> list[str]:
    """Where a fusion's files in this package import or run what ``files`` cannot tell, and so no digest holds.

    That is also what could make it another program where it is timed: see ``_USABLE``.
    """
    found, root = list[str](), Path(fusions.__path__[0]).resolve()
    for file in (one for one in files(name) if one.suffix == ".py" and one.is_relative_to(root)):
        own = file.relative_to(root).as_posix() in _OWN
        for node in ast.walk(_parsed(file)):
            names = [one for one in _names(node) if one.split(".")[0] in _UNSEEN]
            names += [] if own else _reaching(node)
            names += ["source of no constant"] if _kernel_source(node) == "" else []
            found += [f"{one} in {file.name}, line {node.lineno}" for one in names]  # type: ignore[attr-defined]
    return list(dict.fromkeys(found))


def _names(node: ast.AST) -> list[str]:
    """The modules that a statement imports, and the name that an expression is."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        full = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        return [] if all(one in _READS for one in full) else [node.module or ""]
    return [node.id] if isinstance(node, ast.Name) else []


def _reaching(node: ast.AST) -> list[str]:
    """What a statement or expression reaches for that is no business of a fusion."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        relative = isinstance(node, ast.ImportFrom) and node.level
        hidden = [alias.name for alias in node.names if alias.name in _REACHING]
        return hidden + ([] if relative else [one for one in _names(node) if not _is_usable(one)])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC:
        constant = len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and node.args[1].value not in _REACHING
        return [] if constant else [f"{node.func.id} of no constant"]
    if isinstance(node, ast.Name):
        return [node.id] if node.id in _REACHING | _BUILTINS else []
    return [node.attr] if isinstance(node, ast.Attribute) and node.attr in _REACHING else []


def _is_usable(module: str) -> bool:
    """Whether a module, or one that it lies in, may be imported."""
    parts = module.split(".")
    return any(".".join(parts[:count]) in _USABLE for count in range(1, len(parts) + 1))


def _parsed(file: Path) -> ast.Module:
    """Parse a file; one that does not parse imports nothing, and importing it says so."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _does_something(package: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in _parsed(package).body)


def _absolute(file: Path, root: Path, level: int) -> str:
    """Return the package that ``level`` dots mean in a file of this package; one outside it is as if beside them."""
    place = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    found = (*_PACKAGE.split("."), *place)
    return ".".join(found[: len(found) - level + 1])


def digest(name: str) -> str:
    """SHA-256 over names and contents of ``files``, so that evidence belongs to one state of the sources."""
    root = Path(fusions.__path__[0]).resolve()
    sha = hashlib.sha256()
    for file in files(name):
        label = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        content = file.read_bytes()
        sha.update(f"{label}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


def enabled(name: str, chip: Chip) -> bool:
    """Whether a fusion is on for a chip; a composition where every part is. Raises UsageError for an unknown name."""
    return get(name).enabled(chip)


def admitted(chip: Chip, baselines: Path) -> Fusion | None:
    """The composition that the gate admitted for this chip class, as one fusion; None without its record.

    Raises MalformedRecordError for a record that does not parse or names an unknown fusion.
    """
    names = admitted_store.read(baselines, chip.chip_class)
    try:
        return compose("+".join(names)) if names else None
    except UsageError as error:
        file = admitted_store.path_of(baselines, chip.chip_class)
        raise MalformedRecordError(
            f"{file} cannot be used: {error}",
            expected="fusions of this checkout that can be composed",
            remedy="write it again with gemma3n-perf gate --admit, or restore it from git",
        ) from error
