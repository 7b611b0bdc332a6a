"""Ctrl-C for a process that a test starts: a background shell ignores SIGINT, and its children inherit that."""

import signal


def heard() -> None:
    """Let SIGINT end the process again; for ``preexec_fn``. Python then raises KeyboardInterrupt in it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
