"""Pages that are generated from records: written where they are stale, removed where nothing makes them any more."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.report.output import plain
from gemma3n_perf.store.files import write_over

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: Path, **filters: Callable[..., str]) -> "Template":
    """Return the template in a file, whose blocks leave no lines of their own; a name that it is not given is an error.

    Nothing but control characters is escaped unless a filter does it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes a moment to import

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda shown: plain(shown) if isinstance(shown, str) else shown,
    )
    environment.filters |= filters
    return environment.get_template(path.name)


def write(
    files: Mapping[Path, bytes],
    present: Iterable[Path],
    title: Path,
    out: TextIO,
    *,
    check: bool = False,
    remedy: str | None = None,
) -> int:
    """Write what differs and remove those of ``present`` that nobody wants; says so under ``title``. Returns 0.

    With ``check`` nothing is written: every page that is not what the records give is named, with the ``remedy``, and
    5, invalid, is returned where there is one.
    """
    stale = [path for path, data in files.items() if not path.is_file() or path.read_bytes() != data]
    stray = sorted(set(present) - files.keys())
    if check:
        for path in sorted([*stale, *stray]):
            out.write(f"{PurePosixPath(path)} is not what the records give\n")
        if remedy and (stale or stray):
            out.write(f"next: {remedy}\n")
        return InvalidError.exit_code if stale or stray else 0
    for path in stale:
        write_over(path, files[path])
    for path in stray:
        path.unlink()
    out.write(f"{title}: {len(stale)} of {len(files)} files written\n")
    return 0
