"""Logits that arms hand over: written where no other arm knows, read at once, and taken away."""

import io
import os
import secrets
import stat
from pathlib import Path

import numpy as np

from gemma3n_perf.errors import InvalidError

MOST_BYTES = 64 << 20
"""Of logits: those of 262,144 tokens take 1 MiB."""


def place(folder: str) -> Path:
    """Name a file in ``folder`` that no arm can guess, so that none finds another's logits."""
    return Path(folder, f"{secrets.token_hex(8)}.npy")


def taken(path: Path) -> np.ndarray:
    """Read logits that an arm wrote, and take the file away. Raises InvalidError for what is no file of its own."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > MOST_BYTES:
                raise ValueError("it is a link, or no file")
            logits: np.ndarray = np.load(io.BytesIO(file.read()), allow_pickle=False)
        path.unlink()
    except (OSError, ValueError, EOFError) as error:
        raise InvalidError(
            f"the logits of an arm cannot be read: {error}",
            expected="a file that the worker wrote",
            remedy="a fusion may touch no file of the suite; run it again",
        ) from error
    return logits
