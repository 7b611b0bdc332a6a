"""A profile's operations in words and tables: counts by group, and beside those of others."""

from gemma3n_perf.profile.reasons import reason
from gemma3n_perf.profile.types import Deviation, Histogram
from gemma3n_perf.report.markdown import escape, table
from gemma3n_perf.report.rows import percent
from gemma3n_perf.workload.presets import PRESETS


def histogram(found: Histogram) -> str:
    """Nodes by group and type, and the calls that the config tells beside those in the graph."""
    groups = ", ".join(
        f"{count} {name} ({percent(count / found.nodes)}, {count / found.layers:.1f} a layer)"
        for name, count in found.groups.items()
    )
    kinds = ", ".join(f"{name} {count}" for name, count in found.dtypes.items())
    rows = [
        (
            f"`{name}`",
            str(wanted),
            str(found.found.get(name, 0)),
            "yes" if wanted == found.found.get(name, 0) else "**no**",
        )
        for name, wanted in found.expected.items()
    ]
    return (
        f"{found.nodes} nodes at {found.position} tokens of context over {found.layers} layers: {groups}. "
        f"Types: {kinds}.\n\n" + table(("call", "by the config", "in the graph", "same"), rows, left=("call", "same"))
    )


def comparison(found: Histogram, index: int, checkpoint: str) -> str:
    """Counts that differ from one other source, each with its reason."""
    one = found.comparisons[index]
    if not one.deviations:
        return f"Beside {one.against} ({escape(one.source)}): no count differs."
    rows = (
        (
            f"`{row.name}`",
            str(row.before),
            str(row.after),
            _why(row, found, checkpoint) if one.against == "published" else row.why or "-",
        )
        for row in one.deviations
    )
    head = f"Beside {one.against} ({escape(one.source)}), counts that differ:"
    return head + "\n\n" + table(("operation", one.against, "here", "why"), rows, left=("operation", "why"))


def _why(row: Deviation, found: Histogram, checkpoint: str) -> str:
    """The reason as it is known today, where the checkpoint is a preset; else as it was when the profile was taken."""
    known = row.why
    if checkpoint in PRESETS:
        known = reason(row.name, row.before, row.after, found.operations, PRESETS[checkpoint].config())
    return known or "not explained"
