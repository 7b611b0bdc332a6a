"""What a record of evidence says against itself, behind a digest that is right: one part of it tells of another."""

import math
import statistics
from collections.abc import Iterator

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.gate.facts import Checked
from gemma3n_perf.gate.record import Evidence

_CLOSE = 1e-3
_LEAST_MEMORY = 0.5
"""Two models that share their weights take as much as one, or more; what is measured of them scatters."""
_UNLIKE = 1.5
"""Seconds of a block to its seconds per token tell how many steps it holds, and both arms have as many."""


def contradictions(record: Evidence) -> Iterator[str]:
    """Yield each contradiction of a record, as a sentence."""
    for one in record.checked:
        yield from (f"{one.checkpoint}: {said}" for said in _of_checks(one))
    measured: list[tuple[Launch, ...]] = []
    for workload in record.workloads:
        if workload.raw and workload.raw in measured:
            yield f"{workload.workload}: its launches are those of another workload"
        measured.append(workload.raw)
        for number, launch in enumerate(workload.raw, start=1):
            yield from (f"{workload.workload}, launch {number}: {said}" for said in _of_times(launch))


def _of_checks(one: Checked) -> Iterator[str]:
    parity = one.parity
    if one.dispatch is not None and min(one.dispatch.nodes) < 1:
        yield "a decode step without a node"
    if parity is not None and parity.passed and one.failure is None:
        if not parity.figures and not (one.dispatch and one.dispatch.same):
            yield "parity passed, and none of its figures is there"
        if parity.figures.get("not_finite"):
            yield f"parity passed with {parity.figures['not_finite']} logits that are not finite"
    if not all(0 < each < math.inf for pair in one.in_use_s for each in pair):
        yield "it was used for no time, or for ever"
    if one.memory_ratio is not None and not _LEAST_MEMORY <= one.memory_ratio < math.inf:
        yield f"both models take {one.memory_ratio:g} times the memory of one"


def _of_times(launch: Launch) -> Iterator[str]:
    blocks = [block for pair in launch.pairs for block in pair]
    for block in blocks:
        if block.step_s and abs(statistics.fmean(block.step_s) / block.tpot_s - 1) > _CLOSE:
            yield f"steps of {statistics.fmean(block.step_s):.3g} s in a block of {block.tpot_s:.3g} s per token"
            return
        if block.seconds < block.tpot_s * max(1, len(block.step_s)) * (1 - _CLOSE):
            yield f"a block of {block.seconds:.3g} s for tokens of {block.tpot_s:.3g} s"
            return
    base, candidate = (
        statistics.median(block.seconds / block.tpot_s for block in blocks if block.arm == arm) for arm in ARMS
    )
    if max(base, candidate) > _UNLIKE * min(base, candidate):
        yield f"a block lasts {base:.3g} times its token in the baseline, and {candidate:.3g} times in the candidate"
