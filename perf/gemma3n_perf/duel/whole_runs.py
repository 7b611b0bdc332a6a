"""One whole run of each arm in every launch: what short blocks say must hold for it, and its output must be the same.

A whole run follows another prompt than the blocks, is never interrupted, and is timed around everything. So a program
that remembers, computes ahead or waits outside the clock is as slow in it as it really is.

Opinion: where texts part at a near tie of two tokens, rounding parted them; what comes after is another text. Which it
was, the logits of that step say. Even forged weights have such steps on the larger checkpoints.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS, is_near_tie, parted, same_outputs
from gemma3n_perf.duel.beside import cpu_used, working
from gemma3n_perf.duel.logits import place, taken
from gemma3n_perf.duel.pairs import NS
from gemma3n_perf.duel.startup import FORCED, Prepared, expect, has_own_loop
from gemma3n_perf.duel.tools import Job, Tools
from gemma3n_perf.errors import PerfError
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.workload.workload import Workload

LEAST_STEPS, MOST_STEPS = 16, 64
"""Steps of a whole run, never more than the workload has. How many is drawn anew for each launch: what an arm leaves
out wherever only tokens are compared, it would leave out where logits are."""


INTERRUPTED, AMONG = 1 / 3, 16
"""How many of a whole run's steps take another token than the one decoded before them, and of how many tokens at the
prompt's start it is one: forged text can be guessed, and what guesses it would be slower with any other."""

NEAR_TIE = Caution(
    "near-tie",
    "the arms' texts part where two tokens lie as near each other as rounding moves them",
    "nothing, where it is seldom: rounding may differ",
)


class WholeTimes(NamedTuple):
    """Of baseline and candidate: ``whole_s`` and ``whole_outside_s`` of a launch, None where it was disturbed, and
    ``parted_at``."""

    whole_s: tuple[float, float] | None
    whole_outside_s: tuple[float, float] | None
    parted_at: int | None = None


def compare_whole_runs(
    ready: Prepared, job: Job, steps: int, variant: int, tools: Tools
) -> tuple[dict[str, WholeTimes], dict[str, tuple[Caution, ...] | PerfError]]:
    """Time a whole run of every arm, in an order drawn anew, and compare each candidate's output with the baseline's.

    Returns times by candidate, and what is to be said of its output: cautions, or the error that ends the candidate.
    Raises what a worker raises.
    """
    most = min(steps, MOST_STEPS)
    steps = tools.rng.randint(min(LEAST_STEPS, most), most)
    forced = _interruptions(ready, job, steps, tools)
    with tempfile.TemporaryDirectory(prefix="gemma3n-perf-") as folder:
        runs: dict[str, wire.Whole] = {}
        failed: dict[str, PerfError] = {}
        elapsed: dict[str, float] = {}
        disturbed: set[str] = set()
        logits: dict[str, np.ndarray] = {}
        # No arm knows where another writes, and finds nothing of it.
        paths = {name: place(folder) for name in ready.sides}
        for name in tools.rng.sample(list(ready.sides), len(ready.sides)):
            worker = ready.running.workers[name]
            tools.probe.start()
            used = cpu_used(ready, ARMS[0], tools) if name == ARMS[0] else {}
            began = tools.clock()
            worker.send(wire.WholeRun(variant, steps, str(paths[name]), ready.model_id(name), forced))
            try:
                run = expect(worker, wire.Whole, tools.waits.prepare)
                logits[name] = taken(paths[name])
                runs[name] = run
            except PerfError as error:
                if name == ARMS[0] or len(ready.candidates) == 1:
                    raise
                failed[name] = error
            elapsed[name] = tools.clock() - began
            if used:
                failed |= working(ready, ARMS[0], used, tools, elapsed[name])
            if tools.faults_of(tools.probe.stop()):
                disturbed.add(name)
        outputs = _Outputs(ready, job, variant, forced, runs, logits, paths, tools)
        compared = {name: outputs.compare(name) for name in ready.candidates if name in runs}
    outside = {name: max(round((elapsed[name] - one.seconds) / steps, NS), 10**-NS) for name, one in runs.items()}
    times = {
        name: WholeTimes(None, None)
        if disturbed & {ARMS[0], name}
        else WholeTimes((runs[ARMS[0]].seconds / steps, one.seconds / steps), (outside[ARMS[0]], outside[name]))
        for name, one in runs.items()
    }
    for name, parted_at in outputs.parted_at.items():
        times[name] = times[name]._replace(parted_at=parted_at)
    return times, {**compared, **failed}


def _interruptions(ready: Prepared, job: Job, steps: int, tools: Tools) -> tuple[tuple[int, int], ...]:
    """Steps of a whole run that take another token, and which; none where a worker, or an engine, knows none."""
    alone = Workload.parse(job.workload).shape.prefill_alone
    if alone or has_own_loop(job, ready.running.arms) or ready.running.protocol < FORCED:
        return ()
    rng = tools.rng_apart()
    return tuple((step, rng.randrange(AMONG)) for step in range(1, steps) if rng.random() < INTERRUPTED)


@dataclass(slots=True)
class _Outputs:
    """Compares what whole runs put out. ``parted_at`` says, by candidate, where a near tie parted texts."""

    ready: Prepared
    job: Job
    variant: int
    forced: tuple[tuple[int, int], ...]
    runs: Mapping[str, wire.Whole]
    logits: Mapping[str, np.ndarray]
    paths: Mapping[str, Path]
    tools: Tools
    parted_at: dict[str, int] = field(default_factory=dict)

    def compare(self, name: str) -> tuple[Caution, ...] | PerfError:
        """Cautions on a candidate's output, or why it is none of the baseline's."""
        runs = (self.runs[ARMS[0]], self.runs[name])
        logits = (self.logits[ARMS[0]], self.logits[name])
        same_versions = self.ready.same_versions(name)
        step = parted(runs)
        try:
            if step is not None and not self.job.outputs_may_differ and self._tie(name, step, same_versions):
                self.parted_at[name] = step + 1
                return (NEAR_TIE,)
            cautions = same_outputs(runs, logits, same_versions=same_versions, may_differ=self.job.outputs_may_differ)
        except PerfError as error:
            return error
        if name in self.ready.parted:
            self.parted_at[name] = 0
            return (*cautions, NEAR_TIE)
        return cautions

    def _tie(self, name: str, step: int, same_versions: bool) -> bool:
        """Have both decode the same text again, up to the step at which they part, and look at its logits."""
        again, logits = list[wire.Whole](), list[np.ndarray]()
        for arm in (ARMS[0], name):
            worker = self.ready.running.workers[arm]
            worker.send(
                wire.WholeRun(self.variant, step + 1, str(self.paths[arm]), self.ready.model_id(arm), self.forced)
            )
            again.append(expect(worker, wire.Whole, self.tools.waits.prepare))
            if again[-1].tokens != self.runs[arm].tokens[: step + 1]:
                return False
            logits.append(taken(self.paths[arm]))
        return is_near_tie((again[0], again[1]), (logits[0], logits[1]), same_versions=same_versions)
