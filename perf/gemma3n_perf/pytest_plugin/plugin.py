"""pytest's side of the suite: options, fixtures and hooks. What is measured and judged lives in gemma3n_perf.

pytest-benchmark keeps its files, tables and options. This adapter names its storage after the chip class,
fills in what a comparison rests on, prints our table after its own, and sets the exit code of the design.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.bench.comparison import Exact, properties
from gemma3n_perf.bench.outcome import INTERNAL_ERROR, INTERRUPTED, exit_code
from gemma3n_perf.bench.table import render
from gemma3n_perf.errors import PerfError, UsageError, named
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.pytest_plugin.explained import explained
from gemma3n_perf.pytest_plugin.finishing import finishing
from gemma3n_perf.pytest_plugin.progress import say, uncaptured, wipe
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.pytest_plugin.signals import interrupted_by_signals
from gemma3n_perf.report.output import plain, shown, tolerant, unsaid
from gemma3n_perf.report.terminal import speaks_unicode
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.workload.workload import Workload

KEY = pytest.StashKey[SuiteSession]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the suite's options."""
    group = parser.getgroup("gemma3n-perf", "Gemma3n decode")
    for name, metavar, text in (
        ("--checkpoint", "CHECKPOINT", "preset, folder or ORG/MODEL@REVISION (default: what suits the chip)"),
        ("--modality", "text|image", "what the prompt holds (default: both where it is customary)"),
        ("--shape", "ppN-tgM[-bB][-vK][-kvQ][@ENGINE]", "N prompt tokens, M timed steps: docs/workloads.md"),
        ("--fusion", "NAME", "measure evidence for a fusion, for all, or for a composition a+b, and nothing else"),
    ):
        group.addoption(name, action="append", default=[], metavar=metavar, help=f"{text}; may be repeated")
    for name, metavar, text in (
        ("--runs", "N", "timed decodes of each workload (default: by chip)"),
        ("--budget", "SECONDS", "measuring time to stay within, all workloads"),
        ("--plant-slowdown", "N%", "slow every decode by this much: a test button, marked everywhere and never saved"),
        ("--against", "ARM", "the arm to compare with, for instance ref:v1.0 (default: see docs/measuring.md)"),
        ("--wait", "SECONDS", "wait so long for a machine that is fit and free"),
    ):
        group.addoption(name, metavar=metavar, help=text)
    group.addoption("--set", default="default", metavar="default|wide", help="which of this chip's workloads")
    group.addoption("--explain", action="store_true", help="say what would be measured, and how long; do nothing")
    group.addoption("--measure-anyway", action="store_true", help="duel the same program with itself, too")
    group.addoption("--allow-busy", action="store_true", help="measure on a machine that is not fit, with a caution")
    group.addoption("--time-budget", dest="budget", help=argparse.SUPPRESS)  # until 0.2
    group.addoption("--no-confirm", action="store_true", help=argparse.SUPPRESS)  # named and refused
    group.addoption("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Turn pytest's exit code into the design's, whatever goes wrong on the way, and print where nothing can fail."""
    standard, sys.stdout = sys.stdout, tolerant(sys.stdout)
    out, fault = sys.stdout, None
    try:
        with interrupted_by_signals() as received:
            code = int((yield) or 0)
    except pytest.UsageError as error:
        print(*(f"ERROR: {plain(str(line))}" for line in error.args), sep="\n", file=sys.stderr)
        code = UsageError.exit_code
    except Exception as error:  # of a hook that pytest does not guard
        fault = shown(error)
        code = INTERNAL_ERROR
    finally:
        sys.stdout = standard or out  # pytest flushes it last of all
    suite = config.stash.get(KEY, None)
    if suite is not None and suite.failures is not None:
        suite.errors += [fault] if fault else []
        code = exit_code(suite.outcome(), INTERRUPTED if suite.interrupted else code, suite.failures)
    elif code == INTERNAL_ERROR:
        code = (fault or PerfError).exit_code
    code = received.exit_code(code)
    left = unsaid(out)
    if left is not None:
        print(f"gemma3n-perf: {left}", file=sys.stderr)
    return code or (left.exit_code if left else 0)  # type: ignore[return-value]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Come before pytest-benchmark, whose own configuration reads the storage and the machine's name."""
    try:
        if not config.pluginmanager.has_plugin("python"):
            raise UsageError("-p no:python: pytest finds no benchmark without it", expected="pytest without it")
        config.addinivalue_line("python_files", "bench_*.py")  # in a project of another's, too
        if not config.pluginmanager.has_plugin("benchmark"):
            raise UsageError(
                "pytest-benchmark is switched off, and its options and tables with it",
                expected="pytest without -p no:benchmark and PYTEST_DISABLE_PLUGIN_AUTOLOAD",
            )
        config.stash[KEY] = SuiteSession.begin(config.option, config.rootpath)
    except Exception as error:
        # Not pytest.UsageError: its exit code 4 says not-measured here, whatever the error is.
        found = shown(error)
        pytest.exit(plain(str(found)), returncode=found.exit_code)
    # Its own check warns of every difference that does not matter, and fails on a storage outside this folder.
    check = config.hook.pytest_benchmark_compare_machine_info
    check._remove_plugin(config.pluginmanager.get_plugin("benchmark"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let no fault of pytest-benchmark's saving and drawing cost the answer."""
    suite = session.config.stash[KEY]
    suite.storage.give_back(session.config._benchmarksession, suite.failed)  # type: ignore[attr-defined]


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
    """Exact counts come first; then one workload after the other, so that a checkpoint is loaded once."""
    order = {workload: i for i, workload in enumerate(config.stash[KEY].workloads)}
    stages = ("bench_graph", "bench_prefill", "bench_decode", "bench_memory")

    def place(item: pytest.Item) -> tuple[bool, int, int]:
        workload = _workload(item)
        stage = next((i for i, name in enumerate(stages) if item.path.name.startswith(name)), len(stages))
        return stage > 0, order[workload] if workload in order else len(order), stage

    items.sort(key=place)


def _workload(item: pytest.Item) -> Workload | None:
    workload = getattr(getattr(item, "callspec", None), "params", {}).get("workload")
    return workload if isinstance(workload, Workload) else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what will be measured, after -k and the like have chosen."""
    suite = session.config.stash[KEY]
    decodes = [
        item for item in session.items if item.path.name.startswith("bench_decode") and not suite.options.listing
    ]
    suite.expected = [workload for item in decodes if (workload := _workload(item)) is not None]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Say what would be measured in place of measuring it, where that was asked for."""
    suite = session.config.stash[KEY]
    if not suite.options.explain or session.testsfailed:
        return None
    with _ends_session(session.config):
        say = getattr(session.config.pluginmanager.get_plugin("terminalreporter"), "write_line", print)
        say(f"\n{explained(suite, map(_workload, session.items))}")
    return True


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The session's measuring, under the machine's lock and kept awake; skipped where the program is the same."""
    suite = request.config.stash[KEY]
    with ExitStack() as stack:
        with _ends_session(request.config):
            suite.establish(uncaptured(request.config))
            if suite.will_duel:
                _duel(request.config)
            if not suite.is_settled:
                opened = stack.enter_context(suite.open(uncaptured(request.config)))
        if suite.is_settled:
            suite.skipped = True
            pytest.skip(f"{suite.comparing.skips}; --runs N takes runs of it")
        yield opened


def _duel(config: pytest.Config) -> None:
    suite, capture = config.stash[KEY], config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        for workload in suite.expected if not suite.options.planted else ():
            suite.count_exact(workload)
            _say_rises(config, workload)
        suite.duel(uncaptured(config))


@pytest.fixture(scope="session")
def compared(request: pytest.FixtureRequest) -> None:
    """What the session is compared with, found and built; skips what one program makes superfluous."""
    suite = request.config.stash[KEY]
    with _ends_session(request.config):
        suite.establish(uncaptured(request.config))
    if suite.is_settled:
        pytest.skip(suite.comparing.skips)
    if suite.options.planted:
        pytest.skip("a planted slowdown changes no graph")


@pytest.fixture(scope="session")
def evidence(request: pytest.FixtureRequest) -> dict[str, Evidence]:
    """Evidence for every requested fusion, measured together, written and kept whatever it says."""
    with _ends_session(request.config):
        return request.config.stash[KEY].gather(uncaptured(request.config))


@contextmanager
def _ends_session(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        found = shown(error)
        config.stash[KEY].failed(found)
        pytest.exit(plain(str(found)), returncode=found.exit_code)


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> SuiteSession:
    """What this session was asked for and what it found."""
    return request.config.stash[KEY]


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Name evidence that shows neither a win nor a fault: it is more than "passed" and less than "failed"."""
    verdict = dict(report.user_properties).get("verdict") if report.when == "call" else None
    named = "bench_fusions" in report.nodeid and verdict in (Verdict.INCONCLUSIVE, Verdict.NO_CHANGE)
    return (verdict, verdict[0], verdict.upper()) if verdict and named else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Show a named error as its text: a traceback of the harness would only hide it."""
    error, suite = named(call.excinfo.value) if call.excinfo is not None else None, item.config.stash[KEY]
    wipe(item.config)
    if error is not None:
        suite.failed_tests += 1
        suite.failed(error, _workload(item))
    _say_rises(item.config, _workload(item))
    if call.when == "teardown" and item.path.name.startswith("bench_decode"):
        item.user_properties += properties(suite.compare(str(_workload(item)))) if suite.storage.comparing else []
    report = yield
    if error is not None:
        report.longrepr = str(error)  # type: ignore[attr-defined]
    return report


def _say_rises(config: pytest.Config, workload: Workload | None) -> None:
    """Say at once, before anything is timed, which exact counts of a workload rose, and what else differs."""
    suite = config.stash[KEY]
    exact = suite.comparing.exact.get(str(workload), Exact())
    if (exact.rises or exact.causes) and str(workload) not in suite.said:
        suite.said.add(str(workload))
        said = f"exact counts rose: {'; '.join(exact.rises)}" if exact.rises else "its decode step has changed"
        say(config, f"{workload}: {said}", *(f"  {line}" for line in exact.causes))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add chip and stack, once a session."""
    machine_info.update(config.stash[KEY].machine_info())


def pytest_benchmark_compare_machine_info(config: pytest.Config, compared_benchmark: dict[str, Any]) -> bool:
    """Stand in for pytest-benchmark's own check: what it loads is all of this chip class, which names the folder."""
    return True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Store the session and judge it, after pytest-benchmark has finished its own and before anything is printed."""
    with finishing(session.config.stash[KEY], session, exitstatus):
        yield


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
    unicode = speaks_unicode(getattr(terminal._tw, "_file", sys.stdout))
    terminal.write(render(report, width=terminal._tw.fullwidth, colour=terminal.hasmarkup, unicode=unicode))
