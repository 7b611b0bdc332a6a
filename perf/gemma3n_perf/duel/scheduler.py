"""Launch after launch of a baseline and its candidates, until something is shown or time is up.

The scheduler knows nothing of verdicts: after every launch it asks ``settled`` which comparisons need no more, and goes
on with the others.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.duel.alone import afterwards, alone, rotated
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch, LaunchPlan, Pairs, measure, warm_up
from gemma3n_perf.duel.least_time import possible
from gemma3n_perf.duel.prefills import with_prefills
from gemma3n_perf.duel.startup import WHOLE_RUNS, Running, prepare, started
from gemma3n_perf.duel.tools import Job, Side, Tools
from gemma3n_perf.duel.whole_runs import compare_whole_runs
from gemma3n_perf.errors import BadConditionsError, OutOfMemoryError, PerfError, UsageError, WorkerFailedError
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a duel may measure.

    ``budget_s`` is measuring time of each comparison, over ``sessions`` sessions that lie ``cooldown_s`` apart.
    ``min_launches`` is the fewest launches of a comparison in each session.
    ``most_candidates`` is how many a launch may hold beside the baseline; the others have the next one.
    ``flexible`` makes the fewest and shortest launches of a budget that is too short even for them.
    """

    budget_s: float
    min_launches: int
    sessions: int = 1
    cooldown_s: float = 30.0
    most_candidates: int = 1_000
    flexible: bool = False

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out."""
        if not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s:g} s", expected="seconds above 0", remedy="pass --budget 60")
        if self.sessions < 1:
            raise UsageError(f"{self.sessions} sessions", expected="1 or more")


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """One candidate on one workload so far.

    ``spent`` says that its budget holds no further launch.
    ``failure`` ended it.
    ``sides`` are what both arms said of themselves in the first launch, by ``baseline`` and ``candidate``.
    """

    workload: str
    launches: tuple[Launch, ...] = ()
    spent: bool = False
    failure: PerfError | None = None
    sides: Mapping[str, Side] | None = None
    cautions: tuple[Caution, ...] = ()

    @property
    def seconds(self) -> float:
        """Measuring time so far."""
        return sum(launch.seconds for launch in self.launches)


LEAST_WAIT_S, HUNG_TIMES = 60.0, 10.0
"""A worker counts as hung after this many seconds, or times what its part of an earlier launch took in all."""

MOST_DISTURBED, DISTURBED = 3, "disturbed"
"""How many launches of a workload may be lost to what else the machine does, before it counts as not measured; and the
code of the caution."""

_PROMPTS = 2**30
"""From so many the first one is drawn: what a program keeps on disk from one command to the next is of no use."""

ComparisonKey = tuple[str, str]
"""A workload and the name of a candidate."""

States = Mapping[ComparisonKey, ComparisonState]
Settled = Callable[[States], frozenset[ComparisonKey]]
"""From everything so far to the comparisons that need no further launch. Called after every launch."""


def measure_all(
    jobs: Sequence[Job],
    arms: Sequence[ReadyArm],
    tools: Tools,
    rules: Rules,
    *,
    settled: Settled,
    pairs: Pairs,
    launched: Callable[[States], None] = lambda states: None,
) -> dict[ComparisonKey, ComparisonState]:
    """Measure candidates, all but the first of ``arms``, against one baseline, on every job's workload.

    A launch starts each arm once for all workloads of a checkpoint. Each comparison has blocks of the baseline to
    itself and its own budget, and leaves when it is settled or fails; a failure is kept with it, and the others go on.
    ``launched`` is given everything so far after every launch. Raises UsageError for a budget too short.
    """
    scheduler = _Scheduler(jobs, arms, tools, rules, settled, pairs)
    for session in range(rules.sessions):
        if session and any(one.failure is None for one in scheduler.states.values()):
            tools.note(f"cooling down before session {session + 1} of {rules.sessions}")
            tools.sleep(rules.cooldown_s)
        while scheduler.launch(session):
            launched(scheduler.states)
    return scheduler.states


def next_s(seconds: float, launches: int) -> float:
    """Return what another launch must fit into: a little over the budget is within the rounding of its length."""
    return 0.98 * seconds / launches


class _Scheduler:
    def __init__(
        self, jobs: Sequence[Job], arms: Sequence[ReadyArm], tools: Tools, rules: Rules, settled: Settled, pairs: Pairs
    ) -> None:
        self._jobs = jobs
        self._arms = arms
        self._tools = tools
        self._rules = rules
        self._settled = settled
        self._pairs = pairs
        self._plans: dict[str, LaunchPlan] = {}
        self._took: list[float] = []
        self._longest_s: dict[str, float] = {}
        self._alone_s: dict[Job, float] = {}
        self._disturbed: Counter[str] = Counter()
        self._turn = 0
        self._first_variant = 2 * tools.rng.randrange(_PROMPTS)
        self.states: dict[ComparisonKey, ComparisonState] = {
            (job.workload, arm.name): ComparisonState(job.workload) for job in jobs for arm in arms[1:]
        }

    def launch(self, session: int) -> bool:
        """Carry out one launch of the checkpoint whose turn it is. Returns False where no comparison needs another."""
        unsettled = self._unsettled(session)
        checkpoints = list(dict.fromkeys(job.source for job in self._jobs))
        for _ in checkpoints:
            source = checkpoints[self._turn % len(checkpoints)]
            self._turn += 1
            needed = {
                job: names
                for job in self._jobs
                if job.source == source and (names := [name for what, name in unsettled if what == job.workload])
            }
            if needed:
                self._carry_out(needed, session)
                return True
        return False

    def _unsettled(self, session: int) -> list[ComparisonKey]:
        going: list[ComparisonKey] = []
        enough: list[ComparisonKey] = []
        for key, now in self.states.items():
            if now.failure is not None:
                continue
            if sum(launch.session == session for launch in now.launches) < self._rules.min_launches:
                going.append(key)
            elif next_s(now.seconds, len(now.launches)) <= self._left_s(now, session):
                enough.append(key)
        settled = self._settled(self.states) if enough else frozenset()
        return [key for key in self.states if key in going or (key in enough and key not in settled)]

    def _left_s(self, now: ComparisonState, session: int) -> float:
        return self._rules.budget_s * (session + 1) / self._rules.sessions - now.seconds

    def _carry_out(self, needed: Mapping[Job, Sequence[str]], session: int) -> None:
        tools, begun = self._tools, self._tools.clock()
        names = list(dict.fromkeys(name for candidates in needed.values() for name in candidates))
        if len(names) > self._rules.most_candidates:
            names.sort(key=lambda name: sum(len(self.states[job.workload, name].launches) for job in needed))
            names = names[: self._rules.most_candidates]
            needed = {job: [name for name in candidates if name in names] for job, candidates in needed.items()}
            needed = {job: candidates for job, candidates in needed.items() if candidates}
        arms = [arm for arm in self._arms if arm is self._arms[0] or arm.name in names]
        number = max(len(self.states[job.workload, name].launches) for job, own in needed.items() for name in own)
        needed = rotated(needed, number, arms, tools.layout)
        pending = dict(needed)
        self._note(pending, f"starting {'both' if len(arms) == 2 else len(arms)} arms")
        try:
            self._alone_s = alone(arms, needed, self._first_variant + 2 * number, tools)
            with started(arms, tools) as running:
                start_s = (tools.clock() - begun) / len(needed)
                for job, candidates in needed.items():
                    del pending[job]
                    self._note({job: candidates}, "measuring")
                    if not self._measured(running, job, candidates, session, start_s, number, last=not pending):
                        break  # a process is gone; the other workloads have the next launch
        except UsageError:
            raise
        except PerfError as error:
            for job, candidates in pending.items():
                for name in candidates:
                    self._fail((job.workload, name), error)
        self._took.append(tools.clock() - begun)

    def _measured(
        self, running: Running, job: Job, candidates: Sequence[str], session: int, start_s: float, number: int, *,
        last: bool,
    ) -> bool:  # fmt: skip
        """Measure one workload in launch ``number``; returns whether all processes are there for one that follows.

        It has two prompts to itself: that of the blocks, and the next one for the whole runs.
        """
        tools, begun, variant = self._bounded(job), self._tools.clock(), self._first_variant + 2 * number
        generate = Workload.parse(job.workload).shape.generate
        found: dict[str, Launch | PerfError] = {}
        cautions: dict[str, tuple[Caution, ...]] = {}
        try:
            ready = prepare(running, job, candidates, tools, variant)
            plan, pinned = warm_up(
                ready, tools, generate, self._plans.get(job.workload),
                lambda pair_s: self._pairs(pair_s, start_s + tools.clock() - begun),
            )  # fmt: skip
            self._plans[job.workload] = plan
            start_s += tools.clock() - begun
            found = measure(ready, plan, tools, session=session, start_s=start_s, pinned=pinned)
            if job.prefills:
                found = with_prefills(found, ready, tools, number, generate if job.runs else 0)
            if running.protocol >= WHOLE_RUNS:
                times, outputs = compare_whole_runs(ready, job, generate, variant + 1, tools)
                for name, said in outputs.items():
                    launch = found.get(name)
                    if isinstance(launch, Launch):
                        found[name] = said if isinstance(said, PerfError) else replace(launch, **times[name]._asdict())
                cautions = {name: said for name, said in outputs.items() if not isinstance(said, PerfError)}
            if last:
                found = afterwards(found, ready, plan.steps, tools)
            found = {**possible(found, job.least_s), **ready.failures}
            self._longest_s[job.workload] = max(self._longest_s.get(job.workload, 0.0), tools.clock() - begun)
        except UsageError:
            raise
        except BadConditionsError as error:
            found = self._left_out(job.workload, candidates, error)
        except PerfError as error:
            found = dict.fromkeys(candidates, error)
        for name, launch in found.items():
            if isinstance(launch, PerfError):
                self._fail((job.workload, name), launch)
            else:
                sides = {"baseline": ready.sides["baseline"], "candidate": ready.sides[name]}
                launch = replace(launch, alone_s=self._alone_s.get(job))
                self._keep((job.workload, name), launch, sides, (*ready.cautions[name], *cautions.get(name, ())))
        return not any(isinstance(one, WorkerFailedError | OutOfMemoryError) for one in found.values())

    def _left_out(
        self, workload: str, candidates: Sequence[str], error: BadConditionsError
    ) -> dict[str, Launch | PerfError]:
        """Go on after a disturbed launch, with a caution. Returns failures: none, or all once there were too many."""
        self._disturbed[workload] += 1
        if (number := self._disturbed[workload]) > MOST_DISTURBED:
            return dict.fromkeys(candidates, error)
        launches = "1 launch was" if number == 1 else f"{number} launches were"
        caution = Caution(DISTURBED, f"{launches} left out: {error.found}", error.remedy or "")
        for key in ((workload, name) for name in candidates):
            now = self.states[key]
            kept = (one for one in now.cautions if one.code != DISTURBED)
            self.states[key] = replace(now, cautions=(*kept, caution))
        return {}

    def _bounded(self, job: Job) -> Tools:
        """Wait for a worker no longer than all of a workload's part of a launch would excuse, once that is known."""
        known = self._longest_s.get(job.workload)
        if known is None:
            return self._tools
        return replace(self._tools, waits=self._tools.waits.within(max(LEAST_WAIT_S, HUNG_TIMES * known)))

    def _keep(
        self, key: ComparisonKey, launch: Launch, sides: Mapping[str, Side], cautions: tuple[Caution, ...]
    ) -> None:
        now = self.states[key]
        cautions = tuple(dict.fromkeys((*now.cautions, *cautions)))
        now = replace(now, launches=(*now.launches, launch), sides=now.sides or sides, cautions=cautions)
        spent = next_s(now.seconds, len(now.launches)) > self._left_s(now, self._rules.sessions - 1)
        self.states[key] = replace(now, spent=spent)

    def _fail(self, key: ComparisonKey, error: PerfError) -> None:
        self.states[key] = replace(self.states[key], failure=error, spent=True)

    def _note(self, needed: Mapping[Job, Sequence[str]], doing: str) -> None:
        keys = [(job.workload, name) for job, names in needed.items() for name in names]
        number = 1 + max(len(self.states[key].launches) for key in keys)
        what = next(iter(needed)).workload if len(needed) == 1 else f"{len(needed)} workloads"
        self._tools.note(f"{what}: launch {number}, {doing}{self._remaining()}")

    def _remaining(self) -> str:
        launches = [launch.seconds for one in self.states.values() for launch in one.launches]
        if not self._took or not launches:
            return ""
        each = sum(launches) / len(self._took)
        left = sum(max(0.0, self._rules.budget_s - o.seconds) for o in self.states.values() if not o.failure)
        seconds = left / each * sum(self._took) / len(self._took)
        return f"; at most {max(seconds, 0.0):.0f} s more"
