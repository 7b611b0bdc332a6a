"""The decision of parity, from logits and figures alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma3n_perf.fusions import stepwise
from gemma3n_perf.fusions.stepwise import Greedy, Step

FACTOR = 16.0
FLOOR = 1e-5
"""Relative to the largest logit: float32 itself is no finer over a whole model."""
ROTATION = 16 * 2.0**-23
"""For each position: float32 knows RoPE's angle of p radians to p * 2**-24 at best, two ways of computing it may differ
by twice that, and a key of unit mean square has elements of up to sqrt(head_dim) = 16."""

OWN_FACTOR = 1.5
MEMORY = 1.1
_TINY = 1e-30
REMEMBERED = 0.5
"""A model that computes moves its logits as far as the unfused one between two histories, and not half as far."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared and how it came out. Differences are absolute, in logits or in keys and values.

    ``starts`` are the positions at which each stretch of steps began. ``same_tokens`` says, for each type that both
    models computed in, how many of ``greedy_steps`` tokens after a prompt came out the same before one differed.
    ``history_ratio`` is how far the fused model's logits of one token at one position moved between two histories, as a
    multiple of the unfused model's: the least of several. ``worst_ratio`` is the largest difference in units of its own
    step's tolerance, at ``worst_position``; ``tolerance`` that step's; ``fused_error`` is the largest difference of
    all. ``flips`` counts greedy tokens of single steps that differ, ``excused`` those where the unfused model's two
    best are closer than the tolerance (none, where weights are forged). ``own_error`` and ``unfused_own_error`` are
    root mean square errors against float32 in the model's own type (0 where that is float32). ``memory_ratio`` is that
    of both models to one; ``leaked_bytes`` what further steps added.
    """

    steps: int
    starts: tuple[int, ...]
    perturbation: float
    greedy_steps: int
    same_tokens: dict[str, int]
    history_ratio: float
    tolerance: float
    fused_error: float
    worst_ratio: float
    worst_position: int
    worst_cache_ratio: float
    flips: int
    excused: int
    not_finite: int
    own_type: str
    own_steps: int
    own_error: float
    unfused_own_error: float
    weights_changed: tuple[str, ...]
    unfused_moved: float
    memory_ratio: float
    leaked_bytes: int
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the fusion."""
        return not self.reasons


def judge(
    steps: list[Step],
    own: list[tuple[Any, Any, Any]],
    *,
    greedy: Mapping[str, Greedy],
    histories: Sequence[tuple[Step, Step]],
    forged: bool,
    starts: tuple[int, ...],
    perturbation: float,
    own_type: str,
    weights_changed: tuple[str, ...],
    unfused_moved: float,
    memory_ratio: float,
    leaked_bytes: int,
) -> Parity:
    """Decide, from logits and figures alone.

    ``greedy`` holds a run for each type, ``histories`` pairs of ``steps`` that differ in what the cache held.
    """
    logits = [s.fused for s in steps] + [fused for _, _, fused in own] + [run.fused for run in greedy.values()]
    not_finite = int(sum(int(np.sum(~np.isfinite(each))) for each in logits))
    typical = float(np.median([s.response for s in steps]))
    tolerances = [FACTOR * max(s.response, typical) + FLOOR * float(np.abs(s.unfused).max()) for s in steps]
    differences = [stepwise.distance(s.fused, s.unfused) for s in steps]
    ratios = [d / t for d, t in zip(differences, tolerances, strict=True)]
    worst = int(np.argmax(ratios))
    cache_typical = float(np.median([s.cache_response for s in steps]))
    cache_ratios = [
        s.cache_difference / (FACTOR * max(s.cache_response, cache_typical) + FLOOR + ROTATION * s.position)
        for s in steps
    ]
    cache_worst = int(np.argmax(cache_ratios))
    differ = [i for i, s in enumerate(steps) if int(np.argmax(s.fused)) != int(np.argmax(s.unfused))]
    wrong = [i for i in differ if forged or not _gap(steps[i].unfused) < tolerances[i]]
    own_error, unfused_own = (_rms([(fused, r) for r, _, fused in own]), _rms([(plain, r) for r, plain, _ in own]))
    history_ratio = min((_moved_by_history(*pair) for pair in histories), default=1.0)
    reasons = []
    if not_finite:
        reasons.append(f"{not_finite} logits are NaN or infinite")
    if not all(np.isfinite(s.unfused).all() for s in steps):
        reasons.append("the unfused model gives NaN or infinity: nothing to compare with")
    if own and not own_error <= OWN_FACTOR * unfused_own + FLOOR:
        found = f"in {own_type} its error against float32 is {own_error:.3g}"
        reasons.append(f"{found}, the unfused model's {unfused_own:.3g}")
    rounding = {own_type: unfused_own, "float32": float(np.median(tolerances)) / FACTOR}
    for dtype, run in greedy.items():
        reasons += _of_run(dtype, run, rounding[dtype], forged=forged)
    if not ratios[worst] <= 1.0:
        found = f"a logit is off by {differences[worst]:.3g} at position {steps[worst].position}"
        reasons.append(f"{found} in float32, where rounding allows {tolerances[worst]:.3g}")
    if not cache_ratios[cache_worst] <= 1.0:
        found = f"the KV cache is off by {steps[cache_worst].cache_difference:.3g}"
        found += f" at position {steps[cache_worst].position}"
        reasons.append(f"{found}, {cache_ratios[cache_worst]:.3g} times what rounding allows")
    if wrong:
        first = steps[wrong[0]].position
        reasons.append(f"{len(wrong)} greedy tokens differ where the choice is clear, first at position {first}")
    if not history_ratio >= REMEMBERED:
        found = f"after two histories, its logits of one token at one position differ by {history_ratio:.3g} of what"
        reasons.append(f"{found} the unfused model's do: it remembers what it should compute")
    if weights_changed:
        reasons.append(f"applying it changed {len(weights_changed)} weights, first {weights_changed[0]}")
    if unfused_moved != 0.0:
        reasons.append(f"the unfused model's logits moved by {unfused_moved:.3g} while the fused one ran")
    if memory_ratio > MEMORY:
        reasons.append(f"both models together take {memory_ratio:.2f} times one, more than {MEMORY}")
    if leaked_bytes > 0:
        reasons.append(f"further steps left {leaked_bytes} bytes behind")
    return Parity(
        steps=len(steps),
        starts=starts,
        perturbation=perturbation,
        greedy_steps=max((run.steps for run in greedy.values()), default=0),
        same_tokens={dtype: run.same for dtype, run in greedy.items()},
        history_ratio=history_ratio,
        tolerance=tolerances[worst],
        fused_error=max(differences),
        worst_ratio=ratios[worst],
        worst_position=steps[worst].position,
        worst_cache_ratio=cache_ratios[cache_worst],
        flips=len(differ),
        excused=len(differ) - len(wrong),
        not_finite=not_finite,
        own_type=own_type,
        own_steps=len(own),
        own_error=own_error,
        unfused_own_error=unfused_own,
        weights_changed=weights_changed,
        unfused_moved=unfused_moved,
        memory_ratio=memory_ratio,
        leaked_bytes=leaked_bytes,
        reasons=tuple(reasons),
    )


def _of_run(dtype: str, run: Greedy, rounding: float, *, forged: bool) -> Iterator[str]:
    """Say what is wrong with a greedy run in a type, where ``rounding`` moves logits so far."""
    if run.same < run.steps:
        if forged or not _gap(run.unfused) < FACTOR * rounding:
            yield f"in {dtype} its greedy tokens differ from step {run.same + 1} of {run.steps} after a prompt on"
        return
    apart = stepwise.distance(run.fused, run.unfused)
    if forged and not apart <= FACTOR * rounding:
        yield (
            f"in {dtype} a logit is off by {apart:.3g} after {run.steps} steps of its own, where rounding allows "
            f"{FACTOR * rounding:.3g}"
        )


def _moved_by_history(one: Step, other: Step) -> float:
    return stepwise.distance(one.fused, other.fused) / max(stepwise.distance(one.unfused, other.unfused), _TINY)


def _gap(logits: stepwise.Array) -> float:
    best = np.partition(logits, -2)[-2:]
    return float(best[1] - best[0])


def _rms(pairs: list[tuple[Any, Any]]) -> float:
    if not pairs:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        found = float(np.sqrt(np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs])))
    return float("inf") if np.isnan(found) else found
