"""The baselines of a repository: which sessions are the reference of a chip class, and how they get there.

A class folder holds sets of sessions, a set being all that share commit and stack. The set with the highest numbers is
the reference, but for one of fewer than five sessions where an older one has them; older sets are history. A session of
one set between sessions of another means somebody mixed commits, and nothing is compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.errors import NoBaselineError, NotComparableError, UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.store.codec import Flaw
from gemma3n_perf.store.files import SHORT_COMMIT, Disk, file_stem, numbered_files, write_next
from gemma3n_perf.store.session_file import HEADER, SESSIONS, decode
from gemma3n_perf.store.types import COMMITTED, LOCAL, Baseline, Session

PUBLISHED = "published"
MIN_SESSIONS = 5
_SHARED = ("engine", "checkpoint_digest", "token_digest", "streamed_bytes", "soft_tokens")
"""What every session of a baseline has alike in its measurement of a workload."""


@dataclass(frozen=True, slots=True)
class _Stored:
    path: Path
    data: bytes
    session: Session


class Baselines:
    """All chip classes under ``root``, one folder each. Reads only when asked; keeps nothing open."""

    def __init__(self, root: Path) -> None:
        """Take the folder that holds the class folders; it need not exist."""
        self.root = root

    def classes(self) -> tuple[str, ...]:
        """Return the chip classes that have session files, sorted."""
        if not self.root.is_dir():
            return ()
        folders = (path for path in self.root.iterdir() if path.is_dir() and path.name != PUBLISHED)
        return tuple(sorted(path.name for path in folders if numbered_files(path)))

    def list(self) -> tuple[Baseline, ...]:
        """Return the reference of every class, by class name. Raises MalformedRecordError for the first bad file."""
        return tuple(self.require(name) for name in self.classes())

    def load(self, chip_class: str) -> Baseline | None:
        """Return the reference of a class, or None without a session. Raises MalformedRecordError, of history too."""
        sets = self.history(chip_class)
        full = [one for one in sets if len(one.sessions) >= MIN_SESSIONS]
        return full[-1] if full else sets[-1] if sets else None

    def has(self, chip_class: str) -> bool:
        """Whether a class has a whole baseline. Raises like ``load``."""
        found = self.load(chip_class)
        return found is not None and len(found.sessions) >= MIN_SESSIONS

    def require(self, chip_class: str) -> Baseline:
        """Like ``load``, but raises NoBaselineError, which names the classes that have one."""
        found = self.load(chip_class)
        if found is None:
            raise NoBaselineError(
                f"no baseline is stored for chip class {chip_class}",
                expected=f"one of {', '.join(self.classes()) or 'no class at all: the folder is empty'}",
                remedy="record one here: gemma3n-perf init, or gemma3n-perf baseline save and promote",
            )
        return found

    def history(self, chip_class: str) -> tuple[Baseline, ...]:
        """Return all sets of a class, oldest first. Raises like ``load``."""
        return tuple(_sets(self._stored(chip_class), COMMITTED))

    def _stored(self, chip_class: str) -> tuple[_Stored, ...]:
        stored = tuple(_read(path, chip_class) for path in numbered_files(self.root / chip_class))
        for one in stored:
            for flaw in _unfit(one.session):
                raise SESSIONS.malformed(str(one.path), flaw)
        return stored

    @staticmethod
    def local(folder: Path) -> Baseline | None:
        """Return this machine's last sessions as a stand-in: the newest file and those just before it of its stack.

        A dirty session stands alone: two sets of uncommitted changes cannot be told apart.
        """
        kept: list[_Stored] = []
        for one in reversed(numbered_files(folder)):
            stored = _read(one, folder.name)
            if stored.session.planted:
                raise SESSIONS.malformed(str(stored.path), Flaw("a planted slowdown", "a real session", "$.planted"))
            if stored.session.busy:
                continue
            if kept and kept[0].session.stack != stored.session.stack:
                break
            kept.insert(0, stored)
            if stored.session.stack.dirty is not False:
                break
        return next(iter(_sets(kept, LOCAL)), None)

    def promote(
        self, files: Sequence[Path], *, min_sessions: int = MIN_SESSIONS, disk: Disk | None = None
    ) -> tuple[Path, ...]:
        """Copy local session files into the baseline of their class, all or none, and return the new paths.

        Sessions that are there already are left out, so a promotion cut short is finished by repeating it.
        Raises MalformedRecordError for an unreadable file, NotComparableError for sessions that do not belong
        together or must not be committed, UsageError for too few.
        """
        new = [_open(path) for path in files]
        if not new:
            raise UsageError("no session file was named", remedy="gemma3n-perf baseline save prints the command to run")
        chip_class = new[0].session.chip.chip_class
        stored = self._stored(chip_class)
        present = {one.session.id: one for one in stored}
        for one in new:
            twin = present.get(one.session.id, one)
            if twin.session != one.session:
                found = f"{one.path} and {twin.path} are session {one.session.id} twice, and differ"
                raise _refused(found, "every session once")
        fresh = [one for one in new if one.session.id not in present]
        if not fresh:
            raise UsageError(f"all {len(new)} sessions are in the baseline of {chip_class} already")
        for one in fresh:
            for flaw in _unfit(one.session):
                raise _refused(f"{one.path}: {flaw.found}", flaw.expected)
        older = _joined(fresh[0], tuple(_sets(stored, COMMITTED)))
        for flaw in _disagreements([*older, *(one.session for one in fresh)]):
            raise _refused(flaw.found, flaw.expected)
        total = len(older) + len(fresh)
        if total < min_sessions:
            raise UsageError(
                f"{total} session{'' if total == 1 else 's'} would make up the baseline of {chip_class}",
                expected=f"{min_sessions} or more: the spread between sessions is half of what a baseline knows",
                remedy=f"measure {min_sessions - total} more at this commit: gemma3n-perf baseline save --sessions "
                f"{min_sessions - total}; or say --min-sessions {total}",
            )
        stems = [file_stem(one.session.stack) for one in fresh]
        return tuple(write_next(self.root / chip_class, stems, [one.data for one in fresh], disk))


def _joined(first: _Stored, sets: Sequence[Baseline]) -> tuple[Session, ...]:
    """Return the sessions that lie there already of the set that ``first`` belongs to."""
    same = [one for one in sets if one.stack == first.session.stack]
    if same and same[-1] is not sets[-1]:
        raise _refused(
            f"{first.path}: sessions of a newer commit or stack lie after those of this one",
            f"commit {sets[-1].stack.commit}, a new one, or the newer files taken away first",
        )
    return same[-1].sessions if same else ()


def _read(path: Path, chip_class: str) -> _Stored:
    stored = _open(path)
    stack = stored.session.stack
    if stored.session.chip.chip_class != chip_class:
        found = f"chip class {stored.session.chip.chip_class} in the folder of {chip_class}"
        raise SESSIONS.malformed(str(path), Flaw(found, chip_class, f"{HEADER}.chip.chip_class"))
    _, _, stem = path.stem.partition("_")
    commit = stem.removesuffix("-dirty")
    if not (stack.commit or "unversioned").startswith(commit) or bool(stack.dirty) != (commit != stem):
        found = f"the file is named for another commit than {file_stem(stack)}, at which it was measured"
        raise SESSIONS.malformed(str(path), Flaw(found, f"NNNN_{file_stem(stack)}.json", f"{HEADER}.stack.commit"))
    return stored


def _open(path: Path) -> _Stored:
    data = SESSIONS.bytes_of(path)
    return _Stored(path, data, decode(data, source=str(path)))


def _sets(stored: Sequence[_Stored], label: str) -> Iterator[Baseline]:
    groups: list[list[_Stored]] = []
    for stack, following in groupby(stored, key=lambda one: one.session.stack):
        group = list(following)
        if any(before[0].session.stack == stack for before in groups):
            other = groups[-1][-1].path.name
            found = f"commits or stacks are mixed: {other}, of another commit or stack, comes before it"
            commit = (stack.commit or "unversioned")[:SHORT_COMMIT]
            raise SESSIONS.malformed(
                str(group[0].path),
                Flaw(found, f"sessions of {commit} one after the other", f"{HEADER}.stack"),
                "promote the sessions of one commit again as a new baseline and remove the mixed files",
            )
        groups.append(group)
    for group in groups:
        sessions = tuple(one.session for one in group)
        for flaw in _disagreements(sessions):
            raise SESSIONS.malformed(str(group[-1].path.parent), flaw)
        newest = sessions[-1]
        yield Baseline(newest.chip, newest.stack, sessions, label, tuple(one.path.name for one in group))
    ids: dict[str, Path] = {}
    for one in stored:
        if ids.setdefault(one.session.id, one.path) is not one.path:
            found = f"session {one.session.id} is in {ids[one.session.id].name} as well"
            raise SESSIONS.malformed(str(one.path), Flaw(found, "every session once", f"{HEADER}.session"))


def _unfit(session: Session) -> Iterator[Flaw]:
    """Yield why one session can never be part of a committed baseline."""
    if session.planted:
        yield Flaw(f"a slowdown of {session.planted:.0%} was planted", "a session with nothing planted", "$.planted")
    if session.busy:
        yield Flaw(session.busy, "a session measured on an idle machine", "$.busy")
    if session.stack.commit is None:
        yield Flaw("the commit is unknown", "a session measured in a git checkout", "$.stack.commit")
    if session.stack.dirty is not False:
        found = "uncommitted changes, or none known"
        yield Flaw(found, "a session measured on a clean commit", "$.stack.dirty")


def _disagreements(sessions: Sequence[Session]) -> Iterator[Flaw]:
    """Yield what sessions of one baseline must share and do not."""
    first = sessions[0]
    seen: set[str] = set()
    known: dict[str, Measurement] = {}
    for session in sessions:
        both = f"sessions {first.id} and {session.id} differ in"
        for name, values in differences(first.stack, session.stack, [field.name for field in fields(Stack)]):
            yield Flaw(f"{both} {name}: {values}", "one commit and stack", "$.stack")
        for name, values in differences(first.chip, session.chip, ("chip_class", "name", "gpu_cores", "cpu_cores")):
            yield Flaw(f"{both} {name}: {values}", "one chip", "$.chip")
        if session.id in seen:
            yield Flaw(f"session {session.id} is there twice", "every session once", "$.session")
        seen.add(session.id)
        for one in session.measurements:
            for name, values in differences(known.setdefault(one.workload, one), one, _SHARED):
                found = f"{one.workload} differs in {name} at session {session.id}: {values}"
                yield Flaw(found, "the same bytes, tokens and engine in every session", f"$.{name}")


def differences(left: object, right: object, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each of the fields ``names`` in which two records differ, with both values; of dicts what differs."""
    for name in names:
        ours, theirs = getattr(left, name), getattr(right, name)
        if ours != theirs:
            yield name, f"{_brief(ours, theirs)}, {_brief(theirs, ours)}"


def _brief(value: object, other: object) -> str:
    if isinstance(value, dict) and isinstance(other, dict):
        shown = {name: text for name, text in value.items() if other.get(name) != text}
        return " ".join(f"{name}={text}" for name, text in sorted(shown.items())) or "none"
    return str(value)


def _refused(found: str, expected: str) -> NotComparableError:
    return NotComparableError(
        found, expected=expected, remedy="promote only sessions of one clean commit, stack and chip class"
    )
