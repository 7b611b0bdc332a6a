"""All committed evidence, judged by what it holds alone: for pages, which neither git nor the day of asking changes."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate import policy_file
from gemma3n_perf.gate import record as evidence_store
from gemma3n_perf.gate.admission import evidence_files
from gemma3n_perf.gate.change import with_parts
from gemma3n_perf.gate.evidence import facts_of_record
from gemma3n_perf.gate.facts import EvidenceFacts, Ruling
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.rule import rule
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.store import admitted as admitted_store
from gemma3n_perf.store import noise as noise_store

_T = TypeVar("_T")
Unsound = Callable[[PerfError], None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Evidence by its file, the ``ruling`` on all of it, and by chip class what is admitted and the noise floor."""

    evidence: Mapping[Path, Evidence]
    ruling: Ruling
    admitted: Mapping[str, tuple[str, ...]]
    noise: Mapping[str, NoiseFloor]


def recorded(baselines: Path, unsound: Unsound | None = None) -> Recorded:
    """Read all evidence below ``baselines`` and rule on it, as of the day of the latest, by the policy that lies there.

    What cannot be used is left out and handed to ``unsound``; without that, it is raised: InvalidError,
    MalformedRecordError, NotComparableError naming the file, UsageError for the policy.
    """

    def sound(read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except PerfError as error:
            if unsound is None:
                raise
            unsound(error)
            return otherwise

    policy = sound(partial(policy_file.read, baselines / policy_file.NAME), None)
    usable: dict[Path, Evidence] = {}
    facts: list[EvidenceFacts] = []
    for path in evidence_files((baselines,)):
        record = sound(partial(evidence_store.read, path), None)
        fact = sound(partial(facts_of_record, record, str(path)), None) if record else None
        if record and fact:
            usable[path] = record
            facts.append(fact)
    classes = dict.fromkeys(one.chip_class for one in facts)
    calibrated = {name: sound(partial(noise_store.read, baselines, name), None) for name in classes}
    noise = {name: record.floor for name, record in calibrated.items() if record is not None}
    nothing: tuple[str, ...] = ()
    admitted = {name: sound(partial(admitted_store.read, baselines, name), nothing) for name in classes}
    ruling = _ruled(facts, policy, noise) if policy else Ruling((), ())
    return Recorded(usable, ruling, admitted, noise)


def _ruled(facts: Sequence[EvidenceFacts], policy: GatePolicy, noise: Mapping[str, NoiseFloor]) -> Ruling:
    names = with_parts(one.fusion for one in facts)
    today = max((one.date for one in facts if one.date is not None), default=dt.date.min)
    return rule(names, facts, policy, today=today, noise=noise)
