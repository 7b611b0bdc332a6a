"""The machine does not fall asleep while it measures."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import wakepy


@contextmanager
def keep_awake(keeper: Callable[[], AbstractContextManager[wakepy.Mode]] | None = None) -> Iterator[str]:
    """Keep the machine from sleeping, as far as it lets us; yields what was achieved, in words. Never fails.

    wakepy asks caffeinate on macOS and the desktop's session manager on Linux. A server without a desktop has nobody
    to ask, and rarely sleeps.
    """
    stack = ExitStack()
    try:
        mode = stack.enter_context(keeper() if keeper else wakepy.keep.running(on_fail="pass"))
        status = "not kept awake: neither caffeinate nor a desktop session is here to ask"
        if mode.active:
            status = f"kept awake by {mode.method.name if mode.method else 'wakepy'}"
    except Exception as error:
        status = f"not kept awake: {error}"
    try:
        yield status
    finally:
        # Letting go may fail as well, and must not hide what the measurement raised.
        with suppress(Exception):
            stack.close()
