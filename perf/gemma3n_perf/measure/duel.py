"""A duel: launch after launch of two arms, over one or more workloads, until something is shown or time is up.

Opinion: the protocol knows nothing of verdicts. It asks ``look`` after every launch which workloads are settled, and
goes on with the others; what it returns is what was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.measure.launch import Job, Launch, Pace, Pairs, Side, Tools, measure, started, warm_up
from gemma3n_perf.measure.ready import ReadyArm
from gemma3n_perf.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a duel may measure: ``budget_s`` seconds of measuring for each workload, over ``sessions`` sessions.

    A session rests ``rest_s`` seconds before the next. Each takes ``min_launches`` launches of a workload or more.
    """

    budget_s: float
    min_launches: int
    sessions: int = 1
    rest_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out."""
        if not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s:g} s", expected="seconds above 0", remedy="pass --budget 60")
        if self.sessions < 1:
            raise UsageError(f"{self.sessions} sessions", expected="1 or more")


@dataclass(frozen=True, slots=True)
class Fought:
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


Look = Callable[[Mapping[str, Fought]], frozenset[str]]
"""From all workloads so far to the names of those that are settled. Called after every launch."""


def fight(
    jobs: Sequence[Job], arms: tuple[ReadyArm, ReadyArm], tools: Tools, rules: Rules, *, look: Look, pairs: Pairs
) -> dict[str, Fought]:
    """Measure every workload until it is settled, its budget is spent or it fails; the workloads take turns.

    A failure is kept with its workload, and the others go on. Raises UsageError for a budget too short.
    """
    ring = _Ring(list(jobs), arms, tools, rules, look, pairs)
    for session in range(rules.sessions):
        if session and any(one.failure is None for one in ring.state.values()):
            tools.note(f"resting before session {session + 1} of {rules.sessions}")
            tools.sleep(rules.rest_s)
        ring.session(session)
    return ring.state


class _Ring:
    def __init__(
        self, jobs: list[Job], arms: tuple[ReadyArm, ReadyArm], tools: Tools, rules: Rules, look: Look, pairs: Pairs
    ) -> None:
        self._jobs = jobs
        self._arms = arms
        self._tools = tools
        self._rules = rules
        self._look = look
        self._pairs = pairs
        self._paces: dict[str, Pace] = {}
        self._took: list[float] = []
        self.state = {job.workload: Fought(job.workload) for job in jobs}

    def session(self, session: int) -> None:
        """Run launches until no workload wants another one in this session."""
        while open_jobs := [job for job in self._jobs if self._wants(job, session)]:
            for job in open_jobs:
                if self._wants(job, session):
                    self._launch(job, session)

    def _wants(self, job: Job, session: int) -> bool:
        now = self.state[job.workload]
        here = sum(launch.session == session for launch in now.launches)
        if now.failure is not None:
            return False
        if here < self._rules.min_launches:
            return True
        if now.launches and self._next_s(now) > self._left_s(now, session):
            return False
        return job.workload not in self._look(self.state)

    def _left_s(self, now: Fought, session: int) -> float:
        return self._rules.budget_s * (session + 1) / self._rules.sessions - now.seconds

    @staticmethod
    def _next_s(now: Fought) -> float:
        # A little over the budget is within the rounding of a launch's length.
        return 0.98 * now.seconds / len(now.launches)

    def _launch(self, job: Job, session: int) -> None:
        now, tools = self.state[job.workload], self._tools
        begun = tools.clock()
        tools.note(f"{job.workload}: launch {len(now.launches) + 1}, starting both arms{self._remaining()}")
        try:
            launch, running_sides, notes = self._fought(job, session, begun)
        except UsageError:
            raise
        except PerfError as error:
            self.state[job.workload] = replace(now, failure=error, spent=True)
            return
        self._took.append(tools.clock() - begun)
        now = replace(
            now,
            launches=(*now.launches, launch),
            sides=running_sides,
            notes=tuple(dict.fromkeys((*now.notes, *notes))),
        )
        spent = self._next_s(now) > self._left_s(now, self._rules.sessions - 1)
        self.state[job.workload] = replace(now, spent=spent)

    def _fought(self, job: Job, session: int, begun: float) -> tuple[Launch, Mapping[str, Side], tuple[str, ...]]:
        tools = self._tools
        with started(self._arms, job, tools) as running:
            generate = Workload.parse(job.workload).shape.generate
            pace = warm_up(running, tools, generate, self._paces.get(job.workload), begun, self._pairs)
            self._paces[job.workload] = pace
            number = len(self.state[job.workload].launches) + 1
            tools.note(f"{job.workload}: launch {number}, measuring{self._remaining()}")
            launch = measure(running, pace, tools, session=session, start_s=tools.clock() - begun)
            return launch, running.sides, running.notes

    def _remaining(self) -> str:
        if not self._took:
            return ""
        launches = [launch.seconds for one in self.state.values() for launch in one.launches]
        each = sum(launches) / len(launches)
        left = sum(max(0.0, self._rules.budget_s - o.seconds) for o in self.state.values() if not o.failure)
        seconds = left / each * sum(self._took) / len(self._took)
        return f"; at most {max(seconds, 0.0):.0f} s more"
