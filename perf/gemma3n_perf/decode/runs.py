"""Runs that count: repeated until enough were taken under good conditions, or given up with the reasons.

Opinion: a run under bad conditions is not a slow run, it is no run. It is kept in the record as discarded,
repeated after a growing pause, and never averaged in.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gemma3n_perf.decode.decoder import Decoder, Probe
from gemma3n_perf.decode.types import Run
from gemma3n_perf.errors import BadConditionsError
from gemma3n_perf.hardware.types import Conditions, Fault

FaultsOf = Callable[[Conditions], tuple[Fault, ...]]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long bad conditions are waited out: pauses in seconds, doubling up to ``longest_pause``."""

    first_pause: float = 0.5
    longest_pause: float = 8.0
    discards_per_run: float = 0.8
    least_discards: int = 6

    def pauses(self) -> Iterator[float]:
        """Endless growing pauses."""
        pause = self.first_pause
        while True:
            yield pause
            pause = min(2 * pause, self.longest_pause)

    def most_discards(self, runs: int) -> int:
        """How many runs may be discarded while ``runs`` are required."""
        return max(self.least_discards, round(self.discards_per_run * runs))


class RunCollector:
    """Takes valid runs of one decoder, one at a time, and keeps the discarded ones."""

    def __init__(
        self,
        decoder: Decoder,
        probe: Probe,
        faults_of: FaultsOf,
        *,
        required: int,
        sleep: Sleep,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self._decoder = decoder
        self._probe = probe
        self._faults_of = faults_of
        self._sleep = sleep
        self._retry_policy = retry_policy or RetryPolicy()
        self._allowed = self._retry_policy.most_discards(required)
        self.required = required
        self.runs: list[Run] = []
        self.discarded: list[Run] = []
        self.faults: list[Fault] = []

    def take(self) -> Run:
        """Take one run that counts. Raises BadConditionsError once too many were discarded."""
        pauses = self._retry_policy.pauses()
        while True:
            run, tokens = self._decoder.run(self._probe)
            self._decoder.same_tokens(tokens)
            faults = self._faults_of(run.conditions)
            if not faults:
                self.runs.append(run)
                return run
            self.discarded.append(replace(run, faults=tuple(fault.code for fault in faults)))
            self.faults.extend(faults)
            if len(self.discarded) > self._allowed:
                raise self._given_up()
            self._sleep(next(pauses))

    def _given_up(self) -> BadConditionsError:
        counts = Counter(fault.code for fault in self.faults)
        worst = next(f for f in reversed(self.faults) if f.code == counts.most_common(1)[0][0])
        reasons = ", ".join(f"{code} x{count}" for code, count in counts.most_common())
        return BadConditionsError(
            f"{len(self.discarded)} runs were discarded ({reasons}); last: {worst.found}",
            expected="a machine fit to measure",
            remedy=worst.remedy,
        )
