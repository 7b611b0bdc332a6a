"""Building the site: records in, one folder of pages out. Each part that fails is named, and the others are built."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.history import confirmations, publishing, staging, upstream
from gemma3n_perf.history import site as first
from gemma3n_perf.history.asv_files import RATE, TIME, Entry, ResultFile, machine
from gemma3n_perf.history.findings import class_folders, sound_baselines, sound_noise, sound_published
from gemma3n_perf.history.importing import Imported, Refusal, gather, import_sessions, rate_of
from gemma3n_perf.history.release_line import Release, build
from gemma3n_perf.history.repository import Commits, commits
from gemma3n_perf.history.series import Series, series
from gemma3n_perf.history.site_docs import write_documents
from gemma3n_perf.history.site_page import STYLE
from gemma3n_perf.history.staging import Staged
from gemma3n_perf.history.upstream import Placed

Lines = dict[str, Mapping[tuple[str, str], tuple[Placed, ...]]]
"""By chip class: series of releases, by line and workload."""

MARK = ".gemma3n-perf-site"
"""In the root of every site built here: a folder without it is somebody's own, and is not replaced."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: the checkout, its baselines and docs, asv's results, and where the site goes.

    ``local`` are folders of this machine's own sessions, each named for its chip class.
    """

    repo: Path
    baselines: Path
    docs: Path
    results: Path
    site: Path
    local: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: counts, and everything that was left out, in words."""

    points: int
    series: tuple[Series, ...]
    notes: tuple[str, ...]
    regressions: int = 0
    imported: Imported = field(default_factory=lambda: Imported(0))


def bring_up(places: Places, run: Run) -> tuple[Imported, Staged, Commits]:
    """Import all sessions into asv's results and read what is there then."""
    known = commits(places.repo, run)
    gathered = gather((*class_folders(places.baselines), *places.local))
    imported = import_sessions(places.results, gathered, known.dates)
    return imported, staging.read_all(places.results), known


def all_series(places: Places, staged: Staged, known: Commits) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """Return the series of this repository, with steps and duels, and what was wrong with records."""
    confirmed, faults = confirmations.read_all(places.baselines)
    noise, more = sound_noise(places.baselines, staged.machines)
    return series(staged.files, known.line, noise=noise, confirmed=confirmed), (*faults, *more)


def build_site(
    places: Places,
    run: Run,
    note: Callable[[str], None] = lambda text: None,
    *,
    evidence: Sequence[first.Evidence] = (),
    faults: Sequence[str] = (),
) -> Built:
    """Build the whole site in ``places.site``, in place of an older one. ``faults`` are of ``evidence``.

    Raises UsageError where something else is there, NotMeasuredError where asv fails.
    """
    if places.site.exists() and not (places.site / MARK).is_file() and any(places.site.iterdir()):
        raise UsageError(
            f"{places.site} exists and is no site of this suite",
            expected="a new folder, or one that was built before",
            remedy="choose another with --output",
        )
    note("importing sessions")
    imported, staged, known = bring_up(places, run)
    listed, unsound = all_series(places, staged, known)
    notes = [*_words([*imported.refused, *staged.refused]), *imported.notes, *staged.notes, *unsound, *faults]
    notes += staging.strangers(staged, known.dates)
    if known.shallow:
        notes.append("this clone is shallow: commits before it are not on asv's pages")
    fresh = places.site.with_name(f".{places.site.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / MARK).touch()
    (fresh / "site.css").write_text(STYLE.strip() + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        note("publishing commits")
        regressions = _publish_commits(places, staged, known, listed, fresh, work, run)
        note("publishing releases")
        lines, more = _publish_upstream(places, fresh, work, run)
        notes += more
    note("writing pages")
    baselines, more = sound_baselines(places.baselines)
    notes += more
    _copied(evidence, fresh)
    page = first.Site(
        baselines, listed, lines, sound_published(places.baselines, notes), write_documents(places.docs, fresh),
        tuple(evidence),
        tuple(dict.fromkeys(upstream.without_places(note) for note in notes)), known.subjects,
        (fresh / "asv").is_dir(), (fresh / "upstream").is_dir(),
    )  # fmt: skip
    (fresh / "index.html").write_text(first.index(page))
    shutil.rmtree(places.site, ignore_errors=True)
    fresh.rename(places.site)
    points = sum(len(one.points) for one in listed)
    return Built(points, listed, page.notes, regressions, imported)


def _publish_commits(
    places: Places, staged: Staged, known: Commits, listed: Sequence[Series], site: Path, work: Path, run: Run
) -> int:
    results = work / "results"
    if not staging.stage(results, staged, known.dates):
        return 0
    configuration = work / "asv.conf.json"
    configuration.write_bytes(
        staging.asv_configuration(places.repo.resolve(), results, site / "asv", ["HEAD"], "gemma3n-perf")
    )
    publishing.publish(configuration, site / "asv", run)
    publishing.settle(site / "asv", "../index.html")
    return publishing.write_regressions(site / "asv", listed)


def upstream_lines(baselines: Path) -> tuple[Lines, list[str]]:
    """Return the placed releases of every class, by (line, workload), and what was left out of them."""
    lines: Lines = {}
    notes: list[str] = []
    for folder in class_folders(baselines):
        points, faults = upstream.read_class(baselines, folder.name)
        notes += faults
        if points:
            lines[folder.name] = upstream.placed(points, upstream.order(points))
            shown = {(one.point.line, one.version) for listed in lines[folder.name].values() for one in listed}
            missing = [one for one in points if (one.line, one.version) not in shown]
            notes += [f"{one.line} {one.version} on {folder.name}: nothing links it to today's" for one in missing]
    return lines, notes


def import_upstream(places: Places, run: Run) -> int:
    """Write the releases' repository and asv results beside the commits'; returns how many result files."""
    lines, _ = upstream_lines(places.baselines)
    if not lines:
        return 0
    beside = places.results.parent / "upstream"
    results, _ = release_results(lines, beside, run)
    return len(staging.stage(beside / "results", results, {one.commit for one in results.files}))


def _publish_upstream(places: Places, site: Path, work: Path, run: Run) -> tuple[Lines, list[str]]:
    lines, notes = upstream_lines(places.baselines)
    if lines:
        results, branches = release_results(lines, work, run)
        staging.stage(work / "upstream-results", results, {one.commit for one in results.files})
        configuration = work / "upstream.asv.conf.json"
        configuration.write_bytes(
            staging.asv_configuration(
                work / "releases", work / "upstream-results", site / "upstream", branches, "mlx and mlx-vlm"
            )
        )
        publishing.publish(configuration, site / "upstream", run)
        publishing.settle(site / "upstream", "../index.html")
        publishing.write_regressions(site / "upstream", ())
    return lines, notes


def release_results(lines: Lines, work: Path, run: Run) -> tuple[Staged, list[str]]:
    """Make the releases' repository in ``work / "releases"``; returns their results and the branches they are on."""
    releases: dict[str, dict[str, Release]] = {}
    for by_line in lines.values():
        for (line, _), listed in sorted(by_line.items()):
            for one in listed:
                releases.setdefault(line, {})[one.version] = Release(one.version, one.point.released)
    ordered = {
        line: sorted(found.values(), key=lambda one: upstream.version_key(one.version))
        for line, found in sorted(releases.items())
    }
    made = build(work / "releases", ordered, run)
    files: dict[tuple[str, str], ResultFile] = {}
    machines: dict[str, dict[str, str]] = {}
    for chip_class, by_line in lines.items():
        for (line, workload), listed in by_line.items():
            for one in listed:
                machines[chip_class] = machine(one.point.chip)
                commit, date = made[line, one.version]
                old = files.get((chip_class, commit))
                times = {**(old.entries[TIME].values if old else {}), workload: one.value}
                entries = {TIME: Entry(times), RATE: Entry({k: rate_of(v) for k, v in times.items()})}
                files[chip_class, commit] = ResultFile(chip_class, commit, date, machines[chip_class], entries)
    return Staged(tuple(files.values()), machines, (), ()), list(ordered)


def _copied(evidence: Sequence[first.Evidence], site: Path) -> None:
    for one in evidence:
        (site / one.address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.source, site / one.address)


def _words(refused: Sequence[Refusal]) -> list[str]:
    return [one.reason if one.path.name in one.reason else f"{one.path.name}: {one.reason}" for one in refused]
