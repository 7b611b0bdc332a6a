"""From an arm in words to one that can be started: which Python, which package, which environment variables."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.measure.arms import Arm, slowdowns
from gemma3n_perf.measure.environments import Environments, Wish
from gemma3n_perf.measure.worktrees import Worktrees

_WORKER = Path("gemma3n_perf", "measure", "worker.py")


@dataclass(frozen=True, slots=True)
class ReadyArm:
    """An arm that can be started: ``argv`` in this process's environment with ``environ`` on top.

    ``planted`` is the share of time that its blocks are lengthened by; ``identity`` what it is made of, less that;
    ``packages`` what it is made of besides this suite's code.
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


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes arms ready. ``package`` is the folder that holds this gemma3n_perf, ``stack`` the software that is here."""

    package: Path
    stack: Stack
    worktrees: Worktrees
    environments: Environments
    note: Callable[[str], None] = lambda text: None
    python: str = sys.executable

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
        return first, second

    def _identity(self, arm: Arm) -> tuple[object, ...]:
        here, dirty = self.stack.commit, self.stack.dirty is not False
        code = self.worktrees.commit(arm.ref) if arm.ref else f"{here}, changed" if dirty else here
        return (code, arm.engine, arm.env, *self._packages(arm))

    def _packages(self, arm: Arm) -> tuple[object, ...]:
        return (arm.mlx or self.stack.mlx, arm.mlx_vlm_from or arm.mlx_vlm or self.stack.mlx_vlm)

    def _ready(self, name: str, arm: Arm, planted: float, identity: tuple[object, ...]) -> ReadyArm:
        package, worker, notes = self.package, self.package / _WORKER, list[str]()
        if arm.ref:
            commit = str(identity[0])
            self.note(f"{arm.text}: checking out {commit[:12]}")
            package = self.worktrees.checkout(commit) / "perf"
            if not (package / "gemma3n_perf" / "decode" / "session.py").is_file():
                raise ArmUnavailableError(
                    f"{commit[:12]} holds no suite that can decode",
                    expected="a commit with perf/gemma3n_perf/decode",
                    remedy="choose a later commit",
                )
            if (package / _WORKER).is_file():
                worker = package / _WORKER
        elif self.stack.dirty:
            notes.append(f"{arm.text}: this tree has uncommitted changes, so the result belongs to no commit")
        environ = {"PYTHONPATH": str(package), "TOKENIZERS_PARALLELISM": "false", **dict(arm.env)}
        argv = (str(self._python(arm)), "-P", str(worker))
        return ReadyArm(name, arm.text, argv, environ, arm.engine, planted, identity, self._packages(arm), tuple(notes))

    def _python(self, arm: Arm) -> Path:
        if not arm.builds or (arm.mlx_vlm_from is None and self._packages(arm) == (self.stack.mlx, self.stack.mlx_vlm)):
            return Path(self.python)
        self.note(f"{arm.text}: building its environment")
        source = self.environments.source(arm.mlx_vlm_from) if arm.mlx_vlm_from else Wish()
        return self.environments.interpreter(
            Wish(mlx=arm.mlx, mlx_vlm=arm.mlx_vlm, source=source.source, key=source.key)
        )
