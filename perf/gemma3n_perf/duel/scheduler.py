"""A duel: launch after launch of two arms, over one or more workloads, until something is shown or time is up.

Opinion: the protocol knows nothing of verdicts. It asks ``look`` after every launch which workloads are settled, and
goes on with the others; what it returns is what was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch, LaunchPlan, Pairs, measure, warm_up
from gemma3n_perf.duel.startup import started
from gemma3n_perf.duel.tools import Job, Side, Tools
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a duel may measure: ``budget_s`` seconds of measuring for each workload, over ``sessions`` sessions.

    A session rests ``cooldown_s`` seconds before the next. Each takes ``min_launches`` launches of a workload or more.
    """

    budget_s: float
    min_launches: int
    sessions: int = 1
    cooldown_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out."""
        if not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s:g} s", expected="seconds above 0", remedy="pass --budget 60")
        if self.sessions < 1:
            raise UsageError(f"{self.sessions} sessions", expected="1 or more")


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """One workload's duel so far. ``spent`` says that its budget holds no further launch; ``failure`` ended it."""

    workload: str
    launches: tuple[Launch, ...] = ()
    spent: bool = False
    failure: PerfError | None = None
    sides: Mapping[str, Side] | None = None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Measuring time so far."""
        return sum(launch.seconds for launch in self.launches)


ComparisonKey = tuple[str, str]
"""A workload and the name of a candidate."""

Look = Callable[[Mapping[str, ComparisonState]], frozenset[str]]
LookAtAll = Callable[[Mapping[ComparisonKey, ComparisonState]], frozenset[ComparisonKey]]
"""From everything so far to what is settled. Called after every launch."""


def fight(
    jobs: Sequence[Job], arms: tuple[ReadyArm, ReadyArm], tools: Tools, rules: Rules, *, look: Look, pairs: Pairs
) -> dict[str, ComparisonState]:
    """Measure every workload until it is settled, its budget is spent or it fails; the workloads take turns.

    A failure is kept with its workload, and the others go on. Raises UsageError for a budget too short.
    """
    candidate = arms[1].name

    def look_at_all(state: Mapping[ComparisonKey, ComparisonState]) -> frozenset[ComparisonKey]:
        return frozenset((name, candidate) for name in look({key[0]: one for key, one in state.items()}))

    found = contest(jobs, arms, tools, rules, look=look_at_all, pairs=pairs)
    return {key[0]: one for key, one in found.items()}


def contest(
    jobs: Sequence[Job],
    arms: Sequence[ReadyArm],
    tools: Tools,
    rules: Rules,
    *,
    look: LookAtAll,
    pairs: Pairs,
    launched: Callable[[Mapping[ComparisonKey, ComparisonState]], None] = lambda state: None,
) -> dict[ComparisonKey, ComparisonState]:
    """Measure several candidates, all but the first of ``arms``, against one baseline through the same launches.

    Each has blocks of the baseline to itself, its own budget, and leaves when it is settled or fails. ``launched`` is
    told everything so far after every launch.
    """
    ring = _Scheduler(list(jobs), list(arms), tools, rules, look, pairs, launched)
    for session in range(rules.sessions):
        if session and any(one.failure is None for one in ring.state.values()):
            tools.note(f"resting before session {session + 1} of {rules.sessions}")
            tools.sleep(rules.cooldown_s)
        ring.session(session)
    return ring.state


class _Scheduler:
    def __init__(
        self, jobs: list[Job], arms: list[ReadyArm], tools: Tools, rules: Rules, look: LookAtAll, pairs: Pairs,
        launched: Callable[[Mapping[ComparisonKey, ComparisonState]], None],
    ) -> None:  # fmt: skip
        self._jobs = jobs
        self._arms = arms
        self._tools = tools
        self._rules = rules
        self._look = look
        self._pairs = pairs
        self._launched = launched
        self._paces: dict[str, LaunchPlan] = {}
        self._took: list[float] = []
        self.state: dict[ComparisonKey, ComparisonState] = {
            (job.workload, arm.name): ComparisonState(job.workload) for job in jobs for arm in arms[1:]
        }

    def session(self, session: int) -> None:
        """Run launches until no candidate wants another one in this session."""
        while open_jobs := [job for job in self._jobs if self._wanting(job, session)]:
            for job in open_jobs:
                if candidates := self._wanting(job, session):
                    self._launch(job, [self._arms[0], *candidates], session)
                    self._launched(self.state)

    def _wanting(self, job: Job, session: int) -> list[ReadyArm]:
        settled: list[frozenset[ComparisonKey]] = []

        def wants(key: ComparisonKey) -> bool:
            now = self.state[key]
            here = sum(launch.session == session for launch in now.launches)
            if now.failure is not None:
                return False
            if here < self._rules.min_launches:
                return True
            if now.launches and self._next_s(now) > self._left_s(now, session):
                return False
            if not settled:
                settled.append(self._look(self.state))
            return key not in settled[0]

        return [arm for arm in self._arms[1:] if wants((job.workload, arm.name))]

    def _left_s(self, now: ComparisonState, session: int) -> float:
        return self._rules.budget_s * (session + 1) / self._rules.sessions - now.seconds

    @staticmethod
    def _next_s(now: ComparisonState) -> float:
        # A little over the budget is within the rounding of a launch's length.
        return 0.98 * now.seconds / len(now.launches)

    def _launch(self, job: Job, arms: list[ReadyArm], session: int) -> None:
        tools = self._tools
        begun = tools.clock()
        keys = {arm.name: (job.workload, arm.name) for arm in arms[1:]}
        number = 1 + max(len(self.state[key].launches) for key in keys.values())
        what = "both arms" if len(arms) == 2 else f"{len(arms)} arms"
        tools.note(f"{job.workload}: launch {number}, starting {what}{self._remaining()}")
        try:
            with started(arms, job, tools) as running:
                generate = Workload.parse(job.workload).shape.generate
                plan, held = warm_up(running, tools, generate, self._paces.get(job.workload), begun, self._pairs)
                self._paces[job.workload] = plan
                tools.note(f"{job.workload}: launch {number}, measuring{self._remaining()}")
                found = measure(running, plan, tools, session=session, start_s=tools.clock() - begun, held=held)
        except UsageError:
            raise
        except PerfError as error:
            for key in keys.values():
                self._fail(key, error)
            return
        self._took.append(tools.clock() - begun)
        for name, key in keys.items():
            launch = found.get(name) or running.failures[name]
            if isinstance(launch, PerfError):
                self._fail(key, launch)
            else:
                sides = {"baseline": running.sides["baseline"], "candidate": running.sides[name]}
                self._keep(key, launch, sides, running.notes[name])

    def _keep(self, key: ComparisonKey, launch: Launch, sides: Mapping[str, Side], notes: tuple[str, ...]) -> None:
        now = self.state[key]
        told = tuple(dict.fromkeys((*now.notes, *notes)))
        now = replace(now, launches=(*now.launches, launch), sides=sides, notes=told)
        spent = self._next_s(now) > self._left_s(now, self._rules.sessions - 1)
        self.state[key] = replace(now, spent=spent)

    def _fail(self, key: ComparisonKey, error: PerfError) -> None:
        self.state[key] = replace(self.state[key], failure=error, spent=True)

    def _remaining(self) -> str:
        if not self._took:
            return ""
        launches = [launch.seconds for one in self.state.values() for launch in one.launches]
        each = sum(launches) / len(self._took)
        left = sum(max(0.0, self._rules.budget_s - o.seconds) for o in self.state.values() if not o.failure)
        seconds = left / each * sum(self._took) / len(self._took)
        return f"; at most {max(seconds, 0.0):.0f} s more"
