"""One ``pytest perf/`` session: what was requested of it, what it has found, and what becomes of that."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from gemma3n_perf.bench.against import SHARE, CompareRequest
from gemma3n_perf.bench.bench import LEAST_RUNS, Bench, usual_runs
from gemma3n_perf.bench.comparator import short
from gemma3n_perf.bench.comparing import Comparing
from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.bench.outcome import Outcome, accept
from gemma3n_perf.bench.report import build, evidence_lines
from gemma3n_perf.bench.table import Report, planted_percent
from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.duel import run as duels
from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate.change import registered
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import expand
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.machine import open_machine
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.pytest_plugin import storage
from gemma3n_perf.pytest_plugin.options import Options, selected, sources
from gemma3n_perf.report.output import shown
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.store.accepted import Accepted, read_accepted
from gemma3n_perf.store.published import Publication, read_published
from gemma3n_perf.store.session_file import header_json, measurement_json
from gemma3n_perf.workload import load
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload


@dataclass(slots=True)
class SuiteSession:
    """The state of one session, built before pytest-benchmark is configured and finished after it has finished.

    ``sources`` are the folder or hub id of each checkpoint by the short name that a workload's id has.
    ``workloads`` may be measured; ``expected`` are those that -k and the like left, none while tests are only listed.
    ``missing`` has the reason why a workload was not measured; ``errors`` are all named errors, ``failed_tests`` how
    many of them failed a test. ``evidence`` are the lines that evidence for fusions is summed up in.
    ``skipped`` says that no runs were taken of the same program; ``compared`` is what the comparison amounts to;
    ``said`` are workloads whose risen counts were printed; ``busy`` says what made this machine unfit to measure.
    ``accepted`` are maintainers' files. At the end there are ``failures``, failed tests, and ``interrupted``.
    """

    options: Options
    chip: Chip
    stack: Stack
    sources: Mapping[str, str]
    workloads: Sequence[Workload]
    fusions: tuple[str, ...]
    storage: storage.Storage
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    expected: list[Workload] = field(default_factory=list)
    graphs: dict[Workload, Graph | None] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    comparing: Comparing = field(default_factory=Comparing)
    skipped: bool = False
    compared: tuple[Compared, ...] = ()
    said: set[str] = field(default_factory=set)
    errors: list[PerfError] = field(default_factory=list)
    failed_tests: int = 0
    failures: int | None = None
    interrupted: bool = False
    accepted: tuple[Accepted, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    cautions: list[Caution] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    busy: str | None = None

    @classmethod
    def begin(cls, option: Any, rootpath: Path) -> "SuiteSession":
        """Read pytest's options and point pytest-benchmark at the chip class's baselines.

        Raises UsageError, MalformedRecordError.
        """
        options = Options.from_pytest(option, rootpath)
        chip, stack, found = detect(), current_stack(suite_checkout()), sources(options)
        workloads = selected(options, found, chip.vendor)
        names = expand(options.fusions, registered()) if options.fusions else ()
        kept = storage.take_over(option, options, chip)
        accepted = read_accepted(options.baselines) if kept.comparing else ()
        return cls(options, chip, stack, found, workloads, names, kept, cautions=list(kept.named), accepted=accepted)

    @property
    def request(self) -> CompareRequest:
        """The comparison that was requested, of the workloads whose decode was selected, else of all."""
        options, baseline = self.options, self.storage.baseline
        names, then = tuple(str(one) for one in self.expected or self.workloads), baseline.stack if baseline else None
        return CompareRequest(
            names, self.sources, options.against, then, options.planted, options.measure_anyway, options.time_budget
        )

    @property
    def narrowed(self) -> tuple[str, ...]:
        """The workloads that options name, none where they name none."""
        return tuple(map(str, self.workloads)) if self.options.narrows else ()

    def establish(self, err: TextIO) -> None:
        """Find out, once, what this session is compared with. Raises what building an arm that was named raises."""
        if self.storage.comparing and not self.comparing.established and not self.options.listing:
            # The same program is no measuring, and needs no machine that is fit.
            with duels.machine(self.options.baselines, err, replace(self.options.busy, watched=False)) as machine:
                self._forge(machine.tools.note)
                self.comparing.establish(self.request, machine)

    @property
    def will_duel(self) -> bool:
        """Whether there is something to compare with that may differ, and decode to compare."""
        return self.comparing.against is not None and not self.comparing.is_same and bool(self.expected)

    def duel(self, err: TextIO) -> None:
        """Duel this program with what it is compared with, before all else that is timed: today's numbers come of it.

        Where it fails, the workloads are measured without.
        """
        try:
            with duels.machine(self.options.baselines, err, self.options.busy) as machine:
                self.comparing.duel(self.request, machine, [str(one) for one in self.expected])
        except Exception as error:
            self.comparing.fault = shown(error)
            self.failed(self.comparing.fault)

    @property
    def is_settled(self) -> bool:
        """Whether nothing need be measured: the program is the same, and no numbers were requested."""
        return self.comparing.is_same and not (self.options.runs or self.storage.writes)

    def _forge(self, note: Callable[[str], None]) -> None:
        for name in dict.fromkeys(workload.checkpoint for workload in self.workloads):
            if name in PRESETS:
                ensure_forged(PRESETS[name], self.options.root, note)

    @contextmanager
    def open(self, err: TextIO) -> Iterator[Bench]:
        """Open the machine and give what measures on it. Raises MachineBusyError and what forging raises."""
        share = 1 - SHARE if self.storage.comparing else 1.0
        budget_s = share * self.options.time_budget if self.options.time_budget else None
        with open_machine(err, self.options.busy) as machine:
            if machine.busy:
                self.busy = machine.busy.found
                self.cautions.append(Caution(machine.busy.code, machine.busy.found, machine.busy.remedy))
            self._forge(machine.note)
            bench = Bench(
                self.options.root,
                machine.probe,
                machine.faults_of,
                runs=self.options.runs or (LEAST_RUNS if self.storage.comparing else usual_runs(self.chip.vendor)),
                budget_s=budget_s / len(self.workloads) if budget_s else None,
                planted=self.options.planted,
                count_graph=self.graph if not self.options.planted else lambda workload: None,  # it is not stored
                note=machine.note,
                with_towers=frozenset(one.checkpoint for one in self.workloads if one.modality == "image"),
                source_of=self.source,
            )
            duelled = self.comparing.result.states if self.comparing.result and not self.options.runs else {}
            for name, state in duelled.items():
                with suppress(PerfError):  # which preparing it will raise
                    bench.adopt(Workload.parse(name), state)
            yield bench

    def source(self, short: str) -> str:
        """Return the folder or hub id of a checkpoint; a preset is its own."""
        return self.sources.get(short, short)

    def graph(self, workload: Workload) -> Graph | None:
        """Count a workload's decode step where its runs start, once; needs no weights. None where it tells nothing."""
        if workload not in self.graphs:
            config = load.config_of(self.source(workload.checkpoint), self.options.root)
            self.graphs[workload] = graphs.of(workload, config)
        return self.graphs[workload]

    def measured(self, measurement: Measurement) -> dict[str, Any]:
        """Keep a measurement and return what pytest-benchmark stores with it."""
        self.measurements[measurement.workload] = measurement
        return {"gemma3n_perf": measurement_json(measurement)}

    def machine_info(self) -> dict[str, Any]:
        """What pytest-benchmark stores of this machine beside its own facts."""
        return {"gemma3n_perf": header_json(self.chip, self.stack, self.id, self.options.planted, self.busy)}

    def count_exact(self, workload: Workload) -> None:
        """Count a decode step, here and by the program that this session is compared with."""
        self.comparing.count(workload, self.graph(workload), self.source(workload.checkpoint))

    def failed(self, error: PerfError, workload: Workload | None = None) -> None:
        """Note a named error: it decides the exit code, and the workload's line says why it is missing."""
        self.errors.append(error)
        for one in [workload] if workload else self.expected:
            self.missing.setdefault(str(one), error.found)
        if workload is None:
            self.cautions.append(_caution(error))

    def gather(self, err: TextIO) -> dict[str, Evidence]:
        """Measure and write evidence for every requested fusion. Raises what ``gate.run.run`` raises."""
        from gemma3n_perf.gate import report, run  # brings MLX along

        written = run.run(
            self.fusions,
            self.options.baselines,
            err,
            workloads=self.narrowed,
            budget_s=self.options.time_budget,
            sources=self.sources,
            machine=partial(duels.machine, busy=self.options.busy),
        )
        for record, path in written:
            self.evidence += evidence_lines(record, path)
            found = (caution for one in record.workloads for caution in one.judgement.cautions)
            self.cautions += {one: None for one in found if one.code == "busy" and one not in self.cautions}
        if any(one.judgement.effect is not None for record, _ in written for one in record.workloads):
            policy = run.spec_of(self.options.baselines, self.chip, self.narrowed).policy
            self.evidence.append(f"gemma3n-perf: {report.basis(policy.session_sd)}")
        return {record.fusion: record for record, _ in written}

    def finish(self, config: Any) -> None:
        """Store the session, but for an interrupted one, and put together what its duel says.

        What was measured is judged, whatever else fails.
        """
        measurements = [self.measurements[str(w)] for w in self.workloads if str(w) in self.measurements]
        try:
            if measurements:
                self.cautions += storage.keep(config, self.options, interrupted=self.interrupted)
        except Exception as error:
            self.failed(shown(error))  # what could not be stored has still to be judged
        names = [one.workload for one in measurements] or [str(one) for one in self.expected if self.skipped]
        if self.interrupted and self.comparing.result is not None:
            names = list(self.comparing.result.judgements)  # so far
        self.accepted = self.comparing.accepts(self.accepted)
        self.compared = tuple(map(self.compare, names))

    def compare(self, workload: str) -> Compared:
        """Put together what is known of one workload."""
        today, stored = self.measurements.get(workload), self.storage.stored
        return accept(self.comparing.compared(workload, today, stored, self.stack, self.chip.host), self.accepted)

    def outcome(self) -> Outcome:
        """What the exit code rests on."""
        comparing = self.storage.comparing
        accepted = {one.workload for one in self.accepted}
        exact = {} if self.expected else self.comparing.exact
        alarms = [line for name, one in exact.items() if name not in accepted for line in one.rises]
        return Outcome(self.errors, self.failed_tests, self.unfinished(), self.compared if comparing else (), alarms)

    def unfinished(self) -> list[str]:
        """Workloads that were selected and not measured."""
        return [str(one) for one in self.expected if str(one) not in {each.workload for each in self.compared}]

    def report(self) -> Report | None:
        """What to print, None where no decode was selected."""
        missing = {name: self.missing.get(name, "its benchmark did not finish") for name in self.unfinished()}
        if not self.compared and not missing:
            return None
        published: tuple[Publication, ...] = ()
        against = self.comparing.against
        try:
            published = read_published(self.options.baselines / "published")
        except PerfError as error:
            self.cautions.append(_caution(error))  # shown and never judged, so they cannot cost us the report
        return build(
            self.chip,
            self.stack,
            self.compared,
            requested=self.storage.comparing,
            missing=missing,
            published=published,
            cautions=self.cautions,
            planted=self.options.planted,
            against=str(self.comparing),
            arm=short(against.chosen.comparator.arm) if against else "",
        )

    def lines(self) -> list[str]:
        """What to print where there is no table: -k or the like selected no decode benchmark."""
        lines = [f"gemma3n-perf: warning: {caution.found}" for caution in self.cautions] + self.evidence
        for name, exact in self.comparing.exact.items():
            lines += [f"gemma3n-perf: {name}: {line}" for line in (*exact.rises, *exact.causes)]
        if self.options.planted:
            lines.append(f"gemma3n-perf: PLANTED SLOWDOWN of {planted_percent(self.options.planted)}")
        if self.storage.comparing and not self.options.listing:
            lines.append("gemma3n-perf: no decode benchmark was selected, so no throughput was compared")
        return lines


def _caution(error: PerfError) -> Caution:
    return Caution("error", error.found, error.remedy or error.expected or "")
