"""The CUDA sources themselves, run by an emulator: indices, barriers and shuffles are theirs, the speed is not."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma3n_perf.fusions import altup_correct_gate, altup_router_predict, cuda_attention, cuda_step, fused_mlp
from gemma3n_perf.fusions.kernels.phases import Grid
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.stepwise import filled, logits
from tests.fusions import check
from tests.fusions.emulator import Emulator

PARTS = [altup_correct_gate, altup_router_predict, cuda_attention, fused_mlp]


def eager(function: Any) -> Any:
    """Stand in for mx.compile: the emulator must see values."""
    return function


def stepping(model: Any, make: Any, start: int = 0) -> Any:
    """Return a twin that decodes in kernels of four blocks, whose barriers have counted to ``start`` before."""
    twin = share(model)
    cuda_step.apply_with(twin, make, eager, Grid(4, 128), start)
    return twin


@pytest.fixture
def whole(nano_model: Any) -> Any:
    """Return a twin of nano in float32 throughout, which is all that the emulator knows."""
    twin = share(nano_model)
    twin.language_model.model.embed_tokens_per_layer.set_dtype(mx.float32)
    return twin


def test_a_step_of_kernels_is_the_models_step(whole: Any, emulator: Emulator) -> None:
    """From embedding to logits, across the window's edge and the cache's growth, one kernel a layer and one more."""
    twin = stepping(whole, emulator)
    before = dict(emulator.calls)
    assert check.worst_of(whole, twin, steps=2) <= 1.0
    ran = {name: calls - before.get(name, 0) for name, calls in emulator.calls.items() if calls > before.get(name, 0)}
    kernels = len(whole.language_model.model.layers) + 1
    assert ran.pop("gemma3n_addresses") == kernels  # once for all steps
    kinds = {name.removeprefix("gemma3n_").split("_")[0] for name in ran}
    assert kinds == {"first", "link", "last"}
    steps = sum(calls for name, calls in ran.items() if "_first_" in name)
    assert sum(ran.values()) == steps * kernels


def test_weights_that_are_replaced_are_the_ones_that_are_read(whole: Any, emulator: Emulator) -> None:
    """A kernel finds them by address: the addresses are taken anew, and what they were of is no longer read."""
    twin, plain = stepping(whole, emulator), share(whole)
    before = logits(twin, 5, filled(twin, 40))
    for model in (twin, plain):
        down = model.language_model.model.layers[2].mlp.down_proj
        down.weight = mx.contiguous(down.weight[::-1])
    assert (logits(twin, 5, filled(twin, 40)) != before).any()
    assert check.worst_of(plain, twin, starts=(40,), steps=1) <= 1.0


def test_barriers_count_on_from_launch_to_launch_and_past_the_last_number(whole: Any, emulator: Emulator) -> None:
    """Where 32 bits end in the middle of a kernel, the logits are the same to the bit."""
    fresh, old = (stepping(whole, emulator, start) for start in (0, 2**32 - 8))
    expected, found = (logits(twin, 5, filled(twin, 40)) for twin in (fresh, old))
    np.testing.assert_array_equal(found, expected)


def test_known_tokens_are_decoded_one_after_the_other(whole: Any, emulator: Emulator) -> None:
    """A step is given what the one before made last, and each sequence has a barrier's counter of its own."""
    launches: list[tuple[str, list[Any], list[Any]]] = []

    def noted(**built: Any) -> Any:
        kernel = emulator(**built)

        def run(**launch: Any) -> Any:
            launches.append((built["name"], launch["inputs"], kernel(**launch)))
            return launches[-1][2]

        return run

    twin = stepping(whole, noted)
    caches = [filled(twin, 40), filled(twin, 40)]
    for index in (0, 0, 1):
        twin.language_model(mx.array([[5]]), cache=caches[index])
    launches = [one for one in launches if "addresses" not in one[0]]
    starts = [inputs for name, inputs, _ in launches if "_first_" in name]
    normed = [outputs[1] for name, _, outputs in launches if "_last_" in name]
    assert [any(each is normed[0] for each in inputs) for inputs in starts] == [False, True, False]
    counters = [inputs[-1] for _, inputs, _ in launches]
    of_one = len(launches) * 2 // 3
    assert len({id(each) for each in counters[:of_one]}) == len({id(each) for each in counters[of_one:]}) == 1
    assert counters[0] is not counters[-1]


@pytest.mark.parametrize("damage", ["", "if (blockIdx.x) grid_barrier<4>(arrived);"])
def test_a_barrier_left_out_is_found(whole: Any, emulator: Emulator, damage: str) -> None:
    """Without it a block reads what none has written; where some blocks alone wait, they wait for ever."""

    def hasty(**kernel: Any) -> Any:
        source = kernel["source"]
        if "_first_" in kernel["name"]:
            source = source.replace("grid_barrier<4>(arrived);", damage, 1)
        return emulator(**{**kernel, "source": source})

    twin = stepping(whole, hasty)
    if damage:
        with pytest.raises(AssertionError, match="wait for each other for ever"):
            logits(twin, 5, filled(twin, 40))
    else:
        assert np.isnan(logits(twin, 5, filled(twin, 40))).any()


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
    twin = stepping(whole, emulator)
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
