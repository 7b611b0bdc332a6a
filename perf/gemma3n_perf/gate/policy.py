"""What the gate asks of a fusion, and its file: TOML, read strictly. An unknown key is a rule that is not kept."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.policy import MARGIN, Policy
from gemma3n_perf.store import toml
from gemma3n_perf.store.files import contents
from gemma3n_perf.workload.workload import Workload, defaults

POLICY_FILE = "policy.toml"
LEAST_SESSIONS = 2
REQUIRED, MEASURED, AWAITING = "required", "measured", "awaiting"
STATES = (REQUIRED, MEASURED, AWAITING)
SESSION_SD = 0.001
"""How far whole sessions of a class are assumed to lie apart, until A/A duels of three days or more show it."""
APART_S = 30.0
_MOST_SESSIONS, _MOST_APART_S = 100, 604_800.0
"""How long after one session of a command the next one begins."""
_KINDS: dict[object, tuple[tuple[type, ...], str]] = {
    tuple[str, ...]: ((list,), "a list of texts"),
    float: ((float, int), "a number"),
    int: ((int,), "a whole number"),
    str | None: ((str,), "a text"),
    str: ((str,), "a text"),
    tuple[str, ...] | None: ((list,), "a list of texts"),
    Mapping[str, float]: ((dict,), "a table of numbers"),
}
"""By the type of a policy's field: what TOML may have there, and its name in messages."""


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """One chip class: the ``workloads`` a fusion must win there, and the labels of its self-hosted ``runner``.

    ``state`` is ``required``, ``measured`` (what it says counts, and nothing waits for it where it is silent) or
    ``awaiting``: declared, and no machine is there yet. That is shown, and never measured or waited for.
    ``goals`` are factors of throughput over stock that work on this class aims at, by workload. What was reached is
    shown beside them, and nothing is judged by them.
    """

    workloads: tuple[str, ...]
    runner: tuple[str, ...] = ()
    state: str = MEASURED
    goals: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a state that is none, a class without workloads, and ids that are none."""
        if self.state not in STATES:
            raise UsageError(f"state = {self.state!r}", expected=f"one of {', '.join(STATES)}")
        if not self.workloads or len(set(self.workloads)) != len(self.workloads):
            raise UsageError(f"workloads {list(self.workloads)}", expected="one workload id or more, each once")
        for workload in (*self.workloads, *self.goals):
            Workload.parse(workload)
        for workload, factor in self.goals.items():
            number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not number or not 1 < factor < 1e6:
                raise UsageError(f"goals: {workload} = {factor!r}", expected="a factor above 1, 6 for six times stock")


@dataclass(frozen=True, slots=True)
class RegressionPolicy:
    """What is asked of a change of the program that decodes.

    ``required``      the chip classes that must have measured it; None is those of the gate
    ``margin``        what bounds no-change, a fraction of throughput
    ``budget``        seconds of measuring that each workload may take
    ``inconclusive``  whether that answer ``passes`` or ``refuses``
    """

    required: tuple[str, ...] | None = None
    margin: float = MARGIN
    budget: float = 70.0
    inconclusive: str = "passes"

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out."""
        for right, found, expected in (
            (0 < self.margin < 1, f"margin = {self.margin}", "a fraction, 0.01 for 1 %"),
            (0 < self.budget < float("inf"), f"budget = {self.budget}", "seconds above 0"),
            (self.inconclusive in ("passes", "refuses"), f"inconclusive = {self.inconclusive!r}", "passes or refuses"),
        ):
            if not right:
                raise UsageError(f"[regression] {found}", expected=expected)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The rules of admission.

    ``required`` are the chip classes that must show a win or prove that the fusion is off there: those given, and those
    whose state says so; ``minimum_effect`` is
    a fraction of throughput; evidence older than ``max_age_days`` counts no more; a win must repeat in ``sessions``
    sessions; ``memory`` bounds the bytes of a fused and an unfused model together, by those of one. ``mlx`` and
    ``mlx_vlm``, where given, are the versions that evidence must be of. ``session_sd`` is the assumed spread of whole
    sessions, a fraction, which is in every interval; ``apart`` seconds lie between two sessions of one command.
    ``regression`` is for changes of anything but fusions. An ``unfinished`` one, still to be edited, may require no
    class.
    """

    required: tuple[str, ...] = ()
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)
    minimum_effect: float = 0.005
    max_age_days: int = 90
    sessions: int = LEAST_SESSIONS
    memory: float = 1.1
    session_sd: float = SESSION_SD
    apart: float = APART_S
    mlx: str | None = None
    mlx_vlm: str | None = None
    regression: RegressionPolicy = field(default_factory=RegressionPolicy)
    unfinished: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out, or would admit what was not shown."""
        stated = [name for name, one in self.classes.items() if one.state == REQUIRED and name not in self.required]
        object.__setattr__(self, "required", (*self.required, *stated))
        for right, found, expected in (
            (
                (self.required or self.unfinished) and len(set(self.required)) == len(self.required),
                f"required classes {list(self.required)}",
                'one chip class or more, each once: state = "required" in its table',
            ),
            (
                LEAST_SESSIONS <= self.sessions <= _MOST_SESSIONS,
                f"sessions = {str(self.sessions)[:20]}",
                f"2 or more, for a win must repeat, and {_MOST_SESSIONS} at most",
            ),
            (self.max_age_days >= 1, f"max_age_days = {self.max_age_days}", "1 or more"),
            (1.0 <= self.memory <= 2.0, f"memory = {self.memory}", "a factor from 1 to 2, for instance 1.1"),
            (0 <= self.session_sd < 1, f"session_sd = {self.session_sd}", "a fraction, 0.001 for 0.1 %"),
            (0 <= self.apart <= _MOST_APART_S, f"apart = {self.apart}", "seconds, a week at most, for instance 30"),
            (0 < self.minimum_effect < 1, f"minimum_effect = {self.minimum_effect}", "a fraction, 0.005 for 0.5 %"),
        ):
            if not right:
                raise UsageError(found, expected=expected)
        for name in (*self.required, *(self.regression.required or ())):
            if name not in self.classes:
                raise UsageError(
                    f"class {name!r} is required, and no [classes.{name}] says which workloads it measures",
                    expected=f"a table [classes.{name}] with its workloads",
                    remedy=_nearest(name, self.classes),
                )
            if name in self.awaiting:
                raise UsageError(
                    f"class {name!r} is required, and awaits a machine",
                    expected="one of both",
                    remedy="gemma3n-perf init, on its machine, makes it one that is measured",
                )

    @property
    def awaiting(self) -> tuple[str, ...]:
        """The chip classes that have no machine yet: nothing waits for them."""
        return tuple(name for name, one in self.classes.items() if one.state == AWAITING)

    @property
    def comparing(self) -> Policy:
        """The rules by which a change of the program is judged."""
        margin = max(self.regression.margin, self.minimum_effect)
        # By a wide margin, what looks like a small loss is measured further.
        return Policy(minimum_effect=self.minimum_effect, margin=margin, suspicious=margin > MARGIN)

    @property
    def compared(self) -> tuple[str, ...]:
        """The chip classes that must have measured a change of the program."""
        return self.required if self.regression.required is None else self.regression.required

    @property
    def judging(self) -> Policy:
        """The rules by which each duel is judged again."""
        usual = Policy(session_sd=self.session_sd)
        return replace(usual, minimum_effect=self.minimum_effect, margin=max(usual.margin, self.minimum_effect))

    def workloads(self, chip_class: str) -> tuple[str, ...]:
        """Return what a fusion must win on a class; () for one that the policy does not know."""
        return self.classes[chip_class].workloads if chip_class in self.classes else ()


def read_policy(path: Path) -> GatePolicy:
    """Read a policy. Raises UsageError naming the file, the key and what is wrong with it."""
    try:
        return parse_policy(contents(path).decode("utf-8"))
    except OSError as error:
        raise _bad(path, error.strerror or str(error), "a policy file", "pass --policy FILE") from error
    except UnicodeDecodeError as error:
        raise _bad(path, f"it is no text: {error.reason}", "TOML in UTF-8") from error
    except UsageError as error:
        raise _bad(path, error.found, error.expected, error.remedy) from error


def customary_texts(vendor: str) -> tuple[str, ...]:
    """Return the workloads that a class of this vendor's chips is given: the first text of each usual checkpoint."""
    texts: dict[str, str] = {}
    for workload in defaults(vendor):
        texts.setdefault(workload.checkpoint, str(workload))
    return tuple(texts.values())


def parse_policy(text: str, *, unfinished: bool = False) -> GatePolicy:
    """Parse a policy. Raises UsageError naming the key and what is wrong; ``unfinished`` ones may require no class."""
    try:
        tree = toml.parse(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is no TOML: {error}", expected="TOML with [gate] and [classes.NAME]") from error
    _known("", tree, ("gate", "regression", "classes"))
    gate, tables = _values("[gate]", tree.get("gate", {}), GatePolicy), _table("[classes]", tree.get("classes", {}))
    classes = {}
    for name, table in tables.items():
        title = f"[classes.{name}]"
        values = _values(title, table, ClassPolicy)
        if "workloads" not in values:
            raise UsageError(f"{title} names no workloads", expected='workloads = ["nano/text/pp40-tg64"]')
        try:
            classes[name] = ClassPolicy(**values)
        except UsageError as error:
            raise UsageError(f"{title}: {error.found}", expected=error.expected, remedy=error.remedy) from error
    regression = _values("[regression]", tree.get("regression", {}), RegressionPolicy)
    return GatePolicy(**gate, classes=classes, regression=RegressionPolicy(**regression), unfinished=unfinished)


def _table(title: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{title} is {value!r}", expected="a table")
    return value


def _values(title: str, table: Any, policy: type[GatePolicy | ClassPolicy | RegressionPolicy]) -> dict[str, Any]:
    """Return the values of a table that are fields of ``policy``, checked. Raises UsageError for any other."""
    kinds = {one.name: _KINDS[one.type] for one in fields(policy) if one.type in _KINDS}
    _known(f"{title} ", _table(title, table), kinds)
    for key, value in table.items():
        types, expected = kinds[key]
        texts = value if isinstance(value, list) else ()
        if not isinstance(value, types) or isinstance(value, bool) or not all(isinstance(one, str) for one in texts):
            raise UsageError(f"{title} {key} = {value!r}", expected=expected)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _known(where: str, table: Mapping[str, Any], allowed: Collection[str]) -> None:
    for key in table:
        if key not in allowed:
            expected = f"one of {', '.join(allowed)}"
            raise UsageError(f"{where}{key!r} is not known", expected=expected, remedy=_nearest(key, allowed))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def _bad(path: Path, found: str, expected: str | None, remedy: str | None = None) -> UsageError:
    return UsageError(f"{path}: {found}", expected=expected, remedy=remedy)
