"""Profiles of chip classes: baselines/<class>/profile.json, one stack, written part by part and whole each time.

Parts of two stacks do not make one profile. Adding a part to a profile of other versions is refused; one that starts
afresh replaces the file, and version control keeps the last.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gemma3n_perf.errors import NotComparableError, UsageError
from gemma3n_perf.profile.types import PARTS, Profile, WorkloadProfile
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.workload.workload import Workload

SCHEMA = 1
NAME = "profile.json"
_FRESH = "pass --fresh to measure a new profile in its place"


def profile_path(baselines: Path, chip_class: str) -> Path:
    """Return where the profile of a class is kept."""
    return baselines / chip_class / NAME


def read_class(baselines: Path, chip_class: str) -> Profile | None:
    """Return the profile of a class. Raises MalformedRecordError, and NotComparableError for another class's file."""
    path = profile_path(baselines, chip_class)
    profile = PROFILES.find(path)
    if profile is not None and profile.chip.chip_class != chip_class:
        raise NotComparableError(
            f"{path} is the profile of {profile.chip.chip_class}",
            expected=f"a profile of {chip_class}",
            remedy="gemma3n-perf profile, on that machine",
        )
    return profile


def read_all(baselines: Path) -> tuple[Profile, ...]:
    """Return the profiles of all classes, by name. Raises MalformedRecordError, NotComparableError."""
    folders = sorted(path.parent.name for path in baselines.glob(f"*/{NAME}"))
    return tuple(found for name in folders if (found := read_class(baselines, name)) is not None)


def merged(old: Profile | None, new: Profile) -> Profile:
    """Lay ``new`` over ``old``: a part that was measured, or missed, replaces what was known of it; the rest stays.

    Raises NotComparableError where chip class, versions or a checkpoint's bytes are not the same.
    """
    if old is None:
        return new
    sides = {"chip class": (old.chip.chip_class, new.chip.chip_class)}
    for name in ("python", "mlx", "mlx_vlm", "backend", "driver", "knobs"):
        sides[name.replace("_", "-")] = getattr(old.stack, name), getattr(new.stack, name)
    if differ := [f"{name} ({was}, here {now})" for name, (was, now) in sides.items() if was != now]:
        raise NotComparableError(
            f"the stored profile differs in {', '.join(differ)}",
            expected="parts of one chip class and one stack",
            remedy=_FRESH,
        )
    kept = {one.workload: one for one in old.workloads}
    kept |= {one.workload: laid_over(kept.get(one.workload), one) for one in new.workloads}
    return replace(new, workloads=tuple(kept.values()))


def laid_over(old: WorkloadProfile | None, new: WorkloadProfile) -> WorkloadProfile:
    """Return one workload's parts, ``new`` before ``old``. Raises NotComparableError for two checkpoints."""
    if old is None:
        return new
    if old.checkpoint_digest != new.checkpoint_digest:
        raise NotComparableError(
            f"{new.workload}: the checkpoint is not the one that the stored profile is of",
            expected="the same bytes",
            remedy=_FRESH,
        )
    touched = {part for part in PARTS if getattr(new, part) is not None} | {one.part for one in new.missing}
    values = {part: getattr(new if part in touched else old, part) for part in PARTS}
    missing = [one for one in old.missing if one.part not in touched]
    taken = {part: when for part, when in old.taken.items() if part not in touched} | new.taken
    return replace(new, **values, taken=taken, missing=(*missing, *new.missing))


def _flaws(profile: Profile) -> Iterator[Flaw]:
    names = [one.workload for one in profile.workloads]
    if len(set(names)) != len(names):
        yield Flaw("a workload twice")
    for one in profile.workloads:
        try:
            Workload.parse(one.workload)
        except UsageError as error:
            yield Flaw(error.found)
        missing = [missed.part for missed in one.missing]
        measured = [part for part in PARTS if getattr(one, part) is not None]
        for part in (*one.taken, *missing):
            if part not in PARTS:
                yield Flaw(f"{one.workload}: {part} is no part of a profile")
        for part in measured:
            if part in missing:
                yield Flaw(f"{one.workload}: {part} is both measured and missing")
            if part not in one.taken:
                yield Flaw(f"{one.workload}: {part} does not say when it was measured")


PROFILES = Codec(
    Profile,
    SCHEMA,
    "what gemma3n-perf profile writes",
    "restore it from version control, or move it away and profile again; it is left untouched",
    flaws=_flaws,
)
