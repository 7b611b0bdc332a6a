"""What arms name, looked up before a machine is watched or held: a typo costs no minute of waiting."""

from collections.abc import Callable
from pathlib import Path

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.environments import Environments, installed_requirements
from gemma3n_perf.duel.processes import Spawner
from gemma3n_perf.duel.run import Here, here
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.hardware.machine import Machine
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import suite_checkout
from gemma3n_perf.workload.presets import checkpoints_root


def unheld(baselines: Path | None = None, note: Callable[[str], None] = lambda text: None) -> Here:
    """Return this machine as it is, for what measures nothing."""
    return here(baselines, Machine.detect(note), Spawner(forking=False))


def require_arms(*arms: str) -> None:
    """Raise UsageError for an arm that is not understood, or names a commit, package or release that does not exist."""
    parsed = [parse(text) for text in arms]
    cache, packages = checkpoints_root().parent, dict.fromkeys(one for arm in parsed for one in arm.packages)
    worktrees = Worktrees(suite_checkout(), cache, run_command)
    for arm in parsed:
        if arm.ref:
            worktrees.commit(arm.ref)
    if packages:
        environments = Environments(cache, run_command, installed_requirements())
        for package in environments.others(packages):
            environments.require_released(package)
