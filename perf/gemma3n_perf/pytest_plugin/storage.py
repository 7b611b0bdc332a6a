"""pytest-benchmark's options, pointed at the chip class's baselines: where it stores, what it compares with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.pytest_plugin.options import Options, refuse_swallowed_path
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.files import require_writable
from gemma3n_perf.store.local import local_folder
from gemma3n_perf.store.types import Baseline

COLUMNS = ["median", "min", "max", "stddev", "ops", "rounds"]
_STORAGE_DEFAULT = "file://./.benchmarks"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was asked of pytest-benchmark: a comparison, with a run that was ``named`` or none, ``autosave`` of the
    session; and the ``baseline`` there is.
    """

    asked: bool = False
    autosave: bool = False
    baseline: Baseline | None = None
    named: str | None = None


def take_over(option: Any, options: Options, chip: Chip, stack: Stack) -> Taken:
    """Set pytest-benchmark's own options in place. Raises UsageError, MalformedRecordError."""
    import pytest_benchmark.session

    refuse_swallowed_path(option.benchmark_compare)
    if option.benchmark_compare_fail:
        raise UsageError(
            "--benchmark-compare-fail fails on a bare percentage, which noise exceeds as well",
            expected="--benchmark-compare alone: its verdict allows for the spread between sessions",
        )
    if option.benchmark_json:
        path = Path(option.benchmark_json)
        require_writable(path)
        if not path.absolute().parent.is_dir():
            raise UsageError(f"--benchmark-json {path}: {path.parent} is no folder", expected="a folder that is there")
    asked = bool(option.benchmark_compare)
    named = option.benchmark_compare if asked and isinstance(option.benchmark_compare, str) else None
    autosave = bool(option.benchmark_autosave or option.benchmark_save)
    option.benchmark_autosave = option.benchmark_save = None
    if autosave:
        _require_worth_keeping(options, stack)
    option.benchmark_save_data = True
    if option.benchmark_columns is None:
        option.benchmark_columns = COLUMNS
    baseline, storage = None, options.baselines
    if asked:
        baseline = Baselines(options.baselines).load(chip.chip_class)
        if baseline is None:
            local = local_folder(chip.chip_class)
            baseline, storage = Baselines.local(local), local.parent
        if baseline is None:
            option.benchmark_compare = None
    if option.benchmark_storage == _STORAGE_DEFAULT:
        option.benchmark_storage = f"file://{storage}"
    # Its own id would mix every chip of one Python.
    setattr(pytest_benchmark.session, "get_machine_id", lambda: chip.chip_class)  # noqa: B010
    return Taken(asked, autosave, baseline, named)


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
