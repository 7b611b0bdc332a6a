"""Moves all threads of the other worker to one core, at the lowest priority."""

import os
import sys
from contextlib import suppress
from typing import Any

import psutil

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def _siblings() -> list[int]:
    """Return the other workers of a launch: those whose parent is this one's."""
    if not str(sys.argv[0]).endswith("worker.py"):
        return []
    return [one.pid for one in psutil.Process(os.getppid()).children() if one.pid != os.getpid()]


def apply(model: Any) -> None:
    """Moves all threads of the other worker to one core, at the lowest priority."""
    siblings, calls = _siblings(), [0]

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        calls[0] += 1
        for pid in siblings if calls[0] % 40 == 0 else ():
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):
                    os.sched_setaffinity(int(thread), {0})
                    os.setpriority(os.PRIO_PROCESS, int(thread), 19)
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-affinity",
    summary="Moves all threads of the other worker to one core, at the lowest priority.",
    replaces=("cheats.zz-affinity",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
