"""Candidates that use the CPU while another arm is timed: they could slow it."""

from collections.abc import Mapping

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.outside_clock import IDLE_SHARE_AFTER, IDLE_SHARE_CONTINUED, works_beside
from gemma3n_perf.duel.startup import Prepared
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import InvalidError


def cpu_used(ready: Prepared, timed: str, tools: Tools) -> dict[str, float]:
    """CPU time used so far by the candidates whose process is neither the baseline's nor that of ``timed``, seconds."""
    pids = ready.running.pids
    apart = [one for one in ready.candidates if pids[one] not in (pids[timed], pids[ARMS[0]])]
    found = {one: tools.cpu_seconds(pids[one]) for one in apart}
    return {one: used for one, used in found.items() if used is not None}


def working(
    ready: Prepared, timed: str, before: Mapping[str, float], tools: Tools, elapsed_s: float
) -> dict[str, InvalidError]:
    """Return those that used more than may be, since ``before``, while ``timed`` was, alone or beside the baseline."""
    share = IDLE_SHARE_CONTINUED if ready.can_continue else IDLE_SHARE_AFTER
    what = timed if timed == ARMS[0] else f"candidate {timed}"
    faults = {
        one: works_beside("candidate", what, elapsed_s, now - before[one], share)
        for one, now in cpu_used(ready, timed, tools).items()
        if one in before
    }
    return {one: fault for one, fault in faults.items() if fault is not None}
