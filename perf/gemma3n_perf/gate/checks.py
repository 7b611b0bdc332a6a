"""Checks of a fusion before it is timed: its graph, its outputs, the weights it must leave alone, its memory.

A fusion may break in any way, and each is a finding: what it raises is kept in its record. It may also end the process
that it runs in, or hang it, so each check has a process of its own. Nothing is timed meanwhile, so several run at once
where the machine has room.
"""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel.processes import error_class, last_output
from gemma3n_perf.duel.protocol import Failed, failed
from gemma3n_perf.errors import PerfError
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.gate.facts import Checked, Dispatch, Parity
from gemma3n_perf.gate.session import CheckSpec
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload import load
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

if TYPE_CHECKING:
    from gemma3n_perf.fusions.parity_rules import Parity as FusionParity

KNOB = "a knob: operation by operation the unfused graph, and its duel compares tokens"

LIMIT_S = 900.0
"""Seconds after which a fusion counts as hung."""

CORES_EACH, BYTES_EACH = 3, 16e9
"""What a process is given: comparing outputs holds a model, its twins in float32, and the driver's own."""

_Task = tuple[Chip, str, dict[str, str], CheckSpec]
"""What one process is to check: chip, folder of checkpoints, checkpoints that are no presets, and the check."""
_Reply = tuple[Checked | None, Failed | None]
"""What was found of the fusion, or the named error that kept it from being checked."""


@dataclass(frozen=True, slots=True)
class CheckProcesses:
    """Checks fusions on this machine, each in a process of its own; ``root`` holds the forged checkpoints."""

    chip: Chip
    root: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None
    argv: tuple[str, ...] = (sys.executable, "-P", "-m", "gemma3n_perf.gate.checks")
    limit_s: float = LIMIT_S

    def __call__(self, specs: Sequence[CheckSpec]) -> list[Checked]:
        """Check each fusion on each workload's checkpoint, in the order of ``specs``.

        Raises what loading a checkpoint raises.
        """
        jobs = min(at_once(self.chip, os.cpu_count() or 1), len(specs))
        self.note(f"graph, outputs and memory: {len(specs)} checks, {jobs} at a time")
        with ThreadPoolExecutor(jobs) as pool:
            running = [pool.submit(self._checked, one) for one in specs]
            for number, done in enumerate(as_completed(running), start=1):
                one = specs[running.index(done)]
                self.note(f"{one.fusion} checked on {one.checkpoint}, {number} of {len(specs)}")
        return [done.result() for done in running]

    def _checked(self, spec: CheckSpec) -> Checked:
        task: _Task = (self.chip, str(self.root), dict(self.sources), spec)
        path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH"))))
        try:
            done = subprocess.run(
                self.argv, input=msgspec.json.encode(task), capture_output=True, timeout=self.limit_s, check=False,
                env=os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Checked(spec.checkpoint, failure=f"checking it did not end within {self.limit_s:g} s")
        if done.returncode:
            end = done.returncode
            how = signal.Signals(-end).name if end < 0 else f"exit code {end}"
            output = " | ".join(done.stderr.decode(errors="replace").split("\n")).strip(" |")
            failure = f"checking it ended its process with {how}{last_output(output)}"
            return Checked(spec.checkpoint, failure=failure)
        try:
            found, error = msgspec.json.decode(done.stdout, type=_Reply)
        except msgspec.MsgspecError as fault:
            return Checked(spec.checkpoint, failure=f"checking it answered what is no record: {fault}")
        if error is not None:  # the checkpoint's fault, and no fusion's
            raise error_class(error.kind)(error.found, expected=error.expected, remedy=error.remedy)
        return found or Checked(spec.checkpoint, failure="checking it found nothing")


def at_once(chip: Chip, cores: int) -> int:
    """How many processes the machine has room for."""
    return max(1, min(cores // CORES_EACH, int((chip.memory_bytes or 0) // BYTES_EACH)))


def outputs(plain: Any, fused: Any, forged: bool) -> Parity:
    """Compare an unfused model with a fused one that shares its weights, ``forged`` or not, by ``fusions.parity``."""
    from gemma3n_perf.fusions.parity import changed, parameters, parity

    kept = changed(parameters(plain), parameters(fused))
    return facts(parity(plain, fused, forged=forged, weights_changed=kept))


def facts(found: "FusionParity") -> Parity:
    """Return what the gate judges of a comparison; its figures are kept as they are."""
    finite = not found.not_finite and math.isfinite(found.fused_error)
    return Parity(found.passed, finite, "; ".join(found.reasons), msgspec.to_builtins(found))


def _registered(name: str) -> Fusion:
    from gemma3n_perf.fusions import registry

    return registry.get(name)


@dataclass(slots=True)
class Checks:
    """Checks fusions in this process, one model loaded at a time; ``root`` holds the forged checkpoints.

    ``compare`` says whether the unfused and the fused model decode the same, given whether their weights are forged;
    ``fusion`` finds a fusion by its name.
    """

    chip: Chip
    root: Path
    compare: Callable[[Any, Any, bool], Parity] = outputs
    sources: Mapping[str, str] = field(default_factory=dict)
    fusion: Callable[[str], Fusion] = _registered
    _graphs: dict[str, Graph] = field(default_factory=dict)
    _loaded: tuple[str, Any, int, int] | None = None

    def __call__(self, specs: Sequence[CheckSpec]) -> list[Checked]:
        """Check fusions on workloads' checkpoints, one by one. Raises what loading a checkpoint raises."""
        return [self._checked(one) for one in specs]

    def _checked(self, spec: CheckSpec) -> Checked:
        checkpoint, enabled, fusion = spec.checkpoint, spec.enabled, self.fusion(spec.fusion)
        if spec.workload not in self._graphs:
            self._graphs[spec.workload] = self._count(spec.workload, None)
        before = self._graphs[spec.workload]

        def apply(model: Any) -> None:
            # Where a fusion is off, what runs is what its own ``enabled`` lets through.
            if enabled or fusion.enabled(self.chip):
                fusion.apply(model)

        try:
            after = self._count(spec.workload, apply)
        except Exception as error:
            return Checked(checkpoint, failure=_broke("counting its graph", error))
        dispatch = Dispatch(
            nodes=(before.nodes, after.nodes),
            changed=graphs.difference(before, after),
            complaints=fusion.graph.check(before, after) if enabled else (),
            knobs=dict(fusion.env) if enabled else {},
            same=fusion.graph.same,
        )
        if not enabled or not dispatch.seen:
            return Checked(checkpoint, dispatch)
        if dispatch.same:
            return Checked(checkpoint, dispatch, Parity(True, True, KNOB), memory_ratio=1.0, weights_kept=True)
        return self._side_by_side(checkpoint, fusion, dispatch)

    def _side_by_side(self, checkpoint: str, fusion: Fusion, dispatch: Dispatch) -> Checked:
        from gemma3n_perf.fusions.parity import settled_bytes
        from gemma3n_perf.fusions.sharing import share

        model, empty, alone = self._model(checkpoint)
        before = fingerprint(model)
        forged = load.is_forged(load.config_of(self._source(checkpoint), self.root))
        try:
            fused = share(model)
            fusion.apply(fused)
            parity = self.compare(model, fused, forged)
            ratio = (settled_bytes() - empty) / alone
        except Exception as error:
            return Checked(checkpoint, dispatch, failure=_broke("applying it and comparing outputs", error))
        kept = fingerprint(model) == before
        if not kept:
            self._loaded = None
        return Checked(checkpoint, dispatch, parity, ratio, kept)

    def _count(self, workload: str, apply: Callable[[Any], None] | None) -> Graph:
        parsed = Workload.parse(workload)
        config = load.config_of(self._source(parsed.checkpoint), self.root)
        return graphs.count(config, position=parsed.shape.prompt + WARM_TOKENS, apply=apply)

    def _model(self, checkpoint: str) -> tuple[Any, int, int]:
        """The unfused model, the bytes in use before it was loaded, and those that it takes."""
        import mlx.core as mx

        from gemma3n_perf.fusions.parity import settled_bytes

        if self._loaded is None or self._loaded[0] != checkpoint:
            self._loaded = None
            empty = settled_bytes()
            model = load.load(load.inspect(self._source(checkpoint), self.root), with_towers=False)
            # mlx-vlm's AltUp casts and clips two of its weights when it is first used, and no fusion did that.
            mx.eval(model.language_model(mx.array([[5]]), cache=model.make_cache()).logits)
            self._loaded = (checkpoint, model, empty, settled_bytes() - empty)
        return self._loaded[1:]

    def _source(self, checkpoint: str) -> str:
        return self.sources.get(checkpoint, checkpoint)


def fingerprint(model: Any) -> tuple[tuple[str, int], ...]:
    """Sums over the bits of every weight of the language model: a fusion must leave the unfused model's as they are."""
    import mlx.core as mx

    from gemma3n_perf.fusions.parity import parameters

    integers = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}
    named = parameters(model)
    sums = [(name, mx.sum(array.view(integers[array.dtype.size]))) for name, array in named.items()]
    mx.eval([value for _, value in sums])
    return tuple((name, int(value.item().real)) for name, value in sums)


def _broke(while_doing: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{while_doing} raised {type(error).__name__}{f': {said}' if said else ''}"


def main() -> None:
    """Check what standard input names and reply on standard output; what libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    chip, root, sources, spec = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    reply: _Reply
    try:
        reply = (Checks(chip, Path(root), sources=sources)([spec])[0], None)
    except PerfError as error:
        reply = (None, failed(error))
    with replies:
        replies.write(msgspec.json.encode(reply))


if __name__ == "__main__":
    main()
