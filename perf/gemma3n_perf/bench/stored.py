"""Stored sessions as context: what this chip class gave in other sessions, and where today lies among them.

They judge nothing. Where the program is shown to be unchanged and today lies outside their spread, the machine is what
has changed, and that is worth a caution.
"""

import math
import statistics
from collections.abc import Iterator

from scipy.special import stdtrit

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.report import units
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.store.types import Baseline

LEAST = 5
"""Sessions below which their spread is not known well enough to say anything."""
LEAST_OTHERS = 3
"""Other hosts below which it is not known how far the hosts of a class lie apart."""
_WORTH_NAMING = 0.03


def spread(
    baseline: Baseline, workload: str, today: Measurement | None = None, checkpoint: str | None = None
) -> tuple[float, float, float] | None:
    """Return the throughput of the stored sessions and the interval in which 95 % of such sessions lie, tok/s.

    None where there are fewer than five of what ``today`` measured (the same bytes, engine and tokens), or of the
    ``checkpoint`` of that digest.
    The interval is the predictive one of one new session (Hahn & Meeker 1991), over log throughputs.
    """
    stored = [one for one in baseline.sessions_of(workload) if today is None or _alike(one, today)]
    stored = [one for one in stored if checkpoint in (None, one.checkpoint_digest)]
    if len(stored) < LEAST:
        return None
    logs = [-math.log(one.session_tpot_s) for one in stored]
    middle, k = statistics.fmean(logs), len(logs)
    reach = -float(stdtrit(k - 1, 0.025)) * statistics.stdev(logs) * math.sqrt(1 + 1 / k)
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def in_brief(found: tuple[float, float, float], today: Measurement | None) -> str:
    """Return ``stored: 109 tok/s [103, 115]; today 88.0``."""
    middle, low, high = map(units.tokps, found)
    now = f"today {units.tokps(1 / today.session_tpot_s)}" if today else "not timed today"
    return f"stored: {middle} tok/s [{low}, {high}]; {now}"


def drift(found: tuple[float, float, float], today: Measurement, baseline: Baseline, now: Stack) -> Caution | None:
    """Say that the machine has drifted, where today lies outside the stored spread; ``now`` is today's stack."""
    throughput = 1 / today.session_tpot_s
    if found[1] <= throughput <= found[2]:
        return None
    slower = "slower" if throughput < found[0] else "faster"
    differs = ", ".join(_differences(baseline.stack, now)) or "nothing in the records"
    return Caution(
        "drift",
        f"the program is unchanged, and this machine is {slower} than in its stored sessions "
        f"({in_brief(found, today)}); what differs from them: {differs}",
        "look at power mode, heat and other users of the machine: gemma3n-perf doctor",
    )


def slow_host(baseline: Baseline, today: Measurement, host: str | None) -> Caution | None:
    """Say that this host, whose id is ``host``, is slower than the others of its class in the records.

    Every host has a mean log throughput over its last sessions, as many of each as the one with the fewest has; today
    is this host's last. It is slow where a further host of the kind of the others would be so slow in 1 % of cases
    (the predictive interval again, one-sided), and where that matters.
    """
    logs: dict[str, list[float]] = {}
    for session in baseline.sessions:
        one = session.measurement(today.workload)
        if session.chip.host and one and _alike(one, today):
            logs.setdefault(session.chip.host, []).append(-math.log(one.session_tpot_s))
    if host is None:
        return None
    own = [*logs.pop(host, []), -math.log(today.session_tpot_s)]
    if len(logs) < LEAST_OTHERS:
        return None
    last = min(map(len, (own, *logs.values())))
    others, k = [statistics.fmean(one[-last:]) for one in logs.values()], len(logs)
    gap = statistics.fmean(others) - statistics.fmean(own[-last:])
    reach = -float(stdtrit(k - 1, 0.01)) * statistics.stdev(others) * math.sqrt(1 + 1 / k)
    share = -math.expm1(-gap)
    if gap <= reach or share < _WORTH_NAMING:
        return None
    return Caution(
        "slow-host",
        f"this host is {100 * share:.0f} % slower than the {k} others of its class in the records "
        f"({last} session{'' if last == 1 else 's'} of each)",
        "compare its power mode, cooling, memory and neighbours with theirs, or measure this class without it",
    )


def _alike(one: Measurement, today: Measurement) -> bool:
    names = ("checkpoint_digest", "prompt_tokens", "generated_tokens", "engine", "soft_tokens")
    return all(getattr(one, name) == getattr(today, name) for name in names)


def _differences(then: Stack, now: Stack) -> Iterator[str]:
    for name in ("os", "power_mode", "neural_accelerator", "driver", "python", "mlx", "wheel", "mlx_vlm"):
        old, new = getattr(then, name), getattr(now, name)
        if old != new:
            yield f"{name.replace('_', '-')} {old} -> {new}"
