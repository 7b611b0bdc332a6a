"""What a history reads of the baselines beside its series, leaving out what is unsound, and saying so."""

from collections.abc import Mapping
from pathlib import Path

from gemma3n_perf.errors import PerfError
from gemma3n_perf.history.importing import gather
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.store.baselines import PUBLISHED, Baselines
from gemma3n_perf.store.published import Publication, read_published
from gemma3n_perf.store.types import Baseline


def class_folders(baselines: Path) -> tuple[Path, ...]:
    """Return the folders of chip classes."""
    if not baselines.is_dir():
        return ()
    return tuple(sorted(one for one in baselines.iterdir() if one.is_dir() and one.name != PUBLISHED))


def sound_noise(baselines: Path, classes: Mapping[str, object]) -> tuple[dict[str, NoiseFloor | None], list[str]]:
    """Return the noise floor of each class, None where there is no calibration, and what was wrong with the others."""
    floors: dict[str, NoiseFloor | None] = {}
    faults: list[str] = []
    for name in classes:
        try:
            record = noise_store.read(baselines, name)
            floors[name] = record.floor if record else None
        except PerfError as error:
            faults.append(error.found)
    return floors, faults


def sound_baselines(root: Path) -> tuple[tuple[Baseline, ...], list[str]]:
    """Return the baseline of every class, and what was wrong with those that are refused."""
    found, faults = list[Baseline](), list[str]()
    for folder in class_folders(root):
        try:
            one = Baselines(root).load(folder.name)
        except PerfError as error:
            faults.append(error.found)
            one = _newest(folder)
        if one is not None:
            found.append(one)
    return tuple(found), faults


def _newest(folder: Path) -> Baseline | None:
    """Return the newest commit's sound sessions of a class whose baseline is refused for a file that is not."""
    sessions = gather([folder]).sessions
    if not sessions:
        return None
    last = sessions[-1]
    same = tuple(one for one in sessions if one.stack.commit == last.stack.commit)
    return Baseline(last.chip, last.stack, same, "sound", tuple("" for _ in same))


def sound_published(root: Path, notes: list[str]) -> tuple[Publication, ...]:
    """Return the published figures; where they cannot be read, none and a note."""
    try:
        return read_published(root / PUBLISHED)
    except PerfError as error:
        notes.append(error.found)
        return ()
