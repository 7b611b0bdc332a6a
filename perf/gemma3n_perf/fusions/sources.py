"""What the sources of a fusion say, read and never imported: the files it is made of, and what it reaches for.

Opinion: a fusion computes. What it may import is a list, and what leads around that list is refused by name. Reading
sources refuses much, and proves nothing: what a fusion does is told by what is measured.
"""

import ast
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeGuard

from gemma3n_perf import fusions

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
    "__future__", "abc", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "hashlib",
    "itertools", "math", "mlx", "mlx_lm", "mlx_vlm", "operator", "re", "textwrap", "types", "typing", "warnings",
    "weakref", _PACKAGE,
    f"{_SUITE}.errors", f"{_SUITE}.decode.types", f"{_SUITE}.hardware.types",
})  # fmt: skip
"""What a fusion may import, and what lies below: it computes. Files, processes, threads, clocks and whoever calls it
are none of its business, and with them it could be another program where it is timed than where it is used."""
_ALONE = frozenset({"numpy", "numpy.typing"})
"""What it may import without what lies below: ``numpy.testing`` runs strings."""
_REACHING = frozenset({
    "CodeType", "DataSource", "ForwardRef", "FunctionType", "Path", "__builtins__", "__closure__", "__code__",
    "__dict__", "__getattribute__", "__globals__", "__loader__", "__reduce__", "__reduce_ex__", "__spec__",
    "__subclasses__", "__traceback__", "_getframe", "ag_frame", "attrgetter", "builtins", "cr_frame", "ctypes",
    "ctypeslib", "exporter", "export_function", "f_back", "f_builtins", "f_globals", "f_locals", "f2py", "finalize",
    "fromfile", "gc", "genfromtxt", "get_type_hints", "gi_frame", "import_function", "importlib", "inspect", "load",
    "load_library", "load_weights", "loadtxt", "make_dataclass", "memmap", "methodcaller",
    "multiprocessing", "os", "pathlib", "psutil", "runstring", "save", "save_weights", "savetxt", "savez",
    "savez_compressed", "shutil", "signal", "singledispatch", "singledispatchmethod", "socket", "subprocess", "sys",
    "tb_frame", "tb_next", "tempfile", "testing", "threading", "time", "tofile", "with_traceback",
})  # fmt: skip
"""Names, and attributes, that lead to the same from what it may import."""
_BUILTINS = frozenset({"breakpoint", "compile", "globals", "input", "locals", "open", "vars"})
_DYNAMIC = ("getattr", "setattr", "delattr")
_READS = ("importlib.metadata", "importlib.resources")
"""What reads, of the same name."""


def files(starts: Sequence[Path]) -> tuple[Path, ...]:
    """Return ``starts``, what they import of the suite, however deep, and the files beside them that they name."""
    todo = list(starts)
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


def unseen(files: Sequence[Path]) -> list[str]:
    """Where the files of this package import or run what ``files`` cannot tell, and so no digest holds.

    That is also what could make it another program where it is timed: see ``_USABLE``.
    """
    found, root = list[str](), Path(fusions.__path__[0]).resolve()
    for file in (one for one in files if one.suffix == ".py" and one.is_relative_to(root)):
        own = file.relative_to(root).as_posix() in _OWN
        nodes = list(ast.walk(_parsed(file)))
        called = {id(one.func) for one in nodes if isinstance(one, ast.Call)}
        looped = _constants_of_loops(nodes)
        passed = _arguments(nodes)
        foreign = {alias.asname or alias.name.split(".")[0] for one in nodes if _is_import(one) for alias in one.names}
        for node in nodes:
            names = [one for one in _names(node) if one.split(".")[0] in _UNSEEN]
            names += [] if own else [*_reaching(node, looped), *_replacing(node, foreign - passed.get(id(node), set()))]
            names += [] if own or id(node) in called else [one for one in _names(node) if one in _DYNAMIC]
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


def _arguments(nodes: Sequence[ast.AST]) -> dict[int, set[str]]:
    """By the id of each node within a function, the names of its arguments, which are none of what was imported."""
    found: dict[int, set[str]] = {}
    for one in nodes:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = {each.arg for each in ast.walk(one.args) if isinstance(each, ast.arg)}
            for inside in ast.walk(one):
                found.setdefault(id(inside), set()).update(names)
    return found


def _constants_of_loops(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that are bound by loops over constants alone, none of which reaches for anything."""
    loops = [one for one in nodes if isinstance(one, ast.For | ast.comprehension)]
    targets = [one.target for one in loops if isinstance(one.target, ast.Name) and _are_harmless(one.iter)]
    stored = [one for one in nodes if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)]
    others = {one.id for one in stored if one not in targets}
    others |= {
        getattr(one, field, "")
        for one in nodes if not isinstance(one, ast.keyword)
        for field in ("arg", "name", "asname", "rest")
    }  # fmt: skip
    return {one.id for one in targets if isinstance(one, ast.Name)} - others


def _are_harmless(names: ast.expr) -> bool:
    return isinstance(names, ast.Tuple | ast.List) and all(
        isinstance(one, ast.Constant) and one.value not in _REACHING for one in names.elts
    )


def _reaching(node: ast.AST, looped: Collection[str]) -> list[str]:
    """What a statement or expression reaches for that is no business of a fusion. Names that are ``looped`` stand for
    constants."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        relative = isinstance(node, ast.ImportFrom) and node.level
        hidden = [alias.name for alias in node.names if alias.name in _REACHING]
        return hidden + ([] if relative else [one for one in _names(node) if not _is_usable(one)])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC:
        name = node.args[1] if len(node.args) > 1 else None
        constant = isinstance(name, ast.Constant) and name.value not in _REACHING
        constant = constant or (isinstance(name, ast.Name) and name.id in looped)
        return [] if constant else [f"{node.func.id} by a name that is no constant"]
    if isinstance(node, ast.Name):
        used = isinstance(node.ctx, ast.Load)
        return [node.id] if used and node.id in _REACHING | _BUILTINS else []
    if isinstance(node, ast.MatchClass):
        return [name for name in node.kwd_attrs if name in _REACHING]
    return [node.attr] if isinstance(node, ast.Attribute) and node.attr in _REACHING else []


def _replacing(node: ast.AST, foreign: Collection[str]) -> list[str]:
    """What a statement or expression puts something else in the place of: an attribute of what was imported."""
    target: ast.AST = node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC[1:] and node.args:
        target = node.args[0]
    elif not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)):
        return []
    while isinstance(target, ast.Attribute):
        target = target.value
    return [f"{ast.unparse(node)} replaced"] if isinstance(target, ast.Name) and target.id in foreign else []


def _is_import(node: ast.AST) -> TypeGuard[ast.Import | ast.ImportFrom]:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_usable(module: str) -> bool:
    """Whether a module, or one that it lies in, may be imported."""
    parts = module.split(".")
    return module in _ALONE or any(".".join(parts[:count]) in _USABLE for count in range(1, len(parts) + 1))


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
