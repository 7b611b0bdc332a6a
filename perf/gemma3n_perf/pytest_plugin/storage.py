"""pytest-benchmark in the chip class's folder: where it stores, what it compares with, what is kept of a session."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.pytest_plugin.options import Options, refuse_swallowed_path
from gemma3n_perf.report.output import shown
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.files import local_folder, require_writable
from gemma3n_perf.store.session_file import KEY, save_session
from gemma3n_perf.store.types import COMMITTED, Baseline

COLUMNS = ["median", "min", "max", "stddev", "ops", "rounds"]
_STORAGE_DEFAULT = "file://./.benchmarks"


@dataclass(frozen=True, slots=True)
class Storage:
    """What was requested of pytest-benchmark: a comparison, and files of its own.

    ``stored`` are the sessions that today's numbers are shown beside: the class's baseline, or this machine's own last.
    ``named`` says that one run of them was named; ``writes`` that a file of the session's samples was requested;
    ``own`` is the folder it saves in, where it loads from another.
    """

    comparing: bool
    stored: Baseline | None
    named: tuple[Caution, ...] = ()
    writes: bool = False
    own: str | None = None

    def give_back(self, session: Any, failed: Callable[[PerfError], None]) -> None:
        """Let pytest-benchmark's ``session``, which has loaded what it compares with, save where its manual says.

        A fault of its saving and drawing costs no answer: ``failed`` takes it.
        """
        if self.own is not None:
            session.storage = type(session.storage)(self.own, session.logger, session.machine_id)

        def guarded(method: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                try:
                    method(*arguments)
                except Exception as error:
                    failed(shown(error))

            return call

        session.finish, session.display = guarded(session.finish), guarded(session.display)

    @property
    def baseline(self) -> Baseline | None:
        """The class's baseline."""
        return self.stored if self.stored is not None and self.stored.label == COMMITTED else None


def take_over(option: Any, options: Options, chip: Chip) -> Storage:
    """Set pytest-benchmark's own options in place. Raises UsageError, MalformedRecordError."""
    import pytest_benchmark.session

    refuse_swallowed_path(option.benchmark_compare)
    if option.benchmark_compare_fail:
        raise UsageError(
            "--benchmark-compare-fail fails on a bare percentage, which noise exceeds as well",
            expected="--benchmark-compare alone: its verdict is a duel's, which allows for noise",
        )
    if option.benchmark_json:
        path = Path(option.benchmark_json)
        require_writable(path)
        if not path.absolute().parent.is_dir():
            raise UsageError(f"--benchmark-json {path}: {path.parent} is no folder", expected="a folder that is there")
    comparing, run = bool(option.benchmark_compare), option.benchmark_compare
    saves = bool(option.benchmark_autosave or option.benchmark_save)
    if saves and options.planted:
        raise UsageError(
            "a session with a planted slowdown is never saved",
            expected="--plant-slowdown without --benchmark-save or --benchmark-autosave",
        )
    if option.benchmark_histogram:
        _require_drawing()
    if option.benchmark_columns is None:
        option.benchmark_columns = COLUMNS
    baseline, folder = None, options.baselines
    if comparing:
        baseline = Baselines(options.baselines).load(chip.chip_class)
        if baseline is None:
            local = local_folder(chip.chip_class)
            baseline, folder = Baselines.local(local), local.parent
        if baseline is None:
            option.benchmark_compare = None
    default = option.benchmark_storage
    own = default.removeprefix("file://") if default == _STORAGE_DEFAULT and saves and comparing else None
    if default == _STORAGE_DEFAULT and (comparing or not saves):
        option.benchmark_storage = f"file://{folder}"
    # Its own id would mix every chip of one Python.
    setattr(pytest_benchmark.session, "get_machine_id", lambda: chip.chip_class)  # noqa: B010
    named = f"the run {run} is for pytest-benchmark's own table; verdicts are a duel's"
    return Storage(
        comparing,
        baseline,
        (Caution("run-named", named, "for another commit: --against ref:COMMIT"),)
        if isinstance(run, str) and run
        else (),
        saves or bool(option.benchmark_json or option.benchmark_histogram),
        own,
    )


def _require_drawing() -> None:
    try:
        import pytest_benchmark.histogram  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--benchmark-histogram draws with pygal, which is not installed",
            expected="pytest-benchmark with its extra",
            remedy="pip install 'pytest-benchmark[histogram]'",
        ) from error


def keep(config: Any, options: Options, *, interrupted: bool) -> list[Caution]:
    """Store the session on this machine; say why where it is not. Raises what storing raises."""
    session = config._benchmarksession
    if options.planted:
        found, remedy = "a slowdown was planted in this session", "run without --plant-slowdown for a real answer"
        return [Caution("planted", found, remedy)]
    if interrupted:
        return [Caution("interrupted", "the session was interrupted, so it is not stored", "run it again")]
    if not session.benchmarks:
        found = "pytest-benchmark took no samples, so the session is not stored"
        return [Caution("no-samples", found, "leave --benchmark-disable out")]
    document = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=session.benchmarks,
        include_data=True,
        machine_info=session.get_machine_info(),
        commit_info=config.hook.pytest_benchmark_generate_commit_info(config=config),
    )
    # pytest-benchmark asks git about the working directory, which may be another project's, or none.
    document["commit_info"]["id"] = document["machine_info"][KEY]["stack"]["commit"] or "unversioned"
    save_session(document)
    return []
