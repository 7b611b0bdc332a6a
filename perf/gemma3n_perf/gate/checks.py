"""What is asked of a fusion before it is timed: its graph, its outputs, the weights it must leave alone, its memory.

Opinion: a fusion may break in any way, and each is an answer. Whatever it raises is kept in its record, in its words.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.fusions.registered import Registered
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.gate.facts import Checked, Dispatch, Parity
from gemma3n_perf.gate.session import CheckSpec
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload import load, skeleton
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

KNOB = "a knob: operation by operation the unfused graph, and its duel compares tokens"
Compare = Callable[[Any, Any], Parity]
"""From the unfused and the fused model to whether both decode the same."""


@dataclass(slots=True)
class Checks:
    """Checks fusions on this machine; ``root`` holds the forged checkpoints. One model is kept loaded at a time."""

    chip: Chip
    root: Path
    compare: Compare
    registered: Registered = field(default_factory=Registered)
    sources: dict[str, str] = field(default_factory=dict)
    _graphs: dict[str, Graph] = field(default_factory=dict)
    _loaded: tuple[str, Any, int, int] | None = None

    def __call__(self, wanted: Sequence[CheckSpec]) -> list[Checked]:
        """Check fusions on workloads' checkpoints, one by one. Raises what loading a checkpoint raises."""
        return [self._checked(one.fusion, one.enabled, one.workload) for one in wanted]

    def _checked(self, name: str, enabled: bool, workload: str) -> Checked:
        checkpoint = workload.split("/")[0]
        fusion = self.registered.fusion(name)
        before = self._graph(workload)
        try:
            after = self._count(workload, fusion.apply if enabled else self._left_alone(fusion))
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
        from gemma3n_perf.fusions.sharing import share

        model, empty, alone = self._model(checkpoint)
        before = fingerprint(model)
        try:
            fused = share(model)
            fusion.apply(fused)
            parity = self.compare(model, fused)
            ratio = (settled_bytes() - empty) / alone
        except Exception as error:
            return Checked(checkpoint, dispatch, failure=_broke("applying it and comparing outputs", error))
        kept = fingerprint(model) == before
        if not kept:
            self._loaded = None
        return Checked(checkpoint, dispatch, parity, ratio, kept)

    def _left_alone(self, fusion: Fusion) -> Callable[[Any], None]:
        """Where a fusion is off, what runs is what its own ``enabled`` lets through."""

        def apply(model: Any) -> None:
            if fusion.enabled(self.chip):
                fusion.apply(model)

        return apply

    def _graph(self, workload: str) -> Graph:
        if workload not in self._graphs:
            self._graphs[workload] = self._count(workload, None)
        return self._graphs[workload]

    def _count(self, workload: str, apply: Callable[[Any], None] | None) -> Graph:
        parsed = Workload.parse(workload)
        config = load.config_of(self._source(parsed.checkpoint), self.root)
        return graphs.count(config, position=parsed.shape.prompt + WARM_TOKENS, apply=apply)

    def _model(self, checkpoint: str) -> tuple[Any, int, int]:
        """The unfused model, the bytes in use before it was loaded, and those that it holds."""
        if self._loaded is None or self._loaded[0] != checkpoint:
            self._loaded = None
            empty = settled_bytes()
            model = load.load(load.inspect(self._source(checkpoint), self.root), with_towers=False)
            _settle(model)
            self._loaded = (checkpoint, model, empty, settled_bytes() - empty)
        return self._loaded[1:]

    def _source(self, checkpoint: str) -> str:
        return self.sources.get(checkpoint, checkpoint)


def settled_bytes() -> int:
    """Bytes that MLX's arrays hold now, after what nobody refers to is gone."""
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())


def _settle(model: Any) -> None:
    """Decode a token: mlx-vlm's AltUp casts and clips two of its weights when it is first used, and no fusion did."""
    import mlx.core as mx

    mx.eval(model.language_model(mx.array([[5]]), cache=model.make_cache()).logits)


def fingerprint(model: Any) -> tuple[tuple[str, int], ...]:
    """Sums over the bits of every weight of the language model: a fusion must leave the unfused model's as they are."""
    import mlx.core as mx

    words = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}
    named = skeleton.named_arrays(model.language_model.parameters())
    sums = [(name, mx.sum(array.view(words[array.dtype.size]))) for name, array in named]
    mx.eval([value for _, value in sums])
    return tuple((name, int(value.item().real)) for name, value in sums)


def _broke(while_doing: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{while_doing} raised {type(error).__name__}{f': {said}' if said else ''}"
