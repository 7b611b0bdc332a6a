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
from gemma3n_perf.decode.decoder import Clock, Probe
from gemma3n_perf.decode.device import Device
from gemma3n_perf.decode.engines import side_by_side
from gemma3n_perf.decode.runs import FaultsOf
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.errors import InvalidError, PerfError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.profile import engines, floor, histogram, split, sweeps, trace
from gemma3n_perf.profile.cupti import TraceRequest
from gemma3n_perf.profile.record import laid_over
from gemma3n_perf.profile.rounds import Rounds, TimePlan, until
from gemma3n_perf.profile.subject import Subject, contexts, image_workload, without_images
from gemma3n_perf.profile.types import PARTS, Missing, Part, Taken, Trace, WorkloadProfile
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.workload import WARM_TOKENS, Shape, Workload

TRACE_BLOCKS = 8

Count = Callable[[dict[str, Any], int], tuple[Graph, str]]
"""Counts another decode graph of a config at a position; returns it and where it comes from."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What profiling needs of the world.

    ``compete`` duels arms that set knobs, given seconds for each; ``reads`` looks for a variable in MLX's libraries.
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


@dataclass
class Profiler:
    """Profiles one workload. The model is loaded when a part first needs it, and freed before the duels.

    ``source`` is the preset, folder or hub id behind the workload's checkpoint name. ``root`` holds the forged
    checkpoints; ``stack`` is this process's. ``settings`` are the knobs to try; ``compare`` counts other graphs, by
    what they are called; ``capture`` is where a Metal capture goes. ``invalid``: some part must not be used.
    """

    workload: Workload
    source: str
    root: Path
    parts: tuple[str, ...]
    plan: TimePlan
    stack: Stack
    tools: Tools
    settings: tuple[sweeps.Setting, ...] = ()
    compare: Mapping[str, Count] = field(default_factory=dict)
    capture: Path | None = None
    invalid: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Raise CheckpointMissingError where there is no checkpoint to profile."""
        self.checkpoint = loading.inspect(self.source, self.root)
        tokens = min(self.plan.tokens, self.workload.shape.generate - 2)
        self._subject = Subject(
            self.workload, self.checkpoint, tokens, self._towers, self.tools.clock, self.tools.device, self._note
        )

    @cached_property
    def _no_image(self) -> str | None:
        return without_images(self.checkpoint, self.workload.checkpoint, self.plan.lengths)

    def _towers(self) -> bool:
        return self.workload.modality == "image" or ("contexts" in self.parts and self._no_image is None)

    def _note(self, text: str) -> None:
        left = max(self._ends - self.tools.clock(), 0)
        self.tools.note(f"{self._part}: {text}, about {left:.0f} s left")

    def measure(self, keep: Callable[[WorkloadProfile], None] = lambda profile: None) -> WorkloadProfile:
        """Measure every part that was requested; ``keep`` gets each one alone as soon as it is there."""
        tools, stack = self.tools, self.stack
        empty = whole = WorkloadProfile(str(self.workload), self.checkpoint.digest)
        requested = [part for part in PARTS if part in self.parts]
        for index, part in enumerate(requested):
            begin = tools.clock()
            self._part, self._ends = part, begin + sum(self.plan.seconds[one] for one in requested[index:])
            self._note("starting")
            tools.probe.start()
            try:
                found = getattr(self, f"_{part}")()
            except Exception as error:
                self.invalid = self.invalid or isinstance(error, InvalidError)
                found = Missing(part, engines.message(error), error.remedy if isinstance(error, PerfError) else None)
            conditions = tools.probe.stop()
            if isinstance(found, Missing):
                alone = replace(empty, missing=(found,))
            else:
                taken = Taken(
                    tools.today(), stack.commit, stack.dirty, round(tools.clock() - begin, 1), conditions,
                    tuple(fault.code for fault in tools.faults_of(conditions)),
                )  # fmt: skip
                alone = replace(empty, **{part: found}, taken={part: taken})
            keep(alone)
            whole = laid_over(whole, alone)
        return whole

    def _histogram(self) -> Part:
        config, position = self.checkpoint.config, self.workload.shape.prompt + WARM_TOKENS
        graph = graphs.count(config, position=position)
        compared = [histogram.beside_published(graph, config)] if histogram.is_published(config) else []
        for name, count in self.compare.items():
            self._note(f"counting {name}")
            other, source = count(config, position)
            compared.append(histogram.beside(other, graph, name, source))
        return histogram.build(graph, config, position, compared=tuple(compared))

    def _floor(self) -> Part:
        self._subject.prepared()
        return floor.measure(
            self._subject.model(),
            self.checkpoint.config,
            self.checkpoint.bytes["streamed"],
            self.tools.clock,
            self._rounds(),
            decode=self._subject.tpot_s,
            copy_bandwidth=partial(copy_bandwidth, self.tools.clock),
        )

    def _split(self) -> Part:
        import mlx.core as mx

        decoder, engine = self._subject.prepared()
        sample, tools = partial(mx.argmax, axis=-1), self.tools
        timer = split.SplitTimer(decoder, engine.logits, sample, tools.device, tools.clock, self._subject.tokens)
        return split.measure(timer, self._rounds())

    def _contexts(self) -> Part:
        generate = self.workload.shape.generate
        lengths, images = set(self.plan.lengths), []
        if self._no_image is None:
            images = [image_workload(self.workload.checkpoint, generate)]
            lengths.add(images[0].shape.prompt)
        timed = []
        text = [Workload.make(self.workload.checkpoint, "text", Shape(n, generate)) for n in sorted(lengths)]
        for one in (*text, *images):
            self._note(f"preparing {one}")
            timed.append(self._subject.timed(one))
        return contexts(timed, self._rounds(), image_missing=self._no_image)

    def _engines(self) -> Part:
        streamers, programs = side_by_side(self._subject.model(), self.checkpoint.path, self.tools.run)
        text = Workload.make(self.workload.checkpoint, "text", self.workload.shape)
        ids = [int(one) for one in prompts.make(text, self.checkpoint).ids]
        return engines.measure(
            streamers, programs, ids, self._rounds(), tokens=self.plan.engine_tokens, clock=self.tools.clock
        )

    def _trace(self) -> Part:
        tools, subject = self.tools, self._subject
        subject.prepared()
        if self.stack.backend == "metal":
            return trace.capture_metal(subject.tpot_s, self.capture)
        attempts: list[Callable[[str], Trace]] = []
        if self.stack.backend == "cuda":
            tokens = min(subject.tokens, 8)
            traced = TraceRequest(str(self.workload), self.source, str(self.root), TRACE_BLOCKS, tokens)
            attempts.append(lambda _: trace.by_cupti(traced, tools.run))
            if tools.nvml_busy is not None:
                attempts.append(partial(trace.by_nvml, subject.tpot_s, tools.nvml_busy, tools.clock))
        elif tools.thread_times is not None:
            times = tools.thread_times
            attempts.append(lambda _: trace.by_threads(subject.tpot_s, subject.tokens, times, tools.own_thread))
        return trace.best(attempts)

    def _sweep(self) -> Part:
        self._subject.free()
        tools, seconds = self.tools, self.plan.duel_s
        return sweeps.measure(
            self.settings, lambda arms: tools.compete(arms, seconds), reads=tools.reads, present=self.stack.knobs
        )

    def _rounds(self) -> Rounds:
        enough = until(self.tools.clock, self.plan.seconds[self._part])
        return Rounds(self.plan.rounds, self.tools.rng, self._note, enough)
