"""Checkpoints as converters write them: each is inspected, loaded and decoded; each passes ``pytest perf/``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.decode import graph
from gemma3n_perf.decode.prompt import embed, make
from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload import load, skeleton
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload
from tests.pytest_plugin.test_real import session
from tests.workload import converted

QUICK = ("mixed-bits", "mxfp4")
"""Those that ``pytest perf/`` is tried on in every run of the tests; the others are slow."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOWER_S = 1800
"""What a session may take whose prompt is an image: six minutes of one core, and others compute beside it."""


@pytest.mark.parametrize("style", converted.STYLES)
def test_what_converters_write_loads_and_decodes(tmp_path: Path, style: str) -> None:
    """It is proved whole from its headers, its logits are finite, and the graph is counted of the same model."""
    folder = converted.write(tmp_path / style, converted.STYLES[style])
    found = load.inspect(str(folder), tmp_path)
    model = load.load(found, with_towers=False)
    logits = model.language_model(mx.array([[5, 6, 7]]), cache=model.language_model.make_cache()).logits
    assert bool(mx.isfinite(logits).all().item())
    loaded = {tensor.name for tensor in skeleton.tensors(model.language_model)}
    assert {tensor.name for tensor in skeleton.tensors(skeleton.build(found.config).language_model)} == loaded
    counted = graph.count(load.config_of(str(folder), tmp_path), position=8)
    packed = {name for name in loaded if name.endswith(".scales")}
    assert (counted.calls.get("quantized_matmul", 0) > 0) == bool(packed)
    assert counted.bytes == found.bytes
    assert not load.takes_images(str(folder), tmp_path)


@pytest.mark.parametrize(
    "style", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in converted.STYLES]
)
def test_the_suite_passes_on_what_converters_write(tmp_path: Path, style: str) -> None:
    """As a user types it, with the defaults of the checkpoint but for the number of runs."""
    folder = converted.write(tmp_path / style, converted.STYLES[style])
    done = session(tmp_path, "--checkpoint", str(folder), "--runs", "2")
    assert done.code == 0, done.out + done.err
    assert f"{style}/text/pp4-tg4" in done.out
    assert "image" not in done.out


def test_pixels_are_floating_where_embedders_are_quantized(tmp_path: Path) -> None:
    """They take a norm's type, for packed weights are integers. The tower alone is a stand-in."""
    preset = replace(PRESETS["nano"], towers=True, dtype="bfloat16")
    model, seen = skeleton.build(preset.config()), list[mx.Dtype]()
    assert model.embed_vision.embedding_projection.weight.dtype == mx.uint32

    def tower(pixels: mx.array, **_: Any) -> mx.array:
        seen.append(pixels.dtype)
        return mx.ones((1, 16, 16, 2048), dtype=pixels.dtype)

    model.vision_tower = tower
    sizes = {"vision": 1}
    found = load.Checkpoint("nano", tmp_path, preset.config(), "", sizes)
    _, embeddings, _ = embed(model, make(Workload.parse("nano/image/pp260-tg4"), found))
    assert seen == [mx.bfloat16]
    assert bool(mx.isfinite(embeddings).all().item())


@pytest.mark.slow
def test_the_suite_passes_on_a_checkpoint_with_towers(tmp_path: Path) -> None:
    """An image prompt, through the tower and its quantized embedder; every logit after it is finite.

    mlx's wheel for CPUs multiplies by the reference BLAS: the tower takes minutes, and runs once.
    """
    towers = converted.write(tmp_path / "whole", converted.TOWERS)
    found = load.inspect(str(towers), tmp_path)
    assert found.has_vision
    assert load.takes_images(str(towers), tmp_path)
    packed = load.load(found, with_towers=True).embed_vision.embedding_projection.weight
    assert packed.dtype == mx.uint32
    shape = ("--modality", "image", "--shape", "pp260-tg4")
    done = session(
        tmp_path, "--checkpoint", str(towers), *shape, "--runs", "2", "-k", "decode or graph", limit_s=TOWER_S
    )
    assert done.code == 0, done.out + done.err
    assert "whole/image/pp260-tg4" in done.out


def test_an_image_asked_of_a_text_only_checkpoint_is_refused(tmp_path: Path) -> None:
    """It has no tower; the remedy says so."""
    folder = converted.write(tmp_path / "text-only", converted.STYLES["4bit"])
    found = load.inspect(str(folder), tmp_path)
    with pytest.raises(UsageError, match="no vision tower"):
        make(Workload.parse("text-only/image/pp260-tg4"), found)


def test_a_folder_of_the_hubs_cache_is_named_by_model_and_revision(tmp_path: Path) -> None:
    """As the hub id at that revision is: one workload, however it was given. Its files are links."""
    repository = tmp_path / "models--mlx-community--gemma-3n-E2B-it-4bit"
    blobs = converted.write(repository / "blobs", converted.STYLES["4bit"])
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    found = load.inspect(str(snapshot), tmp_path)
    assert found.name == "gemma-3n-e2b-it-4bit-01234567"
    assert load.load(found, with_towers=False) is not None


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abcd", COMMIT.upper(), COMMIT + "0"])
def test_a_revision_is_a_whole_commit(tmp_path: Path, revision: str) -> None:
    """A branch or a tag moves, a short commit may come to name two."""
    with pytest.raises(UsageError, match="names no commit") as caught:
        load.locate(f"google/gemma-3n-E2B-it@{revision}", tmp_path)
    assert "40 hexadecimal digits" in str(caught.value.expected)
    assert "google/gemma-3n-E2B-it@COMMIT" in str(caught.value.remedy)
