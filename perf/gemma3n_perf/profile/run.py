"""All parts of one workload's profile, one after the other, each by itself.

A part that fails costs that part. What went before is handed over as soon as it is there, so that even a process that
dies half-way leaves what it measured.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.bandwidth import copy_bandwidth
from gemma3n_perf.decode.decoder import Clock, Device, Probe
from gemma3n_perf.decode.engines import side_by_side
from gemma3n_perf.decode.runs import FaultsOf
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.errors import InvalidError, PerfError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.profile import contexts, engines, floor, histogram, split, sweeps, trace
from gemma3n_perf.profile.cupti import TraceRequest
from gemma3n_perf.profile.rounds import Rounds, TimePlan, until
from gemma3n_perf.profile.subject import Subject, image_workload, without_images
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
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.workload import WARM_TOKENS, Shape, Workload

TRACE_BLOCKS = 8

Count = Callable[[dict[str, Any], int], tuple[Graph, str]]
"""Counts another decode graph of a config at a position; returns it and where it comes from."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What profiling needs of the world.

    ``compete`` duels knobs, texts of arms, for so many seconds each; ``reads`` looks for a variable in MLX's libraries.
    ``nvml_busy`` is the driver's busy share in percent, ``thread_times`` the seconds that each thread of this process
    computed; None where there is no such counter.
    """

    clock: Clock
    device: Device
    probe: Probe
    faults_of: FaultsOf
    run: Run
    compete: Callable[[Sequence[str], float], Mapping[str, Judgement]]
    reads: Callable[[str], bool | None]
    today: Callable[[], str]
    rng: random.Random
    note: Callable[[str], None] = lambda text: None
    nvml_busy: Callable[[], float] | None = None
    thread_times: Callable[[], dict[int, float]] | None = None
    own_thread: int = 0


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to profile: ``source`` is the preset, folder or hub id behind the workload's checkpoint name.

    ``root`` holds the forged checkpoints; ``stack`` is this process's. ``settings`` are the knobs to try; ``compare``
    counts other graphs, by what they are called; ``capture`` is where a Metal capture goes.
    """

    workload: Workload
    source: str
    root: Path
    parts: tuple[str, ...]
    time_plan: TimePlan
    stack: Stack
    settings: tuple[sweeps.Setting, ...] = ()
    compare: Mapping[str, Count] = field(default_factory=dict)
    capture: Path | None = None


class Profiler:
    """Profiles one workload. The model is loaded when a part first needs it, and freed before the duels."""

    def __init__(self, request: ProfileRequest, tools: Tools) -> None:
        self._request, self._tools, self._plan = request, tools, request.time_plan
        self._workload, self._name = request.workload, request.workload.checkpoint
        self.invalid = False
        self.checkpoint = loading.inspect(request.source, request.root)
        tokens = min(self._plan.tokens, self._workload.shape.generate - 2)
        self._subject = Subject(
            self._workload, self.checkpoint, tokens, self._towers, tools.clock, tools.device, self._note
        )

    @cached_property
    def _no_image(self) -> str | None:
        return without_images(self.checkpoint, self._name, self._plan.lengths)

    def _towers(self) -> bool:
        return self._workload.modality == "image" or ("contexts" in self._request.parts and self._no_image is None)

    def _note(self, text: str) -> None:
        left = max(self._ends - self._tools.clock(), 0)
        self._tools.note(f"{self._part}: {text}, about {left:.0f} s left")

    def measure(self, keep: Callable[[WorkloadProfile], None] = lambda profile: None) -> WorkloadProfile:
        """Measure every part that was requested; ``keep`` gets each one alone as soon as it is there."""
        tools, stack = self._tools, self._request.stack
        empty = whole = WorkloadProfile(str(self._workload), self.checkpoint.digest)
        requested = [part for part in PARTS if part in self._request.parts]
        for index, part in enumerate(requested):
            begin = tools.clock()
            self._part, self._ends = part, begin + sum(self._plan.seconds[one] for one in requested[index:])
            self._note("starting")
            tools.probe.start()
            try:
                found = getattr(self, f"_{part}")()
            except Exception as error:
                self.invalid = self.invalid or isinstance(error, InvalidError)
                found = Missing(part, engines.message(error), error.remedy if isinstance(error, PerfError) else None)
            conditions = tools.probe.stop()
            if isinstance(found, Missing):
                keep(replace(empty, missing=(found,)))
                whole = replace(whole, missing=(*whole.missing, found))
                continue
            taken = Taken(
                tools.today(), stack.commit, stack.dirty, round(tools.clock() - begin, 1), conditions,
                tuple(fault.code for fault in tools.faults_of(conditions)),
            )  # fmt: skip
            keep(replace(empty, **{part: found}, taken={part: taken}))
            whole = replace(whole, **{part: found}, taken={**whole.taken, part: taken})
        return whole

    def _histogram(self) -> Histogram:
        config, position = self.checkpoint.config, self._workload.shape.prompt + WARM_TOKENS
        graph = graphs.count(config, position=position)
        compared: list[Comparison] = []
        if histogram.is_published(config):
            compared.append(histogram.beside_published(graph, config))
        for name, count in self._request.compare.items():
            self._note(f"counting {name}")
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
        return floor.measure(setting, self._tools.clock, self._rounds())

    def _split(self) -> Split:
        import mlx.core as mx

        decoder, engine = self._subject.prepared()
        sample, tokens = partial(mx.argmax, axis=-1), self._subject.tokens
        timer = split.SplitTimer(decoder, engine.logits, sample, self._tools.device, self._tools.clock, tokens)
        return split.measure(timer, self._rounds())

    def _contexts(self) -> Contexts:
        generate = self._workload.shape.generate
        lengths, images = set(self._plan.lengths), []
        if self._no_image is None:
            images = [image_workload(self._name, generate)]
            lengths.add(images[0].shape.prompt)
        timed = []
        for one in (*(Workload.make(self._name, "text", Shape(n, generate)) for n in sorted(lengths)), *images):
            self._note(f"preparing {one}")
            timed.append(self._subject.timed(one))
        return contexts.measure(timed, self._rounds(), image_missing=self._no_image)

    def _engines(self) -> Engines:
        streamers, programs = side_by_side(self._subject.model(), self.checkpoint.path, self._tools.run)
        text = Workload.make(self._name, "text", self._workload.shape)
        ids = [int(one) for one in prompts.make(text, self.checkpoint).ids]
        return engines.measure(
            streamers, programs, ids, self._rounds(), tokens=self._plan.engine_tokens, clock=self._tools.clock
        )

    def _trace(self) -> Trace:
        request, tools, subject = self._request, self._tools, self._subject
        subject.prepared()
        if request.stack.backend == "metal":
            return trace.capture_metal(subject.tpot_s, request.capture)
        attempts: list[Callable[[str], Trace]] = []
        if request.stack.backend == "cuda":
            traced = TraceRequest(
                str(self._workload), request.source, str(request.root), TRACE_BLOCKS, min(subject.tokens, 8)
            )
            attempts.append(lambda _: trace.by_cupti(traced, tools.run))
            if tools.nvml_busy is not None:
                attempts.append(partial(trace.by_nvml, subject.tpot_s, tools.nvml_busy, tools.clock))
        elif tools.thread_times is not None:
            times = tools.thread_times
            attempts.append(lambda _: trace.by_threads(subject.tpot_s, subject.tokens, times, tools.own_thread))
        return trace.best(attempts)

    def _sweep(self) -> Sweep:
        tools, stack = self._tools, self._request.stack
        self._subject.free()
        return sweeps.measure(
            self._request.settings, lambda arms: tools.compete(arms, self._plan.duel_s),
            reads=tools.reads, present=stack.knobs,
        )  # fmt: skip

    def _rounds(self) -> Rounds:
        enough = until(self._tools.clock, self._plan.seconds[self._part])
        return Rounds(self._plan.rounds, self._tools.rng, self._note, enough)
