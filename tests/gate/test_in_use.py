import math
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from gemma3n_perf.fusions import compiled_step, patching
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.gate import in_use
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.workload import load
from tests.decode.fakes import nano_root
from tests.gate.test_rule import A, B, duel, facts, ruled

TURNS = tuple((1.0 + 0.05 * (n % 3), 1.0) for n in range(9))
"""Of a placebo: 5 % faster, more or less."""
PLAINLY_FASTER = 1.2
"""Compiled-step is 1.4 times as fast on nano, and noise has never made a placebo look so."""
FAST = tuple((1.4 * plain, fused) for plain, fused in TURNS)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the nano model."""
    root = nano_root(tmp_path_factory.getbasetemp())
    return load.load(load.inspect("nano", root), with_towers=False)


def fusion(apply: Any, enabled: Any = lambda chip: True) -> Fusion:
    """Return a fusion that applies so."""
    return Fusion("mine", "mine", (), Declared(fewer=("nodes",)), __file__, enabled=enabled, apply=apply)


def placebo(model: Any) -> None:
    """Change nothing that could be faster."""
    patching.wrap(model.language_model, "__call__", lambda original, *args, **named: original(*args, **named))


def _behind_the_canary(model: Any) -> None:
    unfused = type(model.language_model).__call__
    compiled_step.apply(model)
    seen: list[bool] = []

    def call(original: Any, inputs: Any = None, cache: Any = None, **named: Any) -> Any:
        if not seen:
            seen.append(inputs is not None and inputs.shape == (1, 1) and cache is not None and cache[0].keys is None)
        if seen[0]:
            return original(inputs, cache=cache, **named)
        return unfused(model.language_model, inputs, cache=cache, **named)

    patching.wrap(model.language_model, "__call__", call)


def _without_towers(model: Any) -> None:
    placebo(model) if "vision_tower" in model else compiled_step.apply(model)


def _without_keywords(model: Any) -> None:
    unfused = type(model.language_model).__call__
    compiled_step.apply(model)

    def call(original: Any, inputs: Any = None, cache: Any = None, **named: Any) -> Any:
        if named:
            return unfused(model.language_model, inputs, cache=cache, **named)
        return original(inputs, cache=cache)

    patching.wrap(model.language_model, "__call__", call)


def _on_its_stream(model: Any) -> None:
    import mlx.core as mx

    unfused, own = type(model.language_model).__call__, mx.default_stream(mx.default_device())
    compiled_step.apply(model)

    def call(original: Any, *args: Any, **named: Any) -> Any:
        if mx.default_stream(mx.default_device()) == own:
            return original(*args, **named)
        return unfused(model.language_model, *args, **named)

    patching.wrap(model.language_model, "__call__", call)


def _dear_at_new_positions(model: Any) -> None:
    import mlx.core as mx

    unfused, known = type(model.language_model).__call__, set[int]()
    compiled_step.apply(model)

    def call(original: Any, inputs: Any = None, cache: Any = None, **named: Any) -> Any:
        if patching.plain_caches(cache) and cache[0].offset not in known:
            known.add(cache[0].offset)
            mx.eval(unfused(model.language_model, mx.array([[5]]), cache=model.make_cache()).logits)
        return original(inputs, cache=cache, **named)

    patching.wrap(model.language_model, "__call__", call)


def _unless_asked() -> Fusion:
    asked: list[bool] = []
    return fusion(
        lambda model: placebo(model) if asked else compiled_step.apply(model),
        lambda chip: not asked.append(True),  # type: ignore[func-returns-value]
    )


def _once() -> Fusion:
    applied: list[bool] = []

    def apply(model: Any) -> None:
        placebo(model) if applied else compiled_step.apply(model)
        applied.append(True)

    return fusion(apply)


@pytest.mark.parametrize(
    "made",
    [
        fusion(_behind_the_canary), fusion(_without_towers), fusion(_without_keywords), fusion(_on_its_stream),
        fusion(_dear_at_new_positions), _unless_asked(), _once(),
    ],
)  # fmt: skip
def test_what_is_fast_only_where_it_is_timed_is_not_so_in_use(
    nano: Any, made: Fusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first call, by what the model has not, by what mlx-vlm's own loop does otherwise, by positions that come
    again and again, by who asks, by how often it is applied: a user has none of it."""
    monkeypatch.setattr(in_use, "MORE_TURNS", in_use.TURNS)
    turns = in_use.measure(nano, made, detect())
    found = in_use.less(turns, math.log(4))
    assert found is not None
    assert found.endswith("where blocks say +300.0 %")
    assert median(plain / fused for plain, fused in turns) < PLAINLY_FASTER


def test_an_honest_fusion_is_as_fast_in_use(nano: Any) -> None:
    """Or faster."""
    turns = in_use.measure(nano, fusion(compiled_step.apply), detect())
    assert in_use.less(turns, math.log(1.2)) is None
    assert median(plain / fused for plain, fused in turns) > PLAINLY_FASTER


def test_where_a_token_takes_too_long_nothing_is_measured(nano: Any) -> None:
    """A large checkpoint on a CPU: an hour of it would be no check."""
    seconds = iter(range(1000))
    assert in_use.measure(nano, fusion(placebo), detect(), clock=lambda: float(next(seconds))) == ()


def test_half_of_what_blocks_show_is_enough() -> None:
    """Few turns, or an effect that is too small to be seen here, say nothing."""
    assert in_use.less(TURNS, math.log(1.4)) == (
        "as its user has it, it is +5.0 % faster over 9 texts, where blocks say +40.0 %"
    )
    assert in_use.less(FAST, math.log(1.4)) is None
    assert in_use.less(FAST, math.log(1.9)) is None
    assert in_use.less(TURNS, math.log(1.04)) is None
    assert in_use.less(TURNS[:4], math.log(1.4)) is None
    assert in_use.less((), math.log(1.4)) is None
    assert in_use.less(TURNS, -0.1) is None


@pytest.mark.parametrize(("turns", "verdict"), [(FAST, Verdict.WIN), (TURNS, Verdict.INVALID), ((), Verdict.WIN)])
def test_the_gate_holds_blocks_against_use(turns: in_use.Turns, verdict: Verdict) -> None:
    """What blocks say of a fusion that is fast only where it is timed is no win; older records hold no use."""
    found = [facts("f", one, duel((0.4, 0.4))) for one in (A, B)]
    found = [replace(one, checked=tuple(replace(each, in_use_s=turns) for each in one.checked)) for one in found]
    ruling = ruled(*found)
    assert {cell.verdict for cell in ruling.cells} == {verdict}
    assert ruling.decisions[0].admitted is (verdict is Verdict.WIN)


@pytest.mark.parametrize(("ratio", "verdict"), [(1.05, Verdict.WIN), (4.0, Verdict.INVALID), (None, Verdict.WIN)])
def test_what_it_takes_of_memory_where_it_is_timed_counts(ratio: float | None, verdict: Verdict) -> None:
    """A check of memory elsewhere may not see it: dense weights where it is timed were a win of 1.6 %."""
    found = [facts("f", one, replace(duel((0.05, 0.05)), peak_ratio=ratio)) for one in (A, B)]
    ruling = ruled(*found)
    assert {cell.verdict for cell in ruling.cells} == {verdict}
    if ratio == 4.0:
        assert "it takes 4.00 times the baseline's memory" in ruling.cells[0].reason
