"""What others measured and published, with its source. Shown beside ours; it can never gate.

A figure has no runs, no spread and no stack we could rebuild, so nothing here is a ``Measurement`` and
no function of ``stats`` accepts it. The files are written by hand, from the source named in them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemma3n_perf.hardware.stack import recorded
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.workload.workload import MODALITIES


@dataclass(frozen=True, slots=True)
class Figure:
    """One published decode throughput, tok/s; ``low`` differs from ``high`` where the source gives a range.

    ``chip`` is the name a machine reports (``Apple M1 Ultra``); ``gpu_cores`` None where the source does not say.
    ``protocol`` names an entry of the publication's ``protocols``; figures of two protocols do not compare.
    """

    chip: str
    gpu_cores: int | None
    engine: str
    checkpoint: str
    modality: str
    low: float
    high: float
    protocol: str
    where: str
    knobs: dict[str, str] = field(default_factory=dict)

    @property
    def tokps(self) -> str:
        """The figure as published, for instance ``83.1`` or ``92.5 to 93.2``."""
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Publication:
    """A source and its figures. ``stack`` and ``protocols`` are in words: they cannot be rebuilt from here."""

    schema: int
    id: str
    source: str
    url: str
    date: str
    stack: str
    protocols: dict[str, str]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """A figure together with where it stands."""

    publication: Publication
    figure: Figure

    @property
    def source(self) -> str:
        """Short form for a report: who, which page or pull request, when."""
        return f"{self.publication.source}, {self.figure.where}, {self.publication.date}"

    @property
    def engine(self) -> str:
        """Engine and protocol, with the knobs that were set."""
        knobs = "".join(f", {name}={value}" for name, value in sorted(self.figure.knobs.items()))
        return f"{self.figure.engine} ({self.figure.protocol}{knobs})"


def read_published(folder: Path) -> tuple[Publication, ...]:
    """Read all publications in ``folder``, by file name; none where it is absent. Raises MalformedRecordError.

    An installed release that finds no such folder reads its own.
    """
    found = recorded(folder.parent, folder.name)
    return tuple(_CODEC.read(path) for path in sorted(found.glob("*.json")))


def references_for(
    publications: Sequence[Publication],
    chip: Chip,
    checkpoint: str,
    modality: str,
    *,
    knobs: Mapping[str, str] | None = None,
) -> tuple[PublishedFigure, ...]:
    """Return the figures of the same chip, checkpoint and modality, in the order they are filed.

    Variants of a chip differ in GPU cores: a figure that states them matches only that variant, and one
    that does not matches every chip of its name, because nothing is known against it. ``knobs`` keeps
    only the figures measured with exactly these set; None keeps all.
    """
    return tuple(
        PublishedFigure(publication, figure)
        for publication in publications
        for figure in publication.figures
        if figure.chip == chip.name
        and figure.gpu_cores in (None, chip.gpu_cores)
        and (figure.checkpoint, figure.modality) == (checkpoint, modality)
        and knobs in (None, figure.knobs)
    )


def _flaws(publication: Publication) -> Iterator[Flaw]:
    for index, figure in enumerate(publication.figures):
        where = f"$.figures[{index}]"
        if not 0 < figure.low <= figure.high < float("inf"):
            yield Flaw(f"{figure.low} to {figure.high} tok/s", "positive, low before high", where)
        if figure.modality not in MODALITIES:
            yield Flaw(figure.modality, " or ".join(MODALITIES), f"{where}.modality")
        if figure.protocol not in publication.protocols:
            yield Flaw(figure.protocol, ", ".join(publication.protocols), f"{where}.protocol")


_CODEC = Codec(
    Publication,
    1,
    "a publication: source, date, protocols and figures",
    "correct the file from its source; it is never written by a tool",
    flaws=_flaws,
)
