"""The other engines on the forged nano: the same greedy tokens, or their own words."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma3n_perf.decode.decoder import Decoder
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.engines import ENGINES, kind_of, requested
from gemma3n_perf.decode.engines.mlx_lm import MlxLm
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmLoop
from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream
from gemma3n_perf.decode.prompt import make
from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile import engines
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import WIDE_ENGINES, Workload, wide
from tests.decode import fakes

IDS = [5, 900, 17, 333]


@pytest.fixture
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Any]:
    """Return nano, inspected and loaded."""
    return fakes.nano_model(tmp_path_factory.getbasetemp())


def test_stream_generate_decodes_what_the_model_loop_does(nano: tuple[Checkpoint, Any]) -> None:
    """mlx-vlm's own generator, with a stand-in for the tokenizer: as many tokens as asked for, and the same."""
    _, model = nano
    wanted = list(MlxVlmLoop(model).stream(IDS, 8))
    assert len(wanted) == 8
    assert len(set(wanted)) > 1
    assert list(MlxVlmStream(model).stream(IDS, 8)) == wanted


@pytest.fixture(params=["stream_generate", "mlx_lm"])
def decoder(request: pytest.FixtureRequest, nano: tuple[Checkpoint, Any]) -> Decoder:
    """Return a decoder by an engine that has a loop of its own, prepared."""
    workload, checkpoint = Workload.parse("nano/text/pp40-tg16"), nano[0]
    kind = ENGINES[request.param]
    engine = kind.make(nano[1] if kind.loader is None else kind.load(checkpoint, with_towers=False))
    found = Decoder(engine, workload, make(workload, checkpoint), clock=time.perf_counter, device=MlxDevice())
    assert found.time_to_first_token() > 0
    found.prepare()
    return found


def test_a_generator_of_an_engines_own_is_timed_in_blocks_that_go_on(decoder: Decoder) -> None:
    """Run and rerun give the same tokens, and so do blocks, the next of which goes on where the generator stands."""
    probe = fakes.FakeProbe()
    first, tokens = decoder.run(probe)
    decoder.same_tokens(tokens)
    assert len(set(tokens)) == len(first.step_s) == 16
    assert decoder.run(probe)[1] == tokens
    blocks = [decoder.run(probe, steps=5, built=True, settled=True, continued=n > 0) for n in range(3)]
    for run, given in blocks:
        assert run.seconds > 0
        assert len(given) == 5
    assert [token for _, given in blocks for token in given] == tokens[:15]
    assert decoder.kv_bytes() > 0
    assert decoder.prefill_reproducible()


def test_a_whole_run_of_a_generator_ends_with_its_log_probabilities(decoder: Decoder) -> None:
    """They stand in for logits: finite, of the whole vocabulary, and highest for the token that was taken."""
    checkpoint_prompt = decoder._prompt
    seconds, tokens = decoder.whole_run(checkpoint_prompt, 8)
    assert seconds > 0
    assert decoder.whole_run(checkpoint_prompt, 8)[1] == tokens
    logits, dtype = decoder.last_logits()
    assert (logits.ndim, dtype) == (1, "float32")
    assert np.isfinite(logits).all()
    assert int(logits.argmax()) == tokens[-1]
    assert np.exp(logits).sum() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nano/text/pp40-tg64@llama", "there is no engine 'llama'"),
        ("nano/text/pp40-tg64@mlx_vlm", "nano/text/pp40-tg64@mlx_vlm is written nano/text/pp40-tg64"),
        ("nano/image/pp296-tg64@mlx_lm", "the engine mlx_lm does not decode image/pp296-tg64"),
        ("nano/text/pp40-tg64-b4@stream_generate", "the engine stream_generate does not decode text/pp40-tg64-b4"),
        ("nano/text/pp40-tg64-kv8@mlx_lm", "the engine mlx_lm does not decode text/pp40-tg64-kv8"),
        ("nano/text/pp40-tg0@stream_generate", "the engine stream_generate does not decode text/pp40-tg0"),
    ],
)
def test_what_an_engine_cannot_decode_is_refused_by_name(text: str, found: str) -> None:
    """Before anything is started, and with what it can."""
    with pytest.raises(UsageError) as caught:
        requested(text)
    assert caught.value.found == found
    assert caught.value.expected


def test_an_arm_may_have_another_engine_than_a_workload_or_fusions_that_it_cannot_take() -> None:
    """Both are refused by name; a workload's engine is every arm's."""
    workload = Workload.parse("nano/text/pp40-tg64@mlx_lm")
    assert kind_of(workload) is ENGINES["mlx_lm"]
    with pytest.raises(UsageError, match="an arm of engine:stream_generate cannot decode"):
        kind_of(workload, "stream_generate")
    with pytest.raises(UsageError, match="has a model of its own, so stacked-altup cannot change it"):
        kind_of(workload, fusions=("stacked-altup",))
    assert kind_of(workload.bare, "stream_generate", ("stacked-altup",)) is ENGINES["stream_generate"]


def test_every_engine_of_the_wide_set_is_one() -> None:
    """They are listed beside the contexts and batches of that set."""
    assert set(WIDE_ENGINES) < set(ENGINES)
    assert {one.engine for one in wide("nano", "cpu")} == {"", *WIDE_ENGINES}


def test_mlx_lm_says_for_itself_whether_it_can(nano: tuple[Checkpoint, Any], tmp_path: Path) -> None:
    """Beside the model loop it either gives the same tokens or its own words; a folder that is none is refused."""
    checkpoint, model = nano
    found = engines.measure(
        [MlxVlmLoop(model), MlxLm(checkpoint.path)], [], [5, 900, 17, 333, 8], Rounds(6, random.Random(1)),
        tokens=3, clock=time.perf_counter,
    ).results[1]  # fmt: skip
    assert found.engine == "mlx-lm"
    assert found.error is None
    assert found.tpot_s is not None
    assert found.first_difference is None
    with pytest.raises(Exception, match="config"):
        MlxLm(tmp_path).load()
