"""The decode graph of an arm, counted by the arm's own code in a process of its own. Needs no weights and no quiet."""

import os
import subprocess

import msgspec

from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel.builder import ReadyArm

_TIMEOUT_S = 300.0


def count(arm: ReadyArm, source: str, position: int) -> Graph | None:
    """Count a decode step of the checkpoint ``source`` at ``position`` as the program of ``arm`` builds it.

    None where its code cannot, or where the arm has fusions, which its command does not apply.
    """
    if arm.fusions:
        return None
    argv = (arm.argv[0], "-P", "-m", "gemma3n_perf", "graph", source, "--json", "--position", str(position))
    try:
        done = subprocess.run(argv, env=os.environ | arm.environ, capture_output=True, timeout=_TIMEOUT_S, check=True)
        return msgspec.json.decode(done.stdout, type=Graph)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
