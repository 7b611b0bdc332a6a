"""Artifacts of measuring jobs, opened as what they are, files that a stranger may have made, and laid into one folder.

An archive is never unpacked: each entry that has a right to be there is read by its name, up to a limit, and everything
else refuses the whole archive. The job decides whether there is evidence, the artifact only what it is: one that a
cancelled, failed or vanished job left behind, in this attempt or an earlier one, counts for nothing.
"""

import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.ci.plan import CLASS_NAME, ChipClass
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.files import contents, write_over

MAX_ARCHIVE = 32 * 2**20
MAX_ENTRY = 16 * 2**20
MAX_TOTAL = 64 * 2**20
MAX_ENTRIES = 64
MANIFEST = "manifest.json"
COMPARISON = "_regression.json"
"""Base against head: no fusion has such a name."""

SETUP = "Set up"
"""The step that installs what the change's lock names."""

JOB = "measure "
"""What the name of a measuring job begins with; its class follows."""

_NAME = re.compile(r"evidence-(?P<chip_class>[a-z0-9][a-z0-9.-]*)-(?P<attempt>[1-9]\d{0,3})")
_RECORD = re.compile(r"[a-z0-9][a-z0-9+-]{0,199}\.json")
_ENDS = {
    "cancelled": ("its job was cancelled", "run it again"),
    "failure": ("its job measured nothing", "see the job's log; it says what its machine lacked"),
    "timed_out": ("its job ran out of time", "look at the machine, then run it again"),
    "skipped": ("its job was skipped", "run it again"),
}
_UNRESOLVED = ("the environment of the change could not be set up", "see the job's log: what does not resolve")
_VANISHED = ("its job never finished: the runner vanished or none took it", "look at the runner, then run it again")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a measuring job was sent to measure, and says it measured, beside the evidence. ``schema`` 1.

    ``regression`` says that base and head were compared too.
    """

    schema: int
    chip_class: str
    commit: str
    run_id: str
    run_attempt: int
    fusions: tuple[str, ...]
    regression: bool = False

    @property
    def files(self) -> frozenset[str]:
        """The names of the files beside it."""
        return frozenset((*(f"{name}.json" for name in self.fusions), *((COMPARISON,) if self.regression else ())))


@dataclass(frozen=True, slots=True)
class Artifact:
    """An archive by its name: the class and the attempt it claims."""

    path: Path
    chip_class: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Job:
    """The last attempt of a job, as GitHub's API reports it; ``conclusion`` None is one that has not ended.

    ``failed`` is the first of its steps that failed.
    """

    name: str
    conclusion: str | None = None
    run_attempt: int = 1
    failed: str | None = None


class _Page(msgspec.Struct):
    jobs: list[Job]


def read_jobs(path: Path) -> tuple[Job, ...]:
    """Return the jobs of a run from the API's answer, a page a line. Raises MalformedRecordError for anything else."""
    try:
        pages = msgspec.json.Decoder(_Page).decode_lines(contents(path))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRecordError(f"{path.name}: {error}", expected="the jobs of the run, a page a line") from error
    return tuple(job for page in pages for job in page.jobs)


def gather(
    folder: Path, jobs: Sequence[Job], classes: Iterable[ChipClass], run_id: str, commit: str, out: Path
) -> tuple[Objection, ...]:
    """Write the evidence of every class among the artifacts in ``folder`` under ``out``; return why others have none.

    The layout is that of ``baselines/``: ``<chip class>/fusions/<name>.json``, and the comparison of base and head is
    ``<chip class>/_regression.json``. Evidence must be of this run and commit.
    An objection without a chip class is to a stray artifact.
    """
    problems: list[Objection] = []
    artifacts: dict[str, list[Artifact]] = {one.name: [] for one in classes}
    for path in sorted([*folder.glob("*.zip"), *folder.glob("*/*.zip")]):
        try:
            one = named(path)
            if one.chip_class not in artifacts:
                raise InvalidError(f"an artifact of {one.chip_class}", expected="a class of the policy")
            artifacts[one.chip_class].append(one)
        except InvalidError as error:
            problems.append(_problem(None, error))
    for name, sent in artifacts.items():
        absent = _absent(name, jobs)
        if absent is not None:
            problems.append(absent)
            continue
        try:
            found = open_artifact(_newest(name, sent), run_id, commit)
        except InvalidError as error:
            problems.append(_problem(name, error))
        else:
            for record, data in found.items():
                write_over(out / name / record if record == COMPARISON else out / name / "fusions" / record, data)
    return tuple(problems)


def named(path: Path) -> Artifact:
    """Return what an archive's name says. Raises InvalidError for a name no measuring job gives."""
    match = _NAME.fullmatch(path.stem)
    if match is None or not CLASS_NAME.fullmatch(match["chip_class"]):
        raise _refused(f"an artifact called {path.stem[:80]!r}", "evidence-<chip class>-<attempt>")
    return Artifact(path, match["chip_class"], int(match["attempt"]))


def open_artifact(artifact: Artifact, run_id: str, commit: str) -> Mapping[str, bytes]:
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
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError,
    ) as error:  # fmt: skip
        raise _refused(f"an artifact that cannot be read: {error}", "the archive a measuring job uploads") from error
    try:
        said = msgspec.json.decode(found.pop(MANIFEST, b""), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"the manifest of an artifact: {error}", "what gemma3n-perf ci measure writes") from error
    own, attempt = artifact.chip_class, artifact.attempt
    other = f"run {said.run_id[:20]!r}, attempt {said.run_attempt}"
    for right, what, expected in (
        (said.schema == 1, f"a manifest of schema {said.schema}", "schema 1"),
        (said.chip_class == own, f"evidence of {said.chip_class[:80]!r} in its place", f"evidence of {own}"),
        (
            (said.run_id, said.run_attempt) == (run_id, attempt),
            f"evidence from another run: {other}",
            f"run {run_id}, attempt {attempt}",
        ),
        (said.commit == commit, f"evidence of commit {said.commit[:12]!r}", f"evidence of {commit[:12]}"),
        (
            found.keys() == said.files,
            "files that the manifest does not name, or the other way round",
            "exactly those it names",
        ),
    ):
        if not right:
            raise _refused(what, expected)
    return found


def _contents(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _refused(f"an artifact with {len(entries)} files", f"at most {MAX_ENTRIES}")
    found: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _refused(f"{name[:80]!r} in an artifact is no regular file", "regular files")
        if name not in (MANIFEST, COMPARISON) and not _RECORD.fullmatch(name):
            raise _refused(f"{name[:80]!r} in an artifact", f"{MANIFEST}, {COMPARISON} and <fusion>.json, in no folder")
        if name in found:
            raise _refused(f"{name} twice in an artifact", "every file once")
        with archive.open(entry) as file:
            # The size an archive states is a claim like any other.
            data = file.read(MAX_ENTRY + 1)
        if len(data) > MAX_ENTRY or sum(map(len, found.values())) + len(data) > MAX_TOTAL:
            raise _refused(f"{name} in an artifact is too large", f"at most {MAX_ENTRY / 1e6:.0f} MB a file")
        found[name] = data
    return found


def _absent(name: str, jobs: Sequence[Job]) -> Objection | None:
    own = [job for job in jobs if job.name == f"{JOB}{name}"]
    last = max(own, key=lambda job: job.run_attempt, default=None)
    if last is None:
        found, remedy = "no job of this class ran", "look at the runner, then run the workflow again"
    elif last.conclusion == "success":
        return None
    else:
        found, remedy = _UNRESOLVED if last.failed == SETUP else _ENDS.get(last.conclusion or "", _VANISHED)
    return Objection(Verdict.NOT_MEASURED, found, remedy, name)


def _newest(name: str, found: Sequence[Artifact]) -> Artifact:
    if not found:
        raise InvalidError(
            f"the job of {name} succeeded and left no artifact",
            expected=f"evidence-{name}-<attempt>",
            remedy="run the job again",
        )
    newest = max(one.attempt for one in found)
    last = [one for one in found if one.attempt == newest]
    if len(last) > 1:
        raise InvalidError(
            f"{len(last)} artifacts of {name} from attempt {newest}",
            expected="one",
            remedy="run the job again; to choose between them would be to pick",
        )
    return last[0]


def _problem(chip_class: str | None, error: InvalidError) -> Objection:
    found = f"{error.found} (expected: {error.expected})" if error.expected else error.found
    return Objection(Verdict.INVALID, found, error.remedy or "run the workflow again", chip_class)


def _refused(found: str, expected: str) -> InvalidError:
    return InvalidError(found, expected=expected, remedy="run the job again; if it comes back, look at who wrote it")
