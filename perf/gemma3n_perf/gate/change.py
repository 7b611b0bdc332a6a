"""What a change touches, from git alone: most touch no fusion, and then no heavy library is loaded."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma3n_perf.gate.git import Repository
from gemma3n_perf.gate.policy_file import NAME as POLICY
from gemma3n_perf.store import admitted as admitted_store
from gemma3n_perf.store.admitted import ADMITTED, FOLDER

if TYPE_CHECKING:
    from gemma3n_perf.gate.evidence import Sources

FUSIONS = Path("perf", "gemma3n_perf", "fusions")
"""Where fusions live in a checkout."""

NOTHING = "nothing to gate: this change touches no fusion"


@dataclass(frozen=True, slots=True)
class Checkout:
    """What the gate needs of the world. ``sources`` is called only where a fusion was touched: it imports them all."""

    repository: Repository
    baselines: Path
    sources: "Callable[[], Sources]"
    today: dt.date


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change touches: modules of the fusions, fusions named by their evidence, and what is worth a note."""

    sources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to gate."""
        return not (self.sources or self.names or self.removed)


def touched(base: str, here: Checkout) -> Touched:
    """Ask git what differs from where HEAD left ``base``. Raises UsageError, MalformedRecordError."""
    changed = here.repository.changed(base)
    root, found = here.repository.root, [Path(name) for name in changed]
    modules = [path for path in found if path.is_relative_to(FUSIONS) and path.suffix == ".py"]
    records = [path for path in found if path.parent.name == FOLDER and path.suffix == ".json" and _kept(path, here)]
    names: list[str] = []
    for path in records:
        admitted = "+".join(admitted_store.read(here.baselines, path.parts[-3]))
        if path.name == ADMITTED:
            names += [admitted] if admitted else []
        elif (root / path).exists() or "+" not in path.stem or path.stem == admitted:
            names.append(path.stem)  # evidence taken away is missed, but for that of a composition nobody uses
    policy = any(_kept(path, here) and path.name == POLICY for path in found)
    return Touched(
        sources=tuple(str(path) for path in modules if (root / path).exists()),
        names=tuple(dict.fromkeys(names)),
        removed=tuple(str(path) for path in modules if not (root / path).exists()),
        notes=("this change also edits the gate's policy",) if policy else (),
    )


def _kept(path: Path, here: Checkout) -> bool:
    return (here.repository.root / path).resolve().is_relative_to(here.baselines.resolve())
