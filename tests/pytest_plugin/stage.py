"""A stage for the plugin: the real conftest, bench files, store, judge and reports around a measuring that is told.

What is replaced is what a test must not depend on: the chip, the stack, the machine's lock, the user's folders and
the bench that would load a model. All else runs as it does for a user.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core  # noqa: F401  (pytester forgets what a run imports, and an extension module cannot be loaded twice)
import pytest
import pytest_benchmark.session
from pytest_benchmark import plugin as pytest_benchmark_plugin
from pytest_benchmark.utils import get_machine_id

from gemma3n_perf.bench import comparing
from gemma3n_perf.bench.against import Against, CompareRequest
from gemma3n_perf.bench.comparator import Chosen, Comparator
from gemma3n_perf.decode import graph
from gemma3n_perf.decode.types import Graph, Measurement, Run
from gemma3n_perf.duel import arms, graphs, lookup
from gemma3n_perf.duel import run as duels
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.hardware import machine
from gemma3n_perf.hardware.fitness import Doctor, Fitness
from gemma3n_perf.hardware.lock import measuring_lock
from gemma3n_perf.hardware.machine import BusyPolicy, open_machine
from gemma3n_perf.hardware.types import Chip, Conditions, Stack
from gemma3n_perf.pytest_plugin import session
from gemma3n_perf.stats.verdicts import Judgement, Verdict, not_measured
from gemma3n_perf.store import files
from gemma3n_perf.store.files import file_stem
from gemma3n_perf.store.session_file import encode
from gemma3n_perf.workload.workload import Workload
from tests.duel import arena
from tests.duel import duels as fakes_of_duels
from tests.fakes import CHIP, STACK, document, measurement

CHECKOUT = Path(__file__).parents[2]
TEXT, LONG, IMAGE = "nano/text/pp40-tg64", "nano/text/pp140-tg64", "nano/image/pp296-tg64"
WORKLOADS = (TEXT, LONG, IMAGE)
GRAPH = Graph({"quantized_matmul": 74}, {"QuantizedMatmul": 74}, {"float32": 900}, 900, {"streamed": 30_000_000})
TPOT_S = 0.01
LOSS = Judgement(Verdict.LOSS, "the whole interval lies below -0.5 %", -0.2, -0.22, -0.18, launches=3)
NO_CHANGE = Judgement(Verdict.NO_CHANGE, "the whole interval lies within 1 %", 0.001, -0.004, 0.006, launches=3)


def scattered(spread: float) -> tuple[float, ...]:
    """Return five sessions' seconds per token whose geometric mean is TPOT_S, ``spread`` apart from it at most."""
    return tuple(TPOT_S * (1 + spread) ** step for step in (-1, -0.5, 0, 0.5, 1))


@dataclass
class Script:
    """What the bench is to find: seconds per token, changes and errors by workload; graphs of a decode step.

    ``judgements`` are what a duel finds, by workload, no-change without; ``same`` says that the program is the same,
    ``incomparable`` that there is nothing to compare with; ``theirs`` is the graph of what is compared with; ``busy``
    are the policies that the machine was opened with.
    """

    tpot_s: dict[str, float] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    raises: dict[str, BaseException] = field(default_factory=dict)
    graph: Graph = GRAPH
    theirs: Graph | None = GRAPH
    same: bool = False
    incomparable: BaseException | None = None
    judgements: dict[str, Judgement] = field(default_factory=dict)
    duel: BaseException | None = None
    requests: list[CompareRequest] = field(default_factory=list)
    duelled: list[str] = field(default_factory=list)
    busy: list[BusyPolicy] = field(default_factory=list)
    opened: int = 0
    taken: list[str] = field(default_factory=list)


class FakeBench:
    """Stands in for ``bench.bench.Bench``: finds what its script says, and takes no time."""

    def __init__(self, script: Script, *args: Any, planted: float, count_graph: Any, runs: int, **others: Any) -> None:
        script.opened += 1
        self._script = script
        self._planted = planted
        self._count_graph = count_graph
        self._runs = runs

    def prepare(self, workload: Workload) -> None:
        """Raise what the script has for the workload."""
        if str(workload) in self._script.raises:
            raise self._script.raises[str(workload)]

    def adopt(self, workload: Workload, state: ComparisonState) -> None:
        """Take nothing: the stage's duels have no launches."""

    def required(self, workload: Workload) -> int:
        """Return how many runs the command line names."""
        return self._runs

    def take_run(self, workload: Workload) -> Run:
        """Return the next run."""
        runs = self.measurement(workload).runs
        self._script.taken.append(str(workload))
        return runs[len(self._script.taken) % len(runs)]

    def first_tokens(self, workload: Workload) -> int:
        """Return how many prefills are timed."""
        return 2

    def take_first_token(self, workload: Workload) -> float:
        """Return seconds of a prefill."""
        return 0.1 * (1 + self._planted)

    def measurement(self, workload: Workload) -> Measurement:
        """Return what the script says of the workload, slowed as the real bench would."""
        self.prepare(workload)
        name = str(workload)
        made = measurement(name, self._script.tpot_s.get(name, TPOT_S) * (1 + self._planted), planted=self._planted)
        return replace(made, graph=self._count_graph(workload), **self._script.changes.get(name, {}))


@dataclass
class Stage:
    """A checkout with the real plugin in it, on a fake chip."""

    pytester: pytest.Pytester
    patch: pytest.MonkeyPatch
    script: Script = field(default_factory=Script)
    chip: Chip = CHIP
    stack: Stack = STACK

    @property
    def folder(self) -> Path:
        """The checkout."""
        return self.pytester.path

    @property
    def baselines(self) -> Path:
        """The committed baselines of the stage's chip class."""
        return self.folder / "baselines" / CHIP.chip_class

    @property
    def local_files(self) -> list[Path]:
        """This machine's own session files."""
        return sorted((self.folder / "data").rglob("*.json"))

    @property
    def lock(self) -> Path:
        """The file that stands for the machine's lock."""
        return self.folder / "measuring.lock"

    def commit(self, spread: float = 0.002, workloads: tuple[str, ...] = WORKLOADS, **changes: Any) -> None:
        """Commit a baseline of five sessions, ``changes`` in every measurement."""
        for number, tpot_s in enumerate(scattered(spread), start=1):
            made = [measurement(name, tpot_s, graph=GRAPH, **changes) for name in workloads]
            self.baselines.mkdir(parents=True, exist_ok=True)
            path = self.baselines / f"{number:04}_{file_stem(STACK)}.json"
            path.write_bytes(encode(document(f"s{number}", *made)))

    def run(self, *arguments: str) -> "Outcome":
        """Run ``pytest perf/`` with more arguments."""
        return self.command("perf/", *arguments)

    def command(self, *arguments: str) -> "Outcome":
        """Run ``pytest`` as typed."""
        result = self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments, no_reraise_ctrlc=True)
        return Outcome(int(result.ret), result.stdout.str(), result.stderr.str())


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All it said, with runs of spaces and line ends as one space."""
        return " ".join((self.out + " " + self.err).split())

    @property
    def closing(self) -> str:
        """The line that counts the workloads."""
        found = [line for line in self.out.splitlines() if " workload" in line and line[:1].isdigit()]
        return found[-1] if found else ""

    def line(self, *words: str) -> str:
        """Return the first line that holds all ``words``."""
        return next((line for line in self.out.splitlines() if all(word in line for word in words)), "")


def build(pytester: pytest.Pytester, patch: pytest.MonkeyPatch) -> Stage:
    """Copy the plugin into ``pytester``'s folder and put the stand-ins in place."""
    for name in ("pyproject.toml", "tests/conftest.py", "perf/conftest.py"):
        _copy(CHECKOUT / name, pytester.path / name)
    for source in sorted((CHECKOUT / "perf").glob("bench_*.py")):
        _copy(source, pytester.path / "perf" / source.name)
    stage = Stage(pytester, patch)
    patch.setenv("GEMMA3N_PERF_CACHE", str(pytester.path / "cache"))
    patch.setenv("COLUMNS", "100")
    patch.delenv("PYTEST_ADDOPTS", raising=False)
    patch.setattr(files, "data_folder", lambda: pytester.path / "data")
    _replace(patch, stage)
    return stage


def _replace(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(session, "detect", lambda: stage.chip)
    patch.setattr(session, "current_stack", lambda repo: stage.stack)
    patch.setattr(machine, "keep_awake", _awake)
    patch.setattr(Doctor, "look", lambda doctor: Fitness((), Conditions()))
    patch.setattr(session, "open_machine", partial(open_machine, lock=stage.lock))
    patch.setattr(session, "Bench", partial(FakeBench, stage.script))
    patch.setattr(session, "ensure_forged", lambda *arguments: False)
    patch.setattr(graph, "count", lambda config, *, position: stage.script.graph)
    patch.setattr(duels, "machine", partial(_machine, stage))
    patch.setattr(lookup, "require_arms", lambda *named: [arms.parse(one) for one in named])
    patch.setattr(comparing, "establish", partial(_establish, stage.script))
    patch.setattr(comparing, "compare", partial(_compare, stage.script))
    patch.setattr(graphs, "count", lambda arm, source, position: stage.script.theirs)
    # The session puts its own id in place for good; the second line is a second of asking the CPU its name.
    patch.setattr(pytest_benchmark.session, "get_machine_id", get_machine_id)
    patch.setattr(pytest_benchmark_plugin, "get_cpu_info", dict)


@contextmanager
def _machine(stage: Stage, *arguments: Any) -> Iterator[duels.Here]:
    stage.script.busy += arguments[2:]
    with measuring_lock(stage.lock):
        yield fakes_of_duels.machine(arena.Arena(), stage.folder / "baselines", stack=stage.stack)


def _establish(script: Script, request: CompareRequest, *arguments: Any) -> Against:
    script.requests.append(request)
    if script.incomparable is not None:
        raise script.incomparable
    chosen = Chosen(Comparator(request.against or "ref:" + 40 * "1", "the parent commit"))
    same = script.same and not request.measure_anyway and not request.planted
    return Against(chosen, arena.arm("baseline"), is_same=same, changes=() if same else ("decode/decoder.py changed",))


def _compare(
    script: Script, against: Against, request: CompareRequest, here: Any, workloads: Any, launched: Any, *, risen: bool
) -> duels.DuelResult:
    script.duelled += workloads
    loss = {name: LOSS for name in workloads} if request.planted else {}
    found = {name: script.judgements.get(name, loss.get(name, NO_CHANGE)) for name in workloads}
    spec = duels.DuelSpec(
        against.chosen.comparator.arm, (request.candidate,), tuple(workloads), request.budget_s("cpu")
    )
    comparisons = {
        (name, "candidate"): duels.Comparison(ComparisonState(name), judgement, not_measured("no prefill"))
        for name, judgement in found.items()
    }
    result = duels.DuelResult(spec, arena.ARMS, comparisons, fakes_of_duels.NOW)
    launched(result)
    if script.duel is not None:
        raise script.duel
    return result


@contextmanager
def _awake() -> Iterator[str]:
    yield "kept awake by nobody"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def environment(folder: Path) -> dict[str, str]:
    """Return what a real session of its own process needs to stay inside ``folder``, see calm.py."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "perf")])
    return kept | {"PYTHONPATH": path, "GEMMA3N_PERF_CACHE": str(folder / "cache"), "CALM_FOLDER": str(folder)}
