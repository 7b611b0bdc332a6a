"""A duel, from arms in words to judgements: one baseline against one candidate or many."""

import datetime as dt
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.decode.engines import requested
from gemma3n_perf.duel import memory
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import Builder, ReadyArm
from gemma3n_perf.duel.compiled import Compiled
from gemma3n_perf.duel.environments import Environments, installed_requirements
from gemma3n_perf.duel.first_tokens import judge_first_tokens, memory_changes
from gemma3n_perf.duel.judgements import estimates, judgements
from gemma3n_perf.duel.launch_plan import launch_pairs
from gemma3n_perf.duel.least_time import least_tpot_s
from gemma3n_perf.duel.processes import Spawn, Spawner
from gemma3n_perf.duel.record import SCHEMA, DuelRecord, WorkloadDuel
from gemma3n_perf.duel.report import deciding
from gemma3n_perf.duel.scheduler import ComparisonKey, ComparisonState, Rules, States, measure_all
from gemma3n_perf.duel.tools import LAYOUTS, BlockLayout, Job, Tools
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.machine import BusyPolicy, Machine, open_machine
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import installed_release, suite_checkout
from gemma3n_perf.hardware.strays import Strays
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.judge import should_stop, win_repeats
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, finite
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.given import locate
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import defaults


@dataclass(frozen=True, slots=True)
class Here:
    """This machine and checkout: what runs duels here. ``root`` holds the forged checkpoints.

    ``cautions`` are of everything that is measured here.
    """

    chip: Chip
    stack: Stack
    builder: Builder
    tools: Tools
    baselines: Path
    root: Path
    cautions: tuple[Caution, ...] = ()

    @property
    def noise(self) -> NoiseFloor | None:
        """The class's calibrated noise floor, or None. Raises MalformedRecordError."""
        found = noise_store.read(self.baselines, self.chip.chip_class)
        return found.floor if found else None


@dataclass(frozen=True, slots=True)
class DuelSpec:
    """A duel in words: texts of arms, and how long to measure.

    ``budget_s`` is measuring time of each workload of each candidate, over ``sessions`` sessions.
    ``aa`` says whether all arms are meant to be the same; None takes them as they are.
    ``settle`` False measures until the budget is spent, whatever is shown.
    ``outputs_may_differ`` turns other tokens or logits of a candidate into a caution.
    ``sources`` are checkpoints by the name that their workload has, where that is not a preset.
    ``runs`` says whether each launch takes a whole run of the candidate too, for today's numbers.
    ``flexible`` makes the shortest duel there can be where the budget is too short for it.
    """

    baseline: str
    candidates: tuple[str, ...]
    workloads: tuple[str, ...]
    budget_s: float
    sessions: int = 1
    cooldown_s: float = 30.0
    aa: bool | None = False
    settle: bool = True
    outputs_may_differ: bool = False
    policy: Policy = field(default_factory=Policy)
    sources: Mapping[str, str] = field(default_factory=dict)
    runs: bool = False
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured of one candidate on one workload, and what it amounts to, for decode and for ``ttft``."""

    state: ComparisonState
    judgement: Judgement
    ttft: Judgement


@dataclass(frozen=True, slots=True)
class DuelResult:
    """What a duel found. ``arms`` are the baseline and its candidates."""

    spec: DuelSpec
    arms: tuple[ReadyArm, ...]
    comparisons: Mapping[ComparisonKey, Comparison]
    date: dt.datetime

    @property
    def judgements(self) -> dict[str, Judgement]:
        """By workload, of the first candidate."""
        return {name: one.judgement for name, one in self.of(0).items()}

    @property
    def ttfts(self) -> dict[str, Judgement]:
        """What is said of TTFT, by workload, of the first candidate."""
        return {name: one.ttft for name, one in self.of(0).items()}

    @property
    def states(self) -> dict[str, ComparisonState]:
        """By workload, of the first candidate."""
        return {name: one.state for name, one in self.of(0).items()}

    def of(self, number: int) -> dict[str, Comparison]:
        """Return the comparisons of the candidate with that number (from 0), by workload."""
        name = self.arms[1 + number].name
        return {workload: one for (workload, candidate), one in self.comparisons.items() if candidate == name}


def here(baselines: Path | None, opened: Machine, spawn: Spawn) -> Here:
    """Return what runs duels on an open machine, with the checkout this package is run from."""
    chip, stack, note = opened.chip, opened.stack, opened.note
    repo, root, release = suite_checkout(), checkpoints_root(), installed_release()
    tools = Tools(
        spawn=spawn, probe=opened.probe, faults_of=opened.faults_of,
        clock=time.perf_counter, sleep=time.sleep, rng=random.Random(), note=note,
        layout=LAYOUTS.get(chip.vendor, BlockLayout()), compiled_changed=Compiled(root.parent).changed,
    )  # fmt: skip
    builder = Builder(
        Path(__file__).resolve().parents[2], stack, Worktrees(repo, root.parent, run_command),
        Environments(root.parent, run_command, installed_requirements()), note,
        search=os.environ.get("PYTHONPATH", ""), release=release[1] if release else None,
    )  # fmt: skip
    busy = opened.busy
    cautions = (Caution(busy.code, busy.found, busy.remedy),) if busy else ()
    return Here(chip, stack, builder, tools, baselines or (repo or Path()) / "baselines", root, cautions)


@contextmanager
def machine(baselines: Path | None, err: TextIO, busy: BusyPolicy | None = None) -> Iterator[Here]:
    """Hold this machine for measuring, with progress on ``err``. Raises MachineBusyError, BadConditionsError."""
    with open_machine(err, busy) as opened:
        spawner = Spawner(forking=opened.chip.vendor == "cpu" and sys.platform == "linux")
        with closing(spawner), closing(Strays()) as strays:
            made = here(baselines, opened, spawner)
            yield replace(made, tools=replace(made.tools, end_strays=strays.end))


def duel(
    spec: DuelSpec,
    machine: Here,
    now: dt.datetime | None = None,
    *,
    launched: Callable[[DuelResult], None] = lambda result: None,
) -> DuelResult:
    """Carry a duel out; the workloads of a candidate are one family. The caller holds the measuring lock.

    ``launched`` is given the result so far after every launch. Raises UsageError for what cannot be carried out,
    ArmUnavailableError, OutOfMemoryError, MalformedRecordError; what goes wrong later is the workload's judgement.
    """
    if not spec.workloads or len(set(spec.workloads)) != len(spec.workloads):
        raise UsageError(f"workloads {', '.join(spec.workloads) or 'none'}", expected="each workload once")
    date, noise = now or dt.datetime.now(dt.UTC), machine.noise
    rules = Rules(spec.budget_s, spec.policy.min_launches, spec.sessions, spec.cooldown_s, flexible=spec.flexible)
    arms = machine.builder.build(parse(spec.baseline), [parse(text) for text in spec.candidates], same=spec.aa)

    arms, processes = memory.fit(arms, spec.workloads, spec.sources, machine.root, machine.chip)
    rules = replace(rules, most_candidates=max(processes - 1, 1))

    def compared(states: States) -> dict[ComparisonKey, Comparison]:
        found: dict[ComparisonKey, Comparison] = {}
        for arm in arms[1:]:
            own = {name: one for (name, candidate), one in states.items() if candidate == arm.name}
            judged = judgements(own, budget_s=spec.budget_s, policy=spec.policy, noise=noise, today=date.date())
            ttfts = judge_first_tokens({name: one.launches for name, one in own.items()}, spec.policy)
            for name, one in own.items():
                cautions = (*judged[name].cautions, *machine.cautions, *arms[0].cautions, *arm.cautions, *one.cautions)
                cautions = (*cautions, *memory_changes(one.launches)[1])
                judgement = replace(judged[name], cautions=tuple(dict.fromkeys(cautions)))
                found[name, arm.name] = Comparison(one, judgement, ttfts[name])
        return found

    def settled(states: States) -> frozenset[ComparisonKey]:
        if not spec.settle:
            return frozenset()
        return frozenset(key for key, one in compared(states).items() if enough(one))

    def enough(one: Comparison) -> bool:
        # Of several sessions a win must repeat in each, so none ends before it would win by itself.
        if spec.sessions > 1 and one.judgement.verdict is Verdict.WIN:
            return win_repeats(estimates(one.state.launches), spec.policy, noise)
        return should_stop(one.judgement)

    jobs = [
        replace(
            one, prefills=True, runs=spec.runs,
            least_s=least_tpot_s(one.source, machine.root, machine.chip, time.perf_counter),
            outputs_may_differ=spec.outputs_may_differ,
        )
        for one in (job(name, spec.sources, machine.root) for name in spec.workloads)
    ]  # fmt: skip
    states = measure_all(
        jobs, arms, machine.tools, rules, settled=settled,
        pairs=launch_pairs(spec.policy, rules, calibrated=noise is not None),
        launched=lambda so_far: launched(DuelResult(spec, arms, compared(so_far), date)),
    )  # fmt: skip
    return DuelResult(spec, arms, compared(states), date)


def job(workload: str, sources: Mapping[str, str], root: Path) -> Job:
    """Return the job of a workload; ``sources`` are checkpoints that are no presets."""
    name = workload.split("/")[0]
    return Job(workload, sources.get(name, name), str(root))


def choose_workloads(ids: Sequence[str], checkpoint: str | None, here: Here) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return workload ids (the chip's first by default) and where other checkpoints than presets are.

    Forges presets that are missing. Raises UsageError for a checkpoint that is neither a preset nor ``checkpoint``.
    """
    workloads = [requested(text) for text in ids] or [defaults(here.chip.vendor)[0]]
    sources = {locate(checkpoint, here.root)[0]: checkpoint} if checkpoint else {}
    for name in dict.fromkeys(workload.checkpoint for workload in workloads):
        if name in PRESETS:
            ensure_forged(PRESETS[name], here.root, here.tools.note)
        elif name not in sources:
            raise UsageError(
                f"the checkpoint {name} is no preset",
                expected="a preset, or --checkpoint with the folder or hub id that goes by that name",
            )
    return tuple(str(workload) for workload in workloads), sources


def record_of(result: DuelResult, chip: Chip) -> DuelRecord:
    """Lay the duel of one candidate out for the store."""
    spec, name = result.spec, deciding(result.judgements)
    judged, states = result.judgements[name], result.states
    sides = states[name].sides or next((one.sides for one in states.values() if one.sides), {})
    return DuelRecord(
        schema=SCHEMA,
        date=result.date.isoformat(timespec="seconds"),
        chip=chip,
        arms={"baseline": spec.baseline, "candidate": spec.candidates[0]},
        stacks={arm: side.stack for arm, side in sides.items()},
        planted={arm.name: arm.planted for arm in result.arms},
        aa=bool(spec.aa),
        policy=spec.policy,
        budget_s=spec.budget_s,
        sessions=spec.sessions,
        workload=name,
        verdict=judged.verdict.value,
        effect=judged.effect,
        low=finite(judged.low),
        high=finite(judged.high),
        measured_s=judged.measured_s,
        launches=judged.launches,
        duels=tuple(
            WorkloadDuel(
                workload=one.workload,
                judgement=result.judgements[one.workload],
                raw=one.launches,
                budget_spent=one.spent,
                checkpoint_digest=one.sides["baseline"].loaded.checkpoint_digest if one.sides else None,
                token_digests={arm: side.token_digest for arm, side in one.sides.items()} if one.sides else None,
                notes=tuple(caution.found for caution in one.cautions),
                ttft=result.ttfts[one.workload],
            )
            for one in states.values()
        ),
    )
