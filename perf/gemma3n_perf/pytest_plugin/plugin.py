"""pytest's side of the suite: options, fixtures and hooks. What is measured and judged lives in gemma3n_perf.

pytest-benchmark keeps its files, tables and options. This adapter names its storage after the chip class,
fills in what a comparison rests on, prints our table after its own, and sets the exit code of the design.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.bench.outcome import exit_code
from gemma3n_perf.bench.table import render
from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.report.terminal import speaks_unicode
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.workload.workload import Workload

KEY = pytest.StashKey[SuiteSession]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the suite's options."""
    group = parser.getgroup("gemma3n-perf", "Gemma3n decode")
    for name, metavar, text in (
        ("--checkpoint", "NAME", "preset, folder or ORG/MODEL@REVISION (default: what suits the chip)"),
        ("--modality", "text|image", "what the prompt holds (default: both where it is customary)"),
        ("--shape", "ppN-tgM", "N prompt tokens, M timed decode steps"),
        ("--fusion", "NAME", "measure evidence for a fusion, for all, or for a composition a+b, and nothing else"),
    ):
        group.addoption(name, action="append", default=[], metavar=metavar, help=f"{text}; may be repeated")
    for name, metavar, text in (
        ("--runs", "N", "timed decodes of each workload (default: by chip)"),
        ("--time-budget", "SECONDS", "measuring time to stay within, all workloads"),
        ("--plant-slowdown", "N%", "slow every decode by this much: a test button, marked everywhere and never saved"),
    ):
        group.addoption(name, metavar=metavar, help=text)
    group.addoption(
        "--against",
        metavar="ARM",
        help="the arm to compare with, for instance ref:v1.0 (default: see docs/measuring.md)",
    )
    group.addoption("--measure-anyway", action="store_true", help="duel the same program with itself, too")
    group.addoption("--no-confirm", action="store_true", help=argparse.SUPPRESS)  # named and refused
    group.addoption(
        "--baselines", type=Path, metavar="DIR", help="baselines folder (default: baselines/ of the checkout)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Come before pytest-benchmark, whose own configuration reads the storage and the machine's name."""
    try:
        config.stash[KEY] = SuiteSession.begin(config.option, config.rootpath)
    except PerfError as error:
        # Not pytest.UsageError: its exit code 4 says not-measured here, whatever the error is.
        pytest.exit(str(error), returncode=error.exit_code)
    # Its own check warns of every difference that does not matter, and fails on a storage outside this folder.
    check = config.hook.pytest_benchmark_compare_machine_info
    check._remove_plugin(config.pluginmanager.get_plugin("benchmark"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect evidence for fusions or the benchmarks of decode: a session measures one of the two."""
    if not collection_path.name.startswith("bench_"):
        return None
    return (collection_path.name == "bench_fusions.py") != bool(config.stash[KEY].fusions) or None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per workload, or per fusion."""
    if "fusion" in metafunc.fixturenames:
        metafunc.parametrize("fusion", metafunc.config.stash[KEY].fusions, scope="session")
    if "workload" in metafunc.fixturenames:
        workloads = metafunc.config.stash[KEY].workloads
        metafunc.parametrize("workload", workloads, ids=str, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Finish one workload before the next, so that a checkpoint is loaded once; exact counts come first."""
    order = {workload: i for i, workload in enumerate(config.stash[KEY].workloads)}
    stages = ("bench_graph", "bench_prefill", "bench_decode", "bench_memory")

    def place(item: pytest.Item) -> tuple[int, int]:
        workload = _workload(item)
        stage = next((i for i, name in enumerate(stages) if item.path.name.startswith(name)), len(stages))
        return order[workload] if workload in order else len(order), stage

    items.sort(key=place)


def _workload(item: pytest.Item) -> Workload | None:
    workload = getattr(getattr(item, "callspec", None), "params", {}).get("workload")
    return workload if isinstance(workload, Workload) else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what will be measured, after -k and the like have chosen."""
    suite = session.config.stash[KEY]
    if not suite.listing:
        decodes = [item for item in session.items if item.path.name.startswith("bench_decode")]
        suite.expected = [workload for item in decodes if (workload := _workload(item)) is not None]


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The session's measuring, under the machine's lock and kept awake; skipped where the program is the same."""
    suite = request.config.stash[KEY]
    with ExitStack() as stack:
        with _ends_session(request.config):
            suite.establish(sys.stderr)
            if not suite.is_settled:
                opened = stack.enter_context(suite.open(sys.stderr))
        if suite.is_settled:
            suite.skipped = True
            pytest.skip(f"{suite.comparing.skips}; --runs N takes runs of it")
        yield opened


@pytest.fixture(scope="session")
def compared(request: pytest.FixtureRequest) -> None:
    """What the session is compared with, found and built; skips what one program makes superfluous."""
    suite = request.config.stash[KEY]
    with _ends_session(request.config):
        suite.establish(sys.stderr)
    if suite.is_settled:
        pytest.skip(suite.comparing.skips)
    if suite.options.planted:
        pytest.skip("a planted slowdown changes no graph")


@pytest.fixture(scope="session")
def evidence(request: pytest.FixtureRequest) -> dict[str, Evidence]:
    """Evidence for every requested fusion, measured together, written and kept whatever it says."""
    with _ends_session(request.config):
        return request.config.stash[KEY].gather(sys.stderr)


@contextmanager
def _ends_session(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except PerfError as error:
        config.stash[KEY].failed(error)
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> SuiteSession:
    """What this session was asked for and what it found."""
    return request.config.stash[KEY]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Show a named error as its text: a traceback of the harness would only hide it."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, PerfError):
        suite = item.config.stash[KEY]
        suite.failed_tests += 1
        suite.failed(error, _workload(item))
    _say_rises(item)
    report = yield
    if isinstance(error, PerfError):
        report.longrepr = str(error)  # type: ignore[attr-defined]
    return report


def _say_rises(item: pytest.Item) -> None:
    """Say at once, before anything is timed, which exact counts of a workload rose."""
    suite, terminal = item.config.stash[KEY], item.config.pluginmanager.get_plugin("terminalreporter")
    risen, _ = suite.comparing.exact.get(str(_workload(item)), ((), ()))
    if risen and terminal is not None and str(_workload(item)) not in suite.said:
        suite.said.add(str(_workload(item)))
        terminal.ensure_newline()
        terminal.write_line(f"{_workload(item)}: exact counts rose: {'; '.join(risen)}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add chip and stack, once a session."""
    machine_info.update(config.stash[KEY].machine_info())


def pytest_benchmark_compare_machine_info(config: pytest.Config, compared_benchmark: dict[str, Any]) -> bool:
    """Stand in for pytest-benchmark's own check: the chip class is what has to agree."""
    config.stash[KEY].require_same_class()
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Store the session, judge it and set the exit code, after pytest-benchmark has finished its own."""
    suite = session.config.stash[KEY]
    try:
        suite.finish(session.config, interrupted=exitstatus == pytest.ExitCode.INTERRUPTED)
    except PerfError as error:
        suite.failed(error)
    except KeyboardInterrupt:
        found = "interrupted before the duel was over: what it had not shown yet is open"
        suite.cautions.append(Caution("interrupted", found, "run it again"))
        exitstatus = pytest.ExitCode.INTERRUPTED
    session.exitstatus = exit_code(suite.outcome(), int(exitstatus), session.testsfailed)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print our table after pytest-benchmark's."""
    suite, terminal = config.stash[KEY], terminalreporter
    report = suite.report()
    if report is None:
        for line in suite.lines():
            terminal.write_line(line)
        return
    terminal.section("gemma3n-perf")
    stream = getattr(terminal._tw, "_file", sys.stdout)
    unicode = speaks_unicode(stream)
    terminal.write(render(report, width=terminal._tw.fullwidth, colour=terminal.hasmarkup, unicode=unicode))
