"""One arm of a duel in a process of its own: loads, prepares and times blocks on request, and sleeps in between.

Speaks one JSON object a line on the descriptors it was started with as standard input and output; what libraries
print goes to standard error (``python -P worker.py``).
"""

import gc
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import perf_counter as CLOCK  # noqa: N812 (bound before any fusion is imported)
from typing import Any, Protocol

import msgspec

from gemma3n_perf.duel.protocol import (
    OFFSETS,
    PROTOCOL,
    Block,
    Describe,
    Hello,
    LastLogits,
    Load,
    Loaded,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    Program,
    Quit,
    Reply,
    Request,
    Timed,
    Whole,
    WholeRun,
    Written,
    failed,
)

WHOLE_RUN_PROMPT = 64
"""Tokens before a whole run at most: filling a KV cache is not timed, and slow where it goes one token at a time."""


@dataclass(frozen=True, slots=True)
class Model:
    """One arm's model in this process.

    ``prompt_of`` makes prompts of its workload by variant.
    ``guard`` raises where what times the model was replaced.
    """

    decoder: Any
    prompt_of: Callable[[int], Any]
    guard: Callable[[], None]
    planted: float = 0.0
    variant: int = 0
    whole_run_prompt: int = WHOLE_RUN_PROMPT


class Loader(Protocol):
    """What loads models, so that tests need none."""

    def load(self, request: Load) -> tuple[Loaded, Model]:
        """Return the facts and a model, not yet prepared."""

    def stack(self) -> dict[str, Any]:
        """Return the software of this process."""

    def program(self, checkpoints: dict[str, str]) -> Program:
        """Return the parts of the program that this process is."""


class MlxVlmLoader:
    """Loads checkpoints with mlx-vlm. Models of one checkpoint share its weights; those that differ in nothing but a
    plant share their decoder too."""

    def __init__(self) -> None:
        self._models: dict[tuple[object, ...], Any] = {}
        self._decoders: dict[tuple[object, ...], Any] = {}
        self._guard: Any = None

    def load(self, request: Load) -> tuple[Loaded, Model]:
        """Raises what loading raises, and UsageError for an engine that is not known here."""
        import functools
        import hashlib
        from pathlib import Path

        from gemma3n_perf.decode import prompt
        from gemma3n_perf.decode.decoder import Decoder
        from gemma3n_perf.decode.device import MlxDevice
        from gemma3n_perf.decode.engines import kind_of
        from gemma3n_perf.duel.guard import Guard
        from gemma3n_perf.workload import load
        from gemma3n_perf.workload.workload import Workload

        workload = Workload.parse(request.workload)
        kind = kind_of(workload, request.engine, request.fusions)
        checkpoint = load.inspect(request.source, Path(request.root))
        prompt_of = functools.partial(prompt.make, workload, checkpoint)
        made = prompt_of(request.variant)
        place = (request.source, request.root, made.pixels is not None, kind.loader)
        if place not in self._models:
            self._models[place] = kind.load(checkpoint, with_towers=made.pixels is not None)
        key = (request.workload, place, request.engine, request.fusions, request.variant)
        if key not in self._decoders:
            model = self._models[place]
            self._guard = self._guard or Guard()
            if request.fusions:
                from gemma3n_perf.fusions import registry, sharing

                model = sharing.share(model)
                registry.compose("+".join(request.fusions)).apply(model)
                self._guard.check()
            self._decoders[key] = Decoder(kind.make(model), workload, made, clock=CLOCK, device=MlxDevice())
        digest = hashlib.sha256(made.ids.tobytes())
        for part in (made.pixels, made.soft):
            digest.update(b"" if part is None else part.tobytes())
        loaded = Loaded(
            checkpoint.digest, digest.hexdigest()[:16], len(made.ids), workload.shape.generate, made.soft_tokens
        )
        # Where steps are prefills, a shorter prompt would be other work.
        most = len(made.ids) if workload.shape.prefill_alone else WHOLE_RUN_PROMPT
        return loaded, Model(self._decoders[key], prompt_of, self._guard.check, request.planted, request.variant, most)

    def stack(self) -> dict[str, Any]:
        """Ask this process's packages and environment."""
        from gemma3n_perf.hardware.stack import current_stack, suite_checkout

        built: dict[str, Any] = msgspec.to_builtins(current_stack(suite_checkout()))
        return built

    def program(self, checkpoints: dict[str, str]) -> Program:
        """Read every file that was imported and every library that was mapped."""
        from gemma3n_perf.duel.installed import installed, this_process
        from gemma3n_perf.workload.presets import checkpoints_root

        process = this_process()  # before what follows is imported
        return Program(installed(process, checkpoints, checkpoints_root().parent))


class _NoProbe:
    """Conditions are read by the process that runs the duel, around the block, the same for both arms."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Know nothing."""


def serve(requests: Iterable[bytes], reply: Callable[[Reply], None], loader: Loader) -> None:
    """Reply to every request, in order, until Quit or the end of ``requests``. A failure is a reply too."""
    try:
        reply(Hello(PROTOCOL, os.getpid(), loader.stack()))
    except Exception as error:
        reply(failed(error))
        return
    decode = msgspec.json.Decoder(Request).decode
    models: dict[str, Model] = {}
    prepared: list[Any] = []
    for line in requests:
        try:
            request = decode(line)
            match request:
                case Quit():
                    return
                case Load():
                    loaded, models[request.slot] = loader.load(request)
                    models[request.slot].decoder.device.reset_peak_memory()
                    reply(loaded)
                case Prepare():
                    model = models[request.slot]
                    if not any(model.decoder is one for one in prepared):
                        model.decoder.prepare(model.variant % OFFSETS)
                        prepared.append(model.decoder)
                        # What was built until here lives as long as the process: no collection need look at it.
                        gc.collect()
                        gc.freeze()
                    reply(Prepared(model.decoder.token_digest()))
                case Block():
                    reply(_timed(models[request.slot], request))
                case WholeRun():
                    reply(_whole(models[request.slot], request))
                case LastLogits():
                    reply(Written(_write_logits(models[request.slot], request.logits)))
                case Prefill():
                    reply(_prefilled(models[request.slot]))
                case Describe():
                    reply(loader.program(request.checkpoints))
        except Exception as error:
            reply(failed(error))


def _timed(model: Model, block: Block) -> Timed:
    run, tokens = model.decoder.run(
        _NoProbe(),
        steps=block.steps,
        planted=model.planted,
        built=block.built,
        settled=block.settled,
        continued=block.continued,
        text=block.text,
    )
    model.guard()
    model.decoder.same_tokens(tokens)
    counted = run.step_s[block.drop : len(run.step_s) - block.tail]
    each = tuple(round(time, 9) for time in counted) if len(counted) > 1 else ()
    decoder = model.decoder
    peak, kv = decoder.device.peak_memory(), decoder.kv_bytes()
    return Timed(run.seconds, sum(counted) / len(counted), each, peak, kv, tuple(tokens))


def _whole(model: Model, request: WholeRun) -> Whole:
    prompt = model.prompt_of(request.variant)
    if prompt.pixels is None and prompt.soft is None:
        prompt = replace(prompt, ids=prompt.ids[: model.whole_run_prompt])
    seconds, tokens = model.decoder.whole_run(prompt, request.steps, model.planted, dict(request.forced))
    model.guard()
    return Whole(seconds, tuple(tokens), _write_logits(model, request.logits))


def _write_logits(model: Model, path: str) -> str:
    import numpy as np

    logits, dtype = model.decoder.last_logits()
    np.save(path, logits)
    return str(dtype)


def _prefilled(model: Model) -> Prefilled:
    decoder = model.decoder
    seconds = 0.0 if decoder.prefill_fault() else decoder.time_to_first_token(model.planted)
    model.guard()
    fault = decoder.prefill_fault()  # which a prefill that did not repeat itself may have brought about
    return Prefilled(0.0 if fault else seconds, decoder.device.peak_memory(), decoder.kv_bytes(), fault)


def main() -> None:
    """Take the standard descriptors for the conversation, and give libraries standard error instead."""
    import faulthandler

    from gemma3n_perf.hardware.lifetime import end_with

    # A duel that had ended by now would have closed standard input, so what it says here is its id.
    end_with(os.getppid())
    faulthandler.enable()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    encode = msgspec.json.Encoder().encode

    def reply(one: Reply) -> None:
        data = encode(one) + b"\n"
        while data:
            data = data[os.write(replies, data) :]

    serve(requests, reply, MlxVlmLoader())


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
