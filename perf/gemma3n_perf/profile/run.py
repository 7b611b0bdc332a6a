"""All parts of one workload's profile, one after the other, each by itself.

Opinion: a part that fails costs that part. What went before is handed over as soon as it is there, so that even a
process that dies half-way leaves what it measured.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.bandwidth import copy_bandwidth
from gemma3n_perf.decode.decoder import Clock, Device, Probe
from gemma3n_perf.decode.engines.mlxcel import Mlxcel
from gemma3n_perf.decode.runs import FaultsOf
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.errors import InvalidError, NotMeasuredError, PerfError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.profile import contexts, engines, floor, histogram, split, sweeps, trace
from gemma3n_perf.profile.engines import said
from gemma3n_perf.profile.subject import Subject, image_shape, without_images
from gemma3n_perf.profile.time_plan import TimePlan, until
from gemma3n_perf.profile.trace_worker import TraceRequest
from gemma3n_perf.profile.types import (
    PARTS,
    Comparison,
    Contexts,
    Engines,
    Floor,
    Histogram,
    Missing,
    Split,
    Sweep,
    Taken,
    Trace,
    WorkloadProfile,
)
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.workload import WARM_TOKENS, Shape, Workload

TRACE_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Tools:
    """What profiling needs of the world. ``compete`` duels knobs; ``reads`` looks for a variable in MLX's libraries."""

    clock: Clock
    device: Device
    probe: Probe
    faults_of: FaultsOf
    run: Run
    compete: Callable[[Sequence[str], float], Mapping[str, Any]]
    reads: Callable[[str], bool | None]
    environ: Mapping[str, str]
    today: Callable[[], str]
    rng: random.Random
    note: Callable[[str], None] = lambda text: None
    nvml_busy: Callable[[], float] | None = None
    thread_times: Callable[[], dict[int, float]] | None = None
    own_thread: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to profile: ``source`` is the preset, folder or hub id behind the workload's checkpoint name.

    ``settings`` are the knobs to try; ``compare`` counts other graphs; ``capture`` is where a Metal capture goes.
    """

    workload: Workload
    source: str
    root: Path
    parts: tuple[str, ...]
    time_plan: TimePlan
    vendor: str
    backend: str
    commit: str | None = None
    dirty: bool | None = None
    settings: tuple[sweeps.Setting, ...] = ()
    compare: Mapping[str, Callable[[dict[str, Any], int], tuple[Graph, str]]] = field(default_factory=dict)
    capture: Path | None = None


class Profiler:
    """Profiles one workload. The model is loaded when a part first needs it, and let go before the duels."""

    def __init__(self, request: ProfileRequest, tools: Tools) -> None:
        self._request = request
        self._tools = tools
        self.invalid = False
        self.checkpoint = loading.inspect(request.source, request.root)
        self._subject = Subject(
            request.workload,
            self.checkpoint,
            tokens=min(request.time_plan.tokens, request.workload.shape.generate - 2),
            towers=lambda: (
                request.workload.modality == "image" or ("contexts" in request.parts and self._blind is None)
            ),
            clock=tools.clock,
            device=tools.device,
            note=lambda text: self._say(text),
        )

    @cached_property
    def _blind(self) -> str | None:
        return without_images(self._request.workload, self.checkpoint, self._request.time_plan.lengths)

    def measure(self, keep: Callable[[WorkloadProfile], None] = lambda profile: None) -> WorkloadProfile:
        """Measure every part that was asked for; ``keep`` gets each one alone as soon as it is there."""
        request, tools = self._request, self._tools
        empty = WorkloadProfile(str(request.workload), self.checkpoint.digest)
        whole = empty
        asked = [part for part in PARTS if part in request.parts]
        for index, part in enumerate(asked):
            left = sum(request.time_plan.seconds[one] for one in asked[index:])
            self._say = _saying(tools.note, tools.clock, part, left)
            self._say("starting")
            begin = tools.clock()
            tools.probe.start()
            try:
                found, lost = getattr(self, f"_{part}")(), None
            except Exception as error:
                self.invalid = self.invalid or isinstance(error, InvalidError)
                found, lost = None, _missing(part, error)
            conditions = tools.probe.stop()
            taken = Taken(
                tools.today(), request.commit, request.dirty, round(tools.clock() - begin, 1), conditions,
                tuple(fault.code for fault in tools.faults_of(conditions)),
            )  # fmt: skip
            if lost is None:
                alone = replace(empty, **{part: found}, taken={part: taken})
                whole = replace(whole, **{part: found}, taken={**whole.taken, part: taken})
            else:
                alone = replace(empty, missing=(lost,))
                whole = replace(whole, missing=(*whole.missing, lost))
            keep(alone)
        return whole

    def _histogram(self) -> Histogram:
        request, config = self._request, self.checkpoint.config
        position = request.workload.shape.prompt + WARM_TOKENS
        graph = graphs.count(config, position=position)
        compared: list[Comparison] = []
        if _is_published(config):
            compared.append(histogram.beside_published(graph, config))
        for name, count in request.compare.items():
            self._say(f"counting {name}")
            other, source = count(config, position)
            compared.append(histogram.beside(other, graph, name, source))
        return histogram.build(graph, config, position, compared=tuple(compared))

    def _floor(self) -> Floor:
        self._subject.prepared()
        setting = floor.Setting(
            self._subject.model(), self.checkpoint.config, self.checkpoint.bytes["streamed"],
            decode=self._subject.tpot_s,
            copy_bandwidth=lambda: copy_bandwidth(self._tools.clock),
        )  # fmt: skip
        return floor.measure(setting, self._tools.clock, **self._rounds("floor"))

    def _split(self) -> Split:
        import mlx.core as mx

        session, engine = self._subject.prepared()
        timer = split.SplitTimer(
            session, engine, self._tools.device, self._tools.clock,
            lambda logits: mx.argmax(logits, axis=-1), self._subject.tokens,
        )  # fmt: skip
        return split.measure(timer, **self._rounds("split"))

    def _contexts(self) -> Contexts:
        request, time_plan = self._request, self._request.time_plan
        generate = request.workload.shape.generate
        image = image_shape(request.workload.checkpoint, generate)
        lengths = sorted({*time_plan.lengths, *((image.prompt,) if self._blind is None else ())})
        sessions: dict[contexts.Variant, contexts.Timed] = {}
        for length in lengths:
            workload = Workload.make(request.workload.checkpoint, "text", Shape(length, generate))
            self._say(f"preparing {workload}")
            sessions[contexts.Variant("text", length + WARM_TOKENS)] = self._subject.timed(workload)
        if self._blind is None:
            workload = Workload.make(request.workload.checkpoint, "image", image)
            self._say(f"preparing {workload}")
            sessions[contexts.Variant("image", image.prompt + WARM_TOKENS)] = self._subject.timed(workload)
        return contexts.measure(sessions, **self._rounds("contexts"), image_missing=self._blind)

    def _engines(self) -> Engines:
        from gemma3n_perf.decode.engines.mlx_lm import MlxLm
        from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream
        from gemma3n_perf.profile.loop import MlxVlmLoop

        model, path = self._subject.model(), self.checkpoint.path
        text = Workload.make(self._request.workload.checkpoint, "text", self._request.workload.shape)
        ids = [int(one) for one in prompts.make(text, self.checkpoint).ids]
        return engines.measure(
            [MlxVlmLoop(model), MlxVlmStream(model), MlxLm(path)], [Mlxcel(path, self._tools.run)], ids,
            tokens=self._request.time_plan.engine_tokens, clock=self._tools.clock, **self._rounds("engines"),
        )  # fmt: skip

    def _trace(self) -> Trace:
        request, tools = self._request, self._tools
        self._subject.prepared()
        tokens = self._subject.tokens
        decoder = trace.Decoder(tokens, self._subject.tpot_s)
        if request.backend == "metal":
            if request.capture is None:
                raise NotMeasuredError(
                    "Metal tells no busy time to a program",
                    expected="a capture, for a person to open",
                    remedy="MTL_CAPTURE_ENABLED=1 gemma3n-perf profile --parts trace --metal-capture FILE.gputrace",
                )
            return trace.capture_metal(decoder, request.capture)
        attempts: list[Callable[[str], Trace]] = []
        if request.backend == "cuda":
            order = TraceRequest(str(request.workload), request.source, str(request.root), TRACE_BLOCKS, min(tokens, 8))
            attempts.append(lambda why: trace.by_cupti(order, tools.run))
            if tools.nvml_busy is not None:
                busy = tools.nvml_busy
                attempts.append(lambda why: trace.by_nvml(decoder, busy, tools.clock, why))
        elif tools.thread_times is not None:
            times = tools.thread_times
            attempts.append(lambda why: trace.by_threads(decoder, times, tools.own_thread()))
        return trace.best(attempts)

    def _sweep(self) -> Sweep:
        request, tools = self._request, self._tools
        self._subject.let_go()
        return sweeps.measure(
            request.settings,
            lambda arms: tools.compete(arms, request.time_plan.duel_s),
            reads=tools.reads,
            present=tools.environ,
        )

    def _rounds(self, part: str) -> dict[str, Any]:
        time_plan, tools = self._request.time_plan, self._tools
        return {
            "rounds": time_plan.rounds,
            "rng": tools.rng,
            "note": self._say,
            "enough": until(tools.clock, time_plan.seconds[part]),
        }


def _is_published(config: dict[str, Any]) -> bool:
    text = config["text_config"]
    return bool(config.get("quantization")) and (text["num_hidden_layers"], text["hidden_size"]) == (35, 2048)


def _missing(part: str, error: Exception) -> Missing:
    return Missing(part, said(error), error.remedy if isinstance(error, PerfError) else None)


def _saying(note: Callable[[str], None], clock: Clock, part: str, left_s: float) -> Callable[[str], None]:
    begin = clock()

    def say(text: str) -> None:
        note(f"{part}: {text}, about {max(left_s - (clock() - begin), 0):.0f} s left")

    return say
