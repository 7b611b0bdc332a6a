"""Forged weights tell a right program from a wrong one: on nano, in bfloat16 and in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.workload import forge, load, skeleton
from gemma3n_perf.workload.presets import PRESETS
from tests.decode import fakes

PROMPT = np.array([1_500, 1_017, 1_203, 1_999, 1_043, 1_700, 2_000, 1_111], np.int32)
STEPS = 260
FEW = 8
"""Steps that are compared where every layer is left out in turn."""


@dataclass(frozen=True)
class Pair:
    """nano in both types, with the tokens that each decodes and the logits of each step."""

    exact: Any
    short: Any
    tokens: list[int]
    logits: list[mx.array]
    short_tokens: list[int]
    short_logits: list[mx.array]

    @property
    def rounding(self) -> float:
        """How far bfloat16's rounding moves the logits, at most."""
        return max(apart(a, b) for a, b in zip(self.logits, self.short_logits, strict=True))


def logits(model: Any, prompt: np.ndarray, tokens: list[int]) -> Iterator[mx.array]:
    """Yield the logits of each step that feeds one of ``tokens`` after the prompt, in float32."""
    engine = MlxVlmEngine(model)
    engine.prefill(Prompt(prompt))
    for token in tokens:
        found = engine.logits(mx.array([token])).astype(mx.float32)
        mx.eval(found)
        yield found


def greedy(model: Any, prompt: np.ndarray, steps: int) -> tuple[list[int], list[mx.array]]:
    """Return tokens as they are fed, the first from the prompt, and the logits of each step."""
    engine = MlxVlmEngine(model)
    token = engine.prefill(Prompt(prompt))
    fed, found = [], []
    for _ in range(steps):
        read: Any = token.item()
        fed.append(read)
        found.append(engine.logits(token).astype(mx.float32))
        token = mx.argmax(found[-1], axis=-1)
    return fed, found


def apart(one: mx.array, other: mx.array) -> float:
    """Return the root mean square of a difference, as a part of the first."""
    found: Any = mx.sqrt(mx.mean((one - other) ** 2) / mx.mean(one**2)).item()
    return float(found)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Load nano twice and decode."""
    checkpoint = load.inspect("nano", fakes.nano_root(tmp_path_factory.getbasetemp()))
    exact, short = (load.load(checkpoint, with_towers=False) for _ in range(2))
    exact.language_model.set_dtype(mx.float32)
    short.language_model.set_dtype(mx.bfloat16)
    return Pair(exact, short, *greedy(exact, PROMPT, STEPS), *greedy(short, PROMPT, STEPS))


@contextmanager
def left_out(*modules: Any) -> Iterator[None]:
    """Let the weights of ``modules`` be zero meanwhile."""
    kept = [module.weight for module in modules]
    try:
        for module, weight in zip(modules, kept, strict=True):
            module.weight = weight * 0
        yield
    finally:
        for module, weight in zip(modules, kept, strict=True):
            module.weight = weight


def moved(pair: Pair, model: Any) -> float:
    """Return by how much ``model``'s logits differ from float32's, at least."""
    pairs = zip(pair.logits[:FEW], logits(model, PROMPT, pair.tokens[:FEW]), strict=True)
    return min(apart(right, found) for right, found in pairs)


@pytest.mark.slow
def test_both_types_decode_the_same_tokens_for_hundreds_of_steps(pair: Pair) -> None:
    """Each token's successor is known by construction; they vary, and the best logit leads by far."""
    assert pair.short_tokens == pair.tokens
    assert pair.tokens[0] == PROMPT[-1] + 1
    assert all(after % 256 == (before + 1) % 256 for before, after in zip(pair.tokens, pair.tokens[1:], strict=False))
    assert len(set(pair.tokens)) == 256
    best = [np.sort(np.asarray(each[0]))[-2:] for each in pair.logits]
    assert min(first - second for second, first in best) > 4


@pytest.mark.parametrize(("name", "bits"), [("nano-8bit", (8, 8)), ("nano-mixed", (4, 6))])
def test_other_weights_are_as_tame(tmp_path: Path, name: str, bits: tuple[int, int]) -> None:
    """8-bit and mixed: what config.json says is what is loaded, both types decode the successors, and a layer shows."""
    forge.ensure_forged(PRESETS[name], tmp_path)
    assert forge.is_forged(PRESETS[name], tmp_path)
    checkpoint = load.inspect(name, tmp_path)
    exact, short = (load.load(checkpoint, with_towers=False) for _ in range(2))
    short.language_model.set_dtype(mx.bfloat16)
    mlp = exact.language_model.model.layers[0].mlp
    assert (mlp.up_proj.bits, mlp.down_proj.bits) == bits
    found = Pair(exact, short, *greedy(exact, PROMPT, 40), *greedy(short, PROMPT, 40))
    assert found.tokens == found.short_tokens
    assert found.tokens[0] == PROMPT[-1] + 1
    assert len(set(found.tokens)) == 40
    layer = exact.language_model.model.layers[2]
    with left_out(layer.post_attention_layernorm, layer.post_feedforward_layernorm):
        assert moved(found, exact) > 2 * found.rounding


def test_prompts_of_all_lengths_end_in_the_same_token(pair: Pair) -> None:
    """mlx-vlm feeds a prompt's embeddings unscaled, which makes other numbers of the same weights."""
    random = np.random.default_rng(3)
    for length in (1, 2, 40, 140):
        prompt = random.integers(1_000, 2_047, length).astype(np.int32)
        prompt[-1] = 1_300 + length
        assert [greedy(model, prompt, 1)[0] for model in (pair.exact, pair.short)] == [[1_301 + length]] * 2


@pytest.mark.parametrize("index", range(6))
def test_leaving_out_one_layer_shows(pair: Pair, index: int) -> None:
    """Without a layer's attention and MLP, logits move by twice what bfloat16's rounding does, in either type."""
    for model in (pair.exact, pair.short):
        layer = model.language_model.model.layers[index]
        with left_out(layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            assert moved(pair, model) > 2 * pair.rounding


def of_each_layer(*names: str) -> Callable[[Any], list[Any]]:
    """Return what finds a module of each layer."""

    def find(model: Any) -> list[Any]:
        found = []
        for module in model.language_model.model.layers:
            for name in names:
                module = module[name]
            found.append(module)
        return found

    return find


@pytest.mark.parametrize(
    "names",
    [
        ("post_attention_layernorm",), ("post_feedforward_layernorm",), ("laurel", "post_laurel_norm"),
        ("post_per_layer_input_norm",), ("altup", "prediction_coefs"), ("altup", "correction_coefs"),
    ],
)  # fmt: skip
def test_every_part_shows_in_float32(pair: Pair, names: tuple[str, ...]) -> None:
    """Any one part of any one layer, left out, moves logits by far more than float32's rounding: 1e-6 of them."""
    for module in of_each_layer(*names)(pair.exact):
        with left_out(module):
            assert moved(pair, pair.exact) > 1e-3


def test_one_stale_row_of_a_cache_shows_in_float32(pair: Pair) -> None:
    """A key and a value of another position, in one layer, move the logits as well."""
    engine = MlxVlmEngine(pair.exact)
    first = mx.array([pair.tokens[0]])
    for index in range(3):
        engine.prefill(Prompt(PROMPT))
        cache = engine.cache[index]
        for row in (cache.keys, cache.values):
            row[:, :, 5] = row[:, :, 4]
        assert apart(pair.logits[0], engine.logits(first).astype(mx.float32)) > 1e-4


def test_weights_are_the_same_in_both_types(nano_root: Path) -> None:
    """Every float is one that bfloat16 holds, so that a type changes the arithmetic alone."""
    stored: Any = mx.load(str(nano_root / "nano-v2" / fakes.SHARD))
    for name, array in stored.items():
        if array.dtype == mx.float32:
            assert mx.array_equal(array.astype(mx.bfloat16).astype(mx.float32), array).item(), name


def test_the_language_model_loads_without_the_loader_that_insists_on_towers(
    nano_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlx-vlm before 0.7 says that parameters are missing; ours then loads the same weights."""
    checkpoint = load.inspect("nano", nano_root)
    expected = dict(skeleton.named_arrays(load.load(checkpoint, with_towers=False).language_model.parameters()))

    def insisting(path: Path, lazy: bool) -> Any:
        raise ValueError("Missing 825 parameters: \nvision_tower.x")

    monkeypatch.setattr("mlx_vlm.utils.load_model", insisting)
    found = dict(skeleton.named_arrays(load.load(checkpoint, with_towers=False).language_model.parameters()))
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], expected[name]).item() for name in expected)
