import re
from collections.abc import Callable
from typing import Any

import pytest

from gemma3n_perf.decode import graph
from gemma3n_perf.fusions import compiled_step, patching, registry
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.gate.dispatch import dispatched
from gemma3n_perf.gate.facts import Dispatch
from gemma3n_perf.workload.presets import PRESETS
from tests.duel.test_cheats import FASTER

POSITION, LAST = 44, 32_766
TIMED = range(POSITION, POSITION + 64)


def looked_at(fusion: Fusion, name: str = "nano") -> Dispatch:
    """Count a preset's graphs without and with a fusion."""
    config = PRESETS[name].config()
    before = graph.count(config, position=POSITION)
    return dispatched(config, fusion, before, timed=TIMED, apply=fusion.apply, enabled=True)


def made(apply: Any, **declared: Any) -> Fusion:
    """Return a fusion that applies so."""
    return Fusion("mine", "mine", (), Declared(**declared), __file__, apply=apply)


@pytest.mark.parametrize(
    ("preset", "name"), [*(("nano", name) for name in (*FASTER, "compiled-geglu")), ("e2b-4bit", "compiled-step")]
)
def test_an_honest_fusion_is_the_same_everywhere(preset: str, name: str) -> None:
    """At every position, whatever the window of the attention, and after a rewind."""
    assert looked_at(registry.get(name), preset).complaints == ()


def test_what_is_on_in_short_contexts_alone_is_told() -> None:
    """At the longest context at the latest."""

    def apply(model: Any) -> None:
        language_model = model.language_model
        unfused = type(language_model).__call__
        compiled_step.apply(model)

        def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
            if patching.plain_caches(cache) and cache[0].offset > 20_000:
                return unfused(language_model, inputs, cache=cache, **others)
            return original(inputs, cache=cache, **others)

        patching.wrap(language_model, "__call__", call)

    found = looked_at(made(apply, fewer=("nodes",)))
    said = (
        rf"at position {LAST} it makes (\d+) nodes of \1, and {found.nodes[1]} of {found.nodes[0]} at position "
        rf"{POSITION}: it is another program there"
    )
    assert any(re.fullmatch(said, one) for one in found.complaints), found.complaints
    assert not found.seen


def test_what_is_on_after_a_rewind_alone_is_told() -> None:
    """Where it declares what it always does, too."""

    def apply(model: Any) -> None:
        last, went_back = [0], list[bool]()

        def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
            offset = cache[0].offset if cache else 0
            if cache and offset < last[0]:
                went_back.append(True)
            last[0] = offset
            out = original(inputs, cache=cache, **others)
            for _ in range(1 if went_back else 30):
                out.logits = out.logits * 1
            return out

        patching.wrap(model.language_model, "__call__", call)

    found = looked_at(made(apply, more=("nodes",)))
    nodes = found.nodes[0]  # a product with a number is two
    assert found.complaints[0] == (
        f"after a rewind it makes {nodes + 2} nodes of {nodes}, and {nodes + 60} of {nodes} at position {POSITION}: "
        "it is another program there"
    )


def _dear(at: Callable[[int, set[int]], bool]) -> Fusion:
    """Return compiled-step that builds two unfused steps more at some positions, by those that it has seen."""

    def apply(model: Any) -> None:
        language_model, seen = model.language_model, set[int]()
        unfused = type(language_model).__call__
        compiled_step.apply(model)

        def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
            position = cache[0].offset if patching.plain_caches(cache) else 0
            for _ in range(2 if at(position, seen) else 0):
                unfused(language_model, inputs, cache=language_model.make_cache())
            seen.add(position)
            return original(inputs, cache=cache, **others)

        patching.wrap(language_model, "__call__", call)

    return made(apply, fewer=("nodes",))


@pytest.mark.parametrize(
    "at",
    [lambda position, seen: position not in seen, lambda position, seen: position % 32 == 0 and position not in TIMED],
    ids=["new", "seldom"],
)
def test_work_at_positions_that_are_not_timed_is_told(at: Callable[[int, set[int]], bool]) -> None:
    """Tracing a step anew at each length, and a check of itself now and then: no workload's positions show them."""
    found = looked_at(_dear(at))
    assert len(found.complaints) == 1
    said = r"a step makes (\d+) Python calls at the 160 positions from \d+ on, and (\d+) at those that are timed"
    calls = re.match(said, found.complaints[0])
    assert calls, found.complaints
    assert int(calls[1]) > 1.25 * int(calls[2])


def test_work_that_is_timed_too_is_none_of_it() -> None:
    """It is part of the effect: what blocks and whole runs take."""
    assert looked_at(_dear(lambda position, seen: position % 16 == 0)).complaints == ()


def test_an_early_context_has_no_other_positions() -> None:
    """Where the model takes no longer one than is timed."""
    config = PRESETS["nano"].config()
    config["text_config"] = config["text_config"] | {"max_position_embeddings": POSITION}
    before = graph.count(config, position=POSITION)
    fusion = registry.get("compiled-step")
    assert dispatched(config, fusion, before, timed=TIMED, apply=fusion.apply, enabled=True).complaints == ()
