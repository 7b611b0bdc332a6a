"""Whether a fused model still computes the same model. A fast wrong answer is worth nothing, so this comes first.

The model's own type comes first: greedy tokens after a prompt, and logits that are as close to float32 as the unfused
model's. 16-bit rounding drowns everything finer, so logits are then compared in float32, where a tolerance is measured,
never made up: each step's is the unfused model's own response to a perturbation of a few roundings, so that a wrong
kernel stands out and rounding does not. The steps cross the caches' 256-step growth and the sliding window's edge,
where errors hide. Some feed one token at one position after two histories, which catches a fusion that remembers
results instead of computing them. A prompt and a batch of two are compared as well: a fusion of decode must leave them
as they were.

Forged weights are tame: all right programs decode the same tokens. Of a real checkpoint a near tie may fall either way.
"""

import gc
import os
import random
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from gemma3n_perf.decode.engines.mlx_vlm import rows_are_right
from gemma3n_perf.fusions import backend, stepwise
from gemma3n_perf.fusions.parity_rules import Parity, judge
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import applied

GROWTH = 256
"""Positions by which mlx-vlm's caches grow."""
LEAD, STEPS = 12, 32
PROMPT, GREEDY_RUN = 40, 2
"""Tokens before a greedy run, and how many stretches of steps it is long."""
SHORT_PROMPT, BATCHES = 16, (1, 2)
"""Tokens of a prompt, and sequences at once: what a fusion of decode must leave as it was."""

FAR_STEPS, FAR_BYTES = 4, 256e6
"""Steps at each place far from where anything is timed, and the bytes of a KV cache that sets how far that is."""

HISTORIES, HISTORY_STEPS = 2, 4
OWN_STEPS = 8
LEAK_STEPS = 8
PERTURBATION = 2.0**-20
TF32_PERTURBATION = 2.0**-14
ENV = {"MLX_ENABLE_TF32": "0"}
"""Set before a process that checks parity on CUDA: else MLX rounds float32 products to 10 bits, and tolerances grow."""


def starts(window: int, maximum: int) -> tuple[int, ...]:
    """Where to begin: just below the cache's growth and just below the window's edge; two places at least."""
    found = {GROWTH - LEAD, window - LEAD}
    if len(found) == 1:
        found.add(2 * GROWTH - LEAD)
    return tuple(sorted(s for s in found if s > 1 and s + STEPS < maximum))


def far(config: Any, window: int) -> tuple[int, ...]:
    """Two places beyond the window: one drawn anew, and the last that the model takes or ``FAR_BYTES`` hold."""
    layers = config.num_hidden_layers - config.num_kv_shared_layers
    each = 2 * layers * config.num_key_value_heads * config.head_dim * mx.float32.size
    last = min(config.max_position_embeddings, int(FAR_BYTES / each)) - FAR_STEPS - 1
    return (random.SystemRandom().randrange(window, last), last) if last > window else ()


def parity(
    model_plain: Any, model_fused: Any, *, forged: bool, weights_changed: tuple[str, ...] = (),
    active_before: int | None = None, steps: int = STEPS,
) -> Parity:  # fmt: skip
    """Compare an unfused model with a fused one over the same weights.

    For a model that is not float32, twins of ``model_plain`` in float32 are made, and what was applied to
    ``model_fused`` is applied to one of them: packed weights stay shared; scales, norms and the rest are cast.
    ``forged`` weights decode the same tokens in every right program; of others, near ties are excused.
    ``active_before``: MLX's active memory before the fusion was applied, bytes; the default is now.
    ``steps`` of each stretch: others are for tests.
    """
    mx.eval(model_plain.language_model.parameters())
    dtype = model_plain.language_model.model.norm.weight.dtype
    config = model_plain.language_model.config
    at = starts(config.sliding_window, config.max_position_embeddings)
    beyond = far(config, at[-1] + steps)
    before = settled_bytes() if active_before is None else active_before
    stepwise.logits(model_fused, 5, stepwise.filled(model_fused, 16))
    ratio = 1.0 + max(0, settled_bytes() - before) / sum(array.nbytes for array in parameters(model_plain).values())
    leaked = leak(model_fused, at[0], min(steps, LEAK_STEPS))
    own_type = str(dtype).rpartition(".")[2]
    greedy = {own_type: stepwise.greedy(model_plain, model_fused, PROMPT, GREEDY_RUN * steps)}
    own: list[tuple[Any, Any, Any]] = []
    exact, exact_fused = model_plain, model_fused
    if dtype != mx.float32:
        exact = share(model_plain)
        exact.language_model.set_dtype(mx.float32)
        few = min(steps, OWN_STEPS)
        own = list(stepwise.errors(exact, model_plain, model_fused, at[-1], few, histories=HISTORIES))
        exact_fused = share(exact)
        for apply in applied(model_fused):
            apply(exact_fused)
        greedy["float32"] = stepwise.greedy(exact, exact_fused, PROMPT, GREEDY_RUN * steps)
    perturbation = perturbation_here()
    histories = list(stepwise.walk(exact, exact_fused, at[0], HISTORY_STEPS, perturbation, histories=HISTORIES))
    taken, moved = [*histories], 0.0
    places = [(start, steps) for start in at] + [(start, FAR_STEPS) for start in beyond]
    for start, count in places:
        found = list(stepwise.walk(exact, exact_fused, start, count, perturbation))
        again = stepwise.logits(exact, 5, stepwise.filled(exact, start))
        moved = max(moved, stepwise.distance(again, found[0].unfused))
        taken += found
    # Where MLX's own product of several rows is wrong, there is nothing right to compare with.
    if rows_are_right():
        for batch in BATCHES:
            taken += stepwise.prompted(exact, exact_fused, SHORT_PROMPT, batch, perturbation)
        edge = config.sliding_window - SHORT_PROMPT // 2
        taken += stepwise.prompted(exact, exact_fused, SHORT_PROMPT, 1, perturbation, start=edge)
    return judge(
        taken, own, greedy=greedy, histories=list(zip(histories[::2], histories[1::2], strict=True)), forged=forged,
        starts=at + beyond, perturbation=perturbation, own_type=own_type, weights_changed=weights_changed,
        unfused_moved=moved, memory_ratio=ratio, leaked_bytes=leaked,
    )  # fmt: skip


def perturbation_here() -> float:
    """A few float32 roundings; on CUDA, unless TF32 is off, a few roundings to 10 bits."""
    rounded = backend.cuda() and os.environ.get("MLX_ENABLE_TF32", "1") != "0"
    return TF32_PERTURBATION if rounded else PERTURBATION


def changed(before: dict[str, mx.array], after: dict[str, mx.array]) -> tuple[str, ...]:
    """Names of parameters that went or differ in value. What a fusion prepares may come beside them, and a module that
    it puts around one of the model's gives them other names."""
    kept = {id(array) for array in after.values()}
    return tuple(n for n in sorted(before) if not (_same(before[n], after[n]) if n in after else id(before[n]) in kept))


def _same(a: mx.array, b: mx.array) -> bool:
    return a is b or (a.dtype == b.dtype and bool(mx.array_equal(a, b, equal_nan=True).item()))


def leak(model: Any, start: int, steps: int = LEAK_STEPS) -> int:
    """Bytes that ``steps`` more steps leave allocated, after as many have settled what is allocated once."""
    figures = []
    for _ in range(3):
        caches = stepwise.filled(model, start)
        for _ in range(steps):
            stepwise.logits(model, 5, caches)
        del caches
        figures.append(settled_bytes())
    return max(0, figures[2] - figures[1])


def parameters(model: Any) -> dict[str, mx.array]:
    """Every parameter of the language model, by name."""
    return dict(tree_flatten(model.language_model.parameters()))


def settled_bytes() -> int:
    """Bytes that MLX's arrays take now, after garbage collection."""
    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())
