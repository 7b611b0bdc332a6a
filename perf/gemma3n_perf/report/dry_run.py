"""What a command would measure and how long, said in place of measuring (``--explain``)."""

from collections.abc import Sequence

_START_SHARE = 2.0
"""Launches measure about as long as they take to start."""


def at_most(workloads: int, each_s: float, *, duels: int = 1, pauses_s: float = 0.0) -> str:
    """Say how long ``duels`` of ``each_s`` seconds on each workload may take, with ``pauses_s`` between sessions."""
    total_s = workloads * duels * each_s
    return (
        f"at most {total_s:g} s of measuring ({workloads} x {duels} x {each_s:g} s), less where it shows sooner; "
        f"with the starts of processes about {(_START_SHARE * total_s + pauses_s) / 60:.1f} min"
    )


def dry_run(what: str, workloads: Sequence[str], *how_long: str) -> str:
    """Return ``what`` would be measured, a workload a line, ``how_long``, and that nothing was."""
    return "\n".join(
        [
            what,
            *(f"  {name}" for name in workloads),
            *how_long,
            "once, where missing: checkpoints are forged, commits checked out, packages installed",
            "nothing was measured (--explain)",
        ]
    )
