"""A few prefills of each arm in every launch, and the memory of its process: what a duel reports beside decode."""

from collections.abc import Mapping
from dataclasses import replace

from gemma3n_perf.decode.types import Run
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import CandidateRun, Launch, Prefills
from gemma3n_perf.duel.startup import Prepared, expect
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import PerfError

PREFILLS = 7
"""The first protocol whose workers time prefills."""

MOST_PAIRS = 6
PAIRS_S = 0.4
"""Seconds that the pairs of prefills of a launch may take; where a prefill is longer there is one pair."""
PREFILL_LAUNCHES, RUN_LAUNCHES = 6, 3
"""How many launches of a comparison, the first ones, take prefills and whole runs of the candidate: both cost time."""
MOST_RUNS = 2


def with_prefills(
    launches: Mapping[str, Launch | PerfError], ready: Prepared, tools: Tools, number: int = 0, run_steps: int = 0
) -> dict[str, Launch | PerfError]:
    """Time alternating prefills of the baseline and each candidate that was measured, and add them to its launch.

    ``number`` is that of the launch, from 0. Workers of older commits time none. ``run_steps`` is the length of a whole
    run of the candidate, 0 for none. Raises what a worker raises.
    """
    found = dict(launches)
    for name, launch in launches.items():
        if isinstance(launch, Launch) and number < PREFILL_LAUNCHES:
            old = ready.running.protocol < PREFILLS
            prefills = Prefills(()) if old else _compare(ready, name, launch.pairs[0][0].arm, tools)
            runs = _runs(ready, name, run_steps, tools) if run_steps and number < RUN_LAUNCHES else ()
            found[name] = replace(launch, prefills=replace(prefills, runs=runs))
    return found


def _compare(ready: Prepared, candidate: str, first: str, tools: Tools) -> Prefills:
    """Prefills in pairs that begin with either arm in turn, the first one with ``first``, drawn with the blocks."""
    names = {ARMS[0]: ARMS[0], ARMS[1]: candidate}
    pairs: list[tuple[float, float]] = []
    most = MOST_PAIRS
    tools.probe.start()
    while True:
        order = ARMS if (first == ARMS[0]) == (len(pairs) % 2 == 0) else ARMS[::-1]
        one = {arm: _prefill(ready, names[arm], tools) for arm in order}
        base, cand = (one[arm] for arm in ARMS)
        fault = base.fault or cand.fault
        if not fault:
            pairs.append((base.seconds, cand.seconds))
            most = max(1, min(MOST_PAIRS, int(PAIRS_S / sum(pairs[0]))))
        if fault or len(pairs) >= most:
            break
    disturbed = bool(tools.faults_of(tools.probe.stop()))
    workers = ready.running.workers
    return Prefills(
        () if fault or disturbed else tuple(pairs),
        fault,
        # In one process both arms have the same peak.
        None if workers[ARMS[0]] is workers[candidate] else (base.peak_bytes, cand.peak_bytes),
        (base.kv_bytes, cand.kv_bytes),
    )


def _runs(ready: Prepared, name: str, steps: int, tools: Tools) -> tuple[CandidateRun, ...]:
    """One run that counts, after those that were disturbed; no more than ``MOST_RUNS``."""
    worker, runs = ready.running.workers[name], list[CandidateRun]()
    while len(runs) < MOST_RUNS:
        tools.probe.start()
        worker.send(wire.Block(steps, 0, 0, ready.model_id(name)))
        timed = expect(worker, wire.Timed, tools.waits.block * 10)
        conditions = tools.probe.stop()
        faults = tuple(fault.code for fault in tools.faults_of(conditions))
        run = Run(timed.seconds, steps, timed.step_s, conditions, faults)
        runs.append(CandidateRun(run, timed.peak_bytes, timed.kv_bytes))
        if not faults:
            break
    return tuple(runs)


def _prefill(ready: Prepared, name: str, tools: Tools) -> wire.Prefilled:
    worker = ready.running.workers[name]
    worker.send(wire.Prefill(ready.model_id(name)))
    return expect(worker, wire.Prefilled, tools.waits.prepare)
