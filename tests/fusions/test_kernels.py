"""The CUDA sources themselves, run by an emulator: indices, barriers and shuffles are theirs, the speed is not."""

from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.fusions import altup_correct_gate, altup_router_predict, cuda_attention, cuda_step, fused_mlp
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.stepwise import filled, logits
from tests.fusions import check
from tests.fusions.emulator import Emulator

PARTS = [altup_correct_gate, altup_router_predict, cuda_attention, fused_mlp]


def eager(function: Any) -> Any:
    """Stand in for mx.compile: the emulator must see values."""
    return function


@pytest.fixture
def whole(nano_model: Any) -> Any:
    """Return a twin of nano in float32 throughout, which is all that the emulator knows."""
    twin = share(nano_model)
    twin.language_model.model.embed_tokens_per_layer.set_dtype(mx.float32)
    return twin


def test_a_step_of_kernels_is_the_models_step(whole: Any, emulator: Emulator) -> None:
    """From embedding to logits, across the window's edge and the cache's growth, within what rounding allows."""
    twin = share(whole)
    cuda_step.apply_with(twin, emulator, eager)
    before = dict(emulator.calls)
    assert check.worst_of(whole, twin, steps=2) <= 1.0
    ran = {name for name, calls in emulator.calls.items() if calls > before.get(name, 0)}
    assert {"gemma3n_embed", "gemma3n_attend", "gemma3n_down_sparse", "gemma3n_geglu", "gemma3n_head"} <= ran


@pytest.mark.parametrize("part", PARTS, ids=lambda part: str(part.FUSION.name))
def test_each_part_alone_is_the_models(whole: Any, emulator: Emulator, part: Any) -> None:
    """A fusion of one part leaves the rest mlx-vlm's, and agrees with it."""
    twin = share(whole)
    part.apply_with(twin, emulator, eager)
    before = sum(emulator.calls.values())
    assert check.worst_of(whole, twin, starts=(127,), steps=2) <= 1.0
    assert sum(emulator.calls.values()) > before


def test_a_damaged_kernel_is_found(whole: Any, emulator: Emulator) -> None:
    """An emulated kernel that forgets one key beyond the window's edge fails: the emulator can say no."""

    def forgetful(**kernel: Any) -> Any:
        source = kernel["source"].replace("int n = at[1],", "int n = at[1] > 127 ? at[1] - 1 : at[1],")
        return emulator(**{**kernel, "source": source})

    twin = share(whole)
    cuda_attention.apply_with(twin, forgetful, eager)
    assert check.worst_of(whole, twin, starts=(120,), steps=2) <= 1.0
    assert check.worst_of(whole, twin, starts=(130,), steps=2) > 1.0


def test_prefill_stays_mlx_vlms(whole: Any, emulator: Emulator) -> None:
    """More than one position never reaches a kernel."""
    twin = share(whole)
    cuda_step.apply_with(twin, emulator, eager)
    before = dict(emulator.calls)
    twin.language_model(mx.array([[5, 6, 7]]), cache=twin.make_cache())
    assert emulator.calls == before


def test_without_cuda_nothing_is_applied(nano_model: Any) -> None:
    """On a CPU the kernels' fusions leave the model as it is."""
    twin = share(nano_model)
    for part in (*PARTS, cuda_step):
        part.FUSION.apply(twin)
    assert (logits(twin, 5, filled(twin, 8)) == logits(nano_model, 5, filled(nano_model, 8))).all()
    assert type(twin.language_model) is type(nano_model.language_model)


def test_other_quantization_is_left_alone(nano_model: Any, emulator: Emulator) -> None:
    """Kernels read four bits in groups of 64 and dense weights; a model of another kind stays unfused."""
    twin = share(nano_model)
    for layer in twin.language_model.model.layers:
        layer.mlp.down_proj.bits = 8
    cuda_step.apply_with(twin, emulator, eager)
    fused_mlp.apply_with(twin, emulator, eager)
    assert type(twin.language_model) is type(nano_model.language_model)
    assert type(twin.language_model.model.layers[0].mlp) is type(nano_model.language_model.model.layers[0].mlp)
