"""What the fusions measured on a class were worth: from evidence to what the rule of a profile looks at."""

import math
from pathlib import Path

from gemma3n_perf.gate import record as evidence
from gemma3n_perf.profile.wins import Tried
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted


def tried(baselines: Path, chip_class: str) -> dict[str, tuple[Tried, ...]]:
    """Return the fusions with sound evidence on a class, by workload. Raises MalformedRecordError."""
    found: dict[str, list[Tried]] = {}
    for path in sorted((baselines / chip_class / admitted.FOLDER).glob("*.json")):
        if path.name == admitted.ADMITTED:
            continue
        record = evidence.read(path)
        if not record.enabled or record.verdict == Verdict.INVALID:
            continue
        for one in record.workloads:
            low, high = one.judgement.low, one.judgement.high
            if low is not None and high is not None and math.isfinite(high):
                found.setdefault(one.workload, []).append(Tried(record.fusion, low, high, f"evidence at {path.name}"))
    return {workload: tuple(each) for workload, each in found.items()}
