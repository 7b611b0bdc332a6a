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
    names: Sequence[str], alpha: float, judge: Callable[[str, float], T], decided: Callable[[T], bool]
) -> Mapping[str, T]:
    """Holm's procedure for judgements that are not p-values, such as sequential ones.

    All are judged at ``alpha / m``; those decided keep that judgement and leave the family, the rest
    are judged again at ``alpha / (m - decided)``, until nothing more is decided. The chance of any
    false claim among the family stays below ``alpha`` (Holm 1979; for sequential looks: Ye, Li, Liu &
    Yao 2013). Returns the judgement of each name, in the order given.
    """
    if len(set(names)) != len(names):
        raise UsageError(f"workloads {tuple(names)} repeat", expected="each workload once")
    settled: dict[str, T] = {}
    open_names = list(names)
    while open_names:
        level = alpha / len(open_names)
        judged = {name: judge(name, level) for name in open_names}
        newly = [name for name in open_names if decided(judged[name])]
        settled.update({name: judged[name] for name in newly})
        if not newly:
            settled.update(judged)
            break
        open_names = [name for name in open_names if name not in settled]
    return {name: settled[name] for name in names}
