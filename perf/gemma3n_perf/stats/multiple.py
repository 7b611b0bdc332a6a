"""Several workloads, one family of claims: Holm's step-down procedure.

Opinion: six workloads judged at 5 % each call an unchanged build changed one time in four.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gemma3n_perf.errors import UsageError

T = TypeVar("T")


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm-adjusted p-values, in the order given (Holm 1979). Raises UsageError outside 0..1."""
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise UsageError(f"p-values {tuple(p_values)}", expected="numbers from 0 to 1")
    m = len(p_values)
    adjusted, running = [0.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def step_down(
    names: Sequence[str],
    alpha: float,
    judge: Callable[[str, float], T],
    claimed: Callable[[T], bool],
    closed: Callable[[T], bool] = lambda judgement: False,
) -> Mapping[str, T]:
    """Holm's procedure for judgements that are not p-values, such as sequential ones.

    All are judged at ``alpha / m``. Those that claim something keep that judgement and leave the family, the rest are
    judged again at ``alpha / (m - claims)``, until nothing more is claimed. The chance of any false claim among the
    family stays below ``alpha`` (Holm 1979; for sequential looks: Ye, Li, Liu & Yao 2013). What is ``closed`` without a
    claim, as by no-change, keeps its judgement too and its share of the error: its hypothesis was not rejected, so Holm
    lets nobody have it; and it is closed at ``alpha / m`` or not at all. Returns the judgement of each name, in the
    order given.
    """
    if len(set(names)) != len(names):
        raise UsageError(f"workloads {tuple(names)} repeat", expected="each workload once")
    judged = {name: judge(name, alpha / len(names)) for name in names}
    open_names = [name for name in names if not closed(judged[name])]
    left = len(names)
    while newly := [name for name in open_names if claimed(judged[name])]:
        left -= len(newly)
        open_names = [name for name in open_names if name not in newly]
        again = {name: judge(name, alpha / left) for name in open_names}
        judged |= {name: found for name, found in again.items() if not closed(found)}
    return judged
