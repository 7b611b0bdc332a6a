"""What ``pytest perf/`` was asked for: its options' values, and the workloads they select.

Read here and not by argparse: pytest ends argparse's complaints with exit code 4, which means ``not-measured`` to this
suite. A request that cannot be carried out exits 2.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.store.files import require_folder
from gemma3n_perf.workload import cache, load
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import MODALITIES, Shape, Workload, customary, defaults


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
    confirm: bool = True
    fusions: tuple[str, ...] = ()

    @classmethod
    def from_pytest(cls, option: Any, rootpath: Path) -> "Options":
        """Take pytest's parsed options. Raises UsageError for values that make no measurement."""
        for modality in option.modality:
            if modality not in MODALITIES:
                raise UsageError(f"--modality {modality}", expected=" or ".join(MODALITIES))
        if getattr(option, "numprocesses", None):
            raise UsageError(
                f"-n {option.numprocesses}: several processes would measure each other",
                expected="one measurement at a time",
                remedy="leave -n out, or pass -n 0",
            )
        if option.benchmark_compare:
            require_folder(option.baselines)
        if option.fusion and (option.benchmark_compare or option.plant_slowdown is not None):
            raise UsageError(
                "--fusion measures a fusion against the unfused model, and nothing else",
                expected="--fusion without --benchmark-compare and --plant-slowdown",
            )
        return cls(
            checkpoints=tuple(option.checkpoint),
            modalities=tuple(option.modality),
            shapes=tuple(option.shape),
            runs=runs(option.runs),
            time_budget=seconds(option.time_budget),
            strict=bool(option.strict),  # pytest's own --strict: what was not shown does not pass
            planted=0.0 if option.plant_slowdown is None else percent(option.plant_slowdown),
            baselines=(option.baselines or rootpath / "baselines").absolute(),
            root=cache.checkpoints_root(),
            confirm=not option.no_confirm,
            fusions=tuple(option.fusion),
        )


def percent(text: str) -> float:
    """Read ``10%`` as 0.1. Raises UsageError for anything else, and for 0 or 1000 % and more."""
    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not text.strip().endswith("%") or not 0 < value < 10:
        raise UsageError(f"--plant-slowdown {text}", expected="a percentage above 0, for instance 10%")
    return value


def runs(text: str | None) -> int | None:
    """Read ``--runs``, None where it was not given. Raises UsageError for fewer than 2 or no whole number."""
    if text is None:
        return None
    if not text.strip().isdecimal() or int(text) < 2:
        raise UsageError(f"--runs {text}", expected="a whole number, 2 or more: one run shows no spread")
    return int(text)


def seconds(text: str | None) -> float | None:
    """Read ``--time-budget``, None where it was not given. Raises UsageError for what is no time above 0."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--time-budget {text}", expected="seconds above 0")
    return value


def refuse_swallowed_path(asked: object) -> None:
    """Raise UsageError where ``--benchmark-compare`` took a path for the run to compare with.

    ``pytest --benchmark-compare perf/`` leaves pytest no path, so it would run whatever it finds by itself.
    """
    if isinstance(asked, str) and Path(asked.partition("::")[0]).exists():
        raise UsageError(
            f"--benchmark-compare took {asked!r} for the run to compare with",
            expected="the path before the option",
            remedy=f"pytest {asked} --benchmark-compare",
        )


def sources(options: Options) -> dict[str, str]:
    """The checkpoints asked for, by the short name that a workload's id has. Raises UsageError where two share one."""
    found: dict[str, str] = {}
    for name in options.checkpoints:
        # A preset need not be forged yet.
        short = name if name in PRESETS else load.locate(name, options.root)[0]
        other = short if short in PRESETS else found.get(short, name)
        if other != name:
            raise UsageError(
                f"{name} and {other} are both called {short} in a workload's id",
                expected="a folder named unlike any preset and any other checkpoint of the session",
                remedy=f"rename the folder {name}",
            )
        found[short] = name
    return found


def selected(options: Options, names: tuple[str, ...], vendor: str) -> list[Workload]:
    """The workloads asked for: what is customary for the chip and its checkpoints, narrowed or reshaped."""
    found = [w for name in names for w in customary(name, vendor)] if names else list(defaults(vendor))
    if options.shapes:
        shapes = [Shape.parse(text) for text in options.shapes]
        modalities = options.modalities or ("text",)
        checkpoints = dict.fromkeys(w.checkpoint for w in found)
        made = [Workload.make(name, m, shape) for name in checkpoints for m in modalities for shape in shapes]
        return list(dict.fromkeys(made))
    chosen = [w for w in found if not options.modalities or w.modality in options.modalities]
    if not chosen:
        raise UsageError(
            f"no customary workload of {', '.join(names)} is {' or '.join(options.modalities)} on this chip",
            expected="a modality that is measured here by default, or a shape",
            remedy="add --shape, for instance --shape pp320-tg64",
        )
    return chosen
