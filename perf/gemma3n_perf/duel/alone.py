"""The time of the baseline where no candidate is at hand.

Where memory forces it into the candidates' process, a fusion could slow the unfused model there, through the classes
that both are made of, and then win against it: it is timed in another process, too, which never imports a fusion. On a
GPU, a fusion could leave work in its queue that runs while the baseline is timed: it is timed again when the
candidates have ended.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import median

from gemma3n_perf.decode.decoder import WAKE_STEPS
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch, LaunchPlan, warm_up
from gemma3n_perf.duel.pairs import NS
from gemma3n_perf.duel.startup import Prepared, prepare, started
from gemma3n_perf.duel.tools import BlockLayout, Job, Tools
from gemma3n_perf.errors import PerfError
from gemma3n_perf.workload.workload import Workload

BLOCKS = 12
"""Of the unfused model alone, in every launch: an unpaired comparison resolves no more (docs/method.md)."""

WAKES = 2
"""Short blocks before those, for ending the candidates takes a while."""


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


def _watched(arms: Sequence[ReadyArm], layout: BlockLayout) -> set[str]:
    """The candidates with fusions of their own, on a device whose time is not watched itself; none in one process."""
    first = next(arm for arm in arms if arm.name == ARMS[0])
    return set() if layout.built or first.group else {arm.name for arm in arms if arm.fusions != first.fusions}


def rotated(
    jobs: Mapping[Job, Sequence[str]], number: int, arms: Sequence[ReadyArm], layout: BlockLayout
) -> dict[Job, Sequence[str]]:
    """Return the workloads of launch ``number`` in their order, where ``afterwards`` tells of the last one: each is."""
    items = list(jobs.items())
    turn = number % len(items) if _watched(arms, layout) else 0
    return dict(items[turn:] + items[:turn])


def afterwards(
    launches: Mapping[str, Launch | PerfError], ready: Prepared, steps: int, tools: Tools
) -> dict[str, Launch | PerfError]:
    """End the candidates, time the baseline again, and return the launches with it.

    Nothing is done where blocks go on where others ended, as on a CPU, whose time is watched itself; where no candidate
    has fusions of its own; and where the baseline shares a process. Raises what its worker raises.
    """
    running = ready.running
    fused = launches.keys() & _watched(running.arms, running.layout)
    if not fused:
        return dict(launches)
    for name, worker in running.workers.items():
        if name != ARMS[0]:
            worker.close()
    tools.end_strays([running.pids[ARMS[0]]])
    tools.probe.start()
    for _ in range(WAKES):
        ready.time(ARMS[0], min(WAKE_STEPS, steps), tools.waits.block)
    after_s = round(median(ready.time(ARMS[0], steps, tools.waits.block).tpot_s for _ in range(BLOCKS)), NS)
    if tools.faults_of(tools.probe.stop()):
        return dict(launches)
    return {
        name: replace(one, after_s=after_s) if isinstance(one, Launch) and name in fused else one
        for name, one in launches.items()
    }
