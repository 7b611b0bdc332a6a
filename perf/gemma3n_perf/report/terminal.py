"""Text for terminals and logs, laid out by rich: no character needs more than the stream's encoding has.

Nothing is said by colour alone.
"""

import io
import shutil
from typing import TextIO

from rich import box
from rich.console import Console, RenderableType

from gemma3n_perf.stats.verdicts import Verdict

WIDTH = 118
"""Columns where nobody looks at a terminal: a log, a file, another program."""

STYLES = {
    Verdict.INVALID: "bold red",
    Verdict.LOSS: "bold red",
    Verdict.WIN: "bold green",
    Verdict.NO_CHANGE: "green",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_MEASURED: "yellow",
}
"""In the order in which verdicts are counted: what needs a person first."""

_ASCII_FRAME = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)


def frame(*, unicode: bool = True) -> box.Box:
    """Return the lines of a table: one below its header."""
    return box.SIMPLE_HEAD if unicode else _ASCII_FRAME


def speaks_unicode(stream: TextIO) -> bool:
    """Whether a stream can write the lines of a table."""
    return (getattr(stream, "encoding", None) or "ascii").lower().startswith("utf")


def columns() -> int:
    """Return how wide the terminal is, or COLUMNS says it is."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def laid_out(*parts: RenderableType, width: int | None = None, colour: bool = False, dense: bool = False) -> str:
    """Return ``parts`` as text ``width`` columns wide, by default the terminal's; no line ends in a space.

    ``dense`` leaves empty lines out, such as those around a table.
    """
    out = io.StringIO()
    console = Console(
        file=out,
        width=width or columns(),
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        _environ={},
    )
    for part in parts:
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines() if line.strip() or not dense)
