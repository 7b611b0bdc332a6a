"""Who measures on this machine right now, without touching the lock: a look must not turn a measurement away."""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import psutil

from gemma3n_perf.errors import MachineBusyError
from gemma3n_perf.hardware.machine import LOCK_PATH, Holder, measuring_lock, read_holder

_SAME_START_S = 1.0


def holder_elsewhere(path: Path = LOCK_PATH, own: AbstractSet[int] = frozenset()) -> str | None:
    """Return in words who holds the measuring lock, or None where nobody does or one of ``own`` or our ancestors.

    Raises NotMeasuredError if the file cannot be used as a lock.
    """
    holder = read_holder(path)
    if holder is None:
        return None
    if _alive(holder):
        return None if holder.pid in own or _above(holder) else str(holder)
    # The process that wrote its name is gone; one that it left behind may hold the lock still. Only trying tells.
    try:
        with measuring_lock(path):
            return None
    except MachineBusyError as error:
        return error.found.removeprefix("this machine is being measured by ")


def _alive(holder: Holder) -> bool:
    with suppress(psutil.Error):
        return abs(psutil.Process(holder.pid).create_time() - holder.started) < _SAME_START_S
    return False


def _above(holder: Holder) -> bool:
    with suppress(psutil.Error):
        return holder.pid in {one.pid for one in psutil.Process().parents()}
    return False
