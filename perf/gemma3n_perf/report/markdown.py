"""Tables and text as Markdown, for job summaries and pages."""

import re
from collections.abc import Iterable, Sequence

# A colon before anything but a space could make a link, an underscore at the edge of a word emphasis.
_PLAIN = re.compile(r":(?!\s|$)|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|[^0-9A-Za-z \u00a0-\uffff,;.:_+%'\"()/=-]")
_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", "\n": " "})


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Iterable[str] = ()) -> str:
    """Return a Markdown table; columns not named in ``left`` are aligned right."""
    kept = set(left)
    lines = [_line(header), _line([":---" if name in kept else "---:" for name in header])]
    lines += [_line([escape(cell) for cell in row]) for row in rows]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return ``text`` so that no character of it ends a table cell or opens a tag."""
    return text.translate(_ESCAPED)


def plain(text: str, limit: int = 300) -> str:
    """Return ``text`` on one line, with every character that could mean something to Markdown as an entity.

    For what a stranger may have written: no link, mention, picture or markup comes of it.
    """
    line = " ".join(text.split())
    line = line if len(line) <= limit else f"{line[: limit - 3]}..."
    shown = _PLAIN.sub(lambda match: f"&#{ord(match[0])};", line)
    return re.sub(r"(?i)www\.", lambda match: f"{match[0][:-1]}&#46;", shown)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
