"""One session of measuring: checkpoints loaded once, workloads prepared once, runs taken one by one.

This is what pytest, asv and the command line drive. It prints nothing and judges nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.bench import duelled
from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.bandwidth import copy_bandwidth
from gemma3n_perf.decode.decoder import Clock, Decoder, Probe
from gemma3n_perf.decode.device import Device, MlxDevice
from gemma3n_perf.decode.engine import Engine
from gemma3n_perf.decode.engines import DEFAULT, ENGINES, kind_of
from gemma3n_perf.decode.runs import FaultsOf, RunCollector, Sleep
from gemma3n_perf.decode.types import Graph, Measurement, Run
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.errors import PerfError, named
from gemma3n_perf.workload import load
from gemma3n_perf.workload.workload import Workload

TTFT_SAMPLES = 3
LONG_PREFILL_S, ENDLESS_PREFILL_S = 3.0, 60.0
"""From when on one prefill is timed, and from when on that which warms up is the one: it is cold by a second or two."""
LEAST_RUNS = 3
MakeEngine = Callable[[Any], Engine]
CountGraph = Callable[[Workload], Graph | None]
Note = Callable[[str], None]


def usual_runs(vendor: str) -> int:
    """How many runs a workload takes on a chip of ``vendor``, unless another number was requested."""
    return 10 if vendor == "cpu" else 6


@dataclass(slots=True)
class _Prepared:
    decoder: Decoder
    collector: RunCollector
    prompt: prompts.Prompt
    checkpoint: load.Checkpoint
    prefills: int
    peak: int
    first_s: float | None = None
    ttft: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """Measures workloads on this machine. Everything it touches is passed in; the defaults are the real ones.

    ``runs`` are taken of each workload, or as few as ``LEAST_RUNS`` where more would not fit ``budget_s``, the
    seconds of measuring that one workload may take. ``with_towers`` names checkpoints that decode an image later;
    ``source_of`` gives back the folder or hub id that a workload's short name stands for.
    """

    root: Path
    probe: Probe
    faults_of: FaultsOf
    _: KW_ONLY
    runs: int
    count_graph: CountGraph
    budget_s: float | None = None
    planted: float = 0.0
    clock: Clock = time.perf_counter
    sleep: Sleep = time.sleep
    device: Device = field(default_factory=MlxDevice)
    make_engine: MakeEngine = ENGINES[DEFAULT].make
    note: Note = lambda text: None
    with_towers: frozenset[str] = frozenset()
    source_of: Callable[[str], str] = lambda name: name
    _checkpoints: dict[str, load.Checkpoint] = field(init=False, default_factory=dict)
    _model: tuple[object, bool, Any] | None = field(init=False, default=None)
    _prepared: dict[Workload, _Prepared] = field(init=False, default_factory=dict)
    _failed: dict[Workload, PerfError] = field(init=False, default_factory=dict)
    _finished: dict[Workload, Measurement] = field(init=False, default_factory=dict)
    _runs: dict[Workload, Iterator[Run]] = field(init=False, default_factory=dict)
    _ttft: dict[Workload, Iterator[float]] = field(init=False, default_factory=dict)
    _bandwidth: float | None = field(init=False, default=None)

    def checkpoint(self, name: str) -> load.Checkpoint:
        """Inspect a checkpoint, once."""
        if name not in self._checkpoints:
            self._checkpoints[name] = load.inspect(self.source_of(name), self.root)
        return self._checkpoints[name]

    def adopt(self, workload: Workload, state: ComparisonState) -> None:
        """Take a workload's numbers from a duel of this program; where no run of it counts, it is measured here."""
        streamed = self.checkpoint(workload.checkpoint).bytes["streamed"]
        found = duelled.measurement(
            state, workload.engine or DEFAULT, self.planted, streamed, self.copy_bandwidth(), self.count_graph(workload)
        )
        if found is not None:
            self._finished[workload] = found
            self._runs[workload], self._ttft[workload] = iter(found.runs), iter(found.ttft_s)

    def prepare(self, workload: Workload) -> None:
        """Load, prefill, warm up and fix the position, once. Raises what loading and decoding raise."""
        if workload in self._failed:
            raise self._failed[workload]
        if workload in self._prepared or workload in self._runs:
            return
        with self._remembered(workload):
            self._prepare(workload)

    @contextmanager
    def _remembered(self, workload: Workload) -> Iterator[None]:
        # A second benchmark of a workload that failed would only wait and fail again.
        try:
            yield
        except Exception as error:
            found = named(error)  # MLX has no type of its own for a failed allocation
            if found is None:
                raise
            self._failed[workload] = found
            if found is error:
                raise
            raise found from error

    def _prepare(self, workload: Workload) -> None:
        checkpoint = self.checkpoint(workload.checkpoint)
        prompt = prompts.make(workload, checkpoint)
        self.note(f"{workload}: loading")
        towers = checkpoint.has_vision and (prompt.pixels is not None or checkpoint.name in self.with_towers)
        model = self._load(checkpoint, workload, with_towers=towers)
        self.device.reset_peak_memory()
        make_engine = kind_of(workload).make if workload.engine else self.make_engine
        decoder = Decoder(
            make_engine(model), workload, prompt, clock=self.clock, device=self.device, planted=self.planted
        )
        self.note(f"{workload}: warming up")
        prefills, first_s = 0, 0.0
        if not decoder.prefill_fault():
            first_s = decoder.time_to_first_token()
            prefills = TTFT_SAMPLES if first_s < LONG_PREFILL_S else 1
        decoder.prepare()
        warm, tokens = decoder.run(self.probe)
        decoder.same_tokens(tokens)
        required = self._affordable(warm.seconds)
        collector = RunCollector(decoder, self.probe, self.faults_of, required=required, sleep=self.sleep)
        peak = self.device.peak_memory()
        counts = first_s if first_s >= ENDLESS_PREFILL_S else None
        self._prepared[workload] = _Prepared(decoder, collector, prompt, checkpoint, prefills, peak, counts)

    def take_run(self, workload: Workload) -> Run:
        """Take one run that counts, or the next one of a duel. Raises BadConditionsError."""
        self.prepare(workload)
        if workload in self._runs:
            return next(self._runs[workload])
        prepared = self._prepared[workload]
        self.note(f"{workload}: run {len(prepared.collector.runs) + 1} of {prepared.collector.required}")
        with self._remembered(workload):
            run = prepared.collector.take()
        prepared.peak = max(prepared.peak, self.device.peak_memory())
        return run

    def first_tokens(self, workload: Workload) -> int:
        """How many prefills this workload is timed for: one where a prefill takes long, none where it means nothing."""
        self.prepare(workload)
        if workload in self._ttft:
            return len(self._finished[workload].ttft_s)
        return self._prepared[workload].prefills

    def take_first_token(self, workload: Workload) -> float:
        """Time one prefill to its first token, warm, seconds. Runs go on from their own fixed position."""
        self.prepare(workload)
        if workload in self._ttft:
            return next(self._ttft[workload])
        prepared = self._prepared[workload]
        first_s, prepared.first_s = prepared.first_s, None
        with self._remembered(workload):
            prepared.ttft.append(prepared.decoder.time_to_first_token() if first_s is None else first_s)
        return prepared.ttft[-1]

    def required(self, workload: Workload) -> int:
        """How many runs this workload takes."""
        self.prepare(workload)
        if workload in self._runs:
            return len(self._finished[workload].runs)
        return self._prepared[workload].collector.required

    def measurement(self, workload: Workload) -> Measurement:
        """Everything about one workload, taking the runs and first tokens that are still missing."""
        if workload in self._finished:
            return self._finished[workload]
        self.prepare(workload)
        prepared = self._prepared[workload]
        while len(prepared.collector.runs) < prepared.collector.required:
            self.take_run(workload)
        while len(prepared.ttft) < self.first_tokens(workload):
            self.take_first_token(workload)
        finished = self._finished[workload] = Measurement(
            workload=str(workload),
            engine=workload.engine or DEFAULT,
            prompt_tokens=workload.shape.prompt,
            generated_tokens=workload.shape.generate,
            runs=tuple(prepared.collector.runs),
            discarded=tuple(prepared.collector.discarded),
            ttft_s=tuple(prepared.ttft),
            peak_memory_bytes=prepared.peak,
            kv_bytes=prepared.decoder.kv_bytes(),
            streamed_bytes=prepared.checkpoint.bytes["streamed"],
            checkpoint_digest=prepared.checkpoint.digest,
            token_digest=prepared.decoder.token_digest(),
            planted=self.planted,
            soft_tokens=prepared.prompt.soft_tokens,
            copy_bandwidth=self.copy_bandwidth(),
            graph=self.count_graph(workload),
            prefill_reproducible=prepared.decoder.prefill_reproducible(),
        )
        return finished

    def copy_bandwidth(self) -> float:
        """This machine's copy bandwidth, bytes per second, measured once a session."""
        if self._bandwidth is None:
            self._bandwidth = copy_bandwidth(self.clock)
        return self._bandwidth

    def _affordable(self, run_s: float) -> int:
        if self.budget_s is None:
            return self.runs
        return max(min(self.runs, int(self.budget_s / run_s)), min(LEAST_RUNS, self.runs))

    def _load(self, checkpoint: load.Checkpoint, workload: Workload, *, with_towers: bool) -> Any:
        kind = kind_of(workload)
        place = checkpoint.name, kind.loader
        if self._model is not None and self._model[0] == place and self._model[1] >= with_towers:
            return self._model[2]
        # Two large checkpoints at once may not fit, so what was prepared on the last one goes.
        self._model = None
        self._prepared.clear()
        model = kind.load(checkpoint, with_towers=with_towers)
        self._model = (place, with_towers, model)
        return model
