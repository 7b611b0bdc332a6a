"""From an arm in words to one that can be started: which Python, which package, which environment variables."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemma3n_perf.duel.arms import Arm, slowdowns
from gemma3n_perf.duel.environments import Environments, PackageSpec
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.types import Stack

_SHARED = "shared"
_WORKERS = (Path("gemma3n_perf", "duel", "worker.py"), Path("gemma3n_perf", "measure", "worker.py"))
"""Where a tree keeps its worker: since the rooms of 0.2.0, and before. Old commits must stay arms."""


@dataclass(frozen=True, slots=True)
class ReadyArm:
    """An arm that can be started: ``argv`` in this process's environment with ``environ`` on top.

    ``planted`` is the share of time that its blocks are lengthened by; ``identity`` what it is made of, less that;
    ``packages`` what it is made of besides this suite's code. Arms of one ``room`` live in one process and share the
    weights; an arm without one has a process of its own. ``fusions`` are applied in order.
    """

    name: str
    text: str
    argv: tuple[str, ...]
    environ: dict[str, str]
    engine: str
    planted: float
    identity: tuple[object, ...]
    packages: tuple[object, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    room: str = ""
    fusions: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The name of the process that it lives in."""
        return self.room or self.name


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes arms ready. ``package`` is the folder that holds this gemma3n_perf, ``stack`` the software that is
    here, ``search`` the PYTHONPATH it was started with."""

    package: Path
    stack: Stack
    worktrees: Worktrees
    environments: Environments
    note: Callable[[str], None] = lambda text: None
    python: str = sys.executable
    search: str = ""

    def pair(self, baseline: Arm, candidate: Arm, *, same: bool | None = False) -> tuple[ReadyArm, ReadyArm]:
        """Build both arms. ``same`` says that they are meant to be one (an A/A duel, a plant aside);
        None takes them as they are.

        Raises UsageError for one arm twice where that was not asked for, and what building raises.
        """
        planted = slowdowns(baseline, candidate)
        identities = [self._identity(arm) for arm in (baseline, candidate)]
        if identities[0] == identities[1] and planted[0] == planted[1] and same is False:
            raise UsageError(
                f"{baseline.text} and {candidate.text} are the same arm twice",
                expected="two arms that differ",
                remedy="pass --aa for an A/A duel",
            )
        if same and identities[0] != identities[1]:
            raise UsageError(
                f"--aa is for one arm twice, and {baseline.text} is not {candidate.text}",
                expected="the same arm on both sides",
                remedy="leave out --aa",
            )
        first, second = (
            self._ready(name, arm, slow, identity)
            for name, arm, slow, identity in zip(
                ("baseline", "candidate"), (baseline, candidate), planted, identities, strict=True
            )
        )
        return _together(first, second)

    def field(self, baseline: Arm, candidates: Sequence[Arm], *, room: str = "") -> tuple[ReadyArm, ...]:
        """Build a baseline and its candidates, named by their texts, which may repeat where they are numbered.

        Fusions share a process with the baseline, where nothing else differs; ``room`` puts the candidates into one
        process beside the baseline's. Raises UsageError for plants below zero, and what building raises.
        """
        if any(arm.plant < 0 for arm in (baseline, *candidates)):
            raise UsageError(
                "a plant below zero slows the baseline, which all candidates share", expected="plants above zero"
            )
        first = self._ready("baseline", baseline, baseline.plant, self._identity(baseline))
        others = [replace(self._ready(arm.text, arm, arm.plant, self._identity(arm)), room=room) for arm in candidates]
        if room:
            return (first, *others)
        paired = [_together(first, one) for one in others]
        return (next((pair[0] for pair in paired if pair[0].room), first), *(pair[1] for pair in paired))

    def _identity(self, arm: Arm) -> tuple[object, ...]:
        here, dirty = self.stack.commit, self.stack.dirty is not False
        code = self.worktrees.commit(arm.ref) if arm.ref else f"{here}, changed" if dirty else here
        return (code, arm.engine, arm.env, arm.fusions, *self._packages(arm))

    def _packages(self, arm: Arm) -> tuple[object, ...]:
        return (arm.mlx or self.stack.mlx, arm.mlx_vlm_from or arm.mlx_vlm or self.stack.mlx_vlm)

    def _ready(self, name: str, arm: Arm, planted: float, identity: tuple[object, ...]) -> ReadyArm:
        package, notes = self.package, list[str]()
        if arm.ref:
            commit = str(identity[0])
            self.note(f"{arm.text}: checking out {commit[:12]}")
            package = self.worktrees.checkout(commit) / "perf"
        elif self.stack.dirty:
            notes.append(f"{arm.text}: this tree has uncommitted changes, so the result belongs to no commit")
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
        return ReadyArm(
            name, arm.text, argv, environ, arm.engine, planted, identity, self._packages(arm), tuple(notes),
            fusions=arm.fusions,
        )  # fmt: skip

    def _python(self, arm: Arm) -> Path:
        if not arm.builds or (arm.mlx_vlm_from is None and self._packages(arm) == (self.stack.mlx, self.stack.mlx_vlm)):
            return Path(self.python)
        self.note(f"{arm.text}: building its environment")
        source = self.environments.source(arm.mlx_vlm_from) if arm.mlx_vlm_from else PackageSpec()
        return self.environments.interpreter(
            PackageSpec(mlx=arm.mlx, mlx_vlm=arm.mlx_vlm, source=source.source, key=source.key)
        )


def _together(baseline: ReadyArm, candidate: ReadyArm) -> tuple[ReadyArm, ReadyArm]:
    """Put arms that differ in fusions alone into one process: two copies of the weights may not fit, and need not."""
    alike = (baseline.argv, baseline.environ, baseline.engine) == (candidate.argv, candidate.environ, candidate.engine)
    if not alike or baseline.fusions == candidate.fusions:
        return baseline, candidate
    return replace(baseline, room=_SHARED), replace(candidate, room=_SHARED)
