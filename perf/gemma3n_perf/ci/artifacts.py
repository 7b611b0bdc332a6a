"""Artifacts of measuring jobs, opened as what they are: files that a stranger may have made.

An archive is never unpacked. Each entry that has a right to be there is read by its name, up to a limit, and
written under a name of our own; everything else refuses the whole archive.
"""

import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.ci.plan import CLASS_NAME
from gemma3n_perf.errors import InvalidError

MAX_ARCHIVE = 32 * 2**20
MAX_ENTRY = 16 * 2**20
MAX_TOTAL = 64 * 2**20
MAX_ENTRIES = 64
MANIFEST = "manifest.json"
_NAME = re.compile(r"evidence-(?P<chip_class>[a-z0-9][a-z0-9.-]*)-(?P<attempt>[1-9]\d{0,3})")
_RECORD = re.compile(r"[a-z0-9][a-z0-9+-]{0,199}\.json")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a measuring job says it measured, beside the evidence. ``schema`` 1."""

    schema: int
    chip_class: str
    commit: str
    run_id: str
    run_attempt: int
    fusions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An archive by its name: the class and the attempt it claims."""

    path: Path
    chip_class: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The run and the commit that evidence must be of."""

    run_id: str
    commit: str


def named(path: Path) -> Artifact:
    """Return what an archive's name says. Raises InvalidError for a name no measuring job gives."""
    match = _NAME.fullmatch(path.stem)
    if match is None or not CLASS_NAME.fullmatch(match["chip_class"]):
        raise _refused(f"an artifact called {path.stem[:80]!r}", "evidence-<chip class>-<attempt>")
    return Artifact(path, match["chip_class"], int(match["attempt"]))


def open_artifact(artifact: Artifact, origin: Origin) -> Mapping[str, bytes]:
    """Return the evidence files of an archive by name, the manifest checked and left out.

    Raises InvalidError for an archive that is too large, damaged, or holds anything but a manifest and records of
    evidence, and for one of another class, commit, run or attempt than its place says.
    """
    size = artifact.path.lstat()
    if not stat.S_ISREG(size.st_mode):
        raise _refused(f"{artifact.path.name} is no regular file", "an archive")
    if size.st_size > MAX_ARCHIVE:
        raise _refused(f"an artifact of {size.st_size / 1e6:.0f} MB", f"at most {MAX_ARCHIVE / 1e6:.0f} MB")
    try:
        with zipfile.ZipFile(artifact.path) as archive:
            found = _contents(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise _refused(f"an artifact that cannot be read: {error}", "the archive a measuring job uploads") from error
    _check_origin(_manifest(found), artifact, origin, set(found) - {MANIFEST})
    return {name: data for name, data in found.items() if name != MANIFEST}


def _contents(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _refused(f"an artifact with {len(entries)} files", f"at most {MAX_ENTRIES}")
    found: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refused(f"{name[:80]!r} in an artifact is no regular file", "regular files")
        if name != MANIFEST and not _RECORD.fullmatch(name):
            raise _refused(f"{name[:80]!r} in an artifact", f"{MANIFEST} and <fusion>.json, in no folder")
        if name in found:
            raise _refused(f"{name} twice in an artifact", "every file once")
        with archive.open(entry) as file:
            # The size an archive states is a claim like any other.
            data = file.read(MAX_ENTRY + 1)
        if len(data) > MAX_ENTRY or sum(map(len, found.values())) + len(data) > MAX_TOTAL:
            raise _refused(f"{name} in an artifact is too large", f"at most {MAX_ENTRY / 1e6:.0f} MB a file")
        found[name] = data
    return found


def _manifest(found: Mapping[str, bytes]) -> Manifest:
    try:
        manifest = msgspec.json.decode(found.get(MANIFEST, b""), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"the manifest of an artifact: {error}", "what gemma3n-perf ci measure writes") from error
    if manifest.schema != 1:
        raise _refused(f"a manifest of schema {manifest.schema}", "schema 1")
    return manifest


def _check_origin(manifest: Manifest, artifact: Artifact, origin: Origin, files: set[str]) -> None:
    if manifest.chip_class != artifact.chip_class:
        raise _refused(f"evidence of {manifest.chip_class[:80]!r} in its place", f"evidence of {artifact.chip_class}")
    if manifest.run_id != origin.run_id or manifest.run_attempt != artifact.attempt:
        other = f"run {manifest.run_id[:20]!r}, attempt {manifest.run_attempt}"
        raise _refused(f"evidence from another run: {other}", f"run {origin.run_id}, attempt {artifact.attempt}")
    if manifest.commit != origin.commit:
        raise _refused(f"evidence of commit {manifest.commit[:12]!r}", f"evidence of {origin.commit[:12]}")
    if files != {f"{name}.json" for name in manifest.fusions}:
        raise _refused("files that the manifest does not name, or the other way round", "exactly those it names")


def _refused(found: str, expected: str) -> InvalidError:
    return InvalidError(found, expected=expected, remedy="run the job again; if it comes back, look at who wrote it")
