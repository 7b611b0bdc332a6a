"""The options of ``pytest perf/``: their values, and the workloads they select.

Read here and not by argparse: pytest ends argparse's complaints with exit code 4, which means ``not-measured`` to this
suite. A request that cannot be carried out exits 2.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.decode.engines import requested
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.machine import BusyPolicy
from gemma3n_perf.store.files import require_folder
from gemma3n_perf.workload import given, load
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import MODALITIES, SETS, Shape, Workload, customary, defaults, wide

_RUNS = "a whole number, 2 or more (one run shows no spread), a million at most"
_LISTINGS = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan", "setuponly")
"""Options of pytest that run no test."""
_PERCENTAGE = "a percentage above 0, for instance 10%"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line requests; ``runs`` and ``time_budget`` (seconds) are None where they were not given."""

    checkpoints: tuple[str, ...]
    modalities: tuple[str, ...]
    shapes: tuple[str, ...]
    runs: int | None
    time_budget: float | None
    planted: float
    baselines: Path
    root: Path
    fusions: tuple[str, ...] = ()
    against: str | None = None
    measure_anyway: bool = False
    busy: BusyPolicy = field(default_factory=BusyPolicy)
    workload_set: str = SETS[0]
    explain: bool = False
    listing: bool = False

    @property
    def narrows(self) -> bool:
        """Whether the workloads are named, and not the usual ones."""
        return bool(self.checkpoints or self.modalities or self.shapes)

    @classmethod
    def from_pytest(cls, option: Any, rootpath: Path) -> "Options":
        """Take pytest's parsed options. Raises UsageError for values that make no measurement."""
        for modality in option.modality:
            if modality not in MODALITIES:
                raise UsageError(f"--modality {modality}", expected=" or ".join(MODALITIES))
        if option.set not in SETS:
            raise UsageError(f"--set {option.set}", expected=" or ".join(SETS))
        if option.set != SETS[0] and option.shape:
            raise UsageError("--set and --shape both say what is measured", expected="one of the two")
        if getattr(option, "numprocesses", None):
            raise UsageError(
                f"-n {option.numprocesses}: several processes would measure each other",
                expected="one measurement at a time",
                remedy="leave -n out, or pass -n 0",
            )
        if option.no_confirm:
            raise UsageError(
                "--no-confirm: there is no screen of stored numbers any more that a duel would confirm",
                expected="--benchmark-compare alone, which duels this tree against the program it is compared with",
                remedy="leave it out; --budget SECONDS bounds the duel, --against ARM names what to compare with",
            )
        if not option.benchmark_compare and (option.against is not None or option.measure_anyway):
            raise UsageError(
                "--against and --measure-anyway say how to compare, and no comparison was requested",
                expected="--benchmark-compare beside them",
            )
        if option.against is not None:
            from gemma3n_perf.duel.lookup import require_arms  # brings all of a duel along

            require_arms(option.against)
        if option.benchmark_compare:
            require_folder(option.baselines)
        if option.fusion and (option.benchmark_compare or option.plant_slowdown is not None):
            raise UsageError(
                "--fusion measures a fusion against the unfused model, and nothing else",
                expected="--fusion without --benchmark-compare and --plant-slowdown",
            )
        runs = _number(option.runs, "--runs", _whole, least=1, most=1_000_000, expected=_RUNS)
        return cls(
            checkpoints=tuple(option.checkpoint),
            modalities=tuple(option.modality),
            shapes=tuple(option.shape),
            runs=None if runs is None else int(runs),
            time_budget=_number(option.budget, "--budget", float, expected="seconds above 0"),
            planted=_number(option.plant_slowdown, "--plant-slowdown", _fraction, expected=_PERCENTAGE) or 0.0,
            baselines=(option.baselines or rootpath / "baselines").absolute(),
            root=checkpoints_root(),
            fusions=tuple(option.fusion),
            against=option.against,
            measure_anyway=bool(option.measure_anyway),
            busy=BusyPolicy(
                _number(option.wait, "--wait", float, least=-math.ulp(0.0), expected="seconds, 0 or more"),
                bool(option.allow_busy),
            ),
            workload_set=option.set,
            explain=bool(option.explain),
            listing=bool(option.explain) or any(getattr(option, name, False) for name in _LISTINGS),
        )


def _number(
    text: str | None,
    option: str,
    read: Callable[[str], float],
    *,
    expected: str,
    least: float = 0.0,
    most: float = sys.float_info.max,
) -> float | None:
    if text is None:
        return None
    try:
        value = read(text.strip())
    except ValueError:
        value = math.nan
    if not least < value <= most:
        raise UsageError(f"{option} {text}", expected=expected)
    return value


def _fraction(percentage: str) -> float:
    value = float(percentage.removesuffix("%")) / 100
    return value if percentage.endswith("%") and value < 10 else math.nan


def _whole(digits: str) -> float:
    return int(digits) if digits.isdecimal() else math.nan


def refuse_swallowed_path(value: object) -> None:
    """Raise UsageError where ``--benchmark-compare`` took a path for the run to compare with.

    ``pytest --benchmark-compare perf/`` leaves pytest no path, so it would run whatever it finds by itself.
    """
    if isinstance(value, str) and Path(value.partition("::")[0]).exists():
        raise UsageError(
            f"--benchmark-compare took {value!r} for the run to compare with",
            expected="the path before the option",
            remedy=f"pytest {value} --benchmark-compare",
        )


def sources(options: Options) -> dict[str, str]:
    """The requested checkpoints by the short name that a workload's id has. Raises UsageError where two share one."""
    found: dict[str, str] = {}
    for name in options.checkpoints:
        # A preset need not be forged yet.
        short = name if name in PRESETS else given.locate(name, options.root)[0]
        other = short if short in PRESETS else found.get(short, name)
        if other != name:
            raise UsageError(
                f"{name} and {other} are both called {short} in a workload's id",
                expected="a folder named unlike any preset and any other checkpoint of the session",
                remedy=f"rename the folder {name}",
            )
        found[short] = name
    return found


def selected(options: Options, named: dict[str, str], vendor: str) -> list[Workload]:
    """The workloads requested: what is customary for the chip and its checkpoints, narrowed or reshaped.

    ``named`` are checkpoints by short name. One without a vision tower decodes no image unless that is asked for.
    """
    names = tuple(named)
    found = [w for name in names for w in customary(name, vendor)] if names else list(defaults(vendor))
    if options.workload_set == "wide":
        added = [w for name in dict.fromkeys(w.checkpoint for w in found) for w in wide(name, vendor)]
        found = list(dict.fromkeys((*found, *added)))
    if not options.modalities:
        blind = {name for name, source in named.items() if not load.takes_images(source, options.root)}
        found = [w for w in found if w.modality != "image" or w.checkpoint not in blind]
    if options.shapes:
        for text in options.shapes:
            Shape.parse(text.partition("@")[0])
        modalities = options.modalities or ("text",)
        checkpoints = dict.fromkeys(w.checkpoint for w in found)
        made = [requested(f"{name}/{m}/{text}") for name in checkpoints for m in modalities for text in options.shapes]
        return list(dict.fromkeys(made))
    chosen = [w for w in found if not options.modalities or w.modality in options.modalities]
    if not chosen:
        raise UsageError(
            f"no customary workload of {', '.join(names)} is {' or '.join(options.modalities)} on this chip",
            expected="a modality that is measured here by default, or a shape",
            remedy="add --shape, for instance --shape pp320-tg64",
        )
    return chosen
