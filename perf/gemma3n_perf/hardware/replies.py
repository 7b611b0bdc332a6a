"""Processes of this package that reply on standard output, and what they need to be started."""

import os
from pathlib import Path
from typing import BinaryIO


def with_package() -> dict[str, str]:
    """Return the environment of a process that is to find this very package."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}


def reply_stream() -> BinaryIO:
    """Take standard output for the reply; what anything else prints there goes to standard error from now on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies
