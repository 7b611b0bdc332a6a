"""What is kept of mutants that were tried, ``docs/reliability/mutation.json``, and how many were noticed."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.report.markdown import table
from gemma3n_perf.store.codec import Codec

NAME = "mutation.json"
EQUIVALENTS = "equivalent-mutants.toml"
SCHEMA = 1
PACKAGE = "perf/gemma3n_perf"
GROUPS = ("stats", "gate")
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
GOAL, MOST_EQUIVALENT = 0.95, 0.1
Key = tuple[str, str, str, str, int]


class Mutant(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mutant that was tried; ``by`` is the first test that noticed it."""

    file: str
    line: int
    within: str
    before: str
    after: str
    outcome: str
    seconds: float
    date: str
    commit: str | None
    by: str = ""
    nth: int = 1

    @property
    def key(self) -> Key:
        """As a site's."""
        return self.file, self.within, self.before, self.after, self.nth

    @property
    def group(self) -> str:
        """The room of the package that it is in."""
        return self.file.split("/")[-2]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.file.removeprefix(PACKAGE + '/')}:{self.line} {self.within}: {before} -> {after or 'nothing'}"


class Mutation(msgspec.Struct, frozen=True):
    """The sample so far: ``population`` is how many mutants each room has."""

    schema: int
    seed: int
    population: dict[str, int]
    mutants: tuple[Mutant, ...] = ()


MUTATION = Codec(Mutation, SCHEMA, "what python -m studies.mutation writes", "restore it, or begin again")


@dataclass(frozen=True, slots=True)
class Score:
    """Of mutants tried: those that were ``killed`` (one that hangs is), those that ``survived``, and of these those
    that are argued to be ``equivalent``."""

    tried: int
    killed: int
    survivors: tuple[Mutant, ...]
    equivalent: tuple[Mutant, ...]

    @property
    def share(self) -> float:
        """Killed, of those that are not equivalent."""
        return self.killed / max(1, self.tried - len(self.equivalent))

    @property
    def good(self) -> bool:
        """Whether enough were killed, and few enough argued away."""
        return self.share >= GOAL and len(self.equivalent) <= MOST_EQUIVALENT * self.tried


def score(mutants: Iterable[Mutant], argued: Mapping[Key, str]) -> Score:
    """Count mutants; ``argued`` has why one is equivalent."""
    every = list(mutants)
    left = [one for one in every if one.outcome == SURVIVED]
    return Score(
        len(every),
        len(every) - len(left),
        tuple(one for one in left if one.key not in argued),
        tuple(one for one in left if one.key in argued),
    )


def equivalents(path: Path) -> dict[Key, str]:
    """Return why each mutant of a file is equivalent; none where there is no file. Raises MalformedRecordError."""
    if not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
        return {
            (f"{PACKAGE}/{one['file']}", one["within"], one["before"], one["after"], one.get("nth", 1)): one["why"]
            for one in found
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "[[mutant]] with file, within, before, after and why"
        raise MalformedRecordError(f"{path}: {error!r}", expected=expected, remedy="mend it") from error


def rows(mutants: Sequence[Mutant], argued: Mapping[Key, str]) -> str:
    """Return a table of the rooms, as Markdown."""
    cells = []
    for name in (*GROUPS, "all"):
        found = score((one for one in mutants if name in (one.group, "all")), argued)
        share = f"{100 * found.share:.1f} %" if found.tried else "-"
        cells.append((name, *map(str, (found.tried, found.killed, len(found.survivors), len(found.equivalent))), share))
    return table(("group", "tried", "noticed", "survived", "equivalent", "share"), cells, left=("group",))
