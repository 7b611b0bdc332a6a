"""Duels, from two arms in words to judgements: the adapter behind ``duel``, ``calibrate``, ``bisect`` and confirmation.

It wires the rooms together (measuring to the left, statistics and verdicts to the right) and decides nothing itself.
"""

import datetime as dt
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import Builder, ReadyArm
from gemma3n_perf.duel.environments import Environments, installed_requirements
from gemma3n_perf.duel.judgements import judgements
from gemma3n_perf.duel.launch_plan import pace
from gemma3n_perf.duel.processes import spawn
from gemma3n_perf.duel.scheduler import ComparisonKey, ComparisonState, Rules, contest, fight
from gemma3n_perf.duel.tools import ON_CPU, BlockLayout, Job, Tools
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.machine import keep_awake, measuring_lock
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.judge import should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Caution, Judgement
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.workload import cache


@dataclass(frozen=True, slots=True)
class Here:
    """This machine and checkout: what runs duels here. ``root`` holds the forged checkpoints."""

    chip: Chip
    stack: Stack
    builder: Builder
    tools: Tools
    baselines: Path
    root: Path

    @property
    def noise(self) -> NoiseFloor | None:
        """The class's calibrated noise floor, or None. Raises MalformedRecordError."""
        found = noise_store.read(self.baselines, self.chip.chip_class)
        return found.floor if found else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A duel in words. ``sources`` are checkpoints by the name their workload has, where that is not a preset.

    ``aa`` says whether the arms are meant to be the same; None takes them as they are. ``settle`` False measures until
    the budget is spent, whatever is shown.
    """

    baseline: str
    candidate: str
    workloads: tuple[str, ...]
    budget_s: float
    sessions: int = 1
    aa: bool | None = False
    settle: bool = True
    policy: Policy = field(default_factory=Policy)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a duel found: the arms, what was measured of each workload, and its judgement, as one family."""

    asked: Asked
    arms: tuple[ReadyArm, ReadyArm]
    fought: Mapping[str, ComparisonState]
    judgements: Mapping[str, Judgement]
    date: dt.datetime


@dataclass(frozen=True, slots=True)
class Field:
    """Several candidates against one baseline, through the same launches. ``names`` are texts of arms.

    ``together`` puts the candidates into one process beside the baseline's; without it each has one of its own, but for
    fusions, which share the baseline's. ``tokens_may_differ`` leaves what is decoded to the fusions' parity.
    """

    baseline: str
    names: tuple[str, ...]
    workloads: tuple[str, ...]
    budget_s: float
    sessions: int = 1
    together: bool = False
    tokens_may_differ: bool = False
    settle: bool = True
    cooldown_s: float = 30.0
    policy: Policy = field(default_factory=Policy)
    sources: Mapping[str, str] = field(default_factory=dict)


Comparisons = Mapping[ComparisonKey, tuple[ComparisonState, Judgement]]


def contested(
    asked: Field,
    machine: Here,
    today: dt.date | None = None,
    *,
    launched: Callable[[Comparisons], None] = lambda found: None,
) -> dict[ComparisonKey, tuple[ComparisonState, Judgement]]:
    """Carry a field out; each candidate's workloads are one family. The caller holds the measuring lock.

    ``launched`` is told everything so far after every launch.

    Raises UsageError, ArmUnavailableError, MalformedRecordError; what goes wrong while measuring is a judgement.
    """
    noise, rules = machine.noise, Rules(asked.budget_s, asked.policy.min_launches, asked.sessions, asked.cooldown_s)
    on = today or dt.datetime.now(dt.UTC).date()
    arms = machine.builder.field(
        parse(asked.baseline), [parse(name) for name in asked.names], room="candidates" if asked.together else ""
    )
    numbered = (arms[0], *(replace(arm, name=f"{i}:{arm.text}") for i, arm in enumerate(arms[1:])))

    def judged(state: Mapping[ComparisonKey, ComparisonState]) -> dict[ComparisonKey, Judgement]:
        found: dict[ComparisonKey, Judgement] = {}
        for arm in numbered[1:]:
            own = {key[0]: one for key, one in state.items() if key[1] == arm.name}
            judged_now = judgements(own, budget_s=asked.budget_s, policy=asked.policy, noise=noise, today=on)
            found |= {(name, arm.name): judgement for name, judgement in judged_now.items()}
        return found

    def look(state: Mapping[ComparisonKey, ComparisonState]) -> frozenset[ComparisonKey]:
        if not asked.settle:
            return frozenset()
        return frozenset(key for key, found in judged(state).items() if should_stop(found))

    jobs = [
        replace(job(name, asked.sources, machine.root), tokens_may_differ=asked.tokens_may_differ)
        for name in asked.workloads
    ]

    def answers(
        state: Mapping[ComparisonKey, ComparisonState],
    ) -> dict[ComparisonKey, tuple[ComparisonState, Judgement]]:
        found = judged(state)
        return {key: (one, found[key]) for key, one in state.items()}

    state = contest(
        jobs, numbered, machine.tools, rules, look=look, pairs=pace(asked.policy, rules),
        launched=lambda so_far: launched(answers(so_far)),
    )  # fmt: skip
    return answers(state)


def here(baselines: Path | None = None, note: Callable[[str], None] = lambda text: None) -> Here:
    """Return the real machine, with the checkout this package is run from."""
    chip, repo = detect(), suite_checkout()
    stack, system, root = current_stack(repo), this_machine(), cache.checkpoints_root()
    limits = Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)
    tools = Tools(
        spawn=spawn, probe=ConditionProbe.on(system, os.getpid()), faults_of=partial(faults, limits=limits),
        clock=time.perf_counter, sleep=time.sleep, rng=random.Random(), note=note,
        cut=ON_CPU if chip.vendor == "cpu" else BlockLayout(),
    )  # fmt: skip
    builder = Builder(
        Path(__file__).resolve().parents[2], stack, Worktrees(repo, root.parent, run_command),
        Environments(root.parent, run_command, installed_requirements()), note,
        search=os.environ.get("PYTHONPATH", ""),
    )  # fmt: skip
    return Here(chip, stack, builder, tools, baselines or (repo or Path()) / "baselines", root)


@contextmanager
def machine(baselines: Path | None, err: TextIO) -> Iterator[Here]:
    """Hold this machine for measuring, with progress on ``err``. Raises MachineBusyError."""
    progress = Progress(err)
    with ExitStack() as held:
        held.enter_context(measuring_lock())
        held.callback(progress.clear)
        progress.note(held.enter_context(keep_awake()))
        yield here(baselines, progress.note)


def duel(asked: Asked, machine: Here, now: dt.datetime | None = None) -> Answer:
    """Carry a duel out. The caller holds the measuring lock.

    Raises UsageError for what cannot be carried out, ArmUnavailableError, MalformedRecordError; what goes wrong while
    a workload is measured is its judgement.
    """
    if not asked.workloads or len(set(asked.workloads)) != len(asked.workloads):
        raise UsageError(f"workloads {', '.join(asked.workloads) or 'none'}", expected="each workload once")
    date, noise = now or dt.datetime.now(dt.UTC), machine.noise
    rules = Rules(asked.budget_s, asked.policy.min_launches, asked.sessions)
    arms = machine.builder.pair(parse(asked.baseline), parse(asked.candidate), same=asked.aa)
    judged = partial(judgements, budget_s=asked.budget_s, policy=asked.policy, noise=noise, today=date.date())

    def look(state: Mapping[str, ComparisonState]) -> frozenset[str]:
        if not asked.settle:
            return frozenset()
        return frozenset(name for name, found in judged(state).items() if should_stop(found))

    jobs = [job(name, asked.sources, machine.root) for name in asked.workloads]
    fought = fight(jobs, arms, machine.tools, rules, look=look, pairs=pace(asked.policy, rules))
    return Answer(asked, arms, fought, _with_notes(judged(fought), fought, arms), date)


def job(workload: str, sources: Mapping[str, str], root: Path) -> Job:
    """Return the job of a workload; ``sources`` are checkpoints that are no presets."""
    name = workload.split("/")[0]
    return Job(workload, sources.get(name, name), str(root))


def _with_notes(
    found: Mapping[str, Judgement], fought: Mapping[str, ComparisonState], arms: tuple[ReadyArm, ReadyArm]
) -> dict[str, Judgement]:
    told = [note for arm in arms for note in arm.notes]
    told += [
        f"{arm.name} {arm.text}: a slowdown of {100 * arm.planted:.4g} % was planted" for arm in arms if arm.planted
    ]
    return {
        name: replace(one, cautions=(*one.cautions, *(_caution(text) for text in (*told, *fought[name].notes))))
        for name, one in found.items()
    }


def _caution(text: str) -> Caution:
    if "uncommitted" in text:
        return Caution("dirty", text, "commit the change, then duel ref:COMMIT")
    if "planted" in text:
        return Caution("planted", text, "leave the plant out for a real answer")
    return Caution("tokens-differ", text, "look at the outputs before trusting that both do the same work")
