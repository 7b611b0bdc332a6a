"""One workload's comparison: the verdict of a duel, and the exact figures that stand beside it.

Opinion: exact figures come before any timing. A count that rose explains a loss, and is an alarm where there is no win.
"""

from dataclasses import dataclass

from gemma3n_perf.decode import host_work
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict
from gemma3n_perf.store.accepted import Accepted

SAME_PROGRAM = "the same program"
SHOWN_OPERATIONS = 5


@dataclass(frozen=True, slots=True)
class Exact:
    """What is exact of a decode step: the counts that rose, and all that differs."""

    rises: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """One workload's comparison.

    ``measurement``  what this session measured; None where it took no runs
    ``rises``        exact counts that rose, as ``graph nodes 900 -> 960``
    ``causes``       what differs between the two programs, in short sentences
    ``stored``       this machine's class in other sessions, in one line
    ``ttft``         what the duel says of time to the first token, None without one
    ``accepted``     the maintainers' file for this workload, where what is compared includes its commit
    """

    workload: str
    judgement: Judgement
    measurement: Measurement | None = None
    rises: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    stored: str = ""
    cautions: tuple[Caution, ...] = ()
    accepted: Accepted | None = None
    ttft: Judgement | None = None

    @property
    def is_same_program(self) -> bool:
        """Whether nothing was compared, for there is nothing to compare."""
        return self.judgement.verdict is Verdict.NO_CHANGE and self.judgement.reason == SAME_PROGRAM

    @property
    def is_explained(self) -> bool:
        """Whether there is a change, so that it is of use to say what differs."""
        claims = [one.verdict.is_claim for one in (self.judgement, self.ttft) if one is not None]
        return any(claims) or bool(self.rises) or any(one.code == "memory-risen" for one in self.cautions)

    @property
    def is_alarm(self) -> bool:
        """Whether an exact count rose, the workload did not win by it, and no maintainer accepts it."""
        return bool(self.rises) and self.judgement.verdict is not Verdict.WIN and self.accepted is None

    @property
    def is_accepted(self) -> bool:
        """Whether it is a loss that a maintainer accepts: none shown to be larger."""
        return self._accepts(self.judgement)

    @property
    def is_slower_to_start(self) -> bool:
        """Whether the first token takes longer than any maintainer accepts."""
        return self.ttft is not None and self.ttft.verdict is Verdict.LOSS and not self._accepts(self.ttft)

    def _accepts(self, one: Judgement) -> bool:
        is_loss = one.verdict is Verdict.LOSS and one.high is not None
        return is_loss and self.accepted is not None and (one.high or 0.0) >= self.accepted.effect


def properties(one: Compared) -> list[tuple[str, str]]:
    """Return a comparison as names and values, for a report of tests (JUnit): numbers in percent of throughput."""
    found = [("verdict", one.judgement.verdict.value), ("reason", one.judgement.reason)]
    for name, value in (("effect", one.judgement.effect), ("low", one.judgement.low), ("high", one.judgement.high)):
        if value is not None:
            found.append((f"{name}_percent", f"{100 * value:.3f}"))
    if one.ttft is not None:
        found.append(("ttft_verdict", one.ttft.verdict.value))
    return [*found, *(("rose", text) for text in one.rises), *(("caution", each.code) for each in one.cautions)]


def same_mlx(one: Stack, other: Stack) -> bool:
    """Whether two stacks should give the same tokens and counts: one mlx, mlx-vlm and backend."""
    return (one.mlx, one.mlx_vlm, one.backend) == (other.mlx, other.mlx_vlm, other.backend)


def exact(before: Graph, after: Graph) -> Exact:
    """Compare the decode steps of two programs."""
    return Exact(rises(before, after), graph_causes(before, after))


def rises(before: Graph, after: Graph) -> tuple[str, ...]:
    """Every count that rose and must not: graph nodes, streamed bytes, host calls (within one version of Python)."""
    counts = {
        "graph nodes": (before.nodes, after.nodes),
        "streamed bytes": (before.bytes.get("streamed", 0), after.bytes.get("streamed", 0)),
    }
    if before.host is not None and after.host is not None and before.host.python == after.host.python:
        counts["Python calls"] = (before.host.python_calls, after.host.python_calls)
        counts["MLX calls"] = (before.host.mlx_calls, after.host.mlx_calls)
    return tuple(f"{name} {old} -> {new}" for name, (old, new) in counts.items() if new > old)


def graph_causes(before: Graph, after: Graph) -> tuple[str, ...]:
    """What differs in a decode step: operations, types, bytes and host calls, the largest first."""
    found = []
    for title, old, new in (
        ("graph", before.operations, after.operations),
        ("types", before.dtypes, after.dtypes),
        ("bytes", before.bytes, after.bytes),
    ):
        changes = {name: new.get(name, 0) - old.get(name, 0) for name in old.keys() | new.keys()}
        ordered = sorted(((name, n) for name, n in changes.items() if n), key=lambda item: (-abs(item[1]), item[0]))
        if ordered:
            shown = ", ".join(f"{n:+d} {name}" for name, n in ordered[:SHOWN_OPERATIONS])
            more = f" and {len(ordered) - SHOWN_OPERATIONS} more" if len(ordered) > SHOWN_OPERATIONS else ""
            found.append(f"{title}: {shown}{more}")
    if before.host is not None and after.host is not None:
        host = host_work.differences(before.host, after.host, SHOWN_OPERATIONS)
        if host:
            found.append(f"host: {', '.join(host)}")
    return tuple(found)
