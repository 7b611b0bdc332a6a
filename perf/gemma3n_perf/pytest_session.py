"""One ``pytest perf/`` session: what was asked, what it found, what it stores and how it ends.

The adapter behind perf/conftest.py: it wires the rooms together and decides nothing about numbers itself.
"""

import argparse
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.errors import CountsChangedError, InvalidError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.machine import keep_awake, measuring_lock
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.measure.bench import Bench
from gemma3n_perf.measure.progress import Progress
from gemma3n_perf.report import session as reports
from gemma3n_perf.report.rows import Notice, Report
from gemma3n_perf.report.terminal import render
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.compare import Compared, compare, same_class, tripwires
from gemma3n_perf.store.files import file_stem, write_next
from gemma3n_perf.store.local import local_folder, save_session
from gemma3n_perf.store.published import read_published
from gemma3n_perf.store.session_file import encode, header_json, measurement_json
from gemma3n_perf.store.types import Baseline
from gemma3n_perf.verdict.policy import Policy
from gemma3n_perf.verdict.types import Verdict
from gemma3n_perf.workload import cache, forge, load
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import WARM_TOKENS, Shape, Workload, customary, defaults

RUNS = {"cpu": 10}
RUNS_ON_GPU = 6
COLUMNS = ["median", "min", "max", "stddev", "ops", "rounds"]
_STORAGE_DEFAULT = "file://./.benchmarks"


def percent(text: str) -> float:
    """Read ``10%`` as 0.1. Raises argparse's error for anything else."""
    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not text.strip().endswith("%") or not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage above 0, for instance 10%")
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    checkpoints: tuple[str, ...]
    modalities: tuple[str, ...]
    shapes: tuple[str, ...]
    runs: int | None
    time_budget: float | None
    strict: bool
    planted: float
    baselines: Path
    root: Path

    @classmethod
    def from_pytest(cls, option: Any, rootpath: Path) -> "Options":
        """Take pytest's parsed options. Raises UsageError for values that make no measurement."""
        if option.runs is not None and option.runs < 2:
            raise UsageError(f"--runs {option.runs}", expected="2 or more: one run shows no spread")
        if option.time_budget is not None and option.time_budget <= 0:
            raise UsageError(f"--time-budget {option.time_budget:g}", expected="seconds above 0")
        return cls(
            checkpoints=tuple(option.checkpoint),
            modalities=tuple(option.modality),
            shapes=tuple(option.shape),
            runs=option.runs,
            time_budget=option.time_budget,
            strict=bool(option.strict),  # pytest's own --strict: what was not shown does not pass
            planted=option.plant_slowdown,
            baselines=(option.baselines or rootpath / "baselines").absolute(),
            root=cache.checkpoints_root(),
        )


class SuiteSession:
    """Everything one session knows. Built before pytest-benchmark is configured; finished after it has finished."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chip = detect()
        self.stack = current_stack(suite_checkout())
        self.workloads = _selected(options, self.chip.vendor)
        self.expected: list[Workload] = []
        self.asked = False
        self._autosave = False
        self._baseline: Baseline | None = None
        self._id = uuid.uuid4().hex
        self._bench: Bench | None = None
        self._graphs: dict[Workload, Graph] = {}
        self._measured: dict[str, Measurement] = {}
        self._errors: list[PerfError] = []
        self._missing: dict[str, str] = {}
        self._compared: tuple[Compared, ...] = ()
        self._notices: list[Notice] = []

    def take_over(self, option: Any) -> None:
        """Point pytest-benchmark at the chip class's baselines. Raises UsageError, MalformedRecordError."""
        import pytest_benchmark.session

        asked = option.benchmark_compare
        if isinstance(asked, str) and Path(asked).exists():
            raise UsageError(
                f"--benchmark-compare took {asked!r} for the run to compare with",
                expected="the path before the option",
                remedy=f"pytest {asked} --benchmark-compare",
            )
        self.asked = bool(asked)
        self._autosave = bool(option.benchmark_autosave or option.benchmark_save)
        option.benchmark_autosave = option.benchmark_save = None
        if self._autosave and self.options.planted:
            raise UsageError(
                "a session with a planted slowdown is never saved",
                expected="--plant-slowdown without --benchmark-save or --benchmark-autosave",
            )
        option.benchmark_save_data = True
        if option.benchmark_columns is None:
            option.benchmark_columns = COLUMNS
        storage = self.options.baselines
        if self.asked:
            self._baseline = Baselines(self.options.baselines).load(self.chip.chip_class)
            if self._baseline is None:
                local = local_folder(self.chip.chip_class)
                self._baseline, storage = Baselines.local(local), local.parent
            if self._baseline is None:
                option.benchmark_compare = None
        if option.benchmark_storage == _STORAGE_DEFAULT:
            option.benchmark_storage = f"file://{storage}"
        chip_class = self.chip.chip_class
        # Its own id would mix every chip of one Python.
        setattr(pytest_benchmark.session, "get_machine_id", lambda: chip_class)  # noqa: B010

    @contextmanager
    def open(self, err: TextIO) -> Iterator[Bench]:
        """Hold the machine and yield what measures on it. Raises MachineBusyError and what forging raises."""
        progress = Progress(err)
        with ExitStack() as held:
            held.enter_context(measuring_lock())
            awake = held.enter_context(keep_awake())
            held.callback(progress.clear)
            progress.note(awake)
            for name in dict.fromkeys(workload.checkpoint for workload in self.workloads):
                self._forge(name, progress)
            system = this_machine()
            limits = Limits.for_cores(self.chip.cpu_cores or os.cpu_count() or 1)
            budget = self.options.time_budget
            self._bench = Bench(
                self.options.root,
                ConditionProbe.on(system, os.getpid()),
                partial(faults, limits=limits),
                runs=self.options.runs or RUNS.get(self.chip.vendor, RUNS_ON_GPU),
                budget_s=budget / len(self.workloads) if budget else None,
                planted=self.options.planted,
                count_graph=self.graph,
                note=progress.note,
                with_towers=frozenset(w.checkpoint for w in self.workloads if w.modality == "image"),
            )
            yield self._bench

    def graph(self, workload: Workload) -> Graph:
        """Count a workload's decode step where its runs start, once; needs no weights."""
        if workload not in self._graphs:
            config = load.config_of(self._source(workload.checkpoint), self.options.root)
            self._graphs[workload] = graphs.count(config, position=workload.shape.prompt + WARM_TOKENS)
        return self._graphs[workload]

    def measured(self, measurement: Measurement) -> dict[str, Any]:
        """Keep a measurement and return what pytest-benchmark stores with it."""
        self._measured[measurement.workload] = measurement
        return {"gemma3n_perf": measurement_json(measurement)}

    def machine_info(self) -> dict[str, Any]:
        """What pytest-benchmark stores of this machine beside its own facts."""
        return {"gemma3n_perf": header_json(self.chip, self.stack, self._id, self.options.planted)}

    def check_class(self, compared: dict[str, Any]) -> bool:
        """Whether pytest-benchmark compares with a file of this chip class. Raises NotComparableError."""
        if self._baseline is not None:
            same_class(self.chip, self._baseline)
        return True

    def require_same_graph(self, workload: Workload) -> None:
        """Raise CountsChangedError where the decode graph is not the baseline's, on the same versions of MLX."""
        stored = self._stored(workload)
        graph = self.graph(workload)
        if stored is not None and stored.graph is not None:
            changed = graphs.difference(stored.graph, graph)
            self._changed(workload, [f"{name}: {old} -> {new}" for name, (old, new) in changed.items()])

    def require_unchanged(self, measured: Measurement, names: tuple[str, ...]) -> None:
        """Raise CountsChangedError where an exact figure is not the baseline's, on the same versions of MLX."""
        stored = self._stored(Workload.parse(measured.workload))
        if stored is not None:
            found = [line for line in tripwires(measured, stored) if line.partition(":")[0] in names]
            self._changed(Workload.parse(measured.workload), found)

    def failed(self, error: PerfError, workload: Workload | None = None) -> None:
        """Note a named error: it decides the exit code, and the workload's line says why it is missing."""
        self._errors.append(error)
        for one in [workload] if workload else self.expected:
            if not isinstance(error, CountsChangedError):
                self._missing.setdefault(str(one), error.found)
        if workload is None:
            self._notices.append(Notice(error.found, error.remedy or error.expected or ""))

    def finish(self, config: Any) -> None:
        """Store the session and compare it. Raises DiskFullError, MalformedRecordError."""
        if not self._measured:
            return
        measurements = [self._measured[str(w)] for w in self.workloads if str(w) in self._measured]
        self._compared = compare(measurements, self._baseline, self.stack, Policy())
        if self.options.planted:
            self._notices.append(
                Notice("a slowdown was planted in this session", "run without --plant-slowdown for a real answer")
            )
        else:
            self._save(config)

    def exit_status(self, pytest_status: int, failures: int) -> int:
        """Exit code: invalid 5, loss or a changed count 1, not measured 4; --strict adds inconclusive 3, no baseline 4.

        ``pytest_status`` stands where tests failed for other reasons, or the session was interrupted.
        """
        if pytest_status not in (0, 1) or failures > len(self._errors):
            return pytest_status
        codes = {error.exit_code for error in self._errors}
        if self.asked:
            verdicts = {one.judgement.verdict for one in self._compared}
            codes |= {v.exit_code for v in verdicts if v in (Verdict.LOSS, Verdict.INVALID) or self.options.strict}
            if self.options.strict and any(one.tripwires for one in self._compared):
                codes.add(1)
        return next(
            (code for code in (InvalidError.exit_code, 1, 2, NotMeasuredError.exit_code, 3) if code in codes), 0
        )

    def report(self) -> Report | None:
        """What to print, None where no decode was asked for."""
        names = {one.measurement.workload for one in self._compared}
        missing = [
            (str(one), self._missing.get(str(one), "its benchmark did not finish"))
            for one in self.expected
            if str(one) not in names
        ]
        if not names and not missing:
            return None
        return reports.build(
            self.chip,
            self.stack,
            self._compared,
            asked=self.asked,
            missing=missing,
            published=read_published(self.options.baselines / "published"),
            notices=self._notices,
            planted=self.options.planted,
        )

    def print_report(self, terminal: Any) -> None:
        """Print the report on pytest's terminal."""
        try:
            report = self.report()
        except PerfError as error:
            terminal.write_line(str(error))
            return
        if report is not None:
            terminal.section("gemma3n-perf")
            encoding = getattr(getattr(terminal, "_tw", None), "_file", None)
            unicode = "utf" in (getattr(encoding, "encoding", None) or "utf-8").lower()
            width = terminal._tw.fullwidth
            terminal.write(render(report, width=width, colour=terminal.hasmarkup, unicode=unicode))

    def _save(self, config: Any) -> None:
        session = config._benchmarksession
        info = session.get_machine_info()
        commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
        document = config.hook.pytest_benchmark_generate_json(
            config=config, benchmarks=session.benchmarks, include_data=True, machine_info=info, commit_info=commit
        )
        save_session(document)
        if self._autosave:
            folder = self.options.baselines / self.chip.chip_class
            path = write_next(folder, [file_stem(self.stack)], [encode(document)])[0]
            self._notices.append(
                Notice(f"saved as {path.name} in {folder.name}", "commit it with the change it measures")
            )

    def _stored(self, workload: Workload) -> Measurement | None:
        stored = self._baseline.sessions_of(str(workload)) if self._baseline else ()
        return stored[-1] if stored else None

    def _changed(self, workload: Workload, found: list[str]) -> None:
        assert self._baseline is not None
        then, now = self._baseline.stack, self.stack
        same = (then.mlx, then.mlx_vlm, then.backend) == (now.mlx, now.mlx_vlm, now.backend)
        if found and (same or self.options.strict):
            raise CountsChangedError(
                f"{workload}: exact counts changed: {'; '.join(found)}",
                expected=f"what the baseline of {(then.commit or 'unknown')[:12]} recorded",
                remedy="if the change is intended, record a new baseline: gemma3n-perf baseline save",
            )

    def _source(self, short: str) -> str:
        named = {load.locate(name, self.options.root)[0]: name for name in self.options.checkpoints}
        return named.get(short, short)

    def _forge(self, name: str, progress: Progress) -> None:
        if name not in PRESETS or (self.options.root / PRESETS[name].directory).is_dir():
            return
        total = forge.size(PRESETS[name])
        done = 0

        def wrote(written: int) -> None:
            nonlocal done
            done += written
            progress.note(f"forging {name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")

        forge.forge(PRESETS[name], self.options.root, progress=wrote)


def _selected(options: Options, vendor: str) -> list[Workload]:
    """The workloads asked for: what is customary for the chip and its checkpoints, narrowed or reshaped."""
    names = [name if name in PRESETS else load.locate(name, options.root)[0] for name in options.checkpoints]
    found = [w for name in names for w in customary(name, vendor)] if names else list(defaults(vendor))
    if options.shapes:
        shapes = [Shape.parse(text) for text in options.shapes]
        modalities = options.modalities or ("text",)
        checkpoints = dict.fromkeys(w.checkpoint for w in found)
        return [Workload.make(name, m, shape) for name in checkpoints for m in modalities for shape in shapes]
    chosen = [w for w in found if not options.modalities or w.modality in options.modalities]
    if not chosen:
        raise UsageError(
            f"no customary workload of {', '.join(names)} is {' or '.join(options.modalities)} on this chip",
            expected="a modality that is measured here by default, or a shape",
            remedy="add --shape, for instance --shape pp320-tg64",
        )
    return chosen
