"""Evidence of all chip classes in one folder, and of each class that is not there, why.

The job decides whether there is evidence, the artifact only what it is. An artifact that a cancelled, failed
or vanished job left behind, in this attempt or an earlier one, counts for nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.ci.artifacts import Artifact, Origin, named, open_artifact
from gemma3n_perf.ci.plan import ChipClass
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.files import write_over

JOB = "measure "
"""What the name of a measuring job begins with; its class follows."""


@dataclass(frozen=True, slots=True)
class Job:
    """The last attempt of a job, as GitHub's API reports it."""

    name: str
    status: str | None = None
    conclusion: str | None = None
    run_attempt: int = 1


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was put together: the classes with evidence and their files, and why the others brought none.

    A problem without a chip class is a stray artifact.
    """

    files: Mapping[str, tuple[str, ...]]
    problems: tuple[Objection, ...]


def read_jobs(path: Path) -> tuple[Job, ...]:
    """Return the jobs of a run from the API's answer, several pages of it one after another.

    Raises MalformedRecordError for anything else.
    """

    class Page(msgspec.Struct):
        jobs: list[Job]

    found: list[Job] = []
    try:
        for line in path.read_bytes().splitlines():
            if line.strip():
                found += msgspec.json.decode(line, type=Page).jobs
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRecordError(f"{path.name}: {error}", expected="the jobs of the run, a page a line") from error
    return tuple(found)


def gather(folder: Path, jobs: Sequence[Job], classes: Iterable[ChipClass], origin: Origin, out: Path) -> Gathered:
    """Take the evidence of every class out of the artifacts in ``folder`` and write it under ``out``.

    The layout there is that of ``baselines/``: ``<chip class>/fusions/<name>.json``.
    """
    names = [one.name for one in classes]
    problems: list[Objection] = []
    artifacts: dict[str, list[Artifact]] = {name: [] for name in names}
    for path in sorted([*folder.glob("*.zip"), *folder.glob("*/*.zip")]):
        try:
            one = named(path)
            if one.chip_class not in artifacts:
                raise InvalidError(f"an artifact of {one.chip_class}", expected="a class of the policy")
            artifacts[one.chip_class].append(one)
        except InvalidError as error:
            problems.append(_problem(None, error))
    files: dict[str, tuple[str, ...]] = {}
    for name in names:
        absent = _absent(name, jobs)
        if absent is not None:
            problems.append(absent)
            continue
        try:
            found = open_artifact(_newest(name, artifacts[name]), origin)
        except InvalidError as error:
            problems.append(_problem(name, error))
            continue
        for record, data in found.items():
            write_over(out / name / "fusions" / record, data)
        files[name] = tuple(sorted(found))
    return Gathered(files, tuple(problems))


_ENDS = {
    "cancelled": ("its job was cancelled", "run it again"),
    "failure": ("its job measured nothing", "see the job's log; it says what its machine lacked"),
    "timed_out": ("its job ran out of time", "look at the machine, then run it again"),
    "skipped": ("its job was skipped", "run it again"),
}
_VANISHED = ("its job never finished: the runner vanished or none took it", "look at the runner, then run it again")


def _absent(name: str, jobs: Sequence[Job]) -> Objection | None:
    own = [job for job in jobs if job.name == f"{JOB}{name}"]
    last = max(own, key=lambda job: job.run_attempt, default=None)
    if last is None:
        found, remedy = "no job of this class ran", "look at the runner, then run the workflow again"
    elif last.conclusion == "success":
        return None
    else:
        found, remedy = _ENDS.get(last.conclusion or "", _VANISHED)
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
