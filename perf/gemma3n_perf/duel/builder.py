"""From an arm in words to one that can be started: which Python, which package, which environment variables."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemma3n_perf.duel import compiled
from gemma3n_perf.duel.arms import Arm, slowdowns
from gemma3n_perf.duel.environments import Environments, without_neighbours
from gemma3n_perf.duel.packages import Package
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Caution

_WORKERS = (Path("gemma3n_perf", "duel", "worker.py"), Path("gemma3n_perf", "measure", "worker.py"))
"""Where a tree keeps its worker: since the rooms of 0.2.0, and before. Old commits must stay arms."""


COPIED = "copied"
"""The caution of an arm whose package is a tree with changes, or without git."""


@dataclass(frozen=True, slots=True)
class ReadyArm:
    """An arm that can be started.

    ``argv`` starts its worker, in this process's environment with ``environ`` on top.
    ``compiles_in`` is where MLX keeps what it compiles for an arm without fusions, out of the way of fusions.
    ``planted`` is the share of time that its blocks are lengthened by.
    ``identity`` is all that it is made of but ``planted``, ``packages`` the part of it that is not this suite's code.
    ``fusions`` are applied in order.
    ``parent`` is equal for arms that may be forked from one parent, which finds packages along ``parent_path``.
    ``group`` names a process that it shares with other arms, and the weights in it; "" is a process of its own.
    """

    name: str
    text: str
    argv: tuple[str, ...]
    environ: dict[str, str]
    engine: str
    planted: float
    identity: tuple[object, ...]
    packages: tuple[object, ...]
    cautions: tuple[Caution, ...] = ()
    group: str = ""
    fusions: tuple[str, ...] = ()
    parent: str = ""
    parent_path: str = ""
    compiles_in: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """What its process's environment has on top of this one's."""
        return self.environ | ({"TMPDIR": self.compiles_in} if self.compiles_in and not self.group else {})

    @property
    def process(self) -> str:
        """The name of the process that it lives in."""
        return self.group or self.name

    @property
    def model_id(self) -> str:
        """The name of its model within its process."""
        return self.name if self.group else ""


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes arms ready. ``package`` is the folder that holds this gemma3n_perf, ``stack`` the software that is
    here, ``search`` the PYTHONPATH it was started with, ``release`` the folder of an installed gemma3n_perf."""

    package: Path
    stack: Stack
    worktrees: Worktrees
    environments: Environments
    note: Callable[[str], None] = lambda text: None
    python: str = sys.executable
    search: str = ""
    release: Path | None = None

    def build(self, baseline: Arm, candidates: Sequence[Arm], *, same: bool | None = False) -> tuple[ReadyArm, ...]:
        """Return a baseline and its candidates: one is called ``candidate``, several by number and text.

        ``same`` says that all are meant to be one arm (an A/A duel, plants aside); None takes them as they are. Each
        has a process of its own.

        Raises UsageError for a candidate that is the baseline where that was not asked for, or is not where it was, or
        for a plant below zero where several candidates share a baseline; and what building raises.
        """
        alone = len(candidates) == 1
        if not alone and any(arm.plant < 0 for arm in (baseline, *candidates)):
            raise UsageError(
                "a plant below zero slows the baseline, which all candidates share", expected="plants above zero"
            )
        first, *identities = [self._identity(arm) for arm in (baseline, *candidates)]
        found: list[ReadyArm] = []
        for number, (candidate, identity) in enumerate(zip(candidates, identities, strict=True)):
            slowed = slowdowns(baseline, candidate)
            _check_identity(baseline, candidate, first == identity, slowed, same)
            if not found:
                found.append(self._ready("baseline", baseline, slowed[0], first))
            name = "candidate" if alone else f"{number}:{candidate.text}"
            found.append(self._ready(name, candidate, slowed[1], identity))
        return tuple(found)

    def _identity(self, arm: Arm) -> tuple[object, ...]:
        here, dirty = self.stack.commit, self.stack.dirty is not False
        code = self.worktrees.commit(arm.ref) if arm.ref else f"{here}, changed" if dirty else here
        code = "installed" if arm.installed else code
        return (code, arm.engine, arm.env, arm.fusions, *self._keys(arm))

    def _packages(self, arm: Arm) -> list[Package]:
        return self.environments.others(arm.packages)

    def _keys(self, arm: Arm) -> tuple[object, ...]:
        return tuple((one.name, one.key) for one in self._packages(arm))

    def _ready(self, name: str, arm: Arm, planted: float, identity: tuple[object, ...]) -> ReadyArm:
        package, cautions = self.package, list[Caution]()
        if arm.ref:
            commit = str(identity[0])
            self.note(f"{arm.text}: checking out {commit[:12]}")
            package = self.worktrees.checkout(commit) / "perf"
        elif arm.installed:
            package = self._installed()
        elif self.stack.dirty:
            text = f"{arm.text}: this tree has uncommitted changes, so the result belongs to no commit"
            cautions.append(Caution("dirty", text, "commit the change, then duel ref:COMMIT"))
        for one in (one for one in self._packages(arm) if one.changed):
            text = f"{arm.text}: {one.name} was copied from {one.changed}, which is no commit"
            cautions.append(Caution(COPIED, text, f"commit it there, then name the commit: {one.name}@PATH#COMMIT"))
        if planted:
            text = f"{name} {arm.text}: a slowdown of {100 * planted:.4g} % was planted"
            cautions.append(Caution("planted", text, "leave the plant out for a real answer"))
        package = without_neighbours(package, self.environments.cache)
        worker = next((package / path for path in _WORKERS if (package / path).is_file()), None)
        if worker is None:
            raise ArmUnavailableError(
                f"{identity[0]} holds no worker that can decode",
                expected=f"a commit with perf/{_WORKERS[0]} or perf/{_WORKERS[1]}",
                remedy="choose a later commit",
            )
        python = self._python(arm)
        # Where packages of this environment are found by a path, an arm that uses it must find them too.
        inherited = [self.search] if self.search and str(python) == self.python else []
        path = os.pathsep.join([str(package), *inherited])
        environ = {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", **dict(arm.env)}
        argv = (str(python), "-P", str(worker))
        compiles_in = self.environments.cache / compiled.FOLDER
        compiles_in.mkdir(parents=True, exist_ok=True)
        return ReadyArm(
            name, arm.text, argv, environ, arm.engine, planted, identity, self._keys(arm),
            tuple(cautions), fusions=arm.fusions,
            parent=f"{python} {dict(arm.env)}", parent_path=os.pathsep.join(inherited),
            compiles_in="" if arm.fusions else str(compiles_in),
        )  # fmt: skip

    def _installed(self) -> Path:
        if self.release is None:
            raise ArmUnavailableError(
                "no other release of this suite is installed",
                expected="gemma3n-perf installed beside this checkout, not in its place",
                remedy="pip install gemma3n-perf, or name a commit: ref:COMMIT",
            )
        return self.release

    def _python(self, arm: Arm) -> Path:
        packages = self._packages(arm)
        if not packages:
            return Path(self.python)
        self.note(f"{arm.text}: building its environment")
        return self.environments.interpreter(packages)


def require_commit(arm: ReadyArm) -> ReadyArm:
    """Return an arm that others may be compared with. Raises UsageError for one whose package was copied from a tree
    that belongs to no commit."""
    for one in (one for one in arm.cautions if one.code == COPIED):
        raise UsageError(one.found, expected="a release or commit, to be compared with again", remedy=one.remedy)
    return arm


def in_one_process(arms: Sequence[ReadyArm]) -> tuple[ReadyArm, ...]:
    """Put candidates that differ from the baseline in fusions alone into its process, where they share the weights.

    For memory that does not hold two copies: the baseline then lives where the fusions' code runs, and says so.
    """
    first = arms[0]
    text = "baseline and candidate share one process, for memory does not hold two copies of the checkpoint"
    caution = Caution("shared-process", text, "measure on a machine with more memory, or a smaller checkpoint")
    fused = [(one.argv, one.environ, one.engine) == (first.argv, first.environ, first.engine) for one in arms]
    return tuple(
        replace(arm, group="shared", cautions=(*arm.cautions, caution)) if alike else arm
        for arm, alike in zip(arms, fused, strict=True)
    )


def _check_identity(
    baseline: Arm, candidate: Arm, identical: bool, slowed: tuple[float, float], same: bool | None
) -> None:
    if identical and slowed[0] == slowed[1] and same is False:
        raise UsageError(
            f"{baseline.text} and {candidate.text} are the same arm twice",
            expected="two arms that differ",
            remedy="pass --aa for an A/A duel",
        )
    if same and not identical:
        raise UsageError(
            f"--aa is for one arm twice, and {baseline.text} is not {candidate.text}",
            expected="the same arm on both sides",
            remedy="leave out --aa",
        )
