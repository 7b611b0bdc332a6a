"""Evidence from synthetic blocks, in a scratch repository of two fusions: no machine measured any of it."""

import datetime as dt
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.pairs import NS, Block
from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import FUSIONS, Checkout
from gemma3n_perf.gate.facts import Checked, Dispatch, Parity
from gemma3n_perf.gate.record import Evidence, WorkloadEvidence
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.types import Chip, Conditions, Stack
from gemma3n_perf.stats.judge import judge, judge_session
from gemma3n_perf.stats.policy import Policy

TODAY = dt.date(2026, 7, 1)
NOTE = "synthetic blocks: no machine measured this"
BIG, SMALL = "fake-gpu", "fake-cpu-2c"
ONE, TWO, NANO = "e2b-4bit/text/pp320-tg64", "e4b-4bit/text/pp320-tg64", "nano/text/pp40-tg64"
WORKLOADS = {BIG: (ONE, TWO), SMALL: (NANO,)}
ALTUP, GEGLU = "stacked-altup", "compiled-geglu"
BUDGET_S = 60.0
POLICY = f"""
[gate]
required = ["{BIG}", "{SMALL}"]
minimum_effect = 0.005
max_age_days = 90
sessions = 2

[classes.{BIG}]
workloads = ["{ONE}", "{TWO}"]
runner = ["gpu"]

[classes.{SMALL}]
workloads = ["{NANO}"]
"""
SOURCES = {
    ALTUP: ("stacked_altup.py", "kernels.py"),
    GEGLU: ("compiled_geglu.py",),
}


def launches(
    effects: Sequence[float], *, per_session: int = 4, pairs: int = 8, seed: int = 3, sd: float = 0.002
) -> tuple[Launch, ...]:
    """Return launches of sessions whose candidates are so much faster, at 20 ms a token, ``sd`` between launches."""
    rng, made = random.Random(seed), list[Launch]()
    for session, effect in enumerate(effects):
        for _ in range(per_session):
            offset = rng.gauss(0.0, sd)
            blocks = []
            for _ in range(pairs):
                first = _block("baseline", 0.02 * (1 + rng.gauss(0.0, 0.005)))
                second = _block("candidate", 0.02 / (1 + effect) * (1 + offset) * (1 + rng.gauss(0.0, 0.005)))
                blocks.append((first, second) if rng.random() < 0.5 else (second, first))
            whole_s = 0.02, 0.02 / (1 + effect) * (1 + offset)
            made.append(Launch(session, "baseline", 1.0, 6.0, 7, tuple(blocks), whole_s=whole_s))
    return tuple(made)


def _block(arm: str, tpot_s: float) -> Block:
    return Block(arm, round(tpot_s, NS), round(7 * tpot_s, NS), Conditions(steal=0.0))


def workload(
    name: str, effects: Sequence[float] = (0.05, 0.05), raw: tuple[Launch, ...] = (), **options: Any
) -> WorkloadEvidence:
    """Return a workload's evidence as a session would have judged it; ``effects`` one for each session, or ``raw``."""
    raw = raw or launches(effects, **options)
    found = estimates(raw)
    sessions = sorted({one.session for one in found})
    alone = [judge_session([one for one in found if one.session == n], Policy()) for n in sessions]
    return WorkloadEvidence(name, judge(found, Policy(), budget_s=BUDGET_S), tuple(alone), BUDGET_S, raw)


def checked(checkpoint: str, **changes: Any) -> Checked:
    """Return the checks of a fusion that is dispatched and right."""
    good = Checked(
        checkpoint,
        Dispatch((900, 850), {"operations.Multiply": (60, 10)}),
        Parity(True, True, figures={"steps": 64, "largest_error": 0.001}),
        memory_ratio=1.02,
        weights_kept=True,
    )
    return replace(good, **changes)


@dataclass
class FakeSources:
    """The fusions of the scratch repository; ``off`` are the classes on which each is not enabled."""

    root: Path
    modules: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(SOURCES))
    off: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return all fusions."""
        return tuple(self.modules)

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the modules of a fusion or composition."""
        return tuple(self.root / FUSIONS / file for part in name.split("+") for file in self._of(part))

    def digest(self, name: str) -> str:
        """Return a digest of those modules."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.files(name))).hexdigest()

    def enabled(self, name: str, chip: Chip) -> bool:
        """Whether every part is on."""
        return all(chip.chip_class not in self.off.get(part, ()) for part in name.split("+") if self._of(part))

    def unseen(self, name: str) -> list[str]:
        """Nothing."""
        return []

    def _of(self, name: str) -> tuple[str, ...]:
        if name not in self.modules:
            raise UsageError(f"there is no fusion {name!r}")
        return self.modules[name]


class Scratch:
    """A repository with fusions, a policy, and what evidence a test puts into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.baselines = root / "baselines"
        self.sources = FakeSources(root)
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("docs/page.md", "one")
        self.write("baselines/policy.toml", POLICY)
        for name in ("stacked_altup.py", "kernels.py", "compiled_geglu.py", "registry.py"):
            self.write(str(FUSIONS / name), f"# {name}")
        self.commit = self.save("the fusions")

    def git(self, *argv: str) -> str:
        """Run git as a committer of the tests' own."""
        identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | identity
        done = subprocess.run(["git", "-C", str(self.root), *argv], check=True, capture_output=True, env=environ)
        return done.stdout.decode().strip()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the repository."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def save(self, message: str) -> str:
        """Commit everything; returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def evidence(
        self,
        chip_class: str = BIG,
        fusion: str = ALTUP,
        effects: Mapping[str, Sequence[float]] | None = None,
        *,
        change: Callable[[Evidence], Evidence] = lambda record: record,
        **checks: Any,
    ) -> Evidence:
        """Return evidence of a win of 5 % on each workload, or of ``effects``; ``checks`` change what is checked."""
        stack = Stack("3.11.7", "Linux 6.1", "0.32.4", "0.7.10", "cpu", commit=self.commit, dirty=False)
        seen = effects if effects is not None else {name: (0.05, 0.05) for name in WORKLOADS[chip_class]}
        made = tuple(workload(name, one, seed=i) for i, (name, one) in enumerate(seen.items()))
        names = dict.fromkeys(name.split("/")[0] for name in seen)
        record = Evidence(
            schema=store.SCHEMA,
            fusion=fusion,
            verdict="win",
            reason="as measured",
            enabled=True,
            sources=self.sources.digest(fusion),
            commit=self.commit,
            dirty=False,
            date="2026-06-30T10:00:00+00:00",
            chip=Chip(chip_class, "fake", "Fake"),
            stacks={"baseline": stack, "candidate": stack},
            checked=tuple(checked(name, **checks) for name in names),
            workloads=made,
            notes=(NOTE,),
        )
        return change(record)

    def put(self, *records: Evidence) -> list[Path]:
        """Write evidence where the suite would."""
        return [store.write(self.baselines, one) for one in records]

    def off(self, chip_class: str = SMALL, fusion: str = ALTUP, **dispatch: Any) -> Evidence:
        """Return evidence that the fusion is off on a class, and switch it off there."""
        self.sources.off[fusion] = (*self.sources.off.get(fusion, ()), chip_class)
        same = Dispatch(**({"nodes": (900, 900)} | dispatch))
        names = dict.fromkeys(name.split("/")[0] for name in WORKLOADS[chip_class])
        return replace(
            self.evidence(chip_class, fusion, {}),
            enabled=False,
            verdict="not-measured",
            checked=tuple(Checked(name, same) for name in names),
        )

    def checkout(self) -> Checkout:
        """Return what the gate needs of the world."""
        return Checkout(Repository(self.root, run_command), self.baselines, lambda: self.sources, TODAY)


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a file by hand."""
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))


def reworked(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a file by hand and give it a digest that fits: a forgery that reads well."""
    tree = json.loads(path.read_text())
    edit(tree)
    tree["content_digest"] = store.content_digest(tree)
    path.write_text(json.dumps(tree))
