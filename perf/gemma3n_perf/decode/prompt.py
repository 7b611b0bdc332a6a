"""The prompt of a workload: fixed token ids, and for an image its 256 soft tokens. Nothing is tokenized."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import IMAGE_TOKENS, Workload

PIXELS = 768
TOWER, FORGED = "vision tower", "forged soft tokens"


@dataclass(frozen=True, slots=True)
class Prompt:
    """``ids`` int32 of shape (prompt,), or (batch, prompt) once an engine has made a batch of it; ``pixels`` float32
    (1, 3, 768, 768); ``soft`` float32 (256, hidden) or None.

    ``soft_tokens`` says where an image's soft tokens come from: the checkpoint's tower, or forged where it has none.
    """

    ids: np.ndarray
    pixels: np.ndarray | None = None
    soft: np.ndarray | None = None
    soft_tokens: str | None = None


def make(workload: Workload, checkpoint: Checkpoint, variant: int = 0) -> Prompt:
    """Build the prompt; equal for equal workload ids and ``variant``, which numbers prompts of one shape.

    Raises UsageError for a prompt beyond the model's range.
    """
    text = checkpoint.config["text_config"]
    total = workload.shape.positions
    if total > checkpoint.max_positions:
        raise UsageError(
            f"{workload} needs {total} positions",
            expected=f"at most {checkpoint.max_positions}, the range of {checkpoint.name}",
            remedy="choose a shorter --shape",
        )
    name = f"{workload.modality}/{workload.shape.prompt}" + (f"/{variant}" if variant else "")
    rng = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    vocabulary = min(text["vocab_size"], text["vocab_size_per_layer_input"])
    ids = rng.integers(min(1_000, vocabulary // 2), vocabulary, workload.shape.prompt, dtype=np.int32)
    if workload.modality == "text":
        return Prompt(ids)
    begin = (workload.shape.prompt - IMAGE_TOKENS) // 2
    if checkpoint.has_vision:
        ids[begin : begin + IMAGE_TOKENS] = checkpoint.config.get("image_token_id", 262_145)
        pixels = rng.random((1, 3, PIXELS, PIXELS), dtype=np.float32)
        return Prompt(ids, pixels=pixels, soft_tokens=TOWER)
    forged = checkpoint.config.get("gemma3n_perf") or {}
    if forged.get("towers", True):
        raise UsageError(
            f"{checkpoint.name} has no vision tower, so it takes no image",
            expected="a checkpoint with vision_tower weights",
            remedy="use --modality text, or a checkpoint that keeps its tower",
        )
    ids[begin : begin + IMAGE_TOKENS] = 0
    soft = rng.standard_normal((IMAGE_TOKENS, text["hidden_size"])).astype(np.float32)
    return Prompt(ids, soft=soft, soft_tokens=FORGED)


def embed(model: Any, prompt: Prompt) -> tuple[Any, Any, Any]:
    """What prefill feeds the language model: ids (batch, n), embeddings (batch, n, hidden), per-layer inputs.

    The embeddings come from mlx-vlm's ``get_input_embeddings``, vision tower included; forged soft
    tokens take the place of rows that it embedded.
    """
    import mlx.core as mx

    ids = mx.atleast_2d(mx.array(prompt.ids))
    pixels = None
    if prompt.pixels is not None:
        # A norm's type: projections may be quantized, and packed weights are integers.
        pixels = mx.array(prompt.pixels).astype(model.embed_vision.soft_embedding_norm.weight.dtype)
    features = model.get_input_embeddings(ids, pixels)
    embeddings = features.inputs_embeds
    if prompt.soft is not None:
        soft = mx.array(prompt.soft).astype(embeddings.dtype)[None]
        begin = (len(prompt.ids) - IMAGE_TOKENS) // 2
        embeddings = mx.concatenate([embeddings[:, :begin], soft, embeddings[:, begin + IMAGE_TOKENS :]], axis=1)
    return ids, embeddings, features.per_layer_inputs
