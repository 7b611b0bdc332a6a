"""Putting a file in a folder so that it is there whole or not at all, and nothing else is touched.

A name that exists is never used again, whatever the file holds: a person decides whether to remove it.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from gemma3n_perf.errors import FULL, DiskFullError, MalformedRecordError, NotMeasuredError, UsageError
from gemma3n_perf.hardware.types import Stack

LAST_NUMBER = 9999
MOST_BYTES = 1 << 28
"""No record is so large: a file that is would take the memory of whoever reads it."""
SHORT_COMMIT = 12
_NAME = re.compile(r"\d{4}_([0-9a-f]{7,40}|unversioned)(-dirty)?\.json")
_NUMBERED = re.compile(r"\d+_.*\.json")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Disk:
    """The calls that a full or foreign disk makes fail, in one place so that a test can fill the disk."""

    def write(self, path: Path, data: bytes) -> None:
        """Create ``path`` with ``data`` and wait until both are on the disk."""
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def publish(self, temporary: Path, final: Path) -> None:
        """Give ``temporary`` its ``final`` name at once. Raises FileExistsError if that is taken."""
        try:
            os.link(temporary, final)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if final.exists():
                raise FileExistsError(errno.EEXIST, "the name is taken", str(final)) from error
            temporary.replace(final)

    def replace(self, temporary: Path, final: Path) -> None:
        """Give ``temporary`` its ``final`` name at once, in place of what had it."""
        temporary.replace(final)


def contents(path: Path) -> bytes:
    """Return what a file holds. Raises OSError, also for a pipe or a device, which might never end, and a huge file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise OSError(errno.EINVAL, f"it is {kind}")
    if found.st_size > MOST_BYTES:
        raise OSError(errno.EINVAL, f"it has {found.st_size:,} bytes, and {MOST_BYTES:,} are the most that is read")
    return path.read_bytes()


def data_folder() -> Path:
    """Return the user's data folder of this suite, outside any checkout; it need not exist yet."""
    import platformdirs  # a worker writes no file, and every launch waits for its imports

    return platformdirs.user_data_path("gemma3n-perf", appauthor=False)


def local_folder(chip_class: str, data: Path | None = None) -> Path:
    """Return the folder of this machine's sessions of a chip class, below ``data`` or the user's own data folder."""
    return (data or data_folder()) / "sessions" / chip_class


def file_stem(stack: Stack) -> str:
    """Return what follows ``NNNN_`` in the name of a session of ``stack``."""
    commit = stack.commit[:SHORT_COMMIT] if stack.commit else "unversioned"
    return f"{commit}-dirty" if stack.dirty else commit


def numbered_files(folder: Path) -> tuple[Path, ...]:
    """Return the session files of ``folder``, ``NNNN_<commit>[-dirty].json``, by number; an absent folder has none.

    Other names are someone else's (noise.json). Raises MalformedRecordError for a number twice or a name half right.
    """
    found = [path for path in sorted(folder.glob("[0-9]*_*.json")) if _NUMBERED.fullmatch(path.name)]
    for path in found:
        if _NAME.fullmatch(path.name) is None:
            raise MalformedRecordError(
                f"{path}: the name of this session file is not understood",
                expected="NNNN_<commit>.json, as this suite names them",
                remedy="give it back the name it was promoted with, or move it away",
            )
    for path, following in pairwise(found):
        if path.name[:4] == following.name[:4]:
            raise MalformedRecordError(
                f"{following} and {path.name} have the same number",
                expected="every number once, so that the order is certain",
                remedy="promote the later of the two again, then remove its old file",
            )
    return tuple(found)


def next_number(folder: Path) -> int:
    """Return the first number above all in use, so that the newest record always sorts last."""
    number = max((int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]_*")), default=0) + 1
    if number > LAST_NUMBER:
        raise UsageError(f"{folder} holds number {LAST_NUMBER}, the last", remedy="move old session files away")
    return number


def write_next(folder: Path, stems: Iterable[str], contents: Iterable[bytes], disk: Disk | None = None) -> list[Path]:
    """Write all ``contents`` under the next free numbers, or none of them. Returns their paths.

    ``stems`` are what follows the number in each name. Raises DiskFullError, with the folder as it was before.
    """
    disk = disk or Disk()
    staged: list[Path] = []
    claimed: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for data in contents:
            staged.append(_fresh_name(folder))
            disk.write(staged[-1], data)
        for temporary, stem in zip(staged, stems, strict=True):
            _publish(disk, temporary, folder, stem, claimed)
        _sync_folder(folder)
    except BaseException as error:
        # BaseException: Ctrl-C between two files must not leave half a promotion either.
        for temporary, final in claimed:
            if not temporary.exists() or (final.exists() and final.samefile(temporary)):
                final.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _explained(error, folder) from error
        raise
    finally:
        for path in staged:
            path.unlink(missing_ok=True)
    return [final for _, final in claimed]


def require_writable(path: Path | None) -> None:
    """Refuse what could not be written after a measurement, before it. Raises UsageError; None is no file."""
    if path is None or _is_device(path):
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected="a file to write")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"{path} cannot be written: {above} takes no files of this user", expected="a file to write")


def require_folder(baselines: Path | None) -> None:
    """Refuse a folder of baselines that was named and is not there: what it holds would be silently missed."""
    if baselines is not None and not baselines.is_dir():
        raise UsageError(f"--baselines {baselines} is no folder", expected="a folder of baselines")


def write_over(path: Path, data: bytes, disk: Disk | None = None) -> None:
    """Replace ``path`` by ``data`` at once, or leave it as it was; a device or pipe is written to.

    Raises DiskFullError, NotMeasuredError.
    """
    disk, temporary = disk or Disk(), _fresh_name(path.parent)
    try:
        if _is_device(path):
            with path.open("ab") as file:
                file.write(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            disk.write(temporary, data)
            disk.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _explained(error, path.parent) from error


def _publish(disk: Disk, temporary: Path, folder: Path, stem: str, claimed: list[tuple[Path, Path]]) -> None:
    taken = 0
    while True:
        number = next_number(folder)
        if number == taken:  # the name was taken, and is not seen: it would be for ever
            raise PermissionError(errno.EACCES, "its files cannot be listed", str(folder))
        final = folder / f"{number:04}_{stem}.json"
        # Claimed before it is published: an interrupt in between is then undone as well.
        claimed.append((temporary, final))
        try:
            return disk.publish(temporary, final)
        except FileExistsError:
            claimed.pop()
            taken = number


def _is_device(path: Path) -> bool:
    """Whether ``path`` is a device, a pipe, or the system's link to an open file: root must not put a file there."""
    special = path.exists() and not path.is_file() and not path.is_dir()
    return special or (path.is_symlink() and path.parts[:2] == ("/", "dev"))


def _fresh_name(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(8)}.partial"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, folder: Path) -> NotMeasuredError:
    if error.errno in FULL:
        return DiskFullError(
            f"no room left to write in {folder}",
            expected="enough free space for the record",
            remedy="free some space and run the same command again; what was stored before is untouched",
        )
    return NotMeasuredError(
        f"cannot write in {folder}: {error.strerror or error}",
        expected="a folder this user may write to",
        remedy="check its permissions; what was stored before is untouched",
    )
