import io
import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.history.findings import ROTATIONS
from studies import shared_rope

TOKENS = mx.arange(1, 33)[None]


def test_with_right_positions_a_forward_of_several_tokens_is_as_many_of_one(nano_model: Any) -> None:
    """Without, each token's logits are off, the more the longer the forward is; nothing stays patched."""
    attention = type(nano_model.language_model.model.layers[-1].self_attn)
    before = attention.__call__
    one, four = shared_rope.compare(nano_model, TOKENS, (1, 4))
    assert attention.__call__ is before
    for row in (one, four):
        assert float(row["mended"]) < 1e-4
    assert 0 < float(one["off"].removesuffix(" %")) < float(four["off"].removesuffix(" %"))


def test_a_release_takes_the_place_of_what_it_gave_before(nano_model: Any, tmp_path: Path) -> None:
    """Rows of other releases are kept."""
    path = tmp_path / detect().chip_class / ROTATIONS
    path.parent.mkdir()
    other = {"mlx_vlm": "0.1", "tokens": 2, "off": "1.0 %", "mended": "1e-06", "greedy": True}
    path.write_text(json.dumps([other]))
    for _ in range(2):
        out = io.StringIO()
        assert shared_rope.main(["--baselines", str(tmp_path)], out, lambda root: (nano_model, TOKENS)) == 0
    kept = json.loads(path.read_bytes())
    assert kept[0] == other
    assert [one["tokens"] for one in kept[1:]] == [1, 2, 4, 8, 32]
    assert out.getvalue().count("with right positions") == 5
