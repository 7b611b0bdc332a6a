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
from gemma3n_perf.fusions.stepwise import Step
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
        "starts": (120,), "perturbation": parity.PERTURBATION, "own_type": "bfloat16", "weights_changed": (),
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


def test_a_near_tie_may_fall_either_way() -> None:
    """Greedy tokens may differ where the two best are closer than the tolerance."""
    tie = np.array([3.0, 3.0 + 1e-5, 0, 0], np.float32)
    found = judged(step(unfused=tie, fused=tie[[1, 0, 2, 3]]))
    assert found.passed
    assert (found.flips, found.excused) == (1, 1)


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


def test_a_real_fusion_passes(nano_model: Any) -> None:
    """With figures to show for it."""
    found = check.compared(nano_model, registry.get("stacked-altup"))
    assert found.passed, found.reasons
    assert found.steps == 64 + 6
    assert found.fused_error > 0
    assert found.memory_ratio < 1.1


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


def test_one_that_writes_weights_fails(nano_model: Any) -> None:
    """Even where the values hardly move."""

    def apply(model: Any) -> None:
        norm = model.language_model.model.norm
        norm.weight = norm.weight + 1e-6

    found = check.compared(nano_model, fusion(apply), steps=2)
    assert found.weights_changed == ("model.norm.weight",)


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


def test_another_type_is_compared_in_float32_and_in_its_own(nano_model: Any) -> None:
    """bf16 rounding drowns a small fault; the float32 twin, fused alike, shows it."""
    rounded = share(nano_model)
    rounded.language_model.set_dtype(mx.bfloat16)
    wrong = check.compared(rounded, attention(lambda position, out: damaged(out)), steps=4)
    assert (wrong.own_type, wrong.own_steps) == ("bfloat16", 4)
    assert wrong.own_error < 1.5 * wrong.unfused_own_error
    assert wrong.worst_ratio > 1


def test_a_model_too_sharp_to_compare_is_softened_first(nano_model: Any) -> None:
    """Where a rounding moves everything, softer norms show a fault again; the fusion sees other weights, and agrees."""
    right = check.compared(nano_model, registry.get("stacked-altup"), steps=2, sharp=0.0)
    wrong = check.compared(nano_model, attention(lambda position, out: damaged(out)), steps=2, sharp=0.0)
    assert (right.softened, wrong.softened) == (True, True)
    assert right.passed, right.reasons
    assert wrong.worst_ratio > 1


def test_softening_lowers_norms_and_nothing_else(nano_model: Any) -> None:
    """The twin's packed weights are the same arrays, the first model's norms as they were."""
    before = parity.parameters(nano_model)
    after = parity.parameters(parity.soften(nano_model))
    altered = {name.rsplit(".", 2)[-2] for name in before if before[name] is not after[name]}
    assert altered == {"q_norm", "post_attention_layernorm", "post_feedforward_layernorm"}
    assert all(before[name] is array for name, array in parity.parameters(nano_model).items())
