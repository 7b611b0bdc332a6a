from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from gemma3n_perf.decode import prompt
from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import IMAGE_TOKENS, Workload

TEXT = Workload.parse("nano/text/pp40-tg64")
IMAGE = Workload.parse("nano/image/pp296-tg64")


def checkpoint(name: str, vision: int) -> Checkpoint:
    """Return a checkpoint of a preset's config that stores a tower of some size."""
    parts = {"streamed": 1, "per_layer_embedding": 1, "vision": vision, "audio": 0, "total": 2}
    return Checkpoint(name, Path(name), PRESETS[name].config(), "digest", parts)


def test_equal_ids_give_equal_prompts(nano: tuple[Checkpoint, Any]) -> None:
    """Another process, another day: the same tokens, and another prompt length gives others."""
    first, second = prompt.make(TEXT, nano[0]), prompt.make(Workload.parse(str(TEXT)), nano[0])
    assert first.ids.dtype == np.int32
    assert first.ids.shape == (40,)
    assert np.array_equal(first.ids, second.ids)
    assert first.ids[:8].tolist() == [1268, 2016, 1969, 1602, 1618, 1812, 1479, 1562]
    longer = prompt.make(Workload.parse("nano/text/pp140-tg64"), nano[0])
    assert longer.ids[:40].tolist() != first.ids.tolist()


def test_text_ids_are_known_words(nano: tuple[Checkpoint, Any]) -> None:
    """Ids stay below both vocabularies and clear of the special ones; a text prompt holds no image."""
    made = prompt.make(Workload.parse("nano/text/pp140-tg64"), nano[0])
    assert made.ids.min() >= 1_000
    assert made.ids.max() < 2_048
    assert len(set(made.ids.tolist())) > 100
    assert (made.pixels, made.soft, made.soft_tokens) == (None, None, None)


def test_an_image_goes_through_the_tower_where_there_is_one() -> None:
    """256 image tokens in the middle, pixels for mlx-vlm's tower, nothing forged."""
    made = prompt.make(Workload.parse("e2b-4bit/image/pp320-tg64"), checkpoint("e2b-4bit", vision=1))
    places = np.flatnonzero(made.ids == 262_145)
    assert places.tolist() == list(range(32, 32 + IMAGE_TOKENS))
    assert made.pixels is not None
    assert made.pixels.shape == (1, 3, 768, 768)
    assert made.pixels.dtype == np.float32
    assert made.soft is None
    assert made.soft_tokens == "vision tower"


def test_forged_soft_tokens_are_said(nano: tuple[Checkpoint, Any]) -> None:
    """nano has no tower: its 256 soft tokens are forged, the same every time, and named as forged."""
    made, again = prompt.make(IMAGE, nano[0]), prompt.make(IMAGE, nano[0])
    assert made.soft_tokens == "forged soft tokens"
    assert made.pixels is None
    assert made.soft is not None
    assert again.soft is not None
    assert made.soft.shape == (IMAGE_TOKENS, 256)
    assert made.soft.dtype == np.float32
    assert np.array_equal(made.soft, again.soft)


def test_an_image_for_a_checkpoint_without_a_tower_is_refused() -> None:
    """A released checkpoint that lost its tower takes no image, and none is made up."""
    with pytest.raises(UsageError, match="e2b-4bit has no vision tower") as caught:
        prompt.make(Workload.parse("e2b-4bit/image/pp320-tg64"), checkpoint("e2b-4bit", vision=0))
    assert "--modality text" in str(caught.value.remedy)
    real = checkpoint("nano", vision=0)
    real.config.pop("gemma3n_perf")
    with pytest.raises(UsageError, match="has no vision tower"):
        prompt.make(IMAGE, real)


def test_positions_beyond_the_range_are_refused(nano: tuple[Checkpoint, Any]) -> None:
    """Prompt, warm tokens and generated tokens together must fit: 40 + 4 + 64."""
    config = nano[0].config

    def limited(positions: int) -> Checkpoint:
        text = config["text_config"] | {"max_position_embeddings": positions}
        return replace(nano[0], config=config | {"text_config": text})

    assert len(prompt.make(TEXT, limited(108)).ids) == 40
    with pytest.raises(UsageError, match="needs 108 positions") as caught:
        prompt.make(TEXT, limited(107))
    assert caught.value.expected == "at most 107, the range of nano"


def test_embedding_is_mlx_vlms_own(nano: tuple[Checkpoint, Any]) -> None:
    """A text prompt is embedded as mlx-vlm embeds it."""
    found, model = nano
    made = prompt.make(TEXT, found)
    ids, embeddings, per_layer = prompt.embed(model, made)
    own = model.get_input_embeddings(mx.array(made.ids)[None], None)
    assert ids.shape == (1, 40)
    assert mx.array_equal(embeddings, own.inputs_embeds).item()
    assert mx.array_equal(per_layer, own.per_layer_inputs).item()


def test_soft_tokens_take_the_place_of_their_rows(nano: tuple[Checkpoint, Any]) -> None:
    """The 256 rows in the middle are the image's, the text around them is embedded as ever."""
    found, model = nano
    made = prompt.make(IMAGE, found)
    _, embeddings, per_layer = prompt.embed(model, made)
    assert made.soft is not None
    assert embeddings.shape == (1, 296, 256)
    assert per_layer.shape[:2] == (1, 296)
    assert np.array_equal(np.asarray(embeddings[0, 20:276]), made.soft)
    plain = prompt.embed(model, replace(made, soft=None))[1]
    for rows in (slice(0, 20), slice(276, 296)):
        assert mx.array_equal(embeddings[:, rows], plain[:, rows]).item()


def test_pixels_of_a_quantized_embedder_are_floating_point() -> None:
    """Converters pack its projection into integers; the tower takes the type of a norm, which they leave alone."""
    projection = nn.QuantizedLinear(64, 64)
    norm = nn.RMSNorm(64)
    norm.weight = norm.weight.astype(mx.bfloat16)
    seen: list[mx.array] = []

    def embeddings(ids: mx.array, pixels: mx.array) -> Any:
        seen.append(pixels)
        return SimpleNamespace(inputs_embeds=mx.zeros((1, 296, 64)), per_layer_inputs=None)

    embedder = SimpleNamespace(embedding_projection=projection, soft_embedding_norm=norm)
    model = SimpleNamespace(embed_vision=embedder, get_input_embeddings=embeddings)
    prompt.embed(model, prompt.make(IMAGE, checkpoint("e2b-4bit", 1)))
    assert projection.weight.dtype == mx.uint32
    assert seen[0].dtype == mx.bfloat16
