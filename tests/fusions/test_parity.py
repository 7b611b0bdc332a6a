from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from gemma3n_perf.fusions import parity, patching, registry
from gemma3n_perf.fusions.parity_rules import Parity, judge
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.stepwise import Greedy, Step
from gemma3n_perf.fusions.types import Declared, Fusion
from tests.fusions import check

LOGITS = np.array([3.0, 1.0, 0.5, -2.0], np.float32)
RESPONSE = 1e-4


def step(position: int = 120, off: float = 0.0, **changes: Any) -> Step:
    """Return a step whose fused logits are off by ``off`` in one place."""
    fused = LOGITS + np.array([0, 0, off, 0], np.float32)
    made = Step(position, LOGITS, fused, RESPONSE, cache_difference=1e-6, cache_response=1e-5)
    return replace(made, **changes)


def judged(*steps: Step, own: Any = (), **changes: Any) -> Parity:
    """Judge steps with nothing else amiss."""
    figures: dict[str, Any] = {
        "greedy": {}, "histories": (), "forged": True, "starts": (120,), "perturbation": parity.PERTURBATION,
        "own_type": "bfloat16", "weights_changed": (),
        "unfused_moved": 0.0, "memory_ratio": 1.0, "leaked_bytes": 0,
    }  # fmt: skip
    return judge(list(steps), list(own), **figures | changes)


def fusion(apply: Callable[[Any], None]) -> Fusion:
    """Return a fusion that does ``apply``."""
    return Fusion("planted", "", (), Declared(), __file__, apply=apply)


def attention(change: Callable[[int, Any], Any]) -> Fusion:
    """Return a fusion that changes what the first layer's attention gives, knowing the position."""

    def apply(model: Any) -> None:
        def call(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
            position = cache.offset
            return change(position, original(x, mask, cache))

        patching.wrap(model.language_model.model.layers[0].self_attn, "__call__", call)

    return fusion(apply)


class Spoiled:
    """A cache that keeps what it is given and hands out rows that are ``spoilt``."""

    def __init__(self, cache: Any, spoilt: Callable[[Any], Any]) -> None:
        self._cache, self._spoilt = cache, spoilt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, ...]:
        """Put keys and values into the real cache."""
        return tuple(self._spoilt(rows) for rows in self._cache.update_and_fetch(keys, values))


def reading(row: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change of a model: in decode, its second layer reads ``row`` of all rows for the fifth."""

    def spoilt(rows: Any) -> Any:
        return mx.concatenate([rows[:, :, :4], row(rows), rows[:, :, 5:]], axis=2)

    def call(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        return original(x, mask, cache if x.shape[1] > 1 else Spoiled(cache, spoilt))

    return lambda model: patching.wrap(model.language_model.model.layers[1].self_attn, "__call__", call)


def without_attention(model: Any) -> None:
    """Let no layer's attention add anything in decode."""

    def call(original: Any, x: Any, *args: Any) -> Any:
        out = original(x, *args)
        return out if x.shape[1] > 1 else mx.zeros_like(out)

    for layer in model.language_model.model.layers:
        patching.wrap(layer.self_attn, "__call__", call)


def without_layers(*numbers: int) -> Callable[[Any], None]:
    """Return a change of a model: these layers hand their input on in decode, having filled their caches."""

    def call(original: Any, x: Any, *args: Any, **named: Any) -> Any:
        out = original(x, *args, **named)
        return out if x.shape[2] > 1 else x

    def apply(model: Any) -> None:
        for number in numbers:
            patching.wrap(model.language_model.model.layers[number], "__call__", call)

    return apply


def remembering(entries: int) -> Callable[[Any], None]:
    """Return a change of a model: it remembers the last logits by position and token, and says them again."""

    def apply(model: Any) -> None:
        known: dict[tuple[int, int], Any] = {}

        def call(original: Any, inputs: Any = None, cache: Any = None, **named: Any) -> Any:
            if named or inputs.shape != (1, 1) or not patching.plain_caches(cache):
                return original(inputs, cache=cache, **named)
            key = cache[0].offset, inputs.item()
            out = original(inputs, cache=cache)
            out.logits = known.setdefault(key, out.logits)
            if len(known) > entries:
                known.pop(next(iter(known)))
            return out

        patching.wrap(model.language_model, "__call__", call)

    return apply


WRONG: dict[str, Callable[[Any], None]] = {
    "no branch of any layer": without_layers(*range(6)),
    "no attention": without_attention,
    "one layer left out": without_layers(2),
    "a row of a cache read as zeros": reading(lambda rows: 0 * rows[:, :, 4:5]),
    "a stale row of a cache": reading(lambda rows: rows[:, :, 3:4]),
}


def damaged(out: Any) -> Any:
    """Return an attention's output a little wrong, in a way that the norm after it does not undo."""
    return out + 0.002 * mx.roll(out, 1, -1)


def test_rounding_passes_and_is_told_in_figures() -> None:
    """A difference within the unfused model's own response is none."""
    found = judged(step(), step(121, off=RESPONSE))
    assert found.passed
    assert found.steps == 2
    assert found.worst_position == 121
    assert 0 < found.worst_ratio < 1
    assert msgspec.json.decode(msgspec.json.encode(found))["reasons"] == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (step(130, off=0.1), "a logit is off by 0.1 at position 130"),
        (step(fused=LOGITS * np.float32("nan")), "4 logits are NaN or infinite"),
        (step(fused=np.array([3, 1, np.inf, -2], np.float32)), "1 logits are NaN or infinite"),
        (step(unfused=LOGITS * np.float32("nan")), "the unfused model gives NaN"),
        (step(cache_difference=0.1), "the KV cache is off by 0.1 at position 120"),
        (step(cache_difference=float("inf")), "the KV cache is off by inf"),
        (step(fused=LOGITS[[1, 0, 2, 3]]), "1 greedy tokens differ where the choice is clear, first at position 120"),
    ],
)
def test_one_bad_step_fails(bad: Step, said: str) -> None:
    """However many good ones stand beside it."""
    found = judged(step(), step(121), bad, step(122))
    assert not found.passed
    assert any(said in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_changed": ("model.norm.weight",)}, "changed 1 weights, first model.norm.weight"),
        ({"unfused_moved": 1e-7}, "the unfused model's logits moved"),
        ({"unfused_moved": float("nan")}, "the unfused model's logits moved"),
        ({"memory_ratio": 1.2}, "take 1.20 times one"),
        ({"leaked_bytes": 4096}, "left 4096 bytes behind"),
    ],
)
def test_right_logits_do_not_excuse_the_rest(changes: dict[str, Any], said: str) -> None:
    """Changed weights, a disturbed unfused model, memory and leaks each fail."""
    found = judged(step(), **changes)
    assert any(said in reason for reason in found.reasons)


def test_a_near_tie_of_a_real_checkpoint_may_fall_either_way() -> None:
    """Greedy tokens may differ where the two best are closer than the tolerance; forged weights have no such ties."""
    tie = np.array([3.0, 3.0 + 1e-5, 0, 0], np.float32)
    other = tie[[1, 0, 2, 3]]
    run = {"float32": Greedy(64, 10, tie, other)}
    found = judged(step(unfused=tie, fused=other), greedy=run, forged=False)
    assert found.passed
    assert (found.flips, found.excused) == (1, 1)
    assert (found.greedy_steps, found.same_tokens) == (64, {"float32": 10})
    found = judged(step(unfused=tie, fused=other), greedy=run)
    assert (found.flips, found.excused) == (1, 0)
    assert found.reasons == (
        "in float32 its greedy tokens differ from step 11 of 64 after a prompt on",
        "1 greedy tokens differ where the choice is clear, first at position 120",
    )


@pytest.mark.parametrize("forged", [False, True])
def test_other_tokens_fail_where_the_choice_is_clear(forged: bool) -> None:
    """In any type, whatever the weights are."""
    exact, noise = np.zeros(4, np.float32), np.full(4, 1e-3, np.float32)
    run = {"bfloat16": Greedy(64, 63, LOGITS, LOGITS[[1, 0, 2, 3]])}
    found = judged(step(), own=[(exact, noise, noise)], greedy=run, forged=forged)
    assert found.reasons == ("in bfloat16 its greedy tokens differ from step 64 of 64 after a prompt on",)


def test_tokens_that_could_be_guessed_do_not_excuse_the_logits() -> None:
    """Of forged weights, a run's last logits are compared as well; those of a real model may have drifted."""
    run = {"float32": Greedy(64, 64, LOGITS, LOGITS + np.float32(0.01))}
    found = judged(step(), greedy=run)
    assert any("in float32 a logit is off by 0.01 after 64 steps of its own" in one for one in found.reasons)
    assert judged(step(), greedy=run, forged=False).passed


def test_logits_that_another_history_does_not_move_fail() -> None:
    """The unfused model reads its cache, and a fused one that does not move with it does not."""
    other = LOGITS + np.array([0.5, 0, 0, 0], np.float32)
    right = judged(step(), histories=[(step(), step(unfused=other, fused=other))])
    assert (right.passed, right.history_ratio) == (True, 1.0)
    wrong = judged(step(), histories=[(step(), step(unfused=other, fused=LOGITS))])
    assert wrong.history_ratio == 0.0
    assert any("it remembers what it should compute" in reason for reason in wrong.reasons)


def test_in_its_own_type_it_must_be_as_near_to_float32_as_the_unfused() -> None:
    """16-bit rounding is large; one and a half times as much is a fault."""
    exact, noise = np.zeros(4, np.float32), np.full(4, 0.1, np.float32)
    assert judged(step(), own=[(exact, noise, -noise)]).passed
    worse = judged(step(), own=[(exact, noise, noise * 2)])
    assert any("in bfloat16 its error against float32 is 0.2" in reason for reason in worse.reasons)
    assert not judged(step(), own=[(exact, noise, noise * np.float32("nan"))]).passed


@pytest.mark.parametrize(("window", "expected"), [(512, (244, 500)), (128, (116, 244)), (256, (244, 500))])
def test_the_steps_cross_growth_and_window(window: int, expected: tuple[int, ...]) -> None:
    """Two places, at least 64 steps, both edges inside."""
    found = parity.starts(window, 32_768)
    assert found == expected
    assert len(found) * parity.STEPS >= 64
    for edge in (parity.GROWTH, window):
        assert any(start < edge < start + parity.STEPS for start in found)


@pytest.mark.parametrize("name", ["stacked-altup", "compiled-step", "fused-qkv", "compiled-geglu"])
def test_a_real_fusion_passes(nano_model: Any, name: str) -> None:
    """With figures to show for it."""
    found = check.compared(nano_model, registry.get(name))
    assert found.passed, found.reasons
    assert found.steps == 64 + 2 * 4 + 8 + 8
    assert found.same_tokens == {"float32": 64}
    assert found.history_ratio == pytest.approx(1.0, rel=1e-3)
    assert found.memory_ratio < 1.1


@pytest.mark.parametrize("apply", WRONG.values(), ids=WRONG)
def test_one_that_leaves_something_out_fails(nano_model: Any, apply: Callable[[Any], None]) -> None:
    """Though its tokens may be the right ones: the next can be known from the last."""
    found = check.compared(nano_model, fusion(apply), steps=2)
    assert any("a logit is off by" in reason for reason in found.reasons), found.reasons
    assert found.worst_ratio > 10


@pytest.mark.parametrize("entries", [1, 1_000])
def test_one_that_remembers_results_fails(nano_model: Any, entries: int) -> None:
    """By position and token: the same of both after another history must give other logits."""
    found = check.compared(nano_model, fusion(remembering(entries)), steps=2)
    assert found.history_ratio == 0.0
    assert any("it remembers what it should compute" in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    "spoils", [lambda x: x.shape[1] > 1, lambda x: x.shape[0] > 1], ids=["a prompt", "a batch of two"]
)
def test_one_that_is_right_for_a_step_alone_fails(nano_model: Any, spoils: Callable[[Any], bool]) -> None:
    """Decode of one sequence is timed; the prompt before it and other batches must be what they were."""

    def apply(model: Any) -> None:
        for layer in model.language_model.model.layers:
            patching.wrap(layer.mlp, "__call__", lambda original, x: mx.zeros_like(x) if spoils(x) else original(x))

    found = check.compared(nano_model, fusion(apply), steps=2)
    assert not found.passed
    assert any("a logit is off by" in reason for reason in found.reasons), found.reasons


def test_a_fast_nan_fails(nano_model: Any) -> None:
    """It never passes, whatever it is compared with."""
    found = check.compared(nano_model, attention(lambda position, out: out * float("nan")), steps=2)
    assert found.not_finite
    assert not found.passed


def test_one_wrong_only_beyond_the_window_fails(nano_model: Any) -> None:
    """A cache that turns over wrongly is right for the first 128 tokens of nano."""
    found = check.compared(
        nano_model, attention(lambda position, out: damaged(out) if position > 128 else out), steps=16
    )
    assert not found.passed
    assert found.worst_position > 128


def test_one_wrong_only_far_on_fails(nano_model: Any) -> None:
    """As one whose table of rotations ends somewhere: half of what the model takes is beyond all that is timed."""
    first, last = parity.far(nano_model.language_model.config, 276)
    assert 276 <= first < last
    assert last * 1.5 > nano_model.language_model.config.max_position_embeddings
    found = check.compared(
        nano_model, attention(lambda position, out: damaged(out) if position > last else out), steps=2
    )
    assert not found.passed
    assert found.worst_position > last
    assert found.starts[-1] == last


def test_one_wrong_only_in_prompts_beyond_the_window_fails(nano_model: Any) -> None:
    """A mask that is causal and knows no window is right in short prompts."""

    def apply(model: Any) -> None:
        def call(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
            return original(x, "causal" if x.shape[1] > 1 else mask, cache)

        for layer in model.language_model.model.layers:
            patching.wrap(layer.self_attn, "__call__", call)

    found = check.compared(nano_model, fusion(apply), steps=2)
    assert not found.passed
    window = nano_model.language_model.config.sliding_window
    assert window - parity.SHORT_PROMPT < found.worst_position <= window + parity.SHORT_PROMPT


def test_a_context_that_cannot_go_on_has_no_far_places(nano_model: Any) -> None:
    """Where the model takes no more than is compared anyway, or a KV cache of more would be too large."""
    config = nano_model.language_model.config
    assert parity.far(config, config.max_position_embeddings) == ()
    assert parity.far(replace(config, head_dim=1 << 30), 276) == ()


def test_one_that_writes_weights_fails(nano_model: Any) -> None:
    """Even where the values hardly move."""

    def apply(model: Any) -> None:
        norm = model.language_model.model.norm
        norm.weight = norm.weight + 1e-6

    found = check.compared(nano_model, fusion(apply), steps=2)
    assert found.weights_changed == ("model.norm.weight",)


def test_a_weight_of_another_name_is_the_same_one() -> None:
    """As where a fusion puts a module of its own around one of the model's, or keeps what it prepared beside it."""
    weight, other = mx.ones((2,)), mx.zeros((2,))
    assert parity.changed({"mlp.weight": weight}, {"mlp.mlp.weight": weight}) == ()
    assert parity.changed({"mlp.weight": weight}, {"mlp.mlp.weight": mx.array(weight)}) == ("mlp.weight",)
    assert parity.changed({"a": weight, "b": weight}, {"b": other, "c": weight}) == ("b",)
    assert parity.changed({"a": weight}, {"a": mx.array(weight), "prepared": other}) == ()
    assert parity.changed({"a": weight}, {}) == ("a",)


def test_one_that_keeps_what_it_computed_fails(nano_model: Any) -> None:
    """A leak is found in the bytes that further steps leave."""
    kept: list[Any] = []

    def hoard(position: int, out: Any) -> Any:
        kept.append(out + 0)
        return out

    found = check.compared(nano_model, attention(hoard), steps=4)
    assert found.leaked_bytes > 0
    assert not found.passed


def test_one_that_copies_the_weights_fails(nano_model: Any) -> None:
    """Fused and unfused together may take 1.1 times one."""
    copies: list[Any] = []

    def apply(model: Any) -> None:
        copies.extend(a * 1 for a in parity.parameters(model).values() if mx.issubdtype(a.dtype, mx.floating))
        copies.extend(a + 0 for a in parity.parameters(model).values() if a.dtype == mx.uint32)
        mx.eval(copies)

    found = check.compared(nano_model, fusion(apply), steps=2)
    assert found.memory_ratio > 1.5
    assert not found.passed


def test_in_its_own_type_a_right_one_passes_and_one_that_leaves_attention_out_fails(nano_model: Any) -> None:
    """bf16 rounding is large, and still smaller than what a layer adds."""
    rounded = share(nano_model)
    rounded.language_model.set_dtype(mx.bfloat16)
    right = check.compared(rounded, registry.get("compiled-step"), steps=4)
    assert right.passed, right.reasons
    assert right.same_tokens == {"bfloat16": 8, "float32": 8}
    wrong = check.compared(rounded, fusion(without_attention), steps=4)
    assert any("in bfloat16 its error against float32" in reason for reason in wrong.reasons), wrong.reasons
    assert wrong.worst_ratio > 10


def test_another_type_is_compared_in_float32_and_in_its_own(nano_model: Any) -> None:
    """bf16 rounding drowns a small fault; the float32 twin, fused alike, shows it."""
    rounded = share(nano_model)
    rounded.language_model.set_dtype(mx.bfloat16)
    wrong = check.compared(rounded, attention(lambda position, out: damaged(out)), steps=4)
    assert (wrong.own_type, wrong.own_steps) == ("bfloat16", 2 * 4)
    assert wrong.own_error < 1.5 * wrong.unfused_own_error
    assert wrong.worst_ratio > 1
