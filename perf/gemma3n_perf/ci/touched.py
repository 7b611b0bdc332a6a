"""Which fusions a change touches, as the gate sees it: by their sources, and by evidence that was added or changed."""

from pathlib import Path

from gemma3n_perf.ci.plan import touches_fusion
from gemma3n_perf.gate.evidence import Sources
from gemma3n_perf.gate.git import Repository


def touched(repository: Repository, base: str, sources: Sources) -> tuple[str, ...]:
    """Return the names of the fusions and compositions to measure, parts of a composition first.

    Raises UsageError where ``base`` is no commit of this clone.
    """
    changed = [path for path in repository.changed(base) if touches_fusion(path)]
    there = {(repository.root / path).resolve() for path in changed if (repository.root / path).is_file()}
    names = [name for name in sources.names() if there & {path.resolve() for path in sources.files(name)}]
    records = [Path(path).stem for path in changed if path.endswith(".json") and (repository.root / path).is_file()]
    names += [name for name in records if name != "admitted"]
    return tuple(dict.fromkeys(part for name in names for part in (*name.split("+"), name)))
