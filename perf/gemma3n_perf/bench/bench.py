"""One session of measuring: checkpoints loaded once, workloads prepared once, runs taken as they are asked for.

This is what pytest, asv and the command line drive. It prints nothing and judges nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.bandwidth import copy_bandwidth
from gemma3n_perf.decode.decoder import Clock, DecodeSession, Device, Engine, MlxDevice, Probe
from gemma3n_perf.decode.runs import FaultsOf, Rounds, Sleep
from gemma3n_perf.decode.types import Graph, Measurement, Run
from gemma3n_perf.errors import OutOfMemoryError, PerfError
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.workload import Workload

TTFT_SAMPLES = 3
LONG_PREFILL_S = 3.0
LEAST_RUNS = 3
MakeEngine = Callable[[Any], Engine]
CountGraph = Callable[[Workload], Graph]
Note = Callable[[str], None]


def _mlx_vlm(model: Any) -> Engine:
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

    return MlxVlmEngine(model)


@dataclass(slots=True)
class _Prepared:
    session: DecodeSession
    rounds: Rounds
    prompt: prompts.Prompt
    checkpoint: loading.Checkpoint
    ttft: list[float] = field(default_factory=list)
    warm_ttft: float = 0.0
    peak: int = 0


class Bench:
    """Measures workloads on this machine. Everything it touches is passed in; the defaults are the real ones.

    ``runs`` are taken of each workload, or as few as ``LEAST_RUNS`` where more would not fit ``budget_s``, the
    seconds of measuring that one workload may take. ``with_towers`` names checkpoints that an image will be asked of;
    ``source_of`` gives back the folder or hub id that a workload's short name stands for.
    """

    def __init__(
        self,
        root: Path,
        probe: Probe,
        faults_of: FaultsOf,
        *,
        runs: int,
        count_graph: CountGraph,
        budget_s: float | None = None,
        planted: float = 0.0,
        clock: Clock = time.perf_counter,
        sleep: Sleep = time.sleep,
        device: Device | None = None,
        make_engine: MakeEngine = _mlx_vlm,
        note: Note = lambda text: None,
        with_towers: frozenset[str] = frozenset(),
        source_of: Callable[[str], str] = lambda name: name,
    ) -> None:
        self._root = root
        self._probe = probe
        self._faults_of = faults_of
        self._planted = planted
        self._clock = clock
        self._sleep = sleep
        self._device = device or MlxDevice()
        self._make_engine = make_engine
        self._note = note
        self._checkpoints: dict[str, loading.Checkpoint] = {}
        self._model: tuple[str, bool, Any] | None = None
        self._prepared: dict[Workload, _Prepared] = {}
        self._failed: dict[Workload, PerfError] = {}
        self._finished: dict[Workload, Measurement] = {}
        self._bandwidth: float | None = None
        self._runs = runs
        self._budget_s = budget_s
        self._count_graph = count_graph
        self._with_towers = with_towers
        self._source_of = source_of

    def checkpoint(self, name: str) -> loading.Checkpoint:
        """Inspect a checkpoint, once."""
        if name not in self._checkpoints:
            self._checkpoints[name] = loading.inspect(self._source_of(name), self._root)
        return self._checkpoints[name]

    def prepare(self, workload: Workload) -> None:
        """Load, prefill, warm up and fix the position, once. Raises what loading and decoding raise."""
        if workload in self._failed:
            raise self._failed[workload]
        if workload in self._prepared:
            return
        with self._remembered(workload):
            self._prepare(workload)

    @contextmanager
    def _remembered(self, workload: Workload) -> Iterator[None]:
        # A second benchmark of a workload that failed would only wait and fail again.
        try:
            yield
        except PerfError as error:
            self._failed[workload] = error
            raise
        except RuntimeError as error:  # MLX has no type of its own for a failed allocation
            if not _of_memory(error):
                raise
            self._failed[workload] = _out_of_memory(error, workload)
            raise self._failed[workload] from error

    def _prepare(self, workload: Workload) -> None:
        checkpoint = self.checkpoint(workload.checkpoint)
        prompt = prompts.make(workload, checkpoint)
        self._note(f"{workload}: loading")
        towers = checkpoint.has_vision and (prompt.pixels is not None or checkpoint.name in self._with_towers)
        model = self._load(checkpoint, with_towers=towers)
        self._device.reset_peak_memory()
        session = DecodeSession(
            self._make_engine(model), workload, prompt,
            clock=self._clock, device=self._device, planted=self._planted,
        )  # fmt: skip
        self._note(f"{workload}: warming up")
        warm_ttft = session.time_to_first_token()
        session.prepare()
        warm, tokens = session.run(self._probe)
        session.same_tokens(tokens)
        rounds = Rounds(session, self._probe, self._faults_of, wanted=self._affordable(warm.seconds), sleep=self._sleep)
        self._prepared[workload] = _Prepared(
            session, rounds, prompt, checkpoint, warm_ttft=warm_ttft, peak=self._device.peak_memory()
        )

    def take_run(self, workload: Workload) -> Run:
        """Take one run that counts. Raises BadConditionsError."""
        self.prepare(workload)
        prepared = self._prepared[workload]
        self._note(f"{workload}: run {len(prepared.rounds.runs) + 1} of {prepared.rounds.wanted}")
        with self._remembered(workload):
            run = prepared.rounds.take()
        prepared.peak = max(prepared.peak, self._device.peak_memory())
        return run

    def first_tokens(self, workload: Workload) -> int:
        """How many prefills this workload is timed for: one where a prefill takes long."""
        self.prepare(workload)
        return TTFT_SAMPLES if self._prepared[workload].warm_ttft < LONG_PREFILL_S else 1

    def take_first_token(self, workload: Workload) -> float:
        """Time one prefill to its first token, warm, seconds. Runs go on from their own fixed position."""
        self.prepare(workload)
        prepared = self._prepared[workload]
        with self._remembered(workload):
            prepared.ttft.append(prepared.session.time_to_first_token())
        return prepared.ttft[-1]

    def wanted(self, workload: Workload) -> int:
        """How many runs this workload takes."""
        self.prepare(workload)
        return self._prepared[workload].rounds.wanted

    def measurement(self, workload: Workload) -> Measurement:
        """Everything about one workload, taking the runs and first tokens that are still missing."""
        if workload in self._finished:
            return self._finished[workload]
        self.prepare(workload)
        prepared = self._prepared[workload]
        while len(prepared.rounds.runs) < prepared.rounds.wanted:
            self.take_run(workload)
        while len(prepared.ttft) < self.first_tokens(workload):
            self.take_first_token(workload)
        finished = self._finished[workload] = Measurement(
            workload=str(workload),
            engine="mlx_vlm",
            prompt_tokens=workload.shape.prompt,
            generated_tokens=workload.shape.generate,
            runs=tuple(prepared.rounds.runs),
            discarded=tuple(prepared.rounds.discarded),
            ttft_s=tuple(prepared.ttft),
            peak_memory_bytes=prepared.peak,
            kv_bytes=prepared.session.kv_bytes(),
            streamed_bytes=prepared.checkpoint.bytes["streamed"],
            checkpoint_digest=prepared.checkpoint.digest,
            token_digest=prepared.session.token_digest(),
            planted=self._planted,
            soft_tokens=prepared.prompt.soft_tokens,
            copy_bandwidth=self.copy_bandwidth(),
            graph=self._count_graph(workload),
            prefill_reproducible=prepared.session.prefill_reproducible(),
        )
        return finished

    def copy_bandwidth(self) -> float:
        """This machine's copy bandwidth, bytes per second, measured once a session."""
        if self._bandwidth is None:
            self._bandwidth = copy_bandwidth(self._clock)
        return self._bandwidth

    def _affordable(self, run_s: float) -> int:
        if self._budget_s is None:
            return self._runs
        return max(min(self._runs, int(self._budget_s / run_s)), min(LEAST_RUNS, self._runs))

    def _load(self, checkpoint: loading.Checkpoint, *, with_towers: bool) -> Any:
        held = self._model
        if held is not None and held[0] == checkpoint.name and held[1] >= with_towers:
            return held[2]
        # Two large checkpoints at once may not fit, so what was prepared on the last one goes.
        self._model = held = None
        self._prepared.clear()
        model = loading.load(checkpoint, with_towers=with_towers)
        self._model = (checkpoint.name, with_towers, model)
        return model


def _of_memory(error: RuntimeError) -> bool:
    return any(word in str(error).lower() for word in ("alloc", "memory"))


def _out_of_memory(error: RuntimeError, workload: Workload) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{workload} ran out of memory: {str(error).splitlines()[0]}",
        expected="room for weights, KV cache and one prefill",
        remedy="close other programs, or choose a smaller checkpoint or shape",
    )
