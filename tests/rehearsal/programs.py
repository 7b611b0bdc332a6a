"""Pull requests that change the program that decodes: a lock bump, and what the measuring machines say of it.

Opinion: the lock files are the real ones, with an older version put into the base. Where nobody measures here, the
machines' duels are planted from synthetic blocks, and the rehearsal says so.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.bench.regression import REGRESSIONS
from gemma3n_perf.ci.artifacts import COMPARISON
from gemma3n_perf.gate.policy import read_policy
from tests.bench.regressions import failed, record
from tests.rehearsal import github
from tests.rehearsal.github import Clone

LOCKS = ("requirements.lock", "requirements-cuda.lock")
WITH = {"mlx": ("mlx-cpu", "mlx-metal", "mlx-cuda-13")}
"""Packages that have the version of another."""


@dataclass(frozen=True, slots=True)
class Bump:
    """A lock bump of ``package`` from ``version`` to what the checkout has, and what is planted of its duels.

    ``effects`` are by required class, the last one for all further classes; ``gone`` says why the base cannot be
    rebuilt; ``accepts`` is the loss, in percent, that a maintainer's file in the change accepts; ``unresolved`` ends
    the jobs where they set up.
    """

    package: str
    version: str
    effects: tuple[float, ...] = (0.0,)
    gone: str = ""
    accepts: int | None = None
    unresolved: bool = False

    @property
    def disagrees(self) -> bool:
        """Whether classes say different things of it."""
        return len(set(self.effects)) > 1

    def __str__(self) -> str:
        if self.unresolved:
            return "the jobs end where they set up"
        if self.gone:
            return f"the duels say: {self.gone}"
        shown = ", ".join(f"{100 * one:+.0f} %" for one in self.effects)
        return f"duels of synthetic blocks, {shown} by class"


def proposed(bump: Bump, clone: Clone, start: str) -> tuple[str, str]:
    """Commit the base, ``start`` with the older lock, and the bump upon it; returns both commits."""
    clone.git("checkout", "--quiet", "--detach", start)
    before = {name: (clone.root / name).read_text() for name in LOCKS if (clone.root / name).is_file()}
    names = "|".join((bump.package, *WITH.get(bump.package, ())))
    for name, text in before.items():
        older = re.sub(rf"^({names})==[^\s;]+", rf"\g<1>=={bump.version}", text, flags=re.MULTILINE)
        (clone.root / name).write_text(older)
    base = clone.save(f"{bump.package} {bump.version}")
    for name, text in before.items():
        (clone.root / name).write_text(text)
    head = clone.save(f"bump {bump.package}")
    if bump.accepts is None:
        return base, head
    policy = read_policy(clone.root / "baselines" / "policy.toml")
    for number, workload in enumerate(dict.fromkeys(one for name in policy.required for one in policy.workloads(name))):
        path = clone.root / "baselines" / "accepted" / f"bump-{number}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'commit = "{head}"\nworkload = "{workload}"\neffect = "-{bump.accepts} %"\nwhy = "a fix that is needed"\n'
        )
    return base, clone.save("accept what it costs")


def measured(bump: Bump, folder: Path, classes: Mapping[str, bool], base: str, head: str, here: str | None) -> None:
    """Play the measuring jobs of ``classes``, of which those that are True are required.

    The class ``here`` has measured already: its job's own folder lies there.
    """
    policy = read_policy(folder / "trusted" / "baselines" / "policy.toml")
    ordered = sorted(classes, key=lambda name: not classes[name])
    for number, name in enumerate(ordered):
        if bump.unresolved:
            continue
        if name == here:
            github.zipped(folder / "artifacts", name, folder / "evidence")
            continue
        effect = bump.effects[min(number, len(bump.effects) - 1)]
        path = folder / "planted" / name / COMPARISON
        if bump.gone:
            made = failed(name, base, head, bump.gone, "lock a version that can be had, or rebase")
        else:
            made = record(
                name, base, head, dict.fromkeys(policy.workloads(name), effect), changes=(_change(bump, folder),)
            )
        path.parent.mkdir(parents=True)
        REGRESSIONS.write(path, made)
        github.pack(folder / "artifacts", name, head, [], comparison=path)
    ends = dict.fromkeys(classes, "failure" if bump.unresolved else "success")
    github.jobs(folder / "jobs.json", ends, failed="Set up" if bump.unresolved else None)


def _change(bump: Bump, folder: Path) -> str:
    """Say what changed, as a machine that compares two installations does."""
    lock = (folder / "candidate" / LOCKS[0]).read_text()
    now = re.search(rf"^{bump.package}==([^\s;]+)", lock, re.MULTILINE)
    return f"{bump.package} {bump.version} -> {now[1] if now else 'nothing'}"


def runner(folder: Path) -> dict[str, str]:
    """Return what a measuring job has beside a runner's variables: its own temporary folder, and the user's caches."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "UV_CACHE_DIR") if name in os.environ}
    shutil.rmtree(folder / "evidence", ignore_errors=True)
    return kept | {"RUNNER_TEMP": str(folder)}
