"""What arms name, looked up before a machine is watched or held: a typo costs no minute of waiting."""

from collections.abc import Callable
from pathlib import Path

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.processes import Spawner
from gemma3n_perf.duel.run import Here, here
from gemma3n_perf.hardware.machine import Machine


def unheld(baselines: Path | None = None, note: Callable[[str], None] = lambda text: None) -> Here:
    """Return this machine as it is, for what measures nothing."""
    return here(baselines, Machine.detect(note), Spawner(forking=False))


def require_arms(*arms: str) -> None:
    """Raise UsageError for an arm that is not understood, or names a commit, package or release that does not exist."""
    parsed = [parse(text) for text in arms]
    if any(arm.ref or arm.packages for arm in parsed):
        builder = unheld().builder
        for arm in parsed:
            builder.require(arm)
