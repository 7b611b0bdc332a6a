import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import mlx.core as mx
import numpy as np
import psutil
import pytest

from gemma3n_perf.errors import (
    CheckpointMissingError,
    CorruptCheckpointError,
    NonFiniteError,
    OutOfMemoryError,
    PerfError,
    UsageError,
)
from gemma3n_perf.workload import forge, load, skeleton
from gemma3n_perf.workload.finite import finite_on_cpu
from gemma3n_perf.workload.presets import PRESETS
from tests.decode.fakes import INDEX, SHARD, edit_config, edit_header

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LAYER = "language_model.model.layers.1"


def loaded(folder: Path) -> Any:
    """Inspect and load a folder without towers."""
    return load.load(load.inspect(str(folder), folder.parent), with_towers=False)


def test_nano_loads_through_mlx_vlm(nano_root: Path) -> None:
    """The preset is found by name; its parts, range and missing tower are told without reading weights."""
    found = load.inspect("nano", nano_root)
    assert found.name == "nano"
    assert not found.has_vision
    assert found.max_positions == 32_768
    assert found.bytes["total"] == forge.size(PRESETS["nano"])
    assert found.bytes["streamed"] > found.bytes["per_layer_embedding"] > found.bytes["vision"] == 0
    model = load.load(found, with_towers=False)
    assert type(model).__module__ == "mlx_vlm.models.gemma3n.gemma3n"
    assert len(model.language_model.layers) == 6


def test_loaded_weights_are_the_stored_ones(nano_root: Path) -> None:
    """Nothing is shuffled or converted on the way but the types that are said."""
    stored: Any = mx.load(str(nano_root / "nano-v2" / SHARD))
    model = loaded(nano_root / "nano-v2")
    have = dict(skeleton.named_arrays(model.parameters()))
    for name in (f"{LAYER}.mlp.up_proj.weight", f"{LAYER}.self_attn.q_norm.weight", "language_model.model.norm.weight"):
        assert mx.array_equal(have[name], stored[name]).item()


def test_on_a_cpu_weights_are_float32(tmp_path: Path) -> None:
    """bfloat16 is cast, but for the per-layer embedding, of which a token reads one row."""
    preset = replace(PRESETS["nano"], dtype="bfloat16")
    folder = forge.forge(preset, tmp_path, progress=lambda written: None)
    model = loaded(folder)
    kinds = {
        (str(a.dtype), "embed_tokens_per_layer" in name)
        for name, a in skeleton.named_arrays(model.language_model.parameters())
        if a.dtype != mx.uint32
    }
    assert kinds == {("mlx.core.float32", False), ("mlx.core.bfloat16", True)}
    logits = model.language_model(mx.array([[5]]), cache=model.make_cache()).logits
    assert logits.dtype == mx.float32


def test_a_preset_that_is_not_forged_says_how(tmp_path: Path) -> None:
    """The remedy is the command."""
    with pytest.raises(CheckpointMissingError, match="nano is not forged") as caught:
        load.inspect("nano", tmp_path)
    assert caught.value.expected == f"a folder {tmp_path / 'nano-v2'}"
    assert caught.value.remedy == "gemma3n-perf forge nano"


def test_a_folder_is_named_by_its_last_part(nano_copy: Path) -> None:
    """The name fits a workload id, whatever the folder is called."""
    odd = nano_copy.rename(nano_copy.with_name("My Gemma (4 bit)"))
    assert load.inspect(str(odd), nano_copy.parent).name == "my-gemma--4-bit"


@pytest.mark.parametrize("name", ["", "nan", "./nope", "~nobody-of-that-name/x", "a/b/c", "x" * 5_000, "a\0b"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    """The error lists what a checkpoint may be."""
    with pytest.raises(UsageError, match="there is no checkpoint") as caught:
        load.locate(name, tmp_path)
    assert "e2b-4bit, e4b-4bit" in str(caught.value.expected)
    assert "ORG/MODEL@REVISION" in str(caught.value.expected)


@pytest.mark.parametrize("name", ["google/gemma-3n-E2B-it", "google/gemma-3n-E2B-it@"])
def test_a_hub_id_without_a_revision_is_refused(tmp_path: Path, name: str) -> None:
    """A branch moves, and a moved checkpoint is another workload."""
    with pytest.raises(UsageError, match=r"names no (revision|commit)") as caught:
        load.locate(name, tmp_path)
    assert "@COMMIT" in str(caught.value.remedy)


def test_an_unreachable_hub_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline and not in the hub's cache: the error names repository, revision and the variable."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointMissingError, match=rf"nobody/nothing at {COMMIT} cannot be had") as caught:
        load.inspect(f"nobody/nothing@{COMMIT}", tmp_path)
    assert "HF_HUB_OFFLINE" in str(caught.value.remedy)
    assert caught.value.__cause__ is not None
    assert caught.value.exit_code == 4


def test_a_hub_snapshot_takes_the_same_path(nano_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub delivers is inspected like any folder, and named by model and revision."""
    asked: dict[str, Any] = {}

    def snapshot(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(nano_copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = load.inspect(f"Org/Some-Model@{COMMIT}", nano_copy.parent)
    assert (found.name, found.path) == ("some-model-01234567", nano_copy)
    assert (asked["repository"], asked["revision"]) == ("Org/Some-Model", COMMIT)


def cut(folder: Path) -> None:
    """Lose the last kilobyte."""
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:-1024])


def lie(folder: Path) -> None:
    """Let one norm read another one's bytes."""
    edit_header(
        folder,
        lambda header, data: header[f"{LAYER}.self_attn.q_norm.weight"].update(
            data_offsets=header[f"{LAYER}.self_attn.k_norm.weight"]["data_offsets"]
        ),
    )


def scribble(folder: Path) -> None:
    """Overwrite the header."""
    with (folder / SHARD).open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 64)


def lose_shard(folder: Path) -> None:
    """Remove the weights."""
    (folder / SHARD).unlink()


def lose_config(folder: Path) -> None:
    """Remove the config."""
    (folder / "config.json").unlink()


def alien(folder: Path) -> None:
    """Claim to be another model."""
    edit_config(folder, lambda config: config.update(model_type="llama"))


def bad_json(folder: Path) -> None:
    """Cut the config in half."""
    path = folder / "config.json"
    path.write_bytes(path.read_bytes()[:100])


def binary_config(folder: Path) -> None:
    """Write a config that is no text."""
    (folder / "config.json").write_bytes(b'{"\xff\xfe": 1}')


def list_config(folder: Path) -> None:
    """Write JSON of another form."""
    (folder / "config.json").write_text("[1]")


def folder_config(folder: Path) -> None:
    """Put a folder where the config belongs."""
    lose_config(folder)
    (folder / "config.json").mkdir()


def drop(folder: Path) -> None:
    """Store the model's last norm under another name."""
    edit_header(folder, lambda header, data: header.update(alien=header.pop("language_model.model.norm.weight")))


def reshape(folder: Path) -> None:
    """Store a matrix in another shape of the same size."""
    edit_header(folder, lambda header, data: header[f"{LAYER}.mlp.up_proj.weight"].update(shape=[256, 64]))


def retype(folder: Path) -> None:
    """Call packed integers floating-point numbers."""
    edit_header(folder, lambda header, data: header[f"{LAYER}.mlp.up_proj.weight"].update(dtype="F32"))


def other_dimensions(folder: Path) -> None:
    """Give the config another width than the weights."""
    edit_config(folder, lambda config: config["text_config"].update(intermediate_size=[1024] * 6))


def more_layers(folder: Path) -> None:
    """Give the config one layer more than there is."""
    edit_config(
        folder,
        lambda config: config["text_config"].update(
            num_hidden_layers=7,
            layer_types=[*config["text_config"]["layer_types"], "sliding_attention"],
            intermediate_size=[512] * 7,
            activation_sparsity_pattern=[0.95] * 2 + [0.0] * 5,
        ),
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, SHARD),
        (lie, "q_norm|k_norm"),
        (scribble, "its header does not parse"),
        (lose_shard, "1 of 1 weight files are missing"),
        (lose_config, r"has no config\.json"),
        (alien, "model_type 'llama'"),
        (bad_json, r"config\.json does not parse"),
        (binary_config, r"config\.json does not parse"),
        (list_config, r"config\.json does not parse"),
        (folder_config, r"config\.json does not parse"),
        (drop, r"lacks 1 of the \d+ tensors of the language model, first language_model\.model\.norm\.weight"),
        (reshape, r"layers\.1\.mlp\.up_proj\.weight is uint32 of shape \[256, 64\] \(1 tensors differ\)"),
        (retype, r"layers\.1\.mlp\.up_proj\.weight is float32 of shape \[512, 32\]"),
        (other_dimensions, r"layers\.0\.mlp\.down_proj\.biases is float32 of shape \[256, 8\] \(54 tensors differ\)"),
        (more_layers, r"first language_model\.model\.embed_tokens_per_layer|first language_model\.model\.layers\.6"),
    ],
)
def test_damage_is_named_before_anything_is_loaded(
    nano_copy: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Inspection alone names the file or tensor, what it should be and what to do."""
    damage(nano_copy)
    with pytest.raises(CorruptCheckpointError, match=message) as caught:
        load.inspect(str(nano_copy), nano_copy.parent)
    assert caught.value.expected
    assert caught.value.remedy
    assert caught.value.exit_code == 5


def test_a_tensor_that_no_model_knows_is_named(nano_copy: Path) -> None:
    """mlx-vlm refuses it, and its words are kept."""

    def add(header: dict[str, Any], data: bytearray) -> None:
        header["language_model.model.alien.weight"] = {
            "dtype": "F32",
            "shape": [2],
            "data_offsets": [len(data), len(data) + 8],
        }
        data += bytes(8)

    edit_header(nano_copy, add)
    with pytest.raises(CorruptCheckpointError, match=r"mlx-vlm cannot load .*language_model\.model\.alien\.weight"):
        loaded(nano_copy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", [f"{LAYER}.mlp.up_proj.scales", "language_model.model.norm.weight"])
def test_weights_that_are_not_finite_are_refused(nano_copy: Path, tensor: str, value: float) -> None:
    """One NaN or infinity in a scale or a norm is found and the tensor named."""

    def poison(header: dict[str, Any], data: bytearray) -> None:
        begin, end = header[tensor]["data_offsets"]
        struct.pack_into("<f", data, (begin + end) // 8 * 4, value)

    edit_header(nano_copy, poison)
    with pytest.raises(NonFiniteError, match="1 tensors hold NaN or infinity") as caught:
        loaded(nano_copy)
    assert tensor.removeprefix("language_model.") in caught.value.found
    assert caught.value.remedy == "fetch the checkpoint again"


def test_bfloat16_weights_that_are_not_finite_are_refused() -> None:
    """Only the exponent's bits decide, and large finite values pass."""
    finite = mx.array([3.0e38, -3.0e38, 0.0, 1e-40]).astype(mx.bfloat16)
    assert finite_on_cpu(finite)
    for bad in (np.nan, np.inf, -np.inf):
        assert not finite_on_cpu(mx.concatenate([finite, mx.array([bad]).astype(mx.bfloat16)]))


def test_a_checkpoint_beyond_this_machine_is_refused_unread(nano_root: Path) -> None:
    """A load that must swap is no measurement."""
    found = load.inspect("nano", nano_root)
    huge = replace(found, bytes=found.bytes | {"streamed": 2 * psutil.virtual_memory().total})
    with pytest.raises(OutOfMemoryError, match="nano needs") as caught:
        load.load(huge, with_towers=False)
    assert "smaller checkpoint" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("[malloc] Unable to allocate 17179869184 bytes."), OutOfMemoryError),
        (RuntimeError("[METAL] Command buffer execution failed: out of memory"), OutOfMemoryError),
        (ValueError("Missing 3 parameters:\na,\nb"), CorruptCheckpointError),
        (KeyError(), CorruptCheckpointError),
    ],
)
def test_a_failed_load_is_explained(nano_root: Path, error: Exception, kind: type[PerfError]) -> None:
    """Memory is told apart from a bad checkpoint by what MLX says."""
    found = load._explain(error, load.inspect("nano", nano_root))
    assert type(found) is kind
    assert found.remedy


def test_the_loader_is_quiet_and_leaves_logging_as_it_was(nano_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """mlx-vlm's warning of missing towers is expected here; later warnings are heard."""
    import logging

    loaded(nano_root / "nano-v2")
    assert not caplog.records
    logging.getLogger("after").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_the_config_of_a_preset_needs_no_files(tmp_path: Path) -> None:
    """Graphs are counted from it alone; a folder's config is checked as inspection would."""
    assert load.config_of("e4b-4bit", tmp_path)["text_config"]["num_hidden_layers"] == 35
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CorruptCheckpointError, match="model_type 'llama'"):
        load.config_of(str(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3n"}')
    with pytest.raises(CorruptCheckpointError, match="lacks num_hidden_layers"):
        load.config_of(str(tmp_path), tmp_path)


def test_the_index_may_be_missing(nano_copy: Path) -> None:
    """One file needs none."""
    (nano_copy / INDEX).unlink()
    assert loaded(nano_copy).language_model is not None


def test_hugging_face_names_are_understood() -> None:
    """The released files say model.language_model.layers where mlx-vlm says language_model.model.layers."""
    assert load._canonical_name("model.language_model.layers.0.x") == "language_model.model.layers.0.x"
    assert load._canonical_name("model.vision_tower.x") == "vision_tower.x"
    assert load._canonical_name("language_model.model.x") == "language_model.model.x"
