"""A duel: launch after launch of two arms, over one or more workloads, until something is shown or time is up.

Opinion: the protocol knows nothing of verdicts. It asks ``look`` after every launch which workloads are settled, and
goes on with the others; what it returns is what was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.measure.launch import Launch, Pace, Pairs, measure, warm_up
from gemma3n_perf.measure.muster import started
from gemma3n_perf.measure.ready import ReadyArm
from gemma3n_perf.measure.tools import Job, Side, Tools
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


Bout = tuple[str, str]
"""A workload and the name of a candidate."""

Look = Callable[[Mapping[str, Fought]], frozenset[str]]
LookAtAll = Callable[[Mapping[Bout, Fought]], frozenset[Bout]]
"""From everything so far to what is settled. Called after every launch."""


def fight(
    jobs: Sequence[Job], arms: tuple[ReadyArm, ReadyArm], tools: Tools, rules: Rules, *, look: Look, pairs: Pairs
) -> dict[str, Fought]:
    """Measure every workload until it is settled, its budget is spent or it fails; the workloads take turns.

    A failure is kept with its workload, and the others go on. Raises UsageError for a budget too short.
    """
    candidate = arms[1].name

    def look_at_all(state: Mapping[Bout, Fought]) -> frozenset[Bout]:
        return frozenset((name, candidate) for name in look({bout[0]: one for bout, one in state.items()}))

    found = contest(jobs, arms, tools, rules, look=look_at_all, pairs=pairs)
    return {bout[0]: one for bout, one in found.items()}


def contest(
    jobs: Sequence[Job],
    arms: Sequence[ReadyArm],
    tools: Tools,
    rules: Rules,
    *,
    look: LookAtAll,
    pairs: Pairs,
    launched: Callable[[Mapping[Bout, Fought]], None] = lambda state: None,
) -> dict[Bout, Fought]:
    """Measure several candidates, all but the first of ``arms``, against one baseline through the same launches.

    Each has blocks of the baseline to itself, its own budget, and leaves when it is settled or fails. ``launched`` is
    told everything so far after every launch.
    """
    ring = _Ring(list(jobs), list(arms), tools, rules, look, pairs, launched)
    for session in range(rules.sessions):
        if session and any(one.failure is None for one in ring.state.values()):
            tools.note(f"resting before session {session + 1} of {rules.sessions}")
            tools.sleep(rules.rest_s)
        ring.session(session)
    return ring.state


class _Ring:
    def __init__(
        self, jobs: list[Job], arms: list[ReadyArm], tools: Tools, rules: Rules, look: LookAtAll, pairs: Pairs,
        launched: Callable[[Mapping[Bout, Fought]], None],
    ) -> None:  # fmt: skip
        self._jobs = jobs
        self._arms = arms
        self._tools = tools
        self._rules = rules
        self._look = look
        self._pairs = pairs
        self._launched = launched
        self._paces: dict[str, Pace] = {}
        self._took: list[float] = []
        self.state: dict[Bout, Fought] = {
            (job.workload, arm.name): Fought(job.workload) for job in jobs for arm in arms[1:]
        }

    def session(self, session: int) -> None:
        """Run launches until no candidate wants another one in this session."""
        while open_jobs := [job for job in self._jobs if self._wanting(job, session)]:
            for job in open_jobs:
                if candidates := self._wanting(job, session):
                    self._launch(job, [self._arms[0], *candidates], session)
                    self._launched(self.state)

    def _wanting(self, job: Job, session: int) -> list[ReadyArm]:
        settled: list[frozenset[Bout]] = []

        def wants(bout: Bout) -> bool:
            now = self.state[bout]
            here = sum(launch.session == session for launch in now.launches)
            if now.failure is not None:
                return False
            if here < self._rules.min_launches:
                return True
            if now.launches and self._next_s(now) > self._left_s(now, session):
                return False
            if not settled:
                settled.append(self._look(self.state))
            return bout not in settled[0]

        return [arm for arm in self._arms[1:] if wants((job.workload, arm.name))]

    def _left_s(self, now: Fought, session: int) -> float:
        return self._rules.budget_s * (session + 1) / self._rules.sessions - now.seconds

    @staticmethod
    def _next_s(now: Fought) -> float:
        # A little over the budget is within the rounding of a launch's length.
        return 0.98 * now.seconds / len(now.launches)

    def _launch(self, job: Job, arms: list[ReadyArm], session: int) -> None:
        tools = self._tools
        begun = tools.clock()
        bouts = {arm.name: (job.workload, arm.name) for arm in arms[1:]}
        number = 1 + max(len(self.state[bout].launches) for bout in bouts.values())
        what = "both arms" if len(arms) == 2 else f"{len(arms)} arms"
        tools.note(f"{job.workload}: launch {number}, starting {what}{self._remaining()}")
        try:
            with started(arms, job, tools) as running:
                generate = Workload.parse(job.workload).shape.generate
                pace, held = warm_up(running, tools, generate, self._paces.get(job.workload), begun, self._pairs)
                self._paces[job.workload] = pace
                tools.note(f"{job.workload}: launch {number}, measuring{self._remaining()}")
                found = measure(running, pace, tools, session=session, start_s=tools.clock() - begun, held=held)
        except UsageError:
            raise
        except PerfError as error:
            for bout in bouts.values():
                self._fail(bout, error)
            return
        self._took.append(tools.clock() - begun)
        for name, bout in bouts.items():
            launch = found.get(name) or running.failures[name]
            if isinstance(launch, PerfError):
                self._fail(bout, launch)
            else:
                sides = {"baseline": running.sides["baseline"], "candidate": running.sides[name]}
                self._keep(bout, launch, sides, running.notes[name])

    def _keep(self, bout: Bout, launch: Launch, sides: Mapping[str, Side], notes: tuple[str, ...]) -> None:
        now = self.state[bout]
        told = tuple(dict.fromkeys((*now.notes, *notes)))
        now = replace(now, launches=(*now.launches, launch), sides=sides, notes=told)
        spent = self._next_s(now) > self._left_s(now, self._rules.sessions - 1)
        self.state[bout] = replace(now, spent=spent)

    def _fail(self, bout: Bout, error: PerfError) -> None:
        self.state[bout] = replace(self.state[bout], failure=error, spent=True)

    def _remaining(self) -> str:
        if not self._took:
            return ""
        launches = [launch.seconds for one in self.state.values() for launch in one.launches]
        each = sum(launches) / len(self._took)
        left = sum(max(0.0, self._rules.budget_s - o.seconds) for o in self.state.values() if not o.failure)
        seconds = left / each * sum(self._took) / len(self._took)
        return f"; at most {max(seconds, 0.0):.0f} s more"
