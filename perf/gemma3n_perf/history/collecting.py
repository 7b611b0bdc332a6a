"""From session files to asv results, in one pass: sessions, then the results of each chip class and commit.

Collecting may be done again at any time. What is in a result file already, by its samples, stays; what a
session adds is added; what cannot be trusted is named and left out, and everything else goes on.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gemma3n_perf.bench.comparison import same_mlx
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.results import ENV, ResultFile, joined, milliseconds, with_sessions
from gemma3n_perf.store.codec import usable
from gemma3n_perf.store.files import contents
from gemma3n_perf.store.session_file import decode
from gemma3n_perf.store.types import Session

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits of a repository. The order is that of parents, never of clocks: dates are labels.

    line      HEAD's first-parent line, oldest first
    dates     of all commits, milliseconds since 1970
    subjects  the first lines of their messages
    shallow   whether older ones are missing
    """

    line: tuple[str, ...]
    dates: dict[str, int]
    subjects: dict[str, str]
    shallow: bool = False


def commits(path: Path, run: Run) -> Commits:
    """Read the commits of the repository at ``path``. Raises UsageError where it is no git repository."""
    repository = Repository(path, run)

    def git(*argv: str) -> str:
        return repository.git(*argv).checked(
            UsageError,
            f"{path} is no git repository with a commit",
            expected="a clone of the repository, with its history",
        )

    line = git("rev-list", "--first-parent", "--reverse", "HEAD").split()
    # A subject may hold characters at which str.splitlines would break it.
    listed = git("log", "--no-show-signature", "--all", "HEAD", "--format=%H%x09%at%x09%s").split("\n")
    rows = [one.split("\t", 2) for one in listed if one]
    return Commits(
        tuple(line),
        {commit: int(stamp) * 1000 for commit, stamp, _ in rows},
        {commit: subject for commit, _, subject in rows},
        repository.is_shallow(),
    )


@dataclass(frozen=True, slots=True)
class Collected:
    """The results of all chip classes and commits, stored ones and what sessions add.

    results    what can be published: one a chip class and commit, in the suite's own environment
    machines   the axes of every chip class
    additions  the result files that sessions make or add to, as they are to be stored
    counts     how many ``sessions`` were read, result files are ``created``, ``changed`` and ``unchanged`` by them,
               and commits have several sessions (``pooled``)
    left_out   what could not be used, and why
    notes      what is to be said of what was used
    """

    results: tuple[ResultFile, ...]
    machines: dict[str, dict[str, str]]
    additions: tuple[ResultFile, ...]
    counts: Counter[str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def gather(folders: Iterable[Path]) -> tuple[tuple[Session, ...], list[str]]:
    """Read all session files of ``folders``, each named for its chip class; a folder that is absent has none.

    Returns sessions fit for a history, oldest file first, and which files are not, and why: what does not parse,
    planted, dirty or unversioned sessions, machines that are not known, a session twice with different content.
    """
    sessions: dict[str, Session] = {}
    left_out: list[str] = []
    for path in (path for folder in folders for path in sorted(folder.glob("[0-9]*_*.json"))):
        try:
            session = decode(contents(path), source=path.name)
        except (PerfError, OSError) as error:
            said = f"{path.name}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
            left_out.append(said.splitlines()[0])
            continue
        reason = _unfit(session, path.parent.name)
        if reason is None and sessions.setdefault(session.id, session) != session:
            reason = f"session {session.id} was read from another file already, and differs"
        if reason is not None:
            left_out.append(f"{path.name}: {reason}")
    return tuple(sessions.values()), left_out


def _unfit(session: Session, folder: str) -> str | None:
    """Return why a session can be part of no history, or None."""
    stack, chip_class = session.stack, session.chip.chip_class
    if session.planted:
        return f"a slowdown of {session.planted:.4g} was planted in it"
    if stack.commit is None or not _COMMIT.fullmatch(stack.commit):
        return f"it belongs to no commit ({stack.commit or 'unversioned'})"
    if stack.dirty is not False:
        return f"measured with uncommitted changes on {stack.commit[:12]}"
    if chip_class.endswith("-unknown"):
        return f"machine {chip_class} is not known well enough to be compared with others"
    if chip_class != folder:
        return f"chip class {chip_class} in the folder of {folder}"
    return None


def collect(results: Path, folders: Iterable[Path], dates: Mapping[str, int]) -> Collected:
    """Return the results that are stored below ``results``, with what sessions in ``folders`` add; nothing is written.

    ``dates`` are commit dates by hash, ms since 1970. A commit that is not in it (rebased away, or another repository)
    is kept, dated by its session, and noted.
    """
    found, left_out = gather(folders)
    notes, counts = list[str](), Counter(sessions=len(found))
    machines = {one.chip.chip_class: asv_files.machine_axes(one.chip) for one in found}
    files = _stored(results, machines, left_out, notes)
    additions: dict[Path, ResultFile] = {}
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in found:
        groups.setdefault((session.chip.chip_class, session.stack.commit or ""), []).append(session)
    for (chip_class, commit), listed in groups.items():
        newest = listed[-1].stack
        sessions = [one for one in listed if same_mlx(one.stack, newest) and one.stack.knobs == newest.knobs]
        if len(sessions) < len(listed):
            notes.append(
                f"{chip_class}: {len(listed) - len(sessions)} of {len(listed)} sessions of {commit[:12]} left out: "
                "other mlx, mlx-vlm or settings than its newest"
            )
        axes, date = machines.get(chip_class), dates.get(commit) or milliseconds(sessions[0])
        fresh = ResultFile(chip_class, commit, date, axes or {}, {})
        path = results / chip_class / fresh.name
        old = files.setdefault(path, fresh) if axes else None
        if old is None:
            continue
        if old.commit != commit:
            left_out.append(f"{path}: of commit {old.commit}, not {commit}, whose results would have the same name")
            continue
        new = with_sessions(replace(old, date=date, params=fresh.params), sessions)
        counts.update(["created" if old is fresh else "unchanged" if new == old else "changed"])
        counts["pooled"] += len(sessions) > 1
        if new != old:
            files[path] = additions[path] = new
    published = _published([one for one in files.values() if one and one.times], machines)
    notes += [
        f"{one.machine}: commit {one.commit[:12]} is not in this repository's history (rebased?); kept"
        for one in published
        if one.commit not in dates
    ]
    return Collected(published, machines, tuple(additions.values()), counts, tuple(left_out), tuple(notes))


def _published(files: Iterable[ResultFile], machines: Mapping[str, dict[str, str]]) -> tuple[ResultFile, ...]:
    """Return one result file a chip class and commit: asv's own runs record Python, which would split the series."""
    made: dict[tuple[str, str], ResultFile] = {}
    for one in files:
        key = (one.machine, one.commit)
        own = replace(one, params=machines[one.machine], env=ENV, others={})
        made[key] = joined(made[key], own) if key in made else own
    return tuple(made.values())


def _stored(
    results: Path, machines: dict[str, dict[str, str]], left_out: list[str], notes: list[str]
) -> dict[Path, ResultFile | None]:
    """Return all result files, None for those that cannot be used; the axes of their ``machines`` are as stored."""
    files: dict[Path, ResultFile | None] = {}
    for folder in sorted({path.parent for path in results.glob("*/*.json")}):
        if (folder / "machine.json").exists() or folder.name not in machines:
            axes = usable(partial(asv_files.read_machine, folder), left_out)
            if axes is None:
                machines.pop(folder.name, None)
                continue
            machines[folder.name] = axes
        for path in asv_files.result_files(results, folder.name):
            files[path] = one = usable(partial(asv_files.read_result, path), left_out)
            if one and one.others:
                others = ", ".join(sorted(one.others))
                notes.append(f"{path.name}: {others} is no benchmark of this suite (renamed?); kept")
    return files
