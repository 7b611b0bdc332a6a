"""What a change touches: decided here once, for the plan of a pull request, the machines that measure, and the gate.

Which files count needs git and Python alone, for a plan is made where nothing is installed. Which fusions they belong
to needs the fusions, which are imported only where a file counts.
"""

import datetime as dt
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

from gemma3n_perf.duel import program
from gemma3n_perf.duel.parts import Parts, differences
from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.gate.policy import POLICY_FILE
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.types import Chip

FUSIONS = Path("perf", "gemma3n_perf", "fusions")
"""Where fusions live in a checkout."""

JUDGES = tuple(
    str(FUSIONS / f"{name}.py")
    for name in ("__init__", "declarations", "parity", "parity_rules", "registry", "sharing", "stepwise", "types")
)
"""What judges fusions and lies among them: it is never taken from a change that is gated."""

NOTHING = "nothing to gate: this change touches no fusion"
PLUS = "+"
"""What joins the fusions of a composition."""


class Sources(Protocol):
    """The fusions of a checkout, as ``fusions.declarations`` has them. A name may be a composition's, ``a+b``."""

    def names(self) -> tuple[str, ...]:
        """Return all fusions, without compositions."""

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the modules it is made of. Raises UsageError for an unknown name."""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of its sources. Raises UsageError for an unknown name."""

    def enabled(self, name: str, chip: Chip) -> bool:
        """Whether it is on for a chip. Raises UsageError for an unknown name."""

    def unseen(self, name: str) -> list[str]:
        """Return where it imports or runs what its digest cannot hold. Raises UsageError for an unknown name."""


def registered() -> Sources:
    """Return the fusions of this package. None is imported here: where it is asked whether one is on, a process is."""
    from gemma3n_perf.fusions import declarations  # not for a plan: it needs more than Python alone

    return declarations


@dataclass(frozen=True, slots=True)
class Checkout:
    """What the gate needs of the world. ``sources`` is called only where a fusion was touched."""

    repository: Repository
    baselines: Path
    sources: Callable[[], Sources]
    today: dt.date


def checkout(baselines: Path | None = None) -> Checkout:
    """Return the checkout that this package is run from. Raises UsageError where it was installed."""
    from gemma3n_perf.hardware.stack import suite_checkout  # not for a plan: it needs more than Python alone

    root = suite_checkout()
    if root is None:
        raise UsageError(
            "this package is not run from a git checkout, which the gate asks what changed",
            expected="a clone of the repository",
            remedy="make setup in a clone, and ask again with its .venv/bin/gemma3n-perf",
        )
    folder = (baselines or root / "baselines").absolute()
    return Checkout(Repository(root), folder, registered, dt.datetime.now(dt.UTC).date())


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change touches, by its files, relative to the checkout: documentation beside the fusions does not count.

    ``changed`` are all files that differ; ``modules`` those of the fusions that are there, ``removed`` those that no
    longer are; ``records`` evidence and admissions, there or not; ``policy`` whether the gate's own rules differ;
    ``judges`` those of the changed files that judge fusions.
    """

    changed: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    policy: bool = False
    judges: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Every file for which the gate has to decide something."""
        return (*self.modules, *self.removed, *self.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reviewer should know of the change."""
        return ("this change also edits the gate's policy",) if self.policy else ()


def touched(base: str, repository: Repository, baselines: Path) -> Touched:
    """Ask git what differs from where HEAD left ``base``. Raises UsageError where it cannot tell.

    That is also where a record is a link: what it leads to would change without the gate.
    """
    link = next((path for path in sorted(baselines.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise UsageError(
            f"{link} is a link", expected="records themselves", remedy="put there what it leads to, as files"
        )
    return sort_files(repository.changed(base), repository.root, baselines)


def program_changes(base: str, repository: Repository, classes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what HEAD changes of the program that decodes since it left ``base``, by chip class, in short sentences.

    A class on which the program is the same is left out. Fusions in use are gated by themselves. A file that does not
    parse is a change, for nobody can say that it is none. Raises UsageError where git cannot tell.
    """
    before, after = (
        replace(tree, read=cache(tree.read))
        for tree in (program.revision(repository, ref) for ref in (repository.fork(base), "HEAD"))
    )
    found: dict[str, tuple[str, ...]] = {}
    for chip_class in classes:
        try:
            changed = differences(*(_unfused(program.declared(tree, chip_class)) for tree in (before, after)))
        except MalformedRecordError as error:
            changed = [error.found]
        if changed:
            found[chip_class] = tuple(changed)
    return found


def _unfused(parts: Parts) -> Parts:
    fused = (program.ADMITTED, f"source {program.DATA}/")
    return {name: value for name, value in parts.items() if not name.startswith(fused)}


def sort_files(changed: Iterable[str], root: Path, baselines: Path) -> Touched:
    """Sort the files of a change to the checkout at ``root`` by what they are to the gate."""
    paths = [Path(name) for name in changed]
    # Not Path.resolve, which raises for a link that leads to itself; and by its name, too, wherever a link leads.
    kept = {
        path
        for path in paths
        if any(Path(name(root / path)).is_relative_to(name(baselines)) for name in (os.path.realpath, os.path.abspath))
    }
    judges = [str(path) for path in paths if str(path) in JUDGES]
    # Fusions are made of types.py too, so that it touches them all.
    aside = set(map(Path, JUDGES)) - {FUSIONS / "types.py"}
    inside = [path for path in paths if path.is_relative_to(FUSIONS) and path.suffix != ".md"]
    modules = [path for path in inside if path not in aside]
    return Touched(
        changed=tuple(map(str, paths)),
        modules=tuple(str(path) for path in modules if (root / path).exists()),
        removed=tuple(str(path) for path in modules if not (root / path).exists()),
        records=tuple(str(path) for path in paths if path in kept and path.match("fusions/*.json")),
        policy=any(path.name == POLICY_FILE for path in kept),
        judges=tuple(judges),
    )


def parts(name: str) -> tuple[str, ...]:
    """Return the fusions of a composition; a fusion's own name alone."""
    return tuple(name.split(PLUS))


def touched_names(change: Touched, here: Checkout, sources: Sources, there: Collection[str] = ()) -> tuple[str, ...]:
    """Return the fusions and compositions to measure and to ask evidence of, parts before what they compose.

    A change touches a fusion by its sources or its evidence, and a composition also by its admission; what is in use
    is touched with any of its parts. Evidence that was taken away is missed, but for that of a composition nobody
    uses. What does not exist is named where it is in use, or where ``there``, the names that have evidence, holds it.
    Raises MalformedRecordError for an admission that cannot be read.
    """
    from gemma3n_perf.store import admitted  # not for a plan either

    in_use, root, known = admitted.read_all(here.baselines), here.repository.root, set(sources.names())
    modules = {(root / name).resolve() for name in change.modules}
    found = [name for name in sources.names() if modules & {path.resolve() for path in sources.files(name)}]
    for record in map(Path, change.records):
        if len(record.parts) < 3:
            continue  # of no class
        used, name = in_use.get(record.parts[-3], ""), record.stem
        if record.name == admitted.ADMITTED:
            name = used
        elif PLUS in name and name != used and not (root / record).exists():
            continue
        if name and (name in there or known.issuperset(parts(name))):
            found.append(name)
    found += [one for one in in_use.values() if not known.issuperset(parts(one)) or set(parts(one)) & set(found)]
    return with_parts(found)


def with_parts(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once, with the parts of a composition before it."""
    return tuple(dict.fromkeys(part for name in names for part in (*parts(name), name)))
