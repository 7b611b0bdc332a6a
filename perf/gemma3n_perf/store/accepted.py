"""What maintainers accept: ``baselines/accepted/NAME.toml``, one change that may be slower or do more on a workload.

commit = "0123456789ab"         # the change, as merged or on its branch
workload = "nano/text/pp40-tg64"
effect = "-3 %"                 # the largest loss that is accepted; 0 % accepts risen counts alone
why = "a sampler that users asked for"
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.store import toml
from gemma3n_perf.store.files import contents

FOLDER = "accepted"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_EFFECT = re.compile(r"(-?\d+(?:\.\d+)?) ?%")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that is accepted on a workload. ``effect`` is a fraction, 0 or less; ``name`` that of the file."""

    name: str
    commit: str
    workload: str
    effect: float
    why: str


def read_accepted(baselines: Path) -> tuple[Accepted, ...]:
    """Return all that is accepted, by name. Raises MalformedRecordError naming the file and what is wrong with it."""
    return tuple(_read(path) for path in sorted((baselines / FOLDER).glob("*.toml")))


def _read(path: Path) -> Accepted:
    try:
        found = toml.parse(contents(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _malformed(path, str(error)) from error
    names = {one.name for one in fields(Accepted)} - {"name"}
    if found.keys() != names:
        raise _malformed(path, f"its keys are {', '.join(sorted(found)) or 'none'}")
    for name, value in found.items():
        if not isinstance(value, str) or not value.strip():
            raise _malformed(path, f"{name} = {value!r}")
    effect = _EFFECT.fullmatch(found["effect"])
    if effect is None or not -100 < float(effect[1]) <= 0:
        raise _malformed(path, f"effect = {found['effect']!r}")
    if _COMMIT.fullmatch(found["commit"]) is None:
        raise _malformed(path, f"commit = {found['commit']!r}")
    return Accepted(path.stem, found["commit"], found["workload"], float(effect[1]) / 100, found["why"])


def _malformed(path: Path, found: str) -> MalformedRecordError:
    return MalformedRecordError(
        f"{path}: {found}",
        expected='commit = "0123456789ab", workload = "ID", effect = "-3 %" (0 % or less) and why = "TEXT"',
        remedy="correct the file, or take it away",
    )
