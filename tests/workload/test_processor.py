"""The tokenizer and processor that lie beside forged weights, as mlx-vlm loads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx_vlm.prompt_utils import apply_chat_template
from mlx_vlm.utils import load_config, load_processor

from gemma3n_perf.workload import processor
from gemma3n_perf.workload.presets import PRESETS


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Write nano's config and what lies beside it, and load that as ``mlx_vlm.load`` does."""
    import msgspec

    folder, config = tmp_path_factory.mktemp("nano"), PRESETS["nano"].config()
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    for name, text in processor.files(config).items():
        (folder / name).write_bytes(text)
    return load_processor(folder, eos_token_ids=config["eos_token_id"]), load_config(folder)


def test_every_id_is_a_piece_of_its_own(loaded: Any) -> None:
    """Words come back as the ids they were, specials have the released names, and any text is taken byte by byte."""
    tokenizer, config = loaded[0].tokenizer, loaded[1]
    assert len(tokenizer) == config["vocab_size"]
    words = tokenizer.decode([1_500, 1_501, 1_502])
    assert words.split() == ["bagosa", "bagose", "bagosi"]
    assert tokenizer(words)["input_ids"] == [1_500, 1_501, 1_502]
    text = "Zwölf Boxkämpfer\n\u4f60!"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.image_token_id == config["image_token_id"]
    assert tokenizer.audio_token_id == config["audio_token_id"]
    assert [tokenizer.convert_tokens_to_ids(name) for name in ("<bos>", "<end_of_turn>")] == [2, 106]


def test_a_chat_with_an_image_holds_its_soft_tokens(loaded: Any) -> None:
    """mlx-vlm's own template call and processor: 256 places for the image, in an image of the tower's size."""
    from PIL import Image

    prompt = apply_chat_template(loaded[0], loaded[1], "What is this?", num_images=1)
    assert prompt.startswith("<bos><start_of_turn>user")
    assert prompt.endswith("<start_of_turn>model\n")
    made = loaded[0](text=[prompt], images=[Image.new("RGB", (30, 20))])
    assert int((np.array(made["input_ids"]) == loaded[1]["image_token_id"]).sum()) == 256
    assert np.array(made["pixel_values"]).shape == (1, 3, 768, 768)


def test_the_released_vocabulary_is_whole() -> None:
    """262,400 pieces, none twice."""
    vocabulary = processor._tokenizer(PRESETS["e2b-4bit"].config())["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(262_400))
    assert vocabulary["<start_of_image>"] == 255_999
    assert vocabulary["<image_soft_token>"] == 262_145


def test_paths_are_plain_names() -> None:
    """Nothing is written outside the folder."""
    assert all(name == Path(name).name for name in processor.files(PRESETS["nano"].config()))
