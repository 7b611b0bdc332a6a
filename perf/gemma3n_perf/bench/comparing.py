"""What a session knows of its comparison as it goes: with what, the exact counts, the duel, and what it amounts to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gemma3n_perf.bench import stored
from gemma3n_perf.bench.against import SAME, Against, CompareRequest, compare, establish
from gemma3n_perf.bench.comparison import Compared, Exact
from gemma3n_perf.bench.outcome import in_force
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.first_tokens import memory_changes
from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.duel.run import DuelResult, Here, record_of
from gemma3n_perf.errors import NoBaselineError, PerfError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import suite_checkout
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Caution, Verdict, not_measured
from gemma3n_perf.store import files
from gemma3n_perf.store.accepted import Accepted
from gemma3n_perf.store.types import Baseline
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload


@dataclass(slots=True)
class Comparing:
    """The comparison of one session.

    ``established``  whether it was found out what the session is compared with
    ``against``      that, None for nothing
    ``fault``        why there is nothing, or no duel
    ``exact``        counts that rose, and all that differs in a decode step, by workload
    ``result``       the duel so far, ``over`` where it ended
    """

    established: bool = False
    against: Against | None = None
    fault: PerfError | None = None
    exact: dict[str, Exact] = field(default_factory=dict)
    result: DuelResult | None = None
    over: bool = False

    def __str__(self) -> str:
        """Return what the session is compared with, in one line."""
        if self.against is not None:
            return str(self.against.chosen)
        return f"nothing: {self.fault.found}" if self.fault else ""

    @property
    def is_same(self) -> bool:
        """Whether the program is the same, so that there is nothing to compare."""
        return self.against is not None and self.against.is_same

    @property
    def skips(self) -> str:
        """Why nothing need be measured of the same program."""
        return f"the same program as {self.against.chosen.comparator}" if self.against else ""

    def establish(self, request: CompareRequest, machine: Here) -> None:
        """Find out what to compare with. Raises what building an arm that was named raises."""
        self.established = True
        try:
            self.against = establish(request, machine, suite_checkout())
        except NoBaselineError as error:
            self.fault = error

    def count(self, workload: Workload, ours: Graph | None, source: str) -> None:
        """Hold the exact counts of a decode step against those of what the session is compared with, once."""
        if ours is not None and self.against is not None and str(workload) not in self.exact:
            self.exact[str(workload)] = self.against.exact(ours, source, workload.shape.prompt + WARM_TOKENS)

    def duel(self, request: CompareRequest, machine: Here, workloads: Sequence[str]) -> None:
        """Duel and keep the record, but for one with a planted slowdown. Raises what a duel raises."""
        assert self.against is not None

        def launched(so_far: DuelResult) -> None:
            self.result = so_far

        risen = any(self.exact[name].rises for name in workloads if name in self.exact)
        self.result = compare(self.against, request, machine, workloads, launched, risen=risen)
        self.over = True
        if not request.planted:
            folder = files.data_folder() / "duels" / machine.chip.chip_class
            path = folder / f"{files.next_number(folder):04}_{files.file_stem(machine.stack)}.json"
            DUELS.write(path, record_of(self.result, machine.chip))

    def accepts(self, found: Sequence[Accepted]) -> tuple[Accepted, ...]:
        """Return what maintainers accept of the changes since what the session is compared with."""
        repo, base = suite_checkout(), parse(self.against.chosen.comparator.arm).ref if self.against else None
        return in_force(found, Repository(repo) if repo else None, base) if found else ()

    def compared(
        self, workload: str, today: Measurement | None, sessions: Baseline | None, now: Stack, host: str | None = None
    ) -> Compared:
        """Put together what is known of one workload.

        ``sessions`` are stored ones, ``now`` is today's stack, ``host`` this machine among those of its class.
        """
        judged = self.result.judgements.get(workload) if self.result else None
        if self.is_same:
            judged = SAME
        elif judged is None:
            judged = not_measured(self.fault.found if self.fault else "no duel was measured")
        exact = self.exact.get(workload, Exact())
        state = self.result.states.get(workload) if self.result else None
        memory = memory_changes(state.launches)[0] if state else ()
        cautions: tuple[Caution, ...] = judged.cautions
        checkpoint = self.against.checkpoints.get(workload.split("/")[0]) if self.against else None
        spread = stored.spread(sessions, workload, today, checkpoint) if sessions else None
        planted = today is not None and today.planted
        if sessions and today and not planted and judged.verdict is Verdict.NO_CHANGE:
            machine = stored.slow_host(sessions, today, host)
            machine = machine or (stored.drift(spread, today, sessions, now) if spread else None)
            cautions = (*cautions, *([machine] if machine else []))
        return Compared(
            workload,
            judged,
            today,
            exact.rises,
            (*exact.causes, *memory, *(self.against.changes if self.against else ())),
            stored.in_brief(spread, today) if spread else "",
            cautions,
            ttft=self.result.ttfts.get(workload) if self.result else None,
        )
