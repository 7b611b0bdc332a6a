"""The admitted fusions of a chip class: ``baselines/<chip-class>/fusions/admitted.json``, written by the gate alone."""

from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.store.files import Disk

SCHEMA = 1
FOLDER = "fusions"
"""The folder of a chip class that holds evidence, and what was admitted by it."""

ADMITTED = "admitted.json"


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown on one workload: the effect on throughput, a fraction, with its 95 % interval."""

    workload: str
    effect: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Grounds:
    """The evidence in short, for where its file is not at hand: ``content_digest`` is that of the whole record."""

    commit: str | None
    date: str
    content_digest: str
    workloads: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The best admitted composition: its ``fusions`` in the order they are applied, and what they were admitted on."""

    schema: int
    fusions: tuple[str, ...]
    grounds: Grounds | None = None


def path_of(baselines: Path, chip_class: str) -> Path:
    """Return where a class keeps its admitted fusions."""
    return baselines / chip_class / FOLDER / ADMITTED


def read(baselines: Path, chip_class: str) -> tuple[str, ...]:
    """Return the admitted fusions of a class, in order; () where there are none. Raises MalformedRecordError."""
    found = find(baselines, chip_class)
    return found.fusions if found else ()


def find(baselines: Path, chip_class: str) -> Admitted | None:
    """Return the whole record of a class, None where there is none. Raises MalformedRecordError."""
    return _CODEC.find(path_of(baselines, chip_class))


def read_all(baselines: Path) -> dict[str, str]:
    """Return the admitted composition of every class that has one, ``a+b``. Raises MalformedRecordError."""
    classes = sorted(path.parent.parent.name for path in baselines.glob(f"*/{FOLDER}/{ADMITTED}"))
    found = {name: "+".join(read(baselines, name)) for name in classes}
    return {name: composition for name, composition in found.items() if composition}


def write(
    baselines: Path,
    chip_class: str,
    fusions: tuple[str, ...],
    disk: Disk | None = None,
    *,
    grounds: Grounds | None = None,
) -> Path:
    """Write the admitted fusions of a class in place of the last ones; returns the path. Raises DiskFullError."""
    return _CODEC.write(path_of(baselines, chip_class), Admitted(SCHEMA, fusions, grounds), disk)


_CODEC = Codec(
    Admitted,
    SCHEMA,
    '{"schema": 1, "fusions": [...]}',
    "restore it from version control, or write it again: gemma3n-perf gate --admit",
    flaws=lambda found: () if all(found.fusions) else (Flaw("a fusion without a name", place="$.fusions"),),
)
