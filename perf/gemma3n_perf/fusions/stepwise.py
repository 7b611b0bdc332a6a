"""Two models side by side: each step of both from one and the same state, and each on its own way through a prompt.

Rounding may grow from step to step, in a right fusion as in a wrong one. So logits are compared in steps that each
start again from the unfused model's own cache, and tokens in a run that nothing interrupts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.prompt import Prompt

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step at ``position``: logits (vocabulary,), and how far the caches came apart.

    ``response`` is how far the unfused logits move when the step's embedding is perturbed, ``cache_response`` how far
    its keys and values do. ``cache_difference`` is infinite where shapes or positions differ.
    """

    position: int
    unfused: Array
    fused: Array
    response: float
    cache_difference: float
    cache_response: float


@dataclass(frozen=True, slots=True)
class Greedy:
    """Greedy decode of two models, each along its own tokens, as far as these are ``same``, of ``steps``.

    The logits, (vocabulary,), are those of the last step, or of the first one whose tokens differ.
    """

    steps: int
    same: int
    unfused: Array
    fused: Array


def greedy(plain: Any, fused: Any, length: int, steps: int) -> Greedy:
    """``steps`` steps of both models after a prompt of ``length`` seeded tokens, as the timed loop takes them."""
    vocabulary = plain.language_model.config.vocab_size_per_layer_input
    ids = np.random.default_rng(length).integers(vocabulary // 2, vocabulary, length, dtype=np.int32)
    engines = MlxVlmEngine(plain), MlxVlmEngine(fused)
    for engine in engines:
        engine.prefill(Prompt(ids[:-1]))
    tokens = [engine.token(int(ids[-1])) for engine in engines]
    for step in range(steps):
        tokens = [engine.step(token) for engine, token in zip(engines, tokens, strict=True)]
        differ = tokens[0].item() != tokens[1].item()
        if differ or step == steps - 1:
            break
    unfused, after = (engine.last_logits()[0] for engine in engines)
    return Greedy(steps, step if differ else steps, unfused, after)


def filled(model: Any, start: int, history: int = 0) -> list[Any]:
    """Caches that hold ``start`` positions of seeded random keys and values: the same for every model of one shape.

    ``history`` numbers what they hold.
    """
    language_model = model.language_model
    config, dtype = language_model.config, language_model.model.norm.weight.dtype
    caches: list[Any] = model.make_cache()
    random = np.random.default_rng((start, history))
    shape = (1, config.num_key_value_heads, start, config.head_dim)
    for cache in caches:
        keys, values = (mx.array(random.standard_normal(shape, np.float32) * s).astype(dtype) for s in (0.25, 1.0))
        cache.update_and_fetch(keys, values)
    mx.eval(_arrays(caches))
    return caches


def walk(plain: Any, fused: Any, start: int, steps: int, perturbation: float, *, histories: int = 1) -> Iterator[Step]:
    """``steps`` steps along the unfused model's greedy path; both models must be of one type.

    With several ``histories``, each token is fed after each of them, one right after the other.
    """
    kept = [filled(plain, start, history) for history in range(histories)]
    others, estimators = plain.make_cache(), fused.make_cache()
    random = np.random.default_rng(start + 1)
    token = 5
    for position in range(start, start + steps):
        for caches in kept:
            relative = perturbation * random.choice([-1.0, 1.0], _width(plain))
            ids = mx.array([[token]])
            (step,) = _side_by_side(plain, fused, ids, position, (caches, others, estimators), relative)
            yield step
        token = int(step.unfused.argmax())


def prompted(plain: Any, fused: Any, length: int, batch: int, perturbation: float, *, start: int = 0) -> Iterator[Step]:
    """A prompt of ``length`` seeded tokens into empty caches and one step after it, for each of ``batch`` sequences.

    Caches that hold ``start`` positions are of one sequence: a second turn, or a later part of a long prompt.
    """
    random = np.random.default_rng(length + batch)
    ids = mx.array(random.integers(5, plain.language_model.config.vocab_size_per_layer_input, (batch, length)))
    relative = perturbation * random.choice([-1.0, 1.0], _width(plain))
    states = filled(plain, start) if start else plain.make_cache(), plain.make_cache(), fused.make_cache()
    for position in (start + length - 1, start + length):
        found = _side_by_side(plain, fused, ids, position, states, relative)
        yield from found
        ids = mx.array([[int(step.unfused.argmax())] for step in found])


def _side_by_side(
    plain: Any, fused: Any, ids: mx.array, position: int, states: tuple[list[Any], list[Any], list[Any]], relative: Any
) -> list[Step]:
    """A step for each row of ``ids`` from the first of ``states``, the other two being caches to copy it to."""
    caches, others, estimators = states
    copy(caches, estimators)
    copy(caches, others)
    moved = rows(plain, ids, others, relative)
    unfused, after = rows(plain, ids, caches), rows(fused, ids, estimators)
    apart = cache_distance(caches, estimators), cache_distance(caches, others)
    return [
        Step(position, row, other, distance(shaken, row), *apart)
        for row, other, shaken in zip(unfused, after, moved, strict=True)
    ]


def errors(
    exact: Any, plain: Any, fused: Any, start: int, steps: int, *, histories: int = 1
) -> Iterator[tuple[Array, Array, Array]]:
    """Logits of the model in float32, and of both in their own type, each step from the float32 model's state.

    Each of ``steps`` tokens is fed after each of ``histories``.
    """
    kept = [filled(exact, start, history) for history in range(histories)]
    own, estimators = plain.make_cache(), fused.make_cache()
    token = 5
    for _ in range(steps):
        for caches in kept:
            copy(caches, own, plain)
            copy(caches, estimators, fused)
            reference = logits(exact, token, caches)
            yield reference, logits(plain, token, own), logits(fused, token, estimators)
        token = int(reference.argmax())


def _width(model: Any) -> int:
    return int(model.language_model.config.hidden_size)


def logits(model: Any, token: int, caches: list[Any]) -> Array:
    """Logits (vocabulary,) of one step, evaluated with the caches."""
    one: Array = rows(model, mx.array([[token]]), caches)[0]
    return one


def rows(model: Any, ids: mx.array, caches: list[Any], relative: Any = None) -> Array:
    """Logits (batch, vocabulary) after the last of ``ids``, (batch, tokens), evaluated with the caches.

    ``relative`` perturbs the embedding.
    """
    language_model = model.language_model
    if relative is None:
        out = language_model(ids, cache=caches).logits
    else:
        text = language_model.model
        embedded = text.embed_tokens(ids) * (text.hidden_size**0.5)
        embedded = embedded * (1.0 + mx.array(relative.astype(np.float32))).astype(embedded.dtype)
        out = language_model(ids, inputs_embeds=embedded, cache=caches).logits
    last = out[:, -1].astype(mx.float32)
    mx.eval(last, _arrays(caches))
    return np.array(last)


def copy(source: list[Any], target: list[Any], model: Any = None) -> None:
    """Put ``source``'s state into ``target``, in arrays of its own, cast to the type of ``model`` where given."""
    dtype = None if model is None else model.language_model.model.norm.weight.dtype
    for one, other in zip(source, target, strict=True):
        for key, value in vars(one).items():
            if isinstance(value, mx.array):
                value = value * 1 if dtype is None else value.astype(dtype) * 1
            setattr(other, key, value)
    mx.eval(_arrays(target))


def cache_distance(one: list[Any], other: list[Any]) -> float:
    """Largest difference of keys and values that are filled; infinite where shapes or positions differ, or where it is
    NaN. How much room there is beyond them is nobody's business."""
    worst = []
    for a, b in zip(one, other, strict=True):
        ours, theirs = _filled(a), _filled(b)
        places = [(cache.offset, getattr(cache, "_idx", 0)) for cache in (a, b)]
        if places[0] != places[1] or [x.shape for x in ours] != [x.shape for x in theirs]:
            return float("inf")
        worst += [mx.max(mx.abs(x - y)) for x, y in zip(ours, theirs, strict=True)]
    found = float(np.array(mx.max(mx.stack(worst)).astype(mx.float32)))
    return float("inf") if np.isnan(found) else found


def _filled(cache: Any) -> list[mx.array]:
    return [array[..., : cache.offset, :] for array in (cache.keys, cache.values)]


def distance(a: Array, b: Array) -> float:
    """Largest absolute difference; infinite where it is NaN."""
    with np.errstate(invalid="ignore"):
        worst = float(np.abs(a - b).max())
    return float("inf") if np.isnan(worst) else worst


def _arrays(caches: list[Any]) -> list[Any]:
    return [array for cache in caches for array in (cache.keys, cache.values)]
