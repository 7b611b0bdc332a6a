"""What ``pytest perf/ --benchmark-compare`` compares with, where no arm is named: the first that can be had.

A tree with changes on the default branch: HEAD. Another branch: where it left the default branch. A clean default
branch: commit and stack of the class's baseline, then the last release tag, then the parent commit. Last of
all, and without git: the installed release. A session that was measured on this machine is never compared with: a loss
that is run twice stays a loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

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


def comparators(
    repository: Repository | None, now: Stack, baseline: Stack | None, release: str | None = None
) -> tuple[Comparator, ...]:
    """Return what today's program may be compared with, the best first; empty where there is nothing at all.

    ``now`` is this stack, ``baseline`` that of the class's baseline, ``release`` the version of an installed
    release beside this checkout.
    """
    found = list(_of_history(repository, now, baseline)) if repository and repository.commit() else []
    if release is not None:
        found.append(Comparator("installed", f"the installed release {release}"))
    return tuple(found)


def _of_history(git: Repository, now: Stack, baseline: Stack | None) -> Iterator[Comparator]:
    default, branch, head = git.default_branch(), git.branch(), git.commit()
    on_default = branch is not None and default is not None and branch == default.removeprefix("origin/")
    changed = git.differs_from_head() is not False
    if not on_default and default is not None and not (branch is None and git.is_ancestor("HEAD", default)):
        fork = git.merge_base(default)
        if fork is None:
            lacking = f"this clone holds no commit that HEAD and {default} share; {_deepen(git)}"
            yield Comparator(f"ref:{default}", f"the merge base with {default}", lacking)
        elif fork != head or changed:
            yield Comparator(f"ref:{fork}", f"the merge base with {default}")
            return
    elif changed:
        yield Comparator(f"ref:{head}", "HEAD, without the changes in this tree")
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
        remedy="git fetch --unshallow --tags, or name an arm: --against ref:COMMIT",
    )


def _reason(error: PerfError) -> str:
    return f"{error.found} (next: {error.remedy})" if error.remedy else error.found
