"""Whether a fused model still computes the same model. A fast wrong answer is worth nothing, so this comes first.

Opinion: a tolerance is measured, never made up. In float32, each step's is the unfused model's own answer to a
perturbation of a few roundings, so that a wrong kernel stands out and rounding does not. In the model's own type,
16-bit rounding drowns everything finer, so there the fused model must only be as close to float32 as the unfused.
The steps cross the caches' 256-step growth and the sliding window's edge, where errors hide.
"""

import gc
import os
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.fusions import backend, stepwise
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.stepwise import Step
from gemma3n_perf.fusions.types import Fusion, applied

GROWTH = 256
"""Positions by which mlx-vlm's caches grow."""
LEAD, STEPS = 12, 32
OWN_STEPS = 16
FACTOR = 16.0
FLOOR = 1e-5
"""Relative to the largest logit: float32 itself is no finer over a whole model."""
OWN_FACTOR = 1.5
MEMORY = 1.1
LEAK_STEPS = 16
PERTURBATION = 2.0**-20
TF32_PERTURBATION = 2.0**-14
ENV = {"MLX_ENABLE_TF32": "0"}
"""Set before a process that checks parity on CUDA: else MLX rounds float32 products to 10 bits, and tolerances grow."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared and how it came out. Differences are absolute, in logits or in keys and values.

    ``starts`` are the positions at which each stretch of steps began. ``worst_ratio`` is the largest difference in
    units of its own step's tolerance, at ``worst_position``; ``tolerance`` that step's;
    ``fused_error`` is the largest difference of all. ``flips`` counts greedy tokens
    that differ, ``excused`` those where the unfused model's two best are closer than the tolerance. ``own_error`` and
    ``unfused_own_error`` are root mean square errors against float32 in the model's own type (0 where that is
    float32). ``memory_ratio`` is that of both models to one; ``leaked_bytes`` what further steps added.
    """

    steps: int
    starts: tuple[int, ...]
    perturbation: float
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


def starts(window: int, maximum: int) -> tuple[int, ...]:
    """Where to begin: just below the cache's growth and just below the window's edge; two places at least."""
    wanted = {GROWTH - LEAD, window - LEAD}
    if len(wanted) == 1:
        wanted.add(2 * GROWTH - LEAD)
    return tuple(sorted(s for s in wanted if s > 1 and s + STEPS < maximum))


def check(model: Any, fusion: Fusion, *, steps: int = STEPS) -> Parity:
    """Apply ``fusion`` to a twin of ``model`` that shares its weights, and compare the two."""
    mx.eval(model.language_model.parameters())
    twin = share(model)
    before = parameters(twin)
    active = _active()
    fusion.apply(twin)
    return parity(model, twin, weights_changed=changed(before, parameters(twin)), active_before=active, steps=steps)


def parity(
    model_plain: Any, model_fused: Any, *, weights_changed: tuple[str, ...] = (), active_before: int | None = None,
    steps: int = STEPS,
) -> Parity:  # fmt: skip
    """Compare an unfused model with a fused one over the same weights.

    For a model that is not float32, twins of ``model_plain`` in float32 are made, and what was applied to
    ``model_fused`` is applied to one of them: packed weights stay shared, everything else takes memory meanwhile.
    ``active_before``: MLX's active memory before the fusion was applied, bytes; the default is now.
    ``steps`` of each stretch: fewer than STEPS are for tests.
    """
    mx.eval(model_plain.language_model.parameters())
    dtype = model_plain.language_model.model.norm.weight.dtype
    config = model_plain.language_model.config
    at = starts(config.sliding_window, config.max_position_embeddings)
    before = _active() if active_before is None else active_before
    stepwise.logits(model_fused, 5, stepwise.filled(model_fused, 16))
    ratio = 1.0 + max(0, _active() - before) / _bytes(model_plain.language_model)
    leaked = leak(model_fused, at[0], min(steps, LEAK_STEPS))
    exact, exact_fused = (model_plain, model_fused) if dtype == mx.float32 else _float32(model_plain, model_fused)
    perturbation = perturbation_here()
    taken: list[Step] = []
    moved = 0.0
    for start in at:
        found = list(stepwise.walk(exact, exact_fused, start, steps, perturbation))
        again = stepwise.logits(exact, 5, stepwise.filled(exact, start))
        moved = max(moved, stepwise.distance(again, found[0].unfused))
        taken += found
    own: list[tuple[Any, Any, Any]] = []
    if dtype != mx.float32:
        own = list(stepwise.errors(exact, model_plain, model_fused, at[-1], min(steps, OWN_STEPS)))
    return judge(
        taken, own, starts=at, perturbation=perturbation, own_type=str(dtype).rpartition(".")[2],
        weights_changed=weights_changed, unfused_moved=moved, memory_ratio=ratio, leaked_bytes=leaked,
    )  # fmt: skip


def perturbation_here() -> float:
    """A few float32 roundings, or a few of CUDA's 10-bit products where MLX is not told to leave them."""
    rounded = backend.cuda() and os.environ.get("MLX_ENABLE_TF32", "1") != "0"
    return TF32_PERTURBATION if rounded else PERTURBATION


def judge(
    steps: list[Step], own: list[tuple[Any, Any, Any]], *, starts: tuple[int, ...], perturbation: float,
    own_type: str, weights_changed: tuple[str, ...], unfused_moved: float, memory_ratio: float, leaked_bytes: int,
) -> Parity:  # fmt: skip
    """Decide, from logits and figures alone."""
    logits = [s.fused for s in steps] + [fused for _, _, fused in own]
    not_finite = int(sum(int(np.sum(~np.isfinite(each))) for each in logits))
    typical = float(np.median([s.response for s in steps]))
    tolerances = [FACTOR * max(s.response, typical) + FLOOR * float(np.abs(s.unfused).max()) for s in steps]
    differences = [stepwise.distance(s.fused, s.unfused) for s in steps]
    ratios = [d / t for d, t in zip(differences, tolerances, strict=True)]
    worst = int(np.argmax(ratios))
    cache_typical = float(np.median([s.cache_response for s in steps]))
    cache_ratios = [s.cache_difference / (FACTOR * max(s.cache_response, cache_typical) + FLOOR) for s in steps]
    cache_worst = int(np.argmax(cache_ratios))
    differ = [i for i, s in enumerate(steps) if int(np.argmax(s.fused)) != int(np.argmax(s.unfused))]
    wrong = [i for i in differ if not _gap(steps[i].unfused) < tolerances[i]]
    own_error, unfused_own = (_rms([(fused, r) for r, _, fused in own]), _rms([(plain, r) for r, plain, _ in own]))
    reasons = []
    if not_finite:
        reasons.append(f"{not_finite} logits are NaN or infinite")
    if not all(np.isfinite(s.unfused).all() for s in steps):
        reasons.append("the unfused model gives NaN or infinity: nothing to compare with")
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
    if own and not own_error <= OWN_FACTOR * unfused_own + FLOOR:
        found = f"in {own_type} its error against float32 is {own_error:.3g}"
        reasons.append(f"{found}, the unfused model's {unfused_own:.3g}")
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


def _gap(logits: stepwise.Array) -> float:
    best = np.partition(logits, -2)[-2:]
    return float(best[1] - best[0])


def _rms(pairs: list[tuple[Any, Any]]) -> float:
    if not pairs:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        found = float(np.sqrt(np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs])))
    return float("inf") if np.isnan(found) else found


def _float32(model: Any, model_fused: Any) -> tuple[Any, Any]:
    """Twins in float32, unfused and fused: packed weights stay packed and shared; scales and the rest are cast."""
    exact = share(model)
    exact.language_model.set_dtype(mx.float32)
    fused = share(exact)
    for apply in applied(model_fused):
        apply(fused)
    return exact, fused


def changed(before: dict[str, mx.array], after: dict[str, mx.array]) -> tuple[str, ...]:
    """Names of parameters that came, went or differ in value."""
    names = sorted(before.keys() | after.keys())
    return tuple(n for n in names if n not in before or n not in after or not _same(before[n], after[n]))


def _same(a: mx.array, b: mx.array) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and bool(mx.array_equal(a, b, equal_nan=True).item()))


def leak(model: Any, start: int, steps: int = LEAK_STEPS) -> int:
    """Bytes that ``steps`` more steps leave allocated, after as many have settled what is allocated once."""
    figures = []
    for _ in range(3):
        caches = stepwise.filled(model, start)
        for _ in range(steps):
            stepwise.logits(model, 5, caches)
        del caches
        figures.append(_active())
    return max(0, figures[2] - figures[1])


def parameters(model: Any) -> dict[str, mx.array]:
    """Every parameter of the language model, by name."""
    from mlx.utils import tree_flatten

    flat: Any = tree_flatten(model.language_model.parameters())
    return dict(flat)


def _bytes(module: Any) -> int:
    from mlx.utils import tree_flatten

    flat: Any = tree_flatten(module.parameters())
    return sum(array.nbytes for _, array in flat)


def _active() -> int:
    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())
