"""Whether forged weights are tame: right programs decode the same tokens, and one that leaves something out shows.

``python -m studies.tame PRESET [--steps 256] [--fusion NAME ...]``, from perf/: greedy tokens of the model in its own
type, in float32 and with fusions; how far their logits lie apart; and how far one layer's branches left out move them.
With ``--stack mlx-vlm==VERSION+mlx==VERSION`` (may be repeated), the same without the layers, in an environment of
each, against float32 on the versions that are here.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine, rows_are_right
from gemma3n_perf.decode.prompt import make
from gemma3n_perf.duel import arms
from gemma3n_perf.duel.environments import Environments, installed_requirements
from gemma3n_perf.errors import PerfError, WorkerFailedError
from gemma3n_perf.fusions import patching, registry, sharing
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import installed
from gemma3n_perf.workload import load
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import Workload
from studies import carry_out

LAYERS_LEFT_OUT = 8
"""At most, spread evenly: each takes a decode of the prompt."""


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """One program against the float32 one: tokens that are the same from the start on, and how far its logits lie from
    that one's (root mean square of the difference, as a share of that of the logits, at the last step); or the
    ``error`` that says why it cannot run."""

    program: str
    same_tokens: int | None = None
    distance: float | None = None
    error: str | None = None


class Stack(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found on one pair of versions; ``error`` says why nothing was."""

    mlx: str
    mlx_vlm: str
    found: tuple[Found, ...] = ()
    error: str | None = None


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


class Comparison:
    """Programs against the tokens and logits of a float32 one: of this model, or what another stack wrote down."""

    def __init__(self, model: Any, prompt: Any, steps: int, reference: Path | None = None) -> None:
        import mlx.core as mx

        self._model, self._prompt, self._steps = model, prompt, steps
        self._float32 = model.language_model.model.norm.weight.dtype == mx.float32
        self.exact = in_type(model, mx.float32)
        self.own = in_type(model, mx.bfloat16) if self._float32 else model
        if reference is not None and reference.exists():
            stored = np.load(reference)
            self._tokens, self._logits = stored["tokens"].tolist(), stored["logits"]
        else:
            self._tokens, self._logits = decoded(self.exact, prompt, steps)
            if reference is not None:
                np.savez(reference, tokens=self._tokens, logits=self._logits)

    def right(self, fusions: Sequence[str]) -> Iterator[Found]:
        """Yield float32, the model's own type, and each fusion."""
        yield self._against(f"float32, {len(set(self._tokens))} different tokens", lambda: self.exact)
        yield self._against("own type, or bfloat16 where that is float32", lambda: self.own)
        for name in fusions:
            yield self._against(f"{name}, in the checkpoint's type", partial(fused, self._model, name))
            if self._float32:
                yield self._against(f"{name}, in bfloat16", partial(fused, self.own, name))

    def without_layers(self) -> Iterator[Found]:
        """Yield the model with each of several layers left out."""
        layers = len(self._model.language_model.model.layers)
        for number in np.unique(np.linspace(0, layers - 1, min(layers, LAYERS_LEFT_OUT)).astype(int)):
            for name, one in (("own type", self.own), ("float32", self.exact)):
                yield self._against(f"{name} without layer {number}", partial(without_layer, one, int(number)))

    def _against(self, program: str, make: Callable[[], Any]) -> Found:
        try:
            tokens, own = decoded(make(), self._prompt, self._steps)
        except (PerfError, RuntimeError, ValueError, TypeError, AttributeError, ImportError) as error:
            # What a version's API, or this device, does not allow is a finding.
            return Found(program, error=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        pairs = zip(tokens, self._tokens, strict=True)
        same = next((i for i, (one, other) in enumerate(pairs) if one != other), self._steps)
        return Found(program, same, float(np.sqrt(np.mean((own - self._logits) ** 2) / np.mean(self._logits**2))))


def fused(model: Any, name: str) -> Any:
    """Return a twin with a fusion."""
    twin = sharing.share(model)
    registry.compose(name).apply(twin)
    return twin


def on_stack(text: str, environments: Environments, argv: Sequence[str]) -> Stack:
    """Run this study in an environment of other versions; ``argv`` ends in the option that takes its record."""
    arm = arms.parse(text)
    mlx, mlx_vlm = (arm.version(name) or str(installed(name)) for name in ("mlx", "mlx-vlm"))
    with tempfile.TemporaryDirectory(prefix="gemma3n-perf-") as folder:
        record = Path(folder, "found.json")
        try:
            others = [environments.package(*one) for one in arm.packages]
            python = environments.interpreter(others) if others else sys.executable
            done = subprocess.run(
                [str(python), "-P", "-m", "studies.tame", *argv, str(record)],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}, capture_output=True, check=False,
            )  # fmt: skip
            if not record.exists():
                said = done.stderr.decode(errors="replace").strip().splitlines()
                raise WorkerFailedError(said[-1] if said else f"exit code {done.returncode}")
        except PerfError as error:
            return Stack(mlx, mlx_vlm, error=error.found)
        return Stack(mlx, mlx_vlm, msgspec.json.decode(record.read_bytes(), type=tuple[Found, ...]))


def over_stacks(args: argparse.Namespace, root: Path, out: TextIO) -> Iterator[Stack]:
    """Yield what is here, which makes the float32 reference, and each stack that was asked for."""
    environments = Environments(root.parent, run_command, installed_requirements())
    fusions = [part for name in args.fusion for part in ("--fusion", name)]
    with tempfile.TemporaryDirectory(prefix="gemma3n-perf-") as folder:
        options = ["--steps", str(args.steps), "--prompt", str(args.prompt), *fusions]
        output = ["--reference", str(Path(folder, "reference.npz")), "--json"]
        for text in ("here", *args.stack):
            one = on_stack(text, environments, [args.preset, *options, *output])
            out.write(f"mlx {one.mlx}, mlx-vlm {one.mlx_vlm}{f': {one.error}' if one.error else ''}\n")
            out.writelines(f"  {said(program, args.steps)}" for program in one.found)
            out.flush()
            yield one


def differing(found: Sequence[Found], steps: int) -> bool:
    """Whether a right program decodes other tokens than float32."""
    return any(
        one.same_tokens is not None and one.same_tokens < steps and "without" not in one.program for one in found
    )


def said(one: Found, steps: int) -> str:
    """Return a line on one program."""
    if one.error or one.distance is None:
        return f"{one.program}: {one.error}\n"
    return f"{one.program}: {one.same_tokens} of {steps} tokens the same, {100 * one.distance:.3g} % apart\n"


def main(argv: Sequence[str], out: TextIO) -> int:
    """Print one line a program, and write them as JSON where asked. Returns 1 where a right program differs."""
    parser = argparse.ArgumentParser(prog="python -m studies.tame", description=__doc__)
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=256, metavar="N")
    parser.add_argument("--prompt", type=int, default=40, metavar="N", help="tokens before them (default: %(default)s)")
    parser.add_argument("--fusion", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--stack", action="append", default=[], metavar="ARM", help="may be repeated")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="float32 tokens and logits, made where missing")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    root = checkpoints_root()
    ensure_forged(PRESETS[args.preset], root)
    if args.stack:
        stacks = list(over_stacks(args, root, out))
        failed = any(differing(one.found, args.steps) for one in stacks)
        results: Sequence[Found | Stack] = stacks
    else:
        checkpoint = load.inspect(args.preset, root)
        prompt = make(Workload.parse(f"{args.preset}/text/pp{args.prompt}-tg16"), checkpoint)
        out.write(f"4-bit products of two rows with K = 64: {'right' if rows_are_right() else 'wrong'}\n")
        programs = Comparison(load.load(checkpoint, with_towers=False), prompt, args.steps, args.reference)
        found: list[Found] = []
        for one in chain(programs.right(args.fusion), () if args.reference else programs.without_layers()):
            found.append(one)
            out.write(said(one, args.steps))
            out.flush()
        failed = differing(found, args.steps)
        results = found
    if args.json:
        Path(args.json).write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(carry_out(main))
