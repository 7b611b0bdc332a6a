import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench.bench import TTFT_SAMPLES, Bench
from gemma3n_perf.bench.clock import MeasuredClock
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.decode.types import Graph, Run
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.launch import CandidateRun, Launch, Prefills
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.duel.tools import Side
from gemma3n_perf.errors import BadConditionsError, CorruptCheckpointError, OutOfMemoryError, PerfError
from gemma3n_perf.hardware.types import Conditions, Fault
from gemma3n_perf.workload import load
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload
from tests.decode import fakes
from tests.decode.fakes import FakeClock, FakeDevice, FakeEngine, FakeProbe
from tests.fakes import STACK

TEXT = Workload.parse("nano/text/pp40-tg64")
LONG = Workload.parse("nano/text/pp140-tg64")
IMAGE = Workload.parse("nano/image/pp296-tg64")
GRAPH = Graph({"rope": 9}, {"Add": 1}, {"float32": 1}, 1)


@dataclass
class Bed:
    """A bench over fake engines and the real nano on disk; a run of 64 steps takes 0.641 s of its clock."""

    root: Path
    conditions: list[Conditions] = field(default_factory=lambda: [Conditions()])
    models: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    fail: Exception | None = None
    fault: str = ""
    prefill_s: float = 0.5

    def bench(self, **options: Any) -> Bench:
        """Return the bench."""
        self.clock = FakeClock(tick=1e-9)
        self.device = FakeDevice(self.clock)
        self.probe = FakeProbe(self.conditions)
        options = {"runs": 10} | options
        return Bench(
            self.root,
            self.probe,
            lambda c: (Fault("busy", "load is high", "wait"),) if (c.load1 or 0) > 1 else (),
            count_graph=lambda workload: GRAPH,
            clock=self.clock,
            sleep=self.slept.append,
            device=self.device,
            make_engine=self.engine,
            note=self.notes.append,
            **options,
        )

    def engine(self, model: Any) -> FakeEngine:
        """Return a fake engine, remembering the model without holding it."""
        self.models.append(weakref.ref(model))
        self.made = FakeEngine(self.device, fault=self.fault, prefill_s=self.prefill_s)
        if self.fail:
            raise self.fail
        return self.made


@pytest.fixture
def bed(nano_root: Path) -> Bed:
    """Return a bed over the shared nano."""
    return Bed(nano_root)


@pytest.mark.parametrize(
    ("budget", "runs", "expected"),
    [(None, 10, 10), (100.0, 10, 10), (6.0, 10, 9), (3.3, 10, 5), (0.1, 10, 3), (0.1, 2, 2), (1e6, 4, 4)],
)
def test_a_budget_takes_as_many_runs_as_fit_but_three(bed: Bed, budget: float | None, runs: int, expected: int) -> None:
    """A run takes 0.641 s: never more runs than asked for, and three however small the budget."""
    assert bed.bench(budget_s=budget, runs=runs).required(TEXT) == expected


def test_a_measurement_holds_everything(bed: Bed) -> None:
    """Runs, first tokens, bytes and names: what is stored and compared later."""
    bench = bed.bench(runs=3)
    bed.device.peak = 5_000
    found = bench.measurement(TEXT)
    assert (found.workload, found.engine) == (str(TEXT), "mlx_vlm")
    assert (found.prompt_tokens, found.generated_tokens) == (40, 64)
    assert len(found.runs) == 3
    assert [run.seconds for run in found.runs] == pytest.approx([0.641] * 3, rel=1e-4)
    assert found.ttft_s == pytest.approx((0.5,) * TTFT_SAMPLES, rel=1e-4)
    assert found.session_tpot_s == pytest.approx(0.641 / 64, rel=1e-4)
    assert found.peak_memory_bytes == 5_000
    assert found.kv_bytes == 8 * (44 + 64)
    assert found.streamed_bytes == bench.checkpoint("nano").bytes["streamed"]
    assert found.checkpoint_digest == load.inspect("nano", bed.root).digest
    assert found.graph == GRAPH
    assert found.planted == 0.0
    assert found.copy_bandwidth is not None
    assert found.copy_bandwidth > 0
    assert bench.measurement(TEXT) is found


@pytest.mark.parametrize(("prefill_s", "taken", "timed"), [(0.5, 5, TTFT_SAMPLES), (30.0, 3, 1), (90.0, 2, 1)])
def test_a_long_prefill_is_timed_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, prefill_s: float, taken: int, timed: int
) -> None:
    """One warms up, one begins the runs; of minutes, the one that warms up is the one that counts."""
    bed.prefill_s = prefill_s
    prefill, prefills = FakeEngine.prefill, list[Prompt]()

    def counted(engine: FakeEngine, made: Prompt) -> fakes.FakeToken:
        prefills.append(made)
        return prefill(engine, made)

    monkeypatch.setattr(FakeEngine, "prefill", counted)
    bench = bed.bench(runs=2)
    assert bench.measurement(TEXT).ttft_s == pytest.approx((prefill_s,) * timed, rel=1e-4)
    assert len(prefills) == taken


def test_a_planted_slowdown_is_recorded_with_the_measurement(bed: Bed) -> None:
    """The mark travels with the numbers."""
    bench = bed.bench(runs=3, planted=0.25)
    bed.clock.tick = 1e-6
    found = bench.measurement(TEXT)
    assert found.planted == 0.25
    assert found.session_tpot_s == pytest.approx(1.25 * 0.641 / 64, rel=1e-2)


def test_soft_tokens_are_recorded(bed: Bed) -> None:
    """Where an image's soft tokens come from is said; a text has none."""
    bench = bed.bench(runs=2)
    assert bench.measurement(IMAGE).soft_tokens == "forged soft tokens"
    assert bench.measurement(TEXT).soft_tokens is None


def test_one_checkpoint_is_loaded_once(bed: Bed) -> None:
    """Workloads of one checkpoint share its model, whatever order they are asked for."""
    bench = bed.bench(runs=2)
    for workload in (TEXT, LONG, IMAGE, TEXT):
        bench.prepare(workload)
    assert len(bed.models) == 3
    assert len({id(model()) for model in bed.models}) == 1
    assert bed.device.resets == 3


def test_a_second_checkpoint_unloads_the_first(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second is loaded, nothing holds the first; coming back loads it again."""
    for name in (PRESETS["nano"].directory, "other"):
        fakes.nano_copy(tmp_path_factory.getbasetemp(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    bed = Bed(tmp_path)
    bench = bed.bench(runs=2)
    before: list[bool] = []
    real = load.load

    def watched(checkpoint: load.Checkpoint, *, with_towers: bool) -> Any:
        before.extend(model() is None for model in bed.models)
        return real(checkpoint, with_towers=with_towers)

    monkeypatch.setattr(load, "load", watched)
    bench.take_run(TEXT)
    bench.prepare(Workload.parse("other/text/pp40-tg64"))
    assert before == [True]
    bench.prepare(TEXT)
    assert before == [True, True, True]
    assert len(bed.models) == 3


def test_a_failure_is_remembered(bed: Bed) -> None:
    """A second benchmark of a workload that failed raises the same error at once; others go on."""
    bed.conditions = [Conditions(), *[Conditions(load1=9.0)] * 20]
    bench = bed.bench(runs=3)
    with pytest.raises(BadConditionsError) as first:
        bench.measurement(TEXT)
    waited, stopped = len(bed.slept), bed.probe.stopped
    for again in (bench.measurement, bench.take_run, bench.prepare, bench.required):
        with pytest.raises(BadConditionsError) as second:
            again(TEXT)
        assert second.value is first.value
    assert (len(bed.slept), bed.probe.stopped) == (waited, stopped)
    bed.probe.conditions = [Conditions()]
    assert len(bench.measurement(LONG).runs) == 3


def test_discarded_runs_are_part_of_the_measurement(bed: Bed) -> None:
    """They are kept with the code of their fault, and never among the runs that count."""
    bed.conditions = [Conditions(), Conditions(), Conditions(load1=9.0), Conditions()]
    found = bed.bench(runs=3).measurement(TEXT)
    assert [run.faults for run in found.discarded] == [("busy",)]
    assert [run.faults for run in found.runs] == [()] * 3


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    """Nothing is loaded for a workload whose checkpoint is not there or damaged."""
    bench = Bed(tmp_path).bench()
    with pytest.raises(PerfError, match="nano is not forged"):
        bench.prepare(TEXT)
    (tmp_path / PRESETS["nano"].directory).mkdir()
    with pytest.raises(CorruptCheckpointError):
        Bed(tmp_path).bench().prepare(TEXT)


def test_out_of_memory_is_named_at_any_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is prepared and while it runs, MLX's failed allocation becomes a named error, and is remembered."""
    said = RuntimeError("[malloc_or_wait] Unable to allocate 17179869184 bytes.")
    bed.fail = said
    bench = bed.bench()
    with pytest.raises(OutOfMemoryError, match="no memory is left") as caught:
        bench.prepare(TEXT)
    assert caught.value.__cause__ is said

    bed.fail = None
    bench = bed.bench()
    bench.prepare(TEXT)

    def step(token: Any) -> Any:
        raise said

    monkeypatch.setattr(bed.made, "step", step)
    with pytest.raises(OutOfMemoryError):
        bench.take_run(TEXT)
    with pytest.raises(OutOfMemoryError):
        bench.measurement(TEXT)


def test_another_runtime_error_is_not_called_memory(bed: Bed) -> None:
    """A bug stays a bug."""
    bed.fail = RuntimeError("kernel not found")
    with pytest.raises(RuntimeError, match="kernel not found") as caught:
        bed.bench().prepare(TEXT)
    assert not isinstance(caught.value, PerfError)


def test_first_tokens_leave_the_runs_where_they_were(bed: Bed) -> None:
    """After a prefill is timed, the next run starts from the same position and gives the same tokens."""
    bench = bed.bench(runs=2)
    first = bench.take_run(TEXT)
    assert bench.take_first_token(TEXT) == pytest.approx(0.5, rel=1e-4)
    bed.device.log.clear()
    assert bench.take_run(TEXT).seconds == pytest.approx(first.seconds)
    assert bed.device.log[:2] == [("rewind", 44), ("step", 44)]


def test_what_goes_on_is_noted(bed: Bed) -> None:
    """A progress line names workload and run."""
    bed.bench(runs=2).measurement(TEXT)
    assert bed.notes == [
        f"{TEXT}: loading",
        f"{TEXT}: warming up",
        f"{TEXT}: run 1 of 2",
        f"{TEXT}: run 2 of 2",
    ]


def test_only_what_is_counted_passes() -> None:
    """Between two readings lies what was counted, however long it took."""
    clock = MeasuredClock()
    assert clock() == clock() == 0.0
    clock.advance(0.25)
    begin = clock()
    clock.advance(0.5)
    assert (begin, clock() - begin) == (0.25, 0.5)


def duelled(*faults: tuple[str, ...]) -> ComparisonState:
    """A launch that took a run of the candidate for each of ``faults``, the last one 64 ms long, and two prefills."""
    runs = tuple(
        CandidateRun(Run(0.064, 64, (0.001,) * 64, Conditions(), each), 9_000 + number, 640)
        for number, each in enumerate(faults)
    )
    launch = Launch(0, "baseline", 1.0, 3.0, 1, (), prefills=Prefills(((0.3, 0.2), (0.3, 0.25)), runs=runs))
    side = Side(STACK, wire.Loaded("forged:1", "prompt:1", 40, 64, None), "tokens:1")
    return ComparisonState(str(TEXT), (launch,), sides={"baseline": side, "candidate": side})


def test_what_a_duel_measured_is_not_measured_again(bed: Bed) -> None:
    """Its runs and prefills are handed out one by one, and nothing is loaded."""
    bench = bed.bench()
    bench.adopt(TEXT, duelled(("steal",), ()))
    assert (bench.required(TEXT), bench.first_tokens(TEXT)) == (1, 2)
    assert bench.take_run(TEXT).tpot_s == pytest.approx(0.001)
    assert [bench.take_first_token(TEXT), bench.take_first_token(TEXT)] == [0.2, 0.25]
    found = bench.measurement(TEXT)
    assert (found.session_tpot_s, found.ttft_s, found.peak_memory_bytes) == (0.001, (0.2, 0.25), 9_001)
    assert [run.faults for run in found.discarded] == [("steal",)]
    assert found.graph == GRAPH
    assert found.streamed_bytes > 0
    assert bed.models == []


def test_what_a_duel_could_not_measure_is_measured_here(bed: Bed) -> None:
    """Where every run of it was disturbed, or there was none."""
    bench = bed.bench(runs=2)
    bench.adopt(TEXT, duelled(("steal",)))
    bench.adopt(LONG, duelled())
    assert len(bench.measurement(TEXT).runs) == 2
    assert len(bed.models) == 1


def test_a_prefill_that_means_nothing_is_not_timed(bed: Bed) -> None:
    """Decode is measured; there is no TTFT."""
    bed.fault = "the prompt goes in one token at a time"
    bench = bed.bench(runs=2)
    assert bench.first_tokens(TEXT) == 0
    assert bench.measurement(TEXT).ttft_s == ()
