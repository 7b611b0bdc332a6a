"""Faults of commands other than the duel: each is ended, politely or by keys, while it opens and at a random moment."""

import signal
import sys
from collections.abc import Callable, Iterator

from studies.faults_fault import Fault
from studies.faults_victim import WORKLOAD, Victim

MOMENTS = ("opening", "random")
_SUITE, _PYTEST = (sys.executable, "-m", "gemma3n_perf"), (sys.executable, "-m", "pytest", "perf/", "--allow-busy")
_SHORT = ("--checkpoint", "nano", "--shape", "pp40-tg64")
COMMANDS = {
    "forge": (*_SUITE, "forge", "nano", "--force"),
    "calibrate": (*_SUITE, "calibrate", "--workload", WORKLOAD, "--allow-busy"),
    "profile": (*_SUITE, "profile", "--allow-busy"),
    "validate": (*_SUITE, "validate", "--workload", WORKLOAD, "--allow-busy"),
    "bisect": (*_SUITE, "bisect", "ref:HEAD~2", "ref:HEAD", "--workload", WORKLOAD, "--allow-busy"),
    "baseline": (*_SUITE, "baseline", "save", "--sessions", "1", "--", "--allow-busy", *_SHORT),
    "compare": (*_PYTEST, "--benchmark-compare", "--plant-slowdown", "25%", *_SHORT),
    "evidence": (*_PYTEST, "--fusion", "stacked-altup"),
}
"""By the name of the fault; each is run in the clone."""
SIGNALS = {"term": signal.SIGTERM, "hup": signal.SIGHUP, "int": signal.SIGINT}
_PYTESTS_INTERRUPTED = 2
_LEFT_BEHIND = ("baselines",)


def faults() -> Iterator[Fault]:
    """Yield them all."""
    for name, argv in COMMANDS.items():
        for how, number in SIGNALS.items():
            yield Fault(
                f"{name}-{how}",
                f"SIG{how.upper()} to {' '.join(argv[2:6])}",
                _send(number),
                MOMENTS,
                frozenset({-number, 128 + number, _PYTESTS_INTERRUPTED}),
                _instead(argv),
                _LEFT_BEHIND,
            )


def _instead(argv: tuple[str, ...]) -> Callable[[Victim], None]:
    def prepare(victim: Victim) -> None:
        victim.argv = list(argv)
        victim.folder = victim.place.checkout

    return prepare


def _send(number: int) -> Callable[[Victim], None]:
    return lambda victim: victim.driver.send_signal(number)
