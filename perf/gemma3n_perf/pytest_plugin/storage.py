"""pytest-benchmark in the chip class's folder: where it stores, what it compares with, what is kept of a session."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.pytest_plugin.options import Options, refuse_swallowed_path
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.store.baselines import MIN_SESSIONS, Baselines
from gemma3n_perf.store.files import local_folder, require_writable
from gemma3n_perf.store.session_file import save_session
from gemma3n_perf.store.types import COMMITTED, Baseline

COLUMNS = ["median", "min", "max", "stddev", "ops", "rounds"]
_STORAGE_DEFAULT = "file://./.benchmarks"


@dataclass(frozen=True, slots=True)
class Storage:
    """What was requested of pytest-benchmark: a comparison, and to ``autosave`` the session.

    ``stored`` are the sessions that today's numbers are shown beside: the class's baseline, or this machine's own last.
    ``named`` says that one run of them was named; ``writes`` that a file of the session's samples was requested.
    """

    comparing: bool
    autosave: bool
    stored: Baseline | None
    named: tuple[Caution, ...] = ()
    writes: bool = False

    @property
    def baseline(self) -> Baseline | None:
        """The class's committed baseline."""
        return self.stored if self.stored is not None and self.stored.label == COMMITTED else None


def take_over(option: Any, options: Options, chip: Chip, stack: Stack) -> Storage:
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
    autosave = bool(option.benchmark_autosave or option.benchmark_save)
    option.benchmark_autosave = option.benchmark_save = None
    if autosave:
        _require_worth_keeping(options, stack)
    option.benchmark_save_data = True
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
    if option.benchmark_storage == _STORAGE_DEFAULT:
        option.benchmark_storage = f"file://{folder}"
    # Its own id would mix every chip of one Python.
    setattr(pytest_benchmark.session, "get_machine_id", lambda: chip.chip_class)  # noqa: B010
    named = f"the run {run} is for pytest-benchmark's own table; verdicts are a duel's"
    return Storage(
        comparing,
        autosave,
        baseline,
        (Caution("run-named", named, "for another commit: --against ref:COMMIT"),)
        if isinstance(run, str) and run
        else (),
        autosave or bool(option.benchmark_json),
    )


def keep(config: Any, storage: Storage, options: Options, *, interrupted: bool) -> list[Caution]:
    """Store the session on this machine, and as a baseline where that was requested; say what became of it.

    Raises what storing raises.
    """
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
    stored = save_session(document)
    if not storage.autosave:
        return []
    baselines = Baselines(options.baselines)
    path = baselines.promote([stored], min_sessions=1)[0]
    found = f"saved as {path.name} in {path.parent.name}"
    if path.name not in baselines.require(path.parent.name).files:
        found += f", which stays with its older baseline until there are {MIN_SESSIONS} of this commit"
    return [Caution("saved", found, "commit it with the change it measures")]


def _require_worth_keeping(options: Options, stack: Stack) -> None:
    if options.planted:
        raise UsageError(
            "a session with a planted slowdown is never saved",
            expected="--plant-slowdown without --benchmark-save or --benchmark-autosave",
        )
    if stack.dirty is not False or stack.commit is None:
        raise UsageError(
            "a session of uncommitted changes is never saved as a baseline",
            expected="a clean git checkout",
            remedy="commit first, or leave the option out: every session is kept on this machine anyway",
        )
