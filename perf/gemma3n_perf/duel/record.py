"""The record of a duel: verdict, arms, stacks, and every block with its conditions, so that it can be judged again.

Launches are laid out here for evidence too, which holds them as a duel does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.folding import fold, unfold
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.pairs import NS
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.codec import Codec, Flaw, indented

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class WorkloadDuel:
    """One workload of a duel. ``raw`` are its launches, as measured; ``token_digests`` by arm.
    ``ttft`` is None in older records."""

    workload: str
    judgement: Judgement
    raw: tuple[Launch, ...]
    budget_spent: bool
    checkpoint_digest: str | None = None
    token_digests: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    ttft: Judgement | None = None


@dataclass(frozen=True, slots=True)
class DuelRecord:
    """One duel. ``arms``, ``stacks`` and ``planted`` are by arm, ``baseline`` and ``candidate``.

    ``workload`` to ``launches`` repeat the judgement of the workload that decides the exit code; effects are fractions
    of throughput, times seconds. ``date`` is ISO 8601.
    """

    schema: int
    date: str
    chip: Chip
    arms: dict[str, str]
    stacks: dict[str, Stack]
    planted: dict[str, float]
    aa: bool
    policy: Policy
    budget_s: float
    sessions: int
    workload: str
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    measured_s: float
    launches: int
    duels: tuple[WorkloadDuel, ...]


RENAMED: dict[type, dict[str, str]] = {Launch: {"held": "pinned"}}
"""Fields of launches, in records of older releases, and what they are called today."""


def compact(record: object) -> dict[str, Any]:
    """Return the JSON of a record, its blocks folded, without what the platform or a worker did not report."""
    tree: dict[str, Any] = msgspec.to_builtins(record)
    for launch in _launches(tree):
        for name in ("whole_outside_s", "prefills", "alone_s", "after_s", "parted_at"):
            if launch[name] is None:
                del launch[name]
        fold(launch)
    return tree


def unfolded(tree: Any) -> None:
    """Unfold the launches in the JSON of a record, in place. Raises ValueError for what is no launch."""
    for launch in _launches(tree) if isinstance(tree, dict) else ():
        unfold(launch)


def _launches(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the launches in the JSON of a duel's record or of evidence."""
    workloads = tree.get("duels") or tree.get("workloads") or ()
    for workload in workloads if isinstance(workloads, list | tuple) else ():
        raw = workload.get("raw") if isinstance(workload, dict) else ()
        yield from (one for one in (raw if isinstance(raw, list | tuple) else ()) if isinstance(one, dict))


def lines(tree: dict[str, Any]) -> bytes:
    """Return the JSON of a record as bytes, indented, with each stretch of blocks on one line, and a newline.

    It keeps a long record readable. The launches lose their blocks: ``tree`` is of no use afterwards.
    """
    stretches: list[bytes] = []
    for launch in _launches(tree):
        for name in ("pairs", "discarded"):
            marks = [f"@stretch{number}@" for number, _ in enumerate(launch[name], start=len(stretches))]
            stretches += [msgspec.json.encode(one) for one in launch[name]]
            launch[name] = marks
    head, *others = indented(tree).split(b'"@stretch')
    parts = [head]
    for piece in others:
        number, _, tail = piece.partition(b'@"')
        parts += [stretches[int(number)], tail]
    return b"".join(parts)


def launch_flaws(workload: str, launches: Sequence[Launch]) -> Iterator[Flaw]:
    """Yield what no launch can hold."""
    for number, launch in enumerate(launches, start=1):
        where = f"{workload}, launch {number}"
        if not launch.pairs:
            yield Flaw(f"{where} has no pair of blocks", "one or more")
        blocks = [block for pair in launch.pairs for block in pair]
        for block in blocks:
            yield from _not_times(f"{where}: a block", (block.tpot_s, *block.step_s))
            if block.faults:
                yield Flaw(f"{where}: a contended block among those that count", "such pairs under discarded")
        yield from _not_times(where, (launch.seconds,))
        yield from _not_times(f"{where}: a whole run", (*(launch.whole_s or ()), *(launch.whole_outside_s or ())))
        alone_s = (one for one in (launch.alone_s, launch.after_s) if one is not None)
        yield from _not_times(f"{where}: the baseline alone", alone_s)
        if launch.hidden_share is not None and not -1 <= launch.hidden_share <= 1:
            yield Flaw(f"{where}: {launch.hidden_share:.4g} of a block outside a clock", "a fraction")
        if launch.parted_at is not None and launch.parted_at < 0:
            yield Flaw(f"{where}: texts that part at step {launch.parted_at}", "a step of a whole run")
        ttft_s = launch.prefills.ttft_s if launch.prefills else ()
        yield from _not_times(f"{where}: a prefill", (time for pair in ttft_s for time in pair))
        if any({block.arm for block in pair} != set(ARMS) for pair in launch.pairs):
            yield Flaw(f"{where}: a pair of one arm", "a block of each")
        steps = {len(block.step_s) for block in blocks if block.step_s}
        if len(steps) > 1:
            yield Flaw(f"{where}: blocks of {', '.join(map(str, sorted(steps)))} steps", "as many in all")


def _not_times(what: str, times: Iterable[float]) -> Iterator[Flaw]:
    """Yield those that no clock shows: what is measured is whole nanoseconds, and less than a year."""
    for time in times:
        if not 10**-NS <= time < 1e7:
            yield Flaw(f"{what} of {time:.4g} s", "seconds of a clock, a nanosecond or more")


def _flaws(record: DuelRecord) -> Iterable[Flaw]:
    for name in ("arms", "planted"):
        if sorted(getattr(record, name)) != list(ARMS):
            yield Flaw(f"$.{name} is of {', '.join(sorted(getattr(record, name))) or 'no arm'}", "both arms")
    if not record.duels:
        yield Flaw("no workload", "one or more")
    for duel in record.duels:
        yield from launch_flaws(duel.workload, duel.raw)


DUELS = Codec(
    DuelRecord,
    SCHEMA,
    "what gemma3n-perf duel writes",
    "restore the file from version control, or duel again; it is left untouched",
    flaws=_flaws,
    lay_out=lambda record: lines(compact(record)),
    renamed=RENAMED,
    unfold=unfolded,
)
