"""An arm in words: a sum of parts joined by ``+``, such as ``ref:main+mlx==0.32.3`` or ``here+plant:+2%``.

Opinion: a part that is not understood is an error, and so is a part that another part would silently overrule.
"""

import re
from dataclasses import dataclass, replace

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gemma3n_perf.decode.engines import DEFAULT, ENGINES
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.limits import is_text, require_counts

GRAMMAR = (
    "parts joined by +: here, ref:COMMIT, installed, PACKAGE==VERSION, PACKAGE@FOLDER, PACKAGE@WHEEL, "
    "PACKAGE@CLONE#REVISION, PACKAGE@URL#REVISION, fusion:NAME, env:NAME=VALUE, engine:NAME, and plant:+N% on top of "
    "another"
)
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_SPLIT = re.compile(rf"\+(?=here\b|installed\b|ref:|{_NAME}(?:==|@)|fusion:|env:|plant:|engine:)")
_PACKAGE = re.compile(rf"({_NAME})(==|@)(.*)")
_VERSION = re.compile(r"\d+(\.\d+)*(-?(a|b|rc|\.?post|\.?dev)\d*)*(\+[a-z0-9.]+)?", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLANT = re.compile(r"([+-])(\d+(?:\.\d+)?)%")
_OURS = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH"})
_MOST_PLANTED = 9.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One side as it was asked for; None is what this environment has.

    ``packages`` are names, normalized, each with ``==VERSION`` or ``@PLACE``. ``plant`` is the share of time that every
    step takes longer (0.02 = 2 %), negative for less; see ``slowdowns``. ``installed`` is the release of this suite
    that is installed beside the checkout.
    """

    text: str
    ref: str | None = None
    packages: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    engine: str = DEFAULT
    plant: float = 0.0
    fusions: tuple[str, ...] = ()
    installed: bool = False

    def version(self, package: str) -> str | None:
        """Return the release of a package that it names, or None."""
        return next((origin[2:] for name, origin in self.packages if name == package and origin[:2] == "=="), None)


def parse(text: str) -> Arm:
    """Read an arm. Raises UsageError naming the part that is not understood or that contradicts another."""
    if not is_text(text):
        raise _bad(text, "it is not UTF-8", "text, which is recorded")
    arm, seen = Arm(text), list[str]()
    for part in parts(text):
        kind, arm = _add(arm, part)
        if kind in seen:
            raise _bad(text, f"{kind} is given twice", "each part once")
        seen.append(kind)
    if len({"here", "ref", "installed"} & set(seen)) > 1:
        raise _bad(
            text, "it is both here and at a commit, or installed", "here, for this tree, ref:COMMIT, or installed"
        )
    if seen == ["plant"]:
        raise _bad(text, "a plant grows on something", f"another part beside it, for instance here+{text}")
    return arm


def parts(text: str) -> list[str]:
    """Take a sum of parts apart, unchecked."""
    return [part.strip() for part in _SPLIT.split(text)]


def _add(arm: Arm, part: str) -> tuple[str, Arm]:
    """Return the kind of ``part``, unique where it may come once, and the arm with it."""
    name, colon, value = part.partition(":")
    if part == "here":
        return "here", arm
    if part == "installed":
        return part, replace(arm, installed=True)
    if match := _PACKAGE.fullmatch(part):
        package, joint, value = canonicalize_name(match[1]), match[2], match[3].strip()
        if joint == "==" and not is_version(value):
            raise _bad(arm.text, f"{value!r} is no version", f"for instance {package}==0.32.3")
        if not value:
            raise _bad(arm.text, f"the part {part!r} is not understood", GRAMMAR)
        return package, replace(arm, packages=tuple(sorted((*arm.packages, (package, joint + value)))))
    if not colon or not value:
        raise _bad(arm.text, f"the part {part!r} is not understood", GRAMMAR)
    match name:
        case "ref":
            return name, replace(arm, ref=value)
        case "engine":
            _known(arm, "engine", value, tuple(ENGINES))
            return name, replace(arm, engine=value)
        case "fusion":
            return f"fusion:{value}", _fused(arm, value)
        case "env":
            variable, equals, setting = value.partition("=")
            if not equals or not _VARIABLE.fullmatch(variable) or variable in _OURS:
                raise _bad(arm.text, f"{part!r} sets no variable", "env:NAME=VALUE, and not a path of Python's")
            require_counts({variable: setting})
            return f"env:{variable}", replace(arm, env=tuple(sorted((*arm.env, (variable, setting)))))
        case "plant":
            return name, replace(arm, plant=_planted(arm, value))
        case _:
            raise _bad(arm.text, f"the part {part!r} is not understood", GRAMMAR)


def is_version(text: str) -> bool:
    """Whether a package index could know a release by this name."""
    try:
        return _VERSION.fullmatch(text) is not None and Version(text) is not None
    except InvalidVersion:
        return False


def _planted(arm: Arm, value: str) -> float:
    match = _PLANT.fullmatch(value)
    share = float(f"{match[1]}{match[2]}") / 100 if match else 0.0
    if not -0.5 <= share <= _MOST_PLANTED or share == 0:
        raise _bad(arm.text, f"plant:{value} is no slowdown", "a percentage from -50% to +900%, for instance plant:+2%")
    return share


def _fused(arm: Arm, name: str) -> Arm:
    """Add a fusion, with the variables that one which is a knob sets before the process starts."""
    from gemma3n_perf.fusions import declarations  # reads every fusion's file, which few arms need

    _known(arm, "fusion", name, declarations.names())
    settings = dict(arm.env)
    for variable, setting in declarations.env(name).items():
        if not variable.startswith("MLX_"):
            raise _bad(arm.text, f"the fusion sets {variable}", "knobs of MLX alone, whose names begin with MLX_")
        if settings.setdefault(variable, setting) != setting:
            raise _bad(arm.text, f"{variable} is set twice, and differently", f"fusion:{name} alone, or env: alone")
    return replace(arm, fusions=(*arm.fusions, name), env=tuple(sorted(settings.items())))


def _known(arm: Arm, what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise _bad(arm.text, f"there is no {what} {name!r}", f"one of: {', '.join(names) or f'there is no {what} yet'}")


def _bad(text: str, found: str, expected: str) -> UsageError:
    return UsageError(f"arm {text!r}: {found}", expected=expected)


def slowdowns(baseline: Arm, candidate: Arm) -> tuple[float, float]:
    """How much longer each arm's blocks are made to take, as fractions of their time.

    Nothing can be made faster, so ``plant:-2%`` (its time falls to 0.98) slows the *other* arm by 1/0.98 - 1 = 2.04 %:
    the ratio of the two is what was asked for.
    """

    def slowed(own: Arm, other: Arm) -> float:
        return round((1 + max(own.plant, 0.0)) / (1 + min(other.plant, 0.0)) - 1, 12)

    return slowed(baseline, candidate), slowed(candidate, baseline)
