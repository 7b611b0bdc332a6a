"""What ``pytest perf/ --benchmark-compare`` compares with, where no arm is named: the first that can be had.

A tree with changes on the default branch: HEAD. Another branch: where it left the default branch. Both have the
packages of their own lock, where that changed. A clean default branch: commit and stack of the class's baseline, then
the last release tag, then the parent commit. Last of all, and without git: the installed release. A session that was
measured on this machine is never compared with: a loss that is run twice stays a loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from packaging.requirements import InvalidRequirement, Requirement

from gemma3n_perf.duel import program
from gemma3n_perf.duel.packages import BACKENDS
from gemma3n_perf.duel.program import Tree
from gemma3n_perf.errors import ArmUnavailableError, NoBaselineError, PerfError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.types import Stack

ANOTHER = "choose another with --against ARM"
_SHORT = 12

_Built = TypeVar("_Built")


@dataclass(frozen=True, slots=True)
class Comparator:
    """One arm to compare with, ``origin`` in words.

    ``missing`` says why it cannot be had, where that is known before anything is built.
    """

    arm: str
    origin: str
    missing: str = ""

    def __str__(self) -> str:
        """Return ``ref:0123456789ab (HEAD, without the changes in this tree)``."""
        return f"{short(self.arm)} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The comparator that was taken, and those before it that could not be had, each with the reason."""

    comparator: Comparator
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the comparator, what it stands in for, and how to choose another, in one line."""
        instead = "".join(f"; not {one}" for one in self.passed_over)
        return f"{self.comparator}{instead}; {ANOTHER}"


def short(arm: str) -> str:
    """Return an arm with its commit shortened."""
    baseline, *changes = arm.split("+")
    commit = baseline.removeprefix("ref:")
    is_id = baseline.startswith("ref:") and len(commit) == 40
    return "+".join([f"ref:{commit[:_SHORT]}" if is_id else baseline, *changes])


def baseline_arm(then: Stack, now: Stack) -> str:
    """Return the arm that rebuilds the baseline's stack here. Raises ArmUnavailableError where nothing can."""
    if then.commit is None or then.dirty is not False:
        raise ArmUnavailableError(
            "the baseline was measured on uncommitted changes, which cannot be rebuilt",
            expected="a baseline of a commit",
            remedy="record a baseline on a clean commit: gemma3n-perf baseline save",
        )
    parts = [f"ref:{then.commit}"]
    if then.mlx != now.mlx:
        parts.append(f"mlx=={then.mlx}")
    if then.mlx_vlm is not None and then.mlx_vlm != now.mlx_vlm:
        parts.append(f"mlx-vlm=={then.mlx_vlm}")
    parts += [f"env:{name}={value}" for name, value in then.knobs.items() if now.knobs.get(name) != value]
    unset = sorted(now.knobs.keys() - then.knobs.keys())
    if unset:
        raise ArmUnavailableError(
            f"{', '.join(unset)} is set here and was not for the baseline",
            expected="the baseline's knobs, or others that can be set beside them",
            remedy=f"unset {' '.join(unset)} and run again, or duel the knob itself: here against here+env:NAME=VALUE",
        )
    return "+".join(parts)


def base_arm(repository: Repository, base: str, chip_class: str, head: Tree) -> str:
    """Return the arm that rebuilds ``base``: its code, and the packages that its lock names otherwise than ``head``'s.

    Raises ArmUnavailableError for a package that has no version there, UsageError for what is no commit.
    """
    before, after = (pins(tree, chip_class) for tree in (program.revision(repository, base), head))
    parts = [f"ref:{base}"]
    for name, version in before.items():
        if version != after.get(name) and name not in BACKENDS:  # those follow mlx
            if not version:
                raise ArmUnavailableError(
                    f"the lock of {base[:12]} has {name} from an address",
                    expected="a version, which can be installed again",
                    remedy="lock a released version of it",
                )
            parts.append(f"{name}=={version}")
    return "+".join(parts)


def pins(tree: Tree, chip_class: str) -> dict[str, str]:
    """Return the versions that a tree's lock names for this platform, of packages that a worker imports ("": none)."""
    lock = program.lock_of(chip_class)
    found: dict[str, str] = {}
    for line in tree.read(lock).splitlines() if lock in tree.names else ():
        try:
            one = Requirement(line.rstrip(" \\")) if line[:1].isalnum() else None
        except InvalidRequirement:
            continue
        if one is not None and program.decides(one.name) and (one.marker is None or one.marker.evaluate()):
            found[one.name] = next((each.version for each in one.specifier if each.operator == "=="), "")
    return found


def comparators(
    repository: Repository | None, now: Stack, baseline: Stack | None, release: str | None = None, chip_class: str = ""
) -> tuple[Comparator, ...]:
    """Return what today's program may be compared with, the best first; empty where there is nothing at all.

    ``now`` is this stack, ``baseline`` that of the class's baseline, ``release`` the version of an installed
    release beside this checkout. A change of ``chip_class``'s lock is compared with the packages before it.
    """
    found: list[Comparator] = []
    try:
        if repository and repository.commit():
            found += _of_history(repository, now, baseline, chip_class)
    except ArmUnavailableError as error:  # git cannot be asked at all
        found.append(Comparator("ref:HEAD", "this checkout's history", _reason(error)))
    if release is not None:
        found.append(Comparator("installed", f"the installed release {release}"))
    return tuple(found)


def _of_history(git: Repository, now: Stack, baseline: Stack | None, chip_class: str) -> Iterator[Comparator]:
    default, branch, head = git.default_branch(), git.branch(), git.commit()
    on_default = branch is not None and default is not None and branch == default.removeprefix("origin/")
    changed = git.differs_from_head() is not False
    if not on_default and default is not None and not (branch is None and git.is_ancestor("HEAD", default)):
        fork = git.merge_base(default)
        if fork is None:
            lacking = f"this clone holds no commit that HEAD and {default} share; {_deepen(git)}"
            yield Comparator(f"ref:{default}", f"the merge base with {default}", lacking)
        elif fork != head or changed:
            yield _with_lock(git, fork or "", chip_class, f"the merge base with {default}")
            return
    elif changed:
        yield _with_lock(git, head or "", chip_class, "HEAD, without the changes in this tree")
        return
    if baseline is not None:
        origin = "commit and stack of this class's baseline"
        try:
            yield Comparator(baseline_arm(baseline, now), origin)
        except ArmUnavailableError as error:
            yield Comparator(f"ref:{baseline.commit or 'unknown'}", origin, error.found)
    tag = git.last_tag()
    if tag is not None and git.commit(tag) == head:
        tag = git.last_tag("HEAD^")
    if tag is not None:
        yield Comparator(f"ref:{git.commit(tag)}", f"the last release, {tag}")
    parent = git.commit("HEAD^")
    if parent is not None:
        yield Comparator(f"ref:{parent}", "the parent commit")
    elif git.is_shallow():
        yield Comparator("ref:HEAD^", "the parent commit", f"this clone is too shallow; {_deepen(git)}")


def _with_lock(git: Repository, commit: str, chip_class: str, origin: str) -> Comparator:
    try:
        return Comparator(base_arm(git, commit, chip_class, program.folder(git.root)), origin)
    except (ArmUnavailableError, UsageError) as error:
        return Comparator(f"ref:{commit}", origin, error.found)


def _deepen(git: Repository) -> str:
    return "git fetch --unshallow --tags" if git.is_shallow() else "git fetch origin"


def choose(
    found: tuple[Comparator, ...], build: Callable[[Comparator], _Built], against: str | None = None
) -> tuple[Chosen, _Built]:
    """Return the first comparator that ``build`` can make, and what it made.

    ``against`` is the arm that was named: no other takes its place, and what building it raises is raised. Raises
    NoBaselineError naming everything that could not be had.
    """
    if against is not None:
        named = Comparator(against, "named with --against")
        return Chosen(named), build(named)
    passed_over: list[str] = []
    for one in found:
        if not one.missing:
            try:
                return Chosen(one, tuple(passed_over)), build(one)
            except (ArmUnavailableError, UsageError) as error:
                passed_over.append(f"{one}: {_reason(error)}")
        else:
            passed_over.append(f"{one}: {one.missing}")
    raise NoBaselineError(
        "there is nothing to compare with: " + ("; ".join(passed_over) or "no earlier commit and no installed release"),
        expected="a git clone with its history, or an installed release",
        remedy=("do what is said there, or " if passed_over else "") + "name an arm: --against ref:HEAD~1",
    )


def _reason(error: PerfError) -> str:
    return f"{error.found} (next: {error.remedy})" if error.remedy else error.found
