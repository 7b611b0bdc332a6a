"""What a forged tensor holds: seeded, tame, and the same bytes everywhere.

Tame means that all right programs decode the same tokens, and that a wrong one shows in its logits. A token's embedding
is a circular shift of a random vector, and the planes of AltUp but the first are unembedded one shift further: the
token's successor is known by construction and leads by far. Every branch adds a fixed part of the residual, so that
leaving one out moves the logits further than rounding does, and no rounding grows much on its way through the layers.

mlx-vlm feeds a prompt's embeddings unscaled, so there the planes hold what the layers add, which is not shifted as
their own input is. Both parts are unembedded: the successor leads after a prompt as well.

Every value comes from integer arithmetic and one exact float32 product.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gemma3n_perf.workload.skeleton import Tensor

CHUNK_BYTES = 1 << 24
LEAD = 20.0
"""A token's logit for itself, before planes are mixed and logits are capped."""

BRANCH = (0.08, 0.12)
"""What a branch of the first and of the last layer adds to the residual, as a part of it: it rises, for what an early
layer adds has more layers to grow in."""

BRANCHES = {
    "post_attention_layernorm": 1.0,
    "post_feedforward_layernorm": 1.0,
    "post_laurel_norm": 0.5,
    "post_per_layer_input_norm": 0.5,
}
"""The norms that size the branches, and how much of ``BRANCH`` each is."""

ATTENTION = 1.0
"""Standard deviation of the attention's logits."""

ROUTER, PREDICTION, CORRECTION = 1.0, 0.03, 0.2
"""Size of AltUp's router, and of the coefficients that it makes."""

SHIFTS = (3, 7, 11)
"""By how much each plane after the first is shifted against it; all differ, so that exchanging two of them shows."""

_LEVELS = 16
"""Levels of a tensor that is rolled, in however many bits they are packed."""


def _rms(levels: int) -> float:
    """Root mean square of so many levels, 1 apart and symmetric around 0."""
    return math.sqrt((levels**2 - 1) / 12)


_BYTE_RMS, _NIBBLE_RMS = _rms(256), _rms(_LEVELS)


@dataclass(frozen=True, slots=True)
class Fill:
    """How one tensor is filled: ``constant`` everywhere, or with symmetric noise of root mean square ``rms``.

    With ``rolled``, noise makes one row in as many as a row is wide, and each row in between is the one before it,
    shifted by a place. With ``shifts``, the tensor is a square matrix that adds up its input, moved by each of them.
    ``bits`` are those of a packed weight, 0 where it is none.
    """

    bits: int = 0
    constant: float | None = None
    rms: float = 0.0
    rolled: bool = False
    shifts: tuple[int, ...] = ()


def fills(stored: list[Tensor], text: dict[str, Any]) -> dict[str, Fill]:
    """How each of ``stored`` is filled, by name; ``text`` is the text_config. Groups of packed weights are of 64."""
    by_name = {tensor.name: tensor for tensor in stored}
    found = {}
    for tensor in stored:
        module, _, kind = tensor.name.rpartition(".")
        scales = by_name.get(f"{module}.scales")
        bits = by_name[f"{module}.weight"].shape[-1] * 32 // (scales.shape[-1] * 64) if scales else 0
        if kind in ("scales", "biases"):
            weight = _matrix(by_name[f"{module}.weight"], text, bits)
            levels = _LEVELS if weight.rolled else 2**bits
            step = 1.0 if weight.shifts else _short(weight.rms / _rms(levels))
            lowest = 0.0 if weight.shifts else -(levels - 1) / 2 * step
            found[tensor.name] = Fill(constant=step if kind == "scales" else lowest)
        elif len(tensor.shape) > 1:
            found[tensor.name] = _matrix(tensor, text, bits)
        else:
            found[tensor.name] = Fill(constant=0.0 if kind in ("bias", "per_dim_scale") else _vector(tensor.name, text))
    return found


def _vector(name: str, text: dict[str, Any]) -> float:
    hidden: int = text["hidden_size"]
    layers: int = text["num_hidden_layers"]
    # Of the residual: an embedding's root mean square times the root of its length.
    size = _short(LEAD / hidden / _NIBBLE_RMS) * _NIBBLE_RMS * math.sqrt(hidden)
    part = _part(name, *BRANCHES, "input_layernorm", "q_norm", "router_norm", "correct_output_scale", "gamma")
    match part:
        case "input_layernorm":
            return size * (math.sqrt(2) - 1)  # LAUREL's (x + normed x) / sqrt 2 then keeps the residual's size
        case "q_norm":
            return float(ATTENTION / math.sqrt(text["head_dim"]))
        case "router_norm":
            return float(ROUTER * hidden)
        case "correct_output_scale":
            return 1 / size
        case "gamma":
            return 0.1
        case "":
            return 1.0
    depth = int(name.split(".layers.")[1].partition(".")[0]) / max(layers - 1, 1)
    return size * BRANCHES[part] * (BRANCH[0] + (BRANCH[1] - BRANCH[0]) * depth)


def _matrix(tensor: Tensor, text: dict[str, Any], bits: int) -> Fill:
    """Noise that keeps its input's size, but for what makes successors and for what has a size of its own."""
    owner, _, index = tensor.name.removesuffix(".weight").rpartition(".")
    if owner.endswith(".altup_projections"):
        return Fill(bits, shifts=(SHIFTS[int(index)],))
    if owner.endswith(".altup_unembed_projections"):
        return Fill(bits, shifts=(1 - SHIFTS[int(index)], 1))
    width = math.prod(tensor.shape[1:]) if len(tensor.shape) == 4 else tensor.shape[-1]
    width = width * 32 // bits if bits else width
    gains = {
        "embed_tokens": LEAD / math.sqrt(text["hidden_size"]),
        "embed_tokens_per_layer": math.sqrt(text["num_hidden_layers"]),  # its rows hold one input for each layer
        "prediction_coefs": PREDICTION,
        "correction_coefs": CORRECTION,
        "gate_proj": 1.5,
    }
    part = _part(tensor.name, *gains)
    return Fill(bits, rms=gains.get(part, 1.0) / math.sqrt(width), rolled=part == "embed_tokens")


def _part(name: str, *parts: str) -> str:
    return next((part for part in parts if part in name.split(".")), "")


def chunks(tensor: Tensor, fill: Fill, seed: int) -> Iterator[bytes]:
    """The tensor's bytes in pieces of a few MiB. The stream depends on seed, name and fill alone."""
    name = hashlib.sha256(f"{seed}:{tensor.name}".encode()).digest()
    noise = np.random.SFC64(int.from_bytes(name[:16], "little"))
    if fill.rolled or fill.shifts:
        yield from _rolled(tensor, fill, noise)
        return
    if fill.constant is None:
        # Bytes -> 256 symmetric levels: a table look-up, exact on every machine.
        table = _levels(fill.rms / _BYTE_RMS, 256, tensor.dtype)
    else:
        item = _encode(np.array([fill.constant], dtype=np.float32), tensor.dtype).tobytes()
    for begin in range(0, tensor.nbytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, tensor.nbytes - begin)
        if fill.constant is not None:
            yield item * (size // len(item))
            continue
        count = size if tensor.dtype == "uint32" else size // table.itemsize
        raw = noise.random_raw(-(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:count]
        yield raw.tobytes() if tensor.dtype == "uint32" else table[raw].tobytes()


def _rolled(tensor: Tensor, fill: Fill, noise: np.random.SFC64) -> Iterator[bytes]:
    """Rows of 16 levels, each the one before it shifted by a place; a new one every ``width`` rows.

    Packed ones have 4 or 8 bits.
    """
    rows, width = tensor.shape[0], tensor.shape[1] * (32 // fill.bits if fill.bits else 1)
    levels = np.arange(_LEVELS, dtype=np.uint8) if fill.bits else _encode(np.arange(16, dtype="<f4"), tensor.dtype)
    for begin in range(0, rows, width):
        if fill.shifts:
            row = np.zeros(width, dtype=np.uint8)
            row[[-shift % width for shift in fill.shifts]] = 1
        else:
            # Each level as often as another: embeddings are of one length, and the residual starts at a size it keeps.
            row = (np.argsort(noise.random_raw(width), kind="stable") % _LEVELS).astype(np.uint8)
            if not fill.bits:
                levels = _levels(_short(fill.rms / _NIBBLE_RMS), _LEVELS, tensor.dtype)
        twice = np.concatenate([row, row, row[:1]])
        starts = width - np.arange(min(width, rows - begin))  # row r is twice[width - r : 2 * width - r]
        if fill.bits == 4:
            # Packed from even and from odd places: any shift is then a stretch of bytes of one of the two.
            pairs = np.stack([twice[k : k + 2 * width : 2] | twice[k + 1 : k + 2 * width : 2] << 4 for k in (0, 1)])
            yield sliding_window_view(pairs, width // 2, axis=1)[starts % 2, starts // 2].tobytes()
        else:
            yield sliding_window_view(levels[twice], width)[starts].tobytes()


def _levels(step: float, count: int, dtype: str) -> np.ndarray:
    """``count`` values, ``step`` apart, symmetric around 0."""
    return _encode((np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)) * np.float32(step), dtype)


def _encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values that bfloat16 holds, in either type, so that programs in both compute with the same weights."""
    short = _to_bfloat16(values)
    return short if dtype == "bfloat16" else (short.astype("<u4") << 16).view("<f4")


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits: np.ndarray = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded: np.ndarray = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2")


def _short(value: float) -> float:
    """``value`` to four significant bits: bfloat16 then holds -7.5 times it, too."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 16), exponent - 4)
