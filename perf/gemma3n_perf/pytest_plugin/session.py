"""One ``pytest perf/`` session: what was asked, what it found, what it stores and how it ends.

The adapter behind perf/conftest.py: it wires the rooms together and decides nothing about numbers itself.
"""

import sys
import uuid
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TextIO

from gemma3n_perf.bench import report as reports
from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.bench.comparison import Compared, compare, same_class, same_mlx, tripwires
from gemma3n_perf.bench.confirmation import ScreenOutcome, look_into
from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.errors import CountsChangedError, InvalidError, NotMeasuredError, PerfError
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.pytest_plugin import machine as pytest_machine
from gemma3n_perf.pytest_plugin import storage as pytest_storage
from gemma3n_perf.pytest_plugin.fusions import described, fusions, gather
from gemma3n_perf.pytest_plugin.options import Options, selected, sources
from gemma3n_perf.report.rows import Notice, Report, planted_percent, with_notes
from gemma3n_perf.report.terminal import render
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.baselines import MIN_SESSIONS, Baselines
from gemma3n_perf.store.local import save_session
from gemma3n_perf.store.published import read_published
from gemma3n_perf.store.session_file import header_json, measurement_json
from gemma3n_perf.store.types import COMMITTED, Baseline
from gemma3n_perf.workload import load
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

NO_TESTS_COLLECTED = 5  # pytest's number, which is that of an invalid comparison here


class SuiteSession:
    """Everything one session knows. Built before pytest-benchmark is configured; finished after it has finished."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chip = detect()
        self.stack = current_stack(suite_checkout())
        self._sources = sources(options)
        self.workloads = selected(options, tuple(self._sources), self.chip.vendor)
        self.fusions = fusions(options)
        self.expected: list[Workload] = []
        self.listing = False
        self._taken = pytest_storage.Taken()
        self._id = uuid.uuid4().hex
        self._graphs: dict[Workload, Graph] = {}
        self._measured: dict[str, Measurement] = {}
        self._errors: list[PerfError] = []
        self._named_failures = 0
        self._missing: dict[str, str] = {}
        self._compared: tuple[Compared, ...] = ()
        self._notices: list[Notice] = []
        self._looked = ScreenOutcome(())
        self._evidence: list[str] = []

    def take_over(self, option: Any) -> None:
        """Point pytest-benchmark at the chip class's baselines. Raises UsageError, MalformedRecordError."""
        self._taken = pytest_storage.take_over(option, self.options, self.chip, self.stack)
        if self._taken.named:
            found = f"the run {self._taken.named} is for pytest-benchmark's own table; verdicts know the whole baseline"
            self._notices.append(Notice(found, "for another commit: gemma3n-perf duel ref:COMMIT here"))

    @property
    def asked(self) -> bool:
        """Whether a comparison was asked for."""
        return self._taken.asked

    @property
    def _baseline(self) -> Baseline | None:
        return self._taken.baseline

    def open(self, err: TextIO) -> AbstractContextManager[Bench]:
        """Hold the machine and give what measures on it. Raises MachineBusyError and what forging raises."""
        return pytest_machine.held(
            self.options, self.chip, self.workloads, count_graph=self.graph, source_of=self._source, err=err
        )

    def gather(self, err: TextIO) -> dict[str, Evidence]:
        """Measure and write evidence for every fusion asked for. Raises what ``evidence_run.run`` raises."""
        found = gather(self.options, [str(w) for w in self.workloads], self._sources, err)
        self._evidence = described(found)
        return {record.fusion: record for record, _ in found}

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

    def failed_test(self, error: PerfError, workload: Workload | None) -> None:
        """Note the named error that failed one test."""
        self._named_failures += 1
        self.failed(error, workload)

    def failed(self, error: PerfError, workload: Workload | None = None) -> None:
        """Note a named error: it decides the exit code, and the workload's line says why it is missing."""
        self._errors.append(error)
        for one in [workload] if workload else self.expected:
            if not isinstance(error, CountsChangedError):
                self._missing.setdefault(str(one), error.found)
        if workload is None:
            self._notices.append(Notice(error.found, error.remedy or error.expected or ""))

    def finish(self, config: Any, *, interrupted: bool = False) -> None:
        """Compare the session, store it and let a duel look into what looks like a loss.

        An interrupted one is compared as far as it came, and neither stored nor duelled.
        """
        if not self._measured:
            return
        measurements = [self._measured[str(w)] for w in self.workloads if str(w) in self._measured]
        self._compared = compare(measurements, self._baseline, self.stack, Policy())
        try:
            self._keep(config, interrupted)  # before the duel, which takes long and may be interrupted itself
        except PerfError as error:
            self.failed(error)  # what could not be stored has still to be judged
        if self.asked and self._baseline is not None and not interrupted:
            self._looked = look_into(
                self._compared,
                self._baseline.stack,
                partial(dueling.machine, self.options.baselines, sys.__stderr__ or sys.stderr),
                enabled=self.options.confirm,
                planted=self.options.planted,
                sources=self._sources,
            )
            self._compared = self._looked.compared

    def duel_interrupted(self) -> None:
        """Say that Ctrl-C came before a suspicion was looked into."""
        self._notices.append(Notice("interrupted before a duel could tell: a loss is only suspected", "run it again"))

    def _keep(self, config: Any, interrupted: bool) -> None:
        if self.options.planted:
            self._notices.append(
                Notice("a slowdown was planted in this session", "run without --plant-slowdown for a real answer")
            )
        elif interrupted:
            self._notices.append(Notice("the session was interrupted, so it is not stored", "run it again"))
        else:
            self._save(config)

    def exit_status(self, pytest_status: int, failures: int) -> int:
        """Exit code: invalid 5, loss or a changed count 1, not measured 4; --strict adds inconclusive 3, no baseline 4.

        ``pytest_status`` stands where tests failed for other reasons, or the session was interrupted.
        A session that selected or finished no decode has not measured it, except where none was asked for.
        """
        if pytest_status == NO_TESTS_COLLECTED:
            return NotMeasuredError.exit_code
        if pytest_status not in (0, 1) or failures > self._named_failures:
            return pytest_status
        codes = {error.exit_code for error in self._errors}
        if self._unfinished():
            codes.add(NotMeasuredError.exit_code)
        if self.asked:
            verdicts = {one.judgement.verdict for one in self._compared}
            codes |= {v.exit_code for v in verdicts if v in (Verdict.LOSS, Verdict.INVALID) or self.options.strict}
            if self.options.strict and any(one.tripwires for one in self._compared):
                codes.add(1)
            if self._looked.unanswered:
                codes.add(NotMeasuredError.exit_code)
        return next(
            (code for code in (InvalidError.exit_code, 1, 2, NotMeasuredError.exit_code, 3) if code in codes), 0
        )

    def report(self) -> Report | None:
        """What to print, None where no decode was asked for."""
        missing = [(name, self._missing.get(name, "its benchmark did not finish")) for name in self._unfinished()]
        if not self._compared and not missing:
            return None
        try:
            published = read_published(self.options.baselines / "published")
        except PerfError as error:
            published = ()  # shown beside ours and never judged, so they cannot cost us the report
            self._notices.append(Notice(error.found, error.remedy or error.expected or ""))
        built = reports.build(
            self.chip,
            self.stack,
            self._compared,
            asked=self.asked,
            missing=missing,
            published=published,
            notices=[*self._origin(), *self._notices],
            planted=self.options.planted,
        )
        return with_notes(built, self._looked.notes)

    def print_report(self, terminal: Any) -> None:
        """Print the report on pytest's terminal."""
        report = self.report()
        if report is None:
            for line in self._without_decode():
                terminal.write_line(line)
        else:
            terminal.section("gemma3n-perf")
            encoding = getattr(getattr(terminal, "_tw", None), "_file", None)
            unicode = "utf" in (getattr(encoding, "encoding", None) or "utf-8").lower()
            width = terminal._tw.fullwidth
            terminal.write(render(report, width=width, colour=terminal.hasmarkup, unicode=unicode))

    def _unfinished(self) -> list[str]:
        done = {one.measurement.workload for one in self._compared}
        return [str(one) for one in self.expected if str(one) not in done]

    def _origin(self) -> list[Notice]:
        """Say loudly where the class has no committed baseline."""
        if not self.asked or (self._baseline is not None and self._baseline.label == COMMITTED):
            return []
        found = f"no baseline is committed for chip class {self.chip.chip_class}"
        if self._baseline is None:
            found += ", and this machine has no earlier session to stand in: nothing was compared"
        else:
            found += ": this machine's own last sessions stand in"
        return [Notice(found, "record one: gemma3n-perf baseline save, then gemma3n-perf baseline promote")]

    def _without_decode(self) -> list[str]:
        """What must be said where there is no table: -k or the like selected no decode benchmark."""
        lines = [f"gemma3n-perf: warning: {notice.found}" for notice in self._notices] + self._evidence
        if self.options.planted:
            lines.append(f"gemma3n-perf: PLANTED SLOWDOWN of {planted_percent(self.options.planted)}")
        if self.asked and not self.listing:
            lines.append("gemma3n-perf: no decode benchmark was selected, so no throughput was compared")
        return lines

    def _save(self, config: Any) -> None:
        session = config._benchmarksession
        if not session.benchmarks:
            self._notices.append(
                Notice(
                    "pytest-benchmark took no samples, so the session is not stored", "leave --benchmark-disable out"
                )
            )
            return
        info = session.get_machine_info()
        commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
        document = config.hook.pytest_benchmark_generate_json(
            config=config, benchmarks=session.benchmarks, include_data=True, machine_info=info, commit_info=commit
        )
        stored = save_session(document)
        if self._taken.autosave:
            kept = Baselines(self.options.baselines)
            path = kept.promote([stored], min_sessions=1)[0]
            found = f"saved as {path.name} in {path.parent.name}"
            if path.name not in kept.require(path.parent.name).files:
                found += f", which stays with its older baseline until there are {MIN_SESSIONS} of this commit"
            self._notices.append(Notice(found, "commit it with the change it measures"))

    def _stored(self, workload: Workload) -> Measurement | None:
        stored = self._baseline.sessions_of(str(workload)) if self._baseline else ()
        return stored[-1] if stored else None

    def _changed(self, workload: Workload, found: list[str]) -> None:
        assert self._baseline is not None
        then = self._baseline.stack
        if found and (same_mlx(then, self.stack) or self.options.strict):
            raise CountsChangedError(
                f"{workload}: exact counts changed: {'; '.join(found)}",
                expected=f"what the baseline of {(then.commit or 'unknown')[:12]} recorded",
                remedy="if the change is intended, record a new baseline: gemma3n-perf baseline save",
            )

    def _source(self, short: str) -> str:
        return self._sources.get(short, short)
