"""From session files to asv results: measured once, published anywhere.

Opinion: importing may be done again at any time. What is in a result file already, by its samples, stays; what a
session adds is added; what cannot be trusted is named and left out, and everything else goes on.
"""

import datetime as dt
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scipy.special import stdtrit

from gemma3n_perf.bench.comparison import same_mlx
from gemma3n_perf.errors import MalformedRecordError, PerfError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import RATE, TIME, Entry, ResultFile, Value
from gemma3n_perf.store.files import Disk, write_over
from gemma3n_perf.store.session_file import decode
from gemma3n_perf.store.types import Session

_FILE = re.compile(r"\d+_.*\.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was left out, and why. Nothing was done to it."""

    path: Path
    reason: str


class Derived(Disk):
    """Writes without waiting for the disk: asv results follow from session files, so a lost one is imported again."""

    def write(self, path: Path, data: bytes) -> None:
        """Create ``path`` with ``data``."""
        with path.open("xb") as file:
            file.write(data)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Sessions fit for a history, oldest file first, and the files that are not."""

    sessions: tuple[Session, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What one import did: counts of sessions read, of result files made, changed and left as they were."""

    sessions: int
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    merged: int = 0
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def gather(folders: Iterable[Path]) -> Gathered:
    """Read all session files of ``folders``, each named for its chip class; a folder that is absent has none.

    Left out and named: what does not parse, planted, dirty or unversioned sessions, machines that are not known, a
    session twice with different content.
    """
    sessions: dict[str, Session] = {}
    refused: list[Refusal] = []
    for folder in folders:
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if not _FILE.fullmatch(path.name):
                continue
            try:
                session = decode(path.read_bytes(), source=path.name)
            except (PerfError, OSError) as error:
                refused.append(Refusal(path, str(error).splitlines()[0]))
                continue
            reason = unfit(session, folder.name)
            if reason is None and sessions.setdefault(session.id, session) != session:
                reason = f"session {session.id} was read from another file already, and differs"
            if reason is not None:
                refused.append(Refusal(path, reason))
    return Gathered(tuple(sessions.values()), tuple(refused))


def unfit(session: Session, folder: str | None = None) -> str | None:
    """Return why a session can be part of no history, or None."""
    stack, chip = session.stack, session.chip
    if session.planted:
        return f"a slowdown of {session.planted:.4g} was planted in it"
    if stack.commit is None or not _COMMIT.fullmatch(stack.commit):
        return f"it belongs to no commit ({stack.commit or 'unversioned'})"
    if stack.dirty is not False:
        return f"measured with uncommitted changes on {stack.commit[:12]}"
    if chip.chip_class.endswith("-unknown"):
        return f"machine {chip.chip_class} is not known well enough to be compared with others"
    if folder is not None and chip.chip_class != folder:
        return f"chip class {chip.chip_class} in the folder of {folder}"
    return None


def import_sessions(results: Path, gathered: Gathered, dates: Mapping[str, int], disk: Disk | None = None) -> Imported:
    """Put sessions into the asv results below ``results``. ``dates`` are commit dates by hash, ms since 1970.

    A commit that is not in ``dates`` (rebased away, or another repository) is kept, dated by its session, and noted.
    Raises DiskFullError.
    """
    groups: dict[tuple[str, str], list[Session]] = {}
    chips: dict[str, Chip] = {}
    for session in gathered.sessions:
        chips[session.chip.chip_class] = session.chip
        groups.setdefault((session.chip.chip_class, session.stack.commit or ""), []).append(session)
    disk = disk or Derived()
    refused, notes = list(gathered.refused), list[str]()
    created = changed = unchanged = merged = 0
    for chip in chips.values():
        asv_files.write_machine(results, asv_files.machine(chip), disk)
    axes = {name: _axes(results, chip) for name, chip in chips.items()}
    for (chip_class, commit), listed in groups.items():
        sessions = [one for one in listed if _same_software(one, listed[-1])]
        if len(sessions) < len(listed):
            notes.append(
                f"{chip_class}: {len(listed) - len(sessions)} of {len(listed)} sessions of {commit[:12]} left out: "
                "other mlx, mlx-vlm or settings than its newest"
            )
        if commit not in dates:
            notes.append(f"{chip_class}: commit {commit[:12]} is not in this repository's history; kept")
        date = dates.get(commit) or _milliseconds(sessions[0])
        fresh = ResultFile(chip_class, commit, date, axes[chip_class], {})
        path = results / chip_class / fresh.name
        try:
            old = asv_files.read_result(path) if path.exists() else None
            if old is not None and old.commit != commit:
                raise asv_files.malformed(path, f"of commit {old.commit}", f"commit {commit}")
        except MalformedRecordError as error:
            refused.append(Refusal(path, error.found))
            continue
        new = merge(replace(fresh, others=old.others if old else {}), old, sessions)
        data = asv_files.encode_result(new)
        merged += len(sessions) > 1
        if old is not None and path.read_bytes() == data:
            unchanged += 1
            continue
        write_over(path, data, disk)
        created, changed = created + (old is None), changed + (old is not None)
    known = sorted({one.workload for session in gathered.sessions for one in session.measurements})
    refresh_benchmarks(results, known, disk)
    return Imported(len(gathered.sessions), created, changed, unchanged, merged, tuple(refused), tuple(notes))


def merge(fresh: ResultFile, old: ResultFile | None, sessions: Sequence[Session]) -> ResultFile:
    """Return ``fresh`` with what the sessions measured, and with all that ``old`` holds besides."""
    before = old.entries[TIME].values if old and TIME in old.entries else {}
    times = dict(before)
    for workload in dict.fromkeys(one.workload for session in sessions for one in session.measurements):
        measured = [one for session in sessions if (one := session.measurement(workload)) is not None]
        runs = [tuple(run.tpot_s for run in one.runs) for one in measured]
        new = {value for one in runs for value in one}
        # Seconds carry some 15 digits, so a sample that is there already is that very run.
        stored = before[workload].samples if workload in before else ()
        if new <= set(stored):
            continue
        foreign = [value for value in stored if value not in new]
        times[workload] = value_of([foreign, *runs])
    started = min(_milliseconds(session) for session in sessions)
    if old is not None and TIME in old.entries:
        started = old.entries[TIME].started_at or started
    rates = {name: rate_of(value) for name, value in times.items()}
    return replace(fresh, entries={TIME: Entry(times, started), RATE: Entry(rates, started)})


def value_of(sessions: Sequence[Sequence[float]]) -> Value:
    """Return the value of runs in seconds per token, grouped by session.

    The result is the median of the sessions' medians. Its 99 % interval comes from the spread *between* sessions (t, on
    logarithms), because runs of one session share what disturbed it; one session alone has no bounded interval.
    """
    middles = [statistics.median(one) for one in sessions if one]
    samples = tuple(value for one in sessions for value in one)
    middle = statistics.median(middles)
    if len(middles) < 2:
        return Value(middle, samples)
    logs = [math.log(value) for value in middles]
    half = float(stdtrit(len(logs) - 1, 0.995)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Value(middle, samples, middle * math.exp(-half), middle * math.exp(half))


def rate_of(value: Value) -> Value:
    """Return throughput, tok/s, of a time per token."""
    if value.result is None:
        return Value(None)
    low = 1 / value.high if math.isfinite(value.high) else -math.inf
    high = 1 / value.low if value.low > 0 else math.inf
    return Value(1 / value.result, tuple(1 / one for one in value.samples), low, high)


def refresh_benchmarks(results: Path, workloads: Iterable[str], disk: Disk | None = None) -> None:
    """Name all workloads in ``benchmarks.json``: those given, and those that it names already."""
    asv_files.write_benchmarks(results, sorted({*workloads, *asv_files.read_benchmarks(results)}), disk)


def _same_software(one: Session, other: Session) -> bool:
    return same_mlx(one.stack, other.stack) and one.stack.knobs == other.stack.knobs


def _axes(results: Path, chip: Chip) -> dict[str, str]:
    try:
        return asv_files.read_machine(results / chip.chip_class)
    except MalformedRecordError:
        return asv_files.machine(chip)


def _milliseconds(session: Session) -> int:
    try:
        moment = dt.datetime.fromisoformat(session.recorded)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0, int(moment.timestamp() * 1000))
