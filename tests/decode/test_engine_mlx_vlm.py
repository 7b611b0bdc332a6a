import dataclasses
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma3n_perf.decode import prompt
from gemma3n_perf.decode.decoder import Decoder
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.engines import mlx_vlm
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.errors import NonFiniteError
from gemma3n_perf.workload import forge, load
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload
from tests.decode.fakes import FakeProbe

Nano = tuple[Checkpoint, Any]


def number(token: mx.array) -> int:
    """Read a token."""
    return int(token.item().real)


def sum_of(value: mx.array) -> float:
    """Return the sum of magnitudes."""
    return mx.sum(mx.abs(value)).item().real


def started(nano: Nano, workload: str) -> tuple[MlxVlmEngine, mx.array]:
    """Return an engine after the prefill of a workload, and its first token."""
    engine = MlxVlmEngine(nano[1])
    return engine, engine.prefill(prompt.make(Workload.parse(workload), nano[0]))


def decoded(engine: MlxVlmEngine, token: mx.array, steps: int) -> list[int]:
    """Decode without ever rewinding."""
    found = []
    for _ in range(steps):
        token = engine.step(token)
        found.append(number(token))
    return found


def prepared(nano: Nano, workload: str) -> Decoder:
    """Return a prepared session over the real model."""
    parsed = Workload.parse(workload)
    asked = prompt.make(parsed, nano[0])
    session = Decoder(MlxVlmEngine(nano[1]), parsed, asked, clock=time.perf_counter, device=MlxDevice())
    session.prepare()
    return session


def test_two_runs_give_the_same_varied_tokens(nano: Nano) -> None:
    """Rewinding gives the same 64 tokens, at least 20 of them distinct: no token is repeated for ever."""
    session = prepared(nano, "nano/text/pp40-tg64")
    run, tokens = session.run(FakeProbe())
    assert session.run(FakeProbe())[1] == tokens
    assert len(tokens) == run.tokens == 64
    assert len(set(tokens)) >= 20
    assert min(run.step_s) > 0


def test_decode_across_the_window_equals_decode_that_was_never_rewound(nano: Nano) -> None:
    """From position 124, over the edge of the sliding window at 128, run and rerun give what one decode gives."""
    workload = "nano/text/pp120-tg16"
    whole = decoded(*started(nano, workload), steps=WARM_TOKENS + 16)
    session = prepared(nano, workload)
    for _ in range(2):
        assert session.run(FakeProbe())[1] == whole[WARM_TOKENS:]


@pytest.mark.parametrize("right", [True, False])
def test_a_prompt_that_goes_in_token_by_token_is_not_timed(
    nano: Nano, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    """Where MLX's products of several rows are wrong; it leaves the same KV cache, so decode stands."""
    whole = decoded(*started(nano, "nano/text/pp40-tg64"), steps=8)
    monkeypatch.setattr(mlx_vlm, "rows_are_right", lambda: right)
    session = prepared(nano, "nano/text/pp40-tg64")
    assert ("one token at a time" in session.prefill_fault()) is not right
    assert session.run(FakeProbe(), 4)[1] == whole[WARM_TOKENS:]


@pytest.mark.parametrize("workload", ["nano/text/pp40-tg64", "nano/text/pp140-tg64"])
def test_rewinding_restores_logits_bit_for_bit(nano: Nano, workload: str) -> None:
    """Before the window is full and after, where the cache is written in place."""
    engine, token = started(nano, workload)
    token = engine.step(token)
    position = engine.snapshot()
    first = engine.logits(token)
    mx.eval(first)
    decoded(engine, token, steps=5)
    for _ in range(2):
        engine.rewind(position)
        again = engine.logits(token)
        assert mx.array_equal(again, first).item()


def test_a_snapshot_outlives_what_is_decoded_after_it(nano: Nano) -> None:
    """Rewinding copies: decoding from a snapshot does not write into it."""
    engine, token = started(nano, "nano/text/pp140-tg64")
    mx.eval(token)
    position = engine.snapshot()
    before = [sum_of(value) for state in position for value in state.values() if _array(value)]
    for _ in range(2):
        engine.rewind(position)
        decoded(engine, token, steps=4)
    after = [sum_of(value) for state in position for value in state.values() if _array(value)]
    assert before == after
    assert before


def _array(value: Any) -> bool:
    return isinstance(value, mx.array)


@pytest.mark.parametrize("workload", ["nano/text/pp40-tg64", "nano/text/pp140-tg64", "nano/image/pp296-tg64"])
def test_prefill_in_two_parts_is_prefill(tmp_path: Path, workload: str) -> None:
    """The prompt but its last token, and then that token, give what one pass over all of it gives.

    Without KV sharing: mlx-vlm turns the queries of KV-shared layers by an offset that grows with the chunk.
    """
    preset = dataclasses.replace(PRESETS["nano"], text=PRESETS["nano"].text | {"num_kv_shared_layers": 0})
    checkpoint = load.inspect(str(forge.forge(preset, tmp_path, progress=lambda written: None)), tmp_path)
    model = load.load(checkpoint, with_towers=False)
    made = prompt.make(Workload.parse(workload), checkpoint)
    ids, embeddings, per_layer = prompt.embed(model, made)
    whole = model.language_model(
        ids, inputs_embeds=embeddings, per_layer_inputs=per_layer, cache=model.make_cache()
    ).logits[0, -1]
    assert number(MlxVlmEngine(model).prefill(made)) == number(mx.argmax(whole))


@pytest.mark.parametrize("workload", ["nano/text/pp40-tg64", "nano/text/pp140-tg64"])
def test_it_decodes_what_mlx_vlms_own_generator_gives(nano: Nano, workload: str) -> None:
    """The same greedy tokens as mlx_vlm's generate_step over the same prompt."""
    from mlx_vlm.generate.ar import generate_step

    checkpoint, model = nano
    made = prompt.make(Workload.parse(workload), checkpoint)
    engine = MlxVlmEngine(model)
    token = engine.prefill(made)
    ours = [number(token), *decoded(engine, token, steps=7)]
    own = generate_step(mx.array(made.ids)[None], model, None, None, max_tokens=8, temperature=0.0)
    assert [int(token) for token, _ in own] == ours


def test_an_image_changes_what_is_decoded(nano: Nano) -> None:
    """Soft tokens reach the model: without them the same ids give other logits."""
    checkpoint, model = nano
    made = prompt.make(Workload.parse("nano/image/pp296-tg64"), checkpoint)
    logits = []
    for asked in (made, dataclasses.replace(made, soft=None)):
        engine = MlxVlmEngine(model)
        logits.append(engine.logits(engine.prefill(asked)))
    assert bool(mx.any(mx.abs(logits[0] - logits[1]) > 0.1).item())


def test_an_image_is_not_embedded_again_where_nothing_is_timed(nano: Nano, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefill that is timed embeds it anew, and so does one of another prompt; the token is the same."""
    checkpoint, model = nano
    embedded: list[prompt.Prompt] = []

    def counting(model: Any, made: prompt.Prompt) -> Any:
        embedded.append(made)
        return prompt.embed(model, dataclasses.replace(made, pixels=None))  # nano's image has no tower

    monkeypatch.setattr(mlx_vlm, "embed", counting)
    made = dataclasses.replace(
        prompt.make(Workload.parse("nano/image/pp296-tg64"), checkpoint), pixels=np.zeros(1, np.float32)
    )
    engine = MlxVlmEngine(model)
    first = number(engine.prefill(made))
    assert number(engine.refill(made)) == first
    assert len(embedded) == 1
    assert number(engine.prefill(made)) == first
    engine.refill(dataclasses.replace(made))
    assert len(embedded) == 3


def test_kv_bytes_are_the_caches(nano: Nano) -> None:
    """Three layers keep keys and values of 2 heads x 64 in float32; sliding ones keep 128 positions, full ones 256."""
    engine, token = started(nano, "nano/text/pp40-tg64")
    decoded(engine, token, steps=2)
    kinds = nano[0].config["text_config"]["layer_types"][:3]
    positions = sum(256 if kind == "full_attention" else 128 for kind in kinds)
    held = {type(cache).__name__: cache.keys.shape[2] for cache in engine.cache}
    assert engine.kv_bytes() == sum(2 * 2 * 64 * 4 * cache.keys.shape[2] for cache in engine.cache)
    assert held["RotatingKVCache"] == 128
    assert engine.kv_bytes() <= 2 * 2 * 64 * 4 * positions


def test_logits_that_are_not_finite_are_refused(nano: Nano) -> None:
    """A NaN in the cache reaches the logits, and is found."""
    engine, token = started(nano, "nano/text/pp40-tg64")
    mx.eval(token)
    position = engine.snapshot()
    engine.check_finite(token)
    engine.rewind(position)
    last = next(cache for cache in engine.cache if type(cache).__name__ == "KVCache")
    last.values = last.values * float("nan")
    with pytest.raises(NonFiniteError, match=r"of 2304 logits are NaN or infinite") as caught:
        engine.check_finite(token)
    assert caught.value.remedy
