import time
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma3n_perf.decode import prompt
from gemma3n_perf.decode.decoder import Decoder
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.engines import DEFAULT, ENGINES, mlx_vlm_shaped
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.engines.mlx_vlm_shaped import MlxVlmPrefills, MlxVlmShaped
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import Workload
from tests.decode.fakes import FakeProbe

Nano = tuple[Checkpoint, Any]


def engine_of(nano: Nano, shape: str) -> tuple[MlxVlmEngine, prompt.Prompt]:
    """Return the engine of a shape, and its prompt."""
    workload = Workload.parse(f"nano/text/{shape}")
    made = prompt.make(workload, nano[0])
    return ENGINES[DEFAULT].make(nano[1]).shaped(workload.shape, made), made


def prepared(nano: Nano, shape: str) -> Decoder:
    """Return a prepared decoder of a shape."""
    workload = Workload.parse(f"nano/text/{shape}")
    made = prompt.make(workload, nano[0])
    decoder = Decoder(ENGINES[DEFAULT].make(nano[1]), workload, made, clock=time.perf_counter, device=MlxDevice())
    decoder.prepare()
    return decoder


@pytest.mark.parametrize("shape", ["pp20-tg6-b3", "pp20-tg6-v4", "pp20-tg6-b2-v2-kv8", "pp20-tg6-kv4", "pp20-tg0"])
def test_run_and_rerun_give_the_same_tokens(nano: Nano, shape: str) -> None:
    """Rewinding brings a batch, a verification and a quantized cache back to one position."""
    decoder = prepared(nano, shape)
    for _ in range(3):
        run, tokens = decoder.run(FakeProbe(), built=True, settled=True)
        decoder.same_tokens(tokens)
    assert len(tokens) == run.tokens == decoder.workload.shape.generate
    assert decoder.kv_bytes() > 0


def test_each_row_of_a_batch_decodes_its_own_prompt(nano: Nano) -> None:
    """Row 1 of a batch gives the tokens of its prompt alone, which is the first one turned by a token."""
    batch, made = engine_of(nano, "pp20-tg6-b2")
    token = batch.prefill(made)
    turned = prompt.Prompt(np.roll(made.ids, -1))
    alone = MlxVlmEngine(nano[1])
    single = alone.prefill(turned)
    for _ in range(6):
        assert np.asarray(token)[1, 0] == np.asarray(single)[0]
        token, single = batch.step(token), alone.step(single)


@pytest.mark.parametrize("shape", ["pp20-tg6-v4", "pp126-tg6-v4", "pp140-tg6-v8"])
@pytest.mark.parametrize(("mended", "farthest"), [(True, 1e-3), (False, 0.2)])
def test_a_verification_gives_the_logits_of_as_many_steps(
    nano: Nano, monkeypatch: pytest.MonkeyPatch, shape: str, mended: bool, farthest: float
) -> None:
    """Tokens of one forward have the logits of as many forwards of one, over the sliding window's edge too.

    But for what mlx-vlm itself does otherwise: queries of layers that share KV are rotated further, by the tokens of a
    forward less one. With that mended they are equal; without, the greedy tokens are.
    """
    verifying, made = engine_of(nano, shape)
    drafts = verifying.prefill(made)
    alone = MlxVlmEngine(nano[1])
    mx.eval(drafts, alone.prefill(made))
    shared = [layer.self_attn for layer in nano[1].language_model.layers if layer.self_attn.is_kv_shared_layer]
    assert shared
    if mended:
        attention = type(shared[0])
        original = attention.__call__

        def rotated_as_one_by_one(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
            if self.is_kv_shared_layer:
                cache = SimpleNamespace(state=cache.state, offset=cache.offset - (x.shape[1] - 1))
            return original(self, x, mask, cache)

        monkeypatch.setattr(attention, "__call__", rotated_as_one_by_one)
    together = np.array(verifying.logits(drafts))[0]
    steps = np.stack([np.array(alone.logits(mx.array([int(one)])))[0] for one in np.asarray(drafts)[0]])
    assert np.sqrt(np.mean(np.square(together - steps)) / np.mean(np.square(steps))) < farthest
    assert together.argmax(-1).tolist() == steps.argmax(-1).tolist()


def test_a_quantized_cache_is_smaller(nano: Nano) -> None:
    """Layers of full attention hold 4 bits a value where they held 32."""
    quantized, plain = prepared(nano, "pp200-tg6-kv4"), prepared(nano, "pp200-tg6")
    for decoder in (quantized, plain):
        decoder.run(FakeProbe())
    assert 0 < quantized.kv_bytes() < 0.8 * plain.kv_bytes()


def test_prefills_alone_repeat_the_whole_prompt(nano: Nano) -> None:
    """Every step ends in the prompt's own logits, in an own KV cache of the prompt's length."""
    prefills, made = engine_of(nano, "pp20-tg0")
    assert isinstance(prefills, MlxVlmPrefills)
    token = prefills.prefill(made)
    for _ in range(2):
        token = prefills.step(token)
        mx.eval(token)
        assert {cache.offset for cache in prefills.cache} == {20}
    np.testing.assert_allclose(prefills.last_logits()[0], np.array(MlxVlmEngine(nano[1]).prompt_logits(made))[0], 1e-4)


@pytest.mark.parametrize("shape", ["pp20-tg6-b2", "pp20-tg6-v2", "pp20-tg0"])
def test_where_products_of_rows_are_wrong_several_rows_are_invalid(
    nano: Nano, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """A batch, a verification and a prefill would be wrong; a quantized cache of one row is not concerned."""
    monkeypatch.setattr(mlx_vlm_shaped, "rows_are_right", lambda: False)
    with pytest.raises(InvalidError, match="two rows with K = 64 is wrong"):
        engine_of(nano, shape)
    assert isinstance(engine_of(nano, "pp20-tg6-kv8")[0], MlxVlmShaped)
