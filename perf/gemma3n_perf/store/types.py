"""What the store hands out: sessions as read back, and the baselines they make up."""

from dataclasses import dataclass

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Chip, Stack

COMMITTED = "committed"
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Header:
    """What all measurements of one session share. ``session`` is unique; ``planted`` as in Measurement."""

    schema: int
    chip: Chip
    stack: Stack
    session: str
    planted: float = 0.0


@dataclass(frozen=True, slots=True)
class Session:
    """One ``pytest perf/`` run as read back: ``recorded`` is ISO 8601, one measurement per workload."""

    id: str
    chip: Chip
    stack: Stack
    planted: float
    recorded: str
    measurements: tuple[Measurement, ...]

    def measurement(self, workload: str) -> Measurement | None:
        """Return what this session measured of ``workload``, or None."""
        return next((one for one in self.measurements if one.workload == workload), None)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Sessions of one chip class, one stack and one commit, oldest first; ``files`` are their names, in step.

    ``label`` says where they come from: ``committed`` in the repository, or ``local`` to this machine.
    """

    chip: Chip
    stack: Stack
    sessions: tuple[Session, ...]
    label: str
    files: tuple[str, ...]

    @property
    def workloads(self) -> tuple[str, ...]:
        """Ids of all workloads that any session measured, in order of first appearance."""
        return tuple(dict.fromkeys(one.workload for session in self.sessions for one in session.measurements))

    def sessions_of(self, workload: str) -> tuple[Measurement, ...]:
        """Return the measurements of ``workload``, one a session, oldest first; empty where there is none."""
        found = (session.measurement(workload) for session in self.sessions)
        return tuple(one for one in found if one is not None)

    def describe(self, workload: str) -> str:
        """Return the label a report prints beside a comparison, for instance ``committed 12 sessions``."""
        count = len(self.sessions_of(workload))
        return f"{self.label} {count} session{'' if count == 1 else 's'}"
