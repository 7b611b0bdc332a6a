"""A checkpoint that a user names: where it is, and that its files can be read to an end."""

import stat
from pathlib import Path

from gemma3n_perf.errors import CorruptCheckpointError, UsageError
from gemma3n_perf.hardware.limits import is_text
from gemma3n_perf.workload import load

_READ = (".json", ".safetensors", ".model", ".jinja", ".txt")


def locate(name: str, root: Path) -> tuple[str, Path]:
    """Find a checkpoint as ``load.locate`` does; raises what that raises, UsageError for a name that is not UTF-8,
    and CorruptCheckpointError for a pipe.
    """
    if not is_text(name):
        raise UsageError(f"the checkpoint {name!r} is not UTF-8", expected="text, which is recorded")
    short, folder = load.locate(name, root)
    require_files(folder)
    return short, folder


def require_files(folder: Path) -> None:
    """Raise CorruptCheckpointError for a pipe, device or folder in place of a file: reading it might never end."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in _READ and path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise CorruptCheckpointError(
                f"{path.name} in {folder} is no regular file",
                expected="a checkpoint's files, or links to them",
                remedy="put the file there that it stands for",
            )
