"""Where memory forces the baseline into the candidates' process: its time in another, which never imports a fusion.

A fusion could slow the unfused model there, through the classes that both are made of, and then win against it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from statistics import median

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import LaunchPlan, warm_up
from gemma3n_perf.duel.startup import prepare, started
from gemma3n_perf.duel.tools import Job, Tools
from gemma3n_perf.workload.workload import Workload

BLOCKS = 12
"""Of the unfused model alone, in every launch: an unpaired comparison resolves no more (docs/method.md)."""


def alone(arms: Sequence[ReadyArm], jobs: Collection[Job], variant: int, tools: Tools) -> dict[Job, float]:
    """Time the baseline in a process of its own before a launch; returns seconds per token by workload.

    It ends before the launch begins, for memory holds one. Nothing is timed where the baseline shares no process.
    Raises what a worker raises.
    """
    if not arms[0].group:
        return {}
    found: dict[Job, float] = {}
    with started([replace(arms[0], group="")], tools) as running:
        for job in jobs:
            ready = prepare(running, job, (), tools, variant)
            layout, generate = running.layout, Workload.parse(job.workload).shape.generate
            steps = min(generate, layout.tokens + layout.drop + layout.tail)
            warm_up(ready, tools, generate, LaunchPlan(steps, BLOCKS), lambda pair_s: BLOCKS)
            found[job] = median(ready.time(ARMS[0], steps, tools.waits.block).tpot_s for _ in range(BLOCKS))
    return found
