"""Building the site: records in, one folder of pages out. Each part that fails is named, and the others are built."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.history import asv_files, confirming, publishing, site, upstream
from gemma3n_perf.history.changes import without_places
from gemma3n_perf.history.collecting import Collected, Commits, collect, commits, gather
from gemma3n_perf.history.evidence import Evidence
from gemma3n_perf.history.pages import STYLE, write_documents
from gemma3n_perf.history.series import Series, series
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.store.baselines import PUBLISHED, Baselines
from gemma3n_perf.store.codec import usable
from gemma3n_perf.store.published import read_published
from gemma3n_perf.store.types import Baseline

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

    @property
    def classes(self) -> tuple[str, ...]:
        """The chip classes that have a folder of baselines."""
        folders = self.baselines.iterdir() if self.baselines.is_dir() else ()
        return tuple(sorted(one.name for one in folders if one.is_dir() and one.name != PUBLISHED))


def collect_all(places: Places, run: Run) -> tuple[Collected, Commits]:
    """Return the results of all sessions, with those of asv's own folder, and the commits of the repository."""
    known = commits(places.repo, run)
    folders = (*(places.baselines / name for name in places.classes), *places.local)
    return collect(places.results, folders, known.dates), known


def import_all(places: Places, run: Run) -> tuple[Collected, int]:
    """Write all results for asv's own commands; returns those of commits, and how many there are of releases.

    Raises DiskFullError, NotMeasuredError where git fails.
    """
    collected, _ = collect_all(places, run)
    workloads = (name for one in collected.results for name in one.times)
    asv_files.write(places.results, collected.additions, collected.machines.values(), workloads)
    lines, _ = upstream.read_lines(places.baselines, places.classes)
    if not lines:
        return collected, 0
    beside = places.results.parent / "upstream"
    files, machines, _ = upstream.release_results(lines, beside / "releases", run)
    asv_files.write(beside / "results", files, machines)
    return collected, len(files)


def all_series(places: Places, collected: Collected, known: Commits) -> tuple[tuple[Series, ...], list[str]]:
    """Return the series of this repository, with steps and duels, and what was wrong with records."""
    confirmed, faults = confirming.read_all(places.baselines)
    anchored = anchored_in_order(places, known)[0]
    records = {name: usable(partial(noise_store.read, places.baselines, name), faults) for name in collected.machines}
    noise = {name: record.floor for name, record in records.items() if record}
    return series(collected.results, known.line, noise=noise, confirmed=confirmed, anchored=anchored), faults


def anchored_in_order(places: Places, known: Commits) -> tuple[upstream.Anchored, list[str]]:
    """Return the commits duelled against their anchor, in the order of the repository, and what is left out."""
    found, notes = upstream.read_anchored(places.baselines, places.classes)
    place = {commit: index for index, commit in enumerate(known.line)}
    made = {
        where: {commit: points[commit] for commit in sorted(points.keys() & place.keys(), key=place.__getitem__)}
        for where, points in found.items()
    }
    return {where: points for where, points in made.items() if points}, notes


def pairs_to_confirm(
    places: Places, chip_class: str, named: Sequence[str], workload: str | None, run: Run
) -> dict[tuple[str, str], list[str]]:
    """Return the commits to duel, with their workloads: two that were ``named``, or those around open steps.

    Raises UsageError for what is no commit here, and where nothing was measured.
    """
    collected, known = collect_all(places, run)
    if not named:
        return confirming.open_steps(all_series(places, collected, known)[0], chip_class, workload)
    before, after = confirming.named_commits(Repository(places.repo, run), named)
    measured = [one for one in collected.results if (one.machine, one.commit) == (chip_class, after)]
    workloads = [workload] if workload else sorted({name for one in measured for name in one.times})
    if not workloads:
        raise UsageError(f"nothing was measured at {after[:12]} on {chip_class}", remedy="name a --workload")
    return {(before, after): workloads}


def build_site(
    places: Places,
    run: Run,
    note: Callable[[str], None] = lambda text: None,
    *,
    evidence: Sequence[Evidence] = (),
    faults: Sequence[str] = (),
) -> site.Site:
    """Build the whole site in ``places.site``, in place of an older one, and return what its first page shows.

    ``faults`` are what was left out of ``evidence``. Raises UsageError where something else is there, NotMeasuredError
    where asv fails.
    """
    if places.site.exists() and not (places.site / MARK).is_file() and any(places.site.iterdir()):
        raise UsageError(
            f"{places.site} exists and is no site of this suite",
            expected="a new folder, or one that was built before",
            remedy="choose another with --out",
        )
    if os.path.ismount(places.site):
        raise UsageError(
            f"{places.site} is a mount point, which nothing replaces", expected="a folder", remedy="one inside it"
        )
    note("reading sessions")
    collected, known = collect_all(places, run)
    listed, wrong = all_series(places, collected, known)
    notes = [*collected.left_out, *collected.notes, *wrong, *faults]
    if known.shallow:
        notes.append("this clone is shallow: commits before it are not on asv's pages")
    fresh = places.site.with_name(f".{places.site.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / MARK).touch()
    shutil.copyfile(STYLE, fresh / STYLE.name)
    note("publishing commits")
    files = [one for one in collected.results if one.commit in known.dates]
    if files:
        html = fresh / "asv"
        publishing.publish("gemma3n-perf", places.repo, ["HEAD"], files, collected.machines.values(), html, run)
        publishing.write_regressions(html, listed)
    note("publishing releases")
    lines, wrong_points = upstream.read_lines(places.baselines, places.classes)
    for name, own in upstream.by_line(lines).items():
        # One site each: asv labels a graph with the tags of its whole repository.
        html, repo = fresh / "upstream" / name, fresh / ".releases"
        releases, machines, branches = upstream.release_results(own, repo, run)
        publishing.publish(f"releases of {name}", repo, branches, releases, machines, html, run, "../../index.html")
        publishing.write_regressions(html, ())
        shutil.rmtree(repo)
    note("writing pages")
    notes += wrong_points
    for one in evidence:
        (fresh / one.address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.source, fresh / one.address)
    baselines = [found for name in places.classes if (found := _baseline(places.baselines, name, notes)) is not None]
    anchored, other_anchors = anchored_in_order(places, known)
    rules = places.baselines / POLICY_FILE
    policy = usable(partial(read_policy, rules), notes) if rules.is_file() else None
    notes += other_anchors
    page = site.Site(
        baselines=baselines,
        series=listed,
        anchored=anchored,
        upstream=lines,
        publications=usable(partial(read_published, places.baselines / PUBLISHED), notes) or (),
        documents=write_documents(places.docs, fresh),
        evidence=evidence,
        notes=tuple(dict.fromkeys(without_places(note) for note in notes)),
        subjects=known.subjects,
        asv=bool(files),
        awaiting=policy.awaiting if policy else (),
    )
    for name, text in site.pages(page).items():
        (fresh / name).write_text(text, encoding="utf-8")
    shutil.rmtree(places.site, ignore_errors=True)
    fresh.rename(places.site)
    return page


def _baseline(root: Path, chip_class: str, faults: list[str]) -> Baseline | None:
    """Return the baseline of a class; where it is refused for a file, the sound sessions of its newest commit."""
    found = usable(partial(Baselines(root).load, chip_class), faults)
    sessions = () if found else gather([root / chip_class])[0]
    if not sessions:
        return found
    last = sessions[-1]
    same = tuple(one for one in sessions if one.stack.commit == last.stack.commit)
    return Baseline(last.chip, last.stack, same, "sound", tuple("" for _ in same))
