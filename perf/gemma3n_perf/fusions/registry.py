"""Every fusion by name, and compositions of them. A module of this package that defines ``FUSION`` is one."""

import hashlib
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from gemma3n_perf import fusions
from gemma3n_perf.errors import InvalidError, MalformedRecordError, UsageError
from gemma3n_perf.fusions import sources
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store import admitted as admitted_store


def _modules() -> dict[str, Path]:
    """By name, found without importing any: what a module does when it is imported may be anything."""
    found = [path for path in sorted(Path(fusions.__path__[0]).glob("*.py")) if b"\nFUSION" in path.read_bytes()]
    return {path.stem.replace("_", "-"): path for path in found}


@cache
def _defined(source: Path) -> Fusion:
    try:
        with _from_source():
            found = importlib.import_module(f"{fusions.__name__}.{source.stem}").FUSION
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


@contextmanager
def _from_source() -> Iterator[None]:
    """Import what the sources say: bytecode that lies beside them may be of other ones, and no digest holds it."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = os.devnull, True
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before


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
    return sources.files([_source(part.strip()) for part in name.split("+")])


def unseen(name: str) -> list[str]:
    """Where a fusion's files in this package do what is no business of one, or import what ``files`` cannot tell."""
    return sources.unseen(files(name))


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
