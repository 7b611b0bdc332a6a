"""Checks of a fusion before it is timed: its graph, its outputs, the weights it must leave alone, its memory.

A fusion may break in any way, and each is a finding: what it raises is kept in its record. It may also end the process
that it runs in, or hang it, so each check has a process of its own. Nothing is timed meanwhile, so several run at once
where the machine has room. They end with whoever asked for them.
"""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import mlx.core as mx
import msgspec

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.duel.processes import error_class, last_output
from gemma3n_perf.duel.protocol import Failed, failed
from gemma3n_perf.errors import DiskFullError, PerfError, named
from gemma3n_perf.fusions.parity import changed, parameters, parity, settled_bytes
from gemma3n_perf.fusions.parity_rules import Parity as FusionParity
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.gate import in_use
from gemma3n_perf.gate.dispatch import dispatched
from gemma3n_perf.gate.facts import Checked, Dispatch, Parity
from gemma3n_perf.gate.session import CheckSpec
from gemma3n_perf.hardware.lifetime import end_with
from gemma3n_perf.hardware.replies import reply_stream, with_package
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload import load
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

KNOB = "a knob: operation by operation the unfused graph, and its duel compares tokens"

CORES_EACH, BYTES_EACH = 3, 16e9
"""What a process is given: comparing outputs holds a model, its twins in float32, and the driver's own."""

_Task = tuple[int, Chip, str, dict[str, str], CheckSpec]
"""What one process is to check, and for whom: the id of the process that asks, chip, folder of checkpoints, checkpoints
that are no presets, and the check."""
_Reply = tuple[Checked | None, Failed | None]
"""What was found of the fusion, or the named error that kept it from being checked."""


@dataclass(frozen=True, slots=True)
class CheckProcesses:
    """Checks fusions, each in a process of its own, hung after ``limit_s``; ``root`` holds the forged checkpoints."""

    chip: Chip
    root: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None
    argv: tuple[str, ...] = (sys.executable, "-P", "-m", "gemma3n_perf.gate.checks")
    limit_s: float = 900.0

    def __call__(self, specs: Sequence[CheckSpec]) -> list[Checked]:
        """Check each fusion on its workload's checkpoint, in the order of ``specs``. Raises what loading one raises."""
        jobs = min(at_once(self.chip, os.cpu_count() or 1), len(specs))
        self.note(f"graph, outputs and memory: {len(specs)} checks, {jobs} at a time")
        with ThreadPoolExecutor(jobs) as pool, closing(_Processes()) as processes:
            running = [pool.submit(self._checked, one, processes) for one in specs]
            for number, done in enumerate(as_completed(running), start=1):
                one = specs[running.index(done)]
                self.note(f"{one.fusion} checked on {one.checkpoint}, {number} of {len(specs)}")
        return [done.result() for done in running]

    def _checked(self, spec: CheckSpec, processes: "_Processes") -> Checked:
        task: _Task = (os.getpid(), self.chip, str(self.root), dict(self.sources), spec)
        try:
            environ = with_package() | {"TOKENIZERS_PARALLELISM": "false"}
            done = processes.run(self.argv, msgspec.json.encode(task), environ, self.limit_s)
        except subprocess.TimeoutExpired:
            return Checked(spec.checkpoint, failure=f"checking it did not end within {self.limit_s:g} s")
        if done.returncode:
            end = done.returncode
            how = signal.Signals(-end).name if end < 0 else f"exit code {end}"
            output = done.stderr.decode(errors="replace").replace("\n", " | ").strip(" |")
            return Checked(spec.checkpoint, failure=f"checking it ended its process with {how}{last_output(output)}")
        try:
            found, error = msgspec.json.decode(done.stdout, type=_Reply)
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            return Checked(spec.checkpoint, failure=f"checking it answered what is no record: {fault}")
        if error is not None:  # the checkpoint's fault, and no fusion's
            raise error_class(error.kind)(error.found, expected=error.expected, remedy=error.remedy)
        return found or Checked(spec.checkpoint, failure="checking it found nothing")


class _Processes:
    """Processes that several threads start and wait for, until all are killed together."""

    def __init__(self) -> None:
        self._lock, self._running, self._closed = Lock(), set[subprocess.Popen[bytes]](), False

    def run(
        self, argv: Sequence[str], task: bytes, environ: Mapping[str, str], limit_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a process that is given ``task`` on standard input. Raises subprocess.TimeoutExpired, CancelledError."""
        pipe = subprocess.PIPE
        with self._lock:
            if self._closed:
                raise CancelledError
            process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environ)
            self._running.add(process)
        with process:
            try:
                out, err = process.communicate(task, limit_s)
            finally:
                process.kill()
                with self._lock:
                    self._running.remove(process)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def close(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._closed = True
            for one in self._running:
                one.kill()


def at_once(chip: Chip, cores: int) -> int:
    """How many processes the machine has room for."""
    return max(1, min(cores // CORES_EACH, int((chip.memory_bytes or 0) // BYTES_EACH)))


def outputs(plain: Any, fused: Any, forged: bool) -> Parity:
    """Compare an unfused model with a fused one that shares its weights, ``forged`` or not, by ``fusions.parity``."""
    kept = changed(parameters(plain), parameters(fused))
    return facts(parity(plain, fused, forged=forged, weights_changed=kept))


def facts(found: FusionParity) -> Parity:
    """Return what the gate judges of a comparison; its figures are kept as they are."""
    finite = not found.not_finite and math.isfinite(found.fused_error)
    return Parity(found.passed, finite, "; ".join(found.reasons), msgspec.to_builtins(found))


def _registered(name: str) -> Fusion:
    from gemma3n_perf.fusions import registry  # what a fusion prints while it is imported is no part of a reply

    return registry.get(name)


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks fusions in this process; ``root`` holds the forged checkpoints.

    ``compare`` says whether the unfused and the fused model decode the same, given whether their weights are forged;
    ``fusion`` finds a fusion by its name.
    """

    chip: Chip
    root: Path
    compare: Callable[[Any, Any, bool], Parity] = outputs
    sources: Mapping[str, str] = field(default_factory=dict)
    fusion: Callable[[str], Fusion] = _registered

    def __call__(self, specs: Sequence[CheckSpec]) -> list[Checked]:
        """Check fusions on workloads' checkpoints, one by one. Raises what loading a checkpoint raises."""
        return [self._checked(one) for one in specs]

    def _checked(self, spec: CheckSpec) -> Checked:
        checkpoint, enabled, fusion = spec.checkpoint, spec.enabled, self.fusion(spec.fusion)
        config = load.config_of(self.sources.get(checkpoint, checkpoint), self.root)
        shape = Workload.parse(spec.workload).shape
        timed = range(shape.prompt + WARM_TOKENS, shape.prompt + WARM_TOKENS + max(1, shape.generate))
        before = graphs.count(config, position=timed.start)

        def apply(model: Any) -> None:
            # Where a fusion is off, what runs is what its own ``enabled`` lets through.
            if enabled or fusion.enabled(self.chip):
                fusion.apply(model)

        try:
            dispatch = dispatched(config, fusion, before, timed=timed, apply=apply, enabled=enabled)
        except Exception as error:
            return Checked(checkpoint, failure=broke("counting its graph", error))
        if not enabled or not dispatch.seen:
            return Checked(checkpoint, dispatch)
        if dispatch.same and leaves_alone(fusion.apply):
            return Checked(checkpoint, dispatch, Parity(True, True, KNOB), memory_ratio=1.0, weights_kept=True)
        return self._side_by_side(checkpoint, fusion, dispatch, load.is_forged(config))

    def _side_by_side(self, checkpoint: str, fusion: Fusion, dispatch: Dispatch, forged: bool) -> Checked:
        empty = settled_bytes()
        model = load.load(load.inspect(self.sources.get(checkpoint, checkpoint), self.root), with_towers=False)
        # mlx-vlm's AltUp casts and clips two of its weights when it is first used, and no fusion did that.
        mx.eval(model.language_model(mx.array([[5]]), cache=model.make_cache()).logits)
        alone = settled_bytes() - empty
        before = fingerprint(model)
        try:
            # First, for what follows is no use that a user makes of it.
            in_use_s = in_use.measure(model, fusion, self.chip)
            fused = share(model)
            fusion.apply(fused)
            parity = self.compare(model, fused, forged)
            ratio = (settled_bytes() - empty) / alone
        except Exception as error:
            return Checked(checkpoint, dispatch, failure=broke("applying it and comparing outputs", error))
        return Checked(checkpoint, dispatch, parity, ratio, fingerprint(model) == before, in_use_s=in_use_s)


def leaves_alone(apply: Callable[[Any], None]) -> bool:
    """Whether applying a fusion does nothing to a model, as that of a knob, which acts through the environment."""

    class Bare:
        """What has nothing that could be changed but the mark of what was applied."""

        __slots__ = ("_fusions_applied",)

    try:
        apply(Bare())
    except Exception:
        return False
    return True


def fingerprint(model: Any) -> tuple[tuple[str, int], ...]:
    """Sums over the bits of every weight of the language model: a fusion must leave the unfused model's as they are."""
    integers = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}
    named = parameters(model)
    sums = [(name, mx.sum(array.view(integers[array.dtype.size]))) for name, array in named.items()]
    mx.eval([value for _, value in sums])
    return tuple((name, int(value.item().real)) for name, value in sums)


def broke(while_doing: str, error: Exception) -> str:
    """Return what a fusion did in words. Raises DiskFullError where that is why: no fusion is at fault for it."""
    fault = named(error)
    if isinstance(fault, DiskFullError):
        raise fault from error
    said = " ".join(str(error).split())[:300]
    return f"{while_doing} raised {type(error).__name__}{f': {said}' if said else ''}"


def main() -> None:
    """Check what standard input names and reply on standard output; what libraries print goes to standard error."""
    replies = reply_stream()
    parent, chip, root, sources, spec = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    end_with(parent)
    reply: _Reply
    try:
        reply = (Checks(chip, Path(root), sources=sources)([spec])[0], None)
    except PerfError as error:
        reply = (None, failed(error))
    with replies:
        replies.write(msgspec.json.encode(reply))


if __name__ == "__main__":
    main()
