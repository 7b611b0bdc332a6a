"""The other engines on the forged nano: the same greedy tokens, or their own words."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.decode.engines.mlx_lm import MlxLm
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmLoop
from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream
from gemma3n_perf.profile import engines
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.workload.load import Checkpoint
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


def test_mlx_lm_says_for_itself_whether_it_can(nano: tuple[Checkpoint, Any], tmp_path: Path) -> None:
    """Beside the model loop it either gives the same tokens or its own words; a folder that is none is refused."""
    checkpoint, model = nano
    found = engines.measure(
        [MlxVlmLoop(model), MlxLm(checkpoint.path)], [], [5, 900, 17, 333, 8], Rounds(6, random.Random(1)),
        tokens=3, clock=time.perf_counter,
    ).results[1]  # fmt: skip
    assert found.engine == "mlx-lm"
    assert found.error or (found.tpot_s is not None and found.first_difference is None)
    with pytest.raises(Exception, match="config"):
        MlxLm(tmp_path).load()
