"""Pages that are generated from records: written where they are stale, removed where nothing makes them any more."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.store.files import write_over

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: Path, **filters: Callable[..., str]) -> "Template":
    """Return the template in a file, whose blocks leave no lines of their own; a name that it is not given is an error.

    Nothing is escaped unless a filter does it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes a moment to import

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name)


def refresh(files: Mapping[Path, bytes], present: Iterable[Path], title: Path, out: TextIO) -> int:
    """Write what differs and remove those of ``present`` that nobody wants; says so under ``title``. Returns 0."""
    stale, stray = _differing(files, present)
    for path in stale:
        write_over(path, files[path])
    for path in stray:
        path.unlink()
    out.write(f"{title}: {len(stale)} of {len(files)} files written\n")
    return 0


def check(files: Mapping[Path, bytes], present: Iterable[Path], out: TextIO, *, remedy: str | None = None) -> int:
    """Name every page that is not what the records give; returns 5, invalid, where there is one, else 0."""
    stale, stray = _differing(files, present)
    for path in sorted([*stale, *stray]):
        out.write(f"{PurePosixPath(path)} is not what the records give\n")
    if remedy and (stale or stray):
        out.write(f"next: {remedy}\n")
    return InvalidError.exit_code if stale or stray else 0


def _differing(files: Mapping[Path, bytes], present: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    stale = [path for path, data in files.items() if not path.is_file() or path.read_bytes() != data]
    return stale, sorted(set(present) - files.keys())
