"""Whether forged weights are tame: right programs decode the same tokens, and one that leaves something out shows.

``python -m studies.tame PRESET [--steps 256] [--fusion NAME ...]``, from perf/: greedy tokens of the model in its own
type, in float32 and with fusions; how far their logits lie apart; and how far one layer's branches left out move them.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import msgspec
import numpy as np

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine, rows_are_right
from gemma3n_perf.decode.prompt import make
from gemma3n_perf.fusions import patching, registry, sharing
from gemma3n_perf.workload import load
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import Workload
from studies import carry_out

LAYERS_LEFT_OUT = 8
"""At most, spread evenly: each takes a decode of the prompt."""


class Found(msgspec.Struct, frozen=True):
    """One program against the float32 one: tokens that are the same from the start on, and how far its logits lie from
    that one's (root mean square of the difference, as a share of that of the logits, at the last step)."""

    program: str
    same_tokens: int
    distance: float


def decoded(model: Any, prompt: Any, steps: int) -> tuple[list[int], np.ndarray]:
    """Decode greedily; returns the tokens, and float32 logits after the last, shape (vocabulary,)."""
    engine = MlxVlmEngine(model)
    token = engine.prefill(prompt)
    tokens: list[int] = []
    for _ in range(steps):
        token = engine.step(token)
        read: Any = token.item()
        tokens.append(int(read))
    return tokens, engine.last_logits()[0]


def without_layer(model: Any, number: int) -> Any:
    """Return a twin whose decoder layer ``number`` hands its input on: its branches are left out."""
    twin = sharing.share(model)

    def skip(original: Callable[..., Any], x: Any, *others: Any, **named: Any) -> Any:
        original(x, *others, **named)
        return x

    patching.wrap(twin.language_model.model.layers[number], "__call__", skip)
    return twin


def in_type(model: Any, dtype: Any) -> Any:
    """Return a twin that computes in a type; packed weights stay packed and shared."""
    twin = sharing.share(model)
    twin.language_model.set_dtype(dtype)
    return twin


def compare(model: Any, prompt: Any, steps: int, fusions: Sequence[str]) -> Iterator[Found]:
    """Yield the model in its own type, with each fusion, and with each of several layers left out, against float32."""
    import mlx.core as mx

    exact = in_type(model, mx.float32)
    reference, logits = decoded(exact, prompt, steps)
    yield Found(f"float32, {len(set(reference))} different tokens", steps, 0.0)

    def against(program: str, one: Any) -> Found:
        tokens, own = decoded(one, prompt, steps)
        same = next((i for i, pair in enumerate(zip(tokens, reference, strict=True)) if len(set(pair)) > 1), steps)
        return Found(program, same, float(np.sqrt(np.mean((own - logits) ** 2) / np.mean(logits**2))))

    own = model if model.language_model.model.norm.weight.dtype != mx.float32 else in_type(model, mx.bfloat16)
    yield against("own type, or bfloat16 where that is float32", own)
    for name in fusions:
        fused = sharing.share(model)
        registry.compose(name).apply(fused)
        yield against(f"{name}, in the checkpoint's type", fused)
    layers = len(model.language_model.model.layers)
    for number in np.unique(np.linspace(0, layers - 1, min(layers, LAYERS_LEFT_OUT)).astype(int)):
        yield against(f"own type without layer {number}", without_layer(own, int(number)))
        yield against(f"float32 without layer {number}", without_layer(exact, int(number)))


def main(argv: Sequence[str], out: TextIO) -> int:
    """Print one line a program, and write them as JSON where asked. Returns 1 where a right program differs."""
    parser = argparse.ArgumentParser(prog="python -m studies.tame", description=__doc__)
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=256, metavar="N")
    parser.add_argument("--prompt", type=int, default=40, metavar="N", help="tokens before them (default: %(default)s)")
    parser.add_argument("--fusion", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    root = checkpoints_root()
    ensure_forged(PRESETS[args.preset], root)
    checkpoint = load.inspect(args.preset, root)
    prompt = make(Workload.parse(f"{args.preset}/text/pp{args.prompt}-tg16"), checkpoint)
    out.write(f"4-bit products of two rows with K = 64: {'right' if rows_are_right() else 'wrong'}\n")
    found = []
    for one in compare(load.load(checkpoint, with_towers=False), prompt, args.steps, args.fusion):
        found.append(one)
        out.write(
            f"{one.program}: {one.same_tokens} of {args.steps} tokens the same, {100 * one.distance:.3g} % apart\n"
        )
        out.flush()
    if args.json:
        with open(args.json, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    right = [one for one in found if "without" not in one.program]
    return int(any(one.same_tokens < args.steps for one in right))


if __name__ == "__main__":
    sys.exit(carry_out(main))
