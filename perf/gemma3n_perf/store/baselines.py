"""The baselines of a repository: which sessions are the reference of a chip class, and how they get there.

A class folder holds one or more sets of sessions, a set being all that share commit and stack. The set with the highest
numbers is the reference, but for one of fewer than five sessions where an older one has them; older sets are history.
Sets follow each other: a session of one set between sessions of another means somebody mixed commits, and nothing is
compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import MalformedRecordError, NoBaselineError, NotComparableError, UsageError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store.checks import disagreement, stack_difference, unfit
from gemma3n_perf.store.files import SHORT_COMMIT, Disk, Numbered, file_stem, numbered_files, write_next
from gemma3n_perf.store.session_file import decode, malformed
from gemma3n_perf.store.types import COMMITTED, LOCAL, Baseline, Session

PUBLISHED = "published"
MIN_SESSIONS = 5


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
        """Return the reference of a class, or None where it has no session.

        Every file of the class is checked, history too. Raises MalformedRecordError naming the file and the fault.
        """
        sets = self.history(chip_class)
        full = [one for one in sets if len(one.sessions) >= MIN_SESSIONS]
        return full[-1] if full else sets[-1] if sets else None

    def require(self, chip_class: str) -> Baseline:
        """Like ``load``, but raises NoBaselineError, naming the classes there are, where there is none."""
        found = self.load(chip_class)
        if found is None:
            raise NoBaselineError(
                f"no baseline is committed for chip class {chip_class}",
                expected=f"one of {', '.join(self.classes()) or 'no class at all: the folder is empty'}",
                remedy="record one here: gemma3n-perf baseline save, then gemma3n-perf baseline promote",
            )
        return found

    def history(self, chip_class: str) -> tuple[Baseline, ...]:
        """Return all sets of a class, oldest first. Raises like ``load``."""
        stored = [_read(one, chip_class) for one in numbered_files(self.root / chip_class)]
        for one in stored:
            flaw = unfit(one.session)
            if flaw is not None:
                raise malformed(str(one.path), f"$.{flaw.path}", flaw.found, flaw.expected)
        return tuple(_sets(stored, COMMITTED))

    @staticmethod
    def local(folder: Path) -> Baseline | None:
        """Return this machine's last sessions as a stand-in: the newest file and those just before it of its stack.

        A dirty session stands alone: two sets of uncommitted changes cannot be told apart.
        """
        kept: list[_Stored] = []
        for one in reversed(numbered_files(folder)):
            stored = _read(one, folder.name)
            if stored.session.planted:
                raise malformed(str(stored.path), "$.planted", "a planted slowdown", "a real session")
            if kept and stack_difference(kept[0].session.stack, stored.session.stack) is not None:
                break
            kept.insert(0, stored)
            if stored.session.stack.dirty is not False:
                break
        return next(iter(_sets(kept, LOCAL)), None)

    def promote(
        self, files: Sequence[Path], *, min_sessions: int = MIN_SESSIONS, disk: Disk | None = None
    ) -> tuple[Path, ...]:
        """Copy local session files into the baseline of their class, all or none, and return the new paths.

        Sessions already there, byte for byte, are left out, so a promotion cut short is finished by repeating it.
        Raises MalformedRecordError for an unreadable file, NotComparableError for sessions that do not belong
        together or must not be committed, UsageError for too few.
        """
        new = [_open(path) for path in files]
        if not new:
            raise UsageError("no session file was named", remedy="gemma3n-perf baseline save prints the command to run")
        chip_class = new[0].session.chip.chip_class
        sets = self.history(chip_class)
        present = {session.id: name for one in sets for session, name in zip(one.sessions, one.files, strict=True)}
        fresh = [one for one in new if not self._is_present(one, chip_class, present)]
        if not fresh:
            raise UsageError(f"all {len(new)} sessions are in the baseline of {chip_class} already")
        for one in fresh:
            flaw = unfit(one.session)
            if flaw is not None:
                raise _refused(f"{one.path}: {flaw.found}", flaw.expected)
        older = self._joined(fresh[0], sets)
        flaw = disagreement([*older, *(one.session for one in fresh)])
        if flaw is not None:
            raise _refused(flaw.found, flaw.expected)
        total = len(older) + len(fresh)
        if total < min_sessions:
            raise UsageError(
                f"{total} session{'' if total == 1 else 's'} would make up the baseline of {chip_class}",
                expected=f"{min_sessions} or more: the spread between sessions is half of what a baseline knows",
                remedy="measure more with gemma3n-perf baseline save, or say --min-sessions",
            )
        folder = self.root / chip_class
        stems = [file_stem(one.session.stack) for one in fresh]
        return tuple(write_next(folder, stems, [one.data for one in fresh], disk))

    def _is_present(self, one: _Stored, chip_class: str, present: dict[str, str]) -> bool:
        name = present.get(one.session.id)
        if name is None:
            return False
        path = self.root / chip_class / name
        if path.read_bytes() != one.data:
            found = f"{one.path} and {path} are session {one.session.id} twice, and differ"
            raise _refused(found, "every session once")
        return True

    @staticmethod
    def _joined(first: _Stored, sets: Sequence[Baseline]) -> tuple[Session, ...]:
        same = [one for one in sets if stack_difference(one.stack, first.session.stack) is None]
        if same and same[-1] is not sets[-1]:
            raise _refused(
                f"{first.path}: sessions of a newer commit or stack lie after those of this one",
                f"commit {sets[-1].stack.commit}, a new one, or the newer files taken away first",
            )
        return same[-1].sessions if same else ()


def _read(one: Numbered, chip_class: str) -> _Stored:
    stored = _open(one.path)
    stack, name = stored.session.stack, str(one.path)
    if stored.session.chip.chip_class != chip_class:
        found = f"chip class {stored.session.chip.chip_class} in the folder of {chip_class}"
        raise malformed(name, "$.machine_info.gemma3n_perf.chip.chip_class", found, chip_class)
    said = one.commit if one.commit != "unversioned" else ""
    if not (stack.commit or "").startswith(said) or bool(said) != bool(stack.commit) or bool(stack.dirty) != one.dirty:
        found = f"the file is named for another commit than {file_stem(stack)}, at which it was measured"
        raise malformed(name, "$.machine_info.gemma3n_perf.stack.commit", found, f"NNNN_{file_stem(stack)}.json")
    return stored


def _open(path: Path) -> _Stored:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MalformedRecordError(
            f"{path}: cannot be read: {error.strerror or error}",
            expected="a session file",
            remedy="check the path and its permissions",
        ) from error
    return _Stored(path, data, decode(data, source=str(path)))


def _sets(stored: Sequence[_Stored], label: str) -> Iterator[Baseline]:
    groups: list[list[_Stored]] = []
    for one in stored:
        home = next((g for g in groups if stack_difference(g[0].session.stack, one.session.stack) is None), None)
        if home is None:
            groups.append([one])
        elif home is groups[-1]:
            home.append(one)
        else:
            other = groups[-1][-1].path.name
            raise malformed(
                str(one.path),
                "$.machine_info.gemma3n_perf.stack",
                f"commits or stacks are mixed: {other}, of another commit or stack, comes before it",
                f"sessions of {(one.session.stack.commit or 'unversioned')[:SHORT_COMMIT]} one after the other",
                "promote the sessions of one commit again as a new baseline and remove the mixed files",
            )
    for group in groups:
        flaw = disagreement([one.session for one in group])
        if flaw is not None:
            raise malformed(str(group[-1].path.parent), f"$.{flaw.path}", flaw.found, flaw.expected)
        yield _baseline(group, label)
    ids: dict[str, Path] = {}
    for one in stored:
        if ids.setdefault(one.session.id, one.path) is not one.path:
            found = f"session {one.session.id} is in {ids[one.session.id].name} as well"
            raise malformed(str(one.path), "$.machine_info.gemma3n_perf.session", found, "every session once")


def _baseline(group: Sequence[_Stored], label: str) -> Baseline:
    newest = group[-1].session
    chip: Chip = newest.chip
    sessions = tuple(one.session for one in group)
    return Baseline(chip, newest.stack, sessions, label, tuple(one.path.name for one in group))


def _refused(found: str, expected: str) -> NotComparableError:
    return NotComparableError(
        found, expected=expected, remedy="promote only sessions of one clean commit, stack and chip class"
    )
