"""TOML that anyone may have written: what a file that people edit never holds is refused before it is parsed."""

import tomllib
from typing import Any

MOST_CHARACTERS, MOST_DOTS = 1 << 16, 1_000
"""Of a file. Python's parser takes memory by the square of the parts of a dotted key: 10 GB for 100 kB of ``a.a.a``."""


def parse(text: str) -> dict[str, Any]:
    """Return what a text of TOML holds. Raises ValueError, and RecursionError, as ``tomllib`` does."""
    if len(text) > MOST_CHARACTERS or text.count(".") > MOST_DOTS:
        raise ValueError(
            f"it has {len(text):,} characters and {text.count('.'):,} dots, and {MOST_CHARACTERS:,} and {MOST_DOTS:,} "
            "are the most that is read"
        )
    return tomllib.loads(text)
