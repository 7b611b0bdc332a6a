"""A process that has imported what the arms of a duel share, and forks a worker for each that is asked for.

Importing takes most of a start, and arms that are forked from one parent share what a process fixes for its life, such
as the layout of its memory. Imports nothing of the suite: what differs between the arms is imported after the fork.
Used on Linux with a CPU alone: a GPU must not be forked over, nor macOS's frameworks (``python -P forkserver.py FD``).
"""

import gc
import importlib
import json
import math
import mmap
import os
import random
import runpy
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

_BLOCKS, _SIZES, _PAGES = 2_000, (16, 65_536), (2_048, 4_096)
"""What a worker takes by chance before it imports anything: at most so many blocks of so many bytes, and so many pages,
too many for a gap between libraries."""

SHARED = ("msgspec", "numpy", "psutil", "mlx.core", "mlx.nn", "mlx_vlm.utils", "mlx_vlm.models.gemma3n")
"""Packages that load without starting a device."""


def serve(connection: socket.socket) -> None:
    """Fork a worker for each request until the connection is closed; workers that are left then are killed.

    ``{"argv": ..., "environ": ...}`` in JSON, with three descriptors, is replied to with the new process's id,
    ``{"wait": PID}`` with the exit code that the process ended with, ``{"stopped": PID}`` with whether it was stopped.
    """
    left: set[int] = set()
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            if not data:
                return
            request = json.loads(data)
            if "wait" in request:
                status = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
                left.discard(request["wait"])
                connection.send(json.dumps(status).encode())
                continue
            if "stopped" in request:
                connection.send(json.dumps(was_stopped(request["stopped"])).encode())
                continue
            pid = os.fork()
            if pid == 0:
                connection.close()
                become(request["argv"], request["environ"], descriptors)
            left.add(pid)
            for one in descriptors:
                os.close(one)
            connection.send(json.dumps(pid).encode())
    finally:
        # However the duel ended, and whatever commit a worker is of: one in a long request would go on for its length.
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def was_stopped(child: int) -> bool:
    """Whether a signal has stopped a child, or had it go on, since this was last asked; never where it has ended."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, child, os.WSTOPPED | os.WCONTINUED | os.WNOHANG) is not None
    return False


def shuffle_memory() -> list[object]:
    """Take blocks and pages by chance, and give back half of the blocks; the worker keeps what is returned.

    Workers of one parent begin with the same memory. So what arms differ in besides their program, such as the length
    of a path, would move the same arrays in every launch, and one arm of the same program was 0.4 % faster for it.
    """
    rng = random.Random(os.urandom(8))
    low, high = map(math.log, _SIZES)
    blocks = [bytearray(round(math.exp(rng.uniform(low, high)))) for _ in range(rng.randrange(1, _BLOCKS))]
    return [*rng.sample(blocks, len(blocks) // 2), mmap.mmap(-1, mmap.PAGESIZE * rng.randrange(*_PAGES))]


def become(argv: list[str], environ: dict[str, str], descriptors: list[int]) -> NoReturn:
    """Turn this process into the worker that ``argv`` (Python, ``-P``, a script) would have started. Never returns."""
    code = 1
    try:
        os.setsid()
        for number, one in enumerate(descriptors):
            os.dup2(one, number)
            os.close(one)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environ)
        added = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
        sys.path[:0] = added
        sys.argv = argv[2:]
        kept = shuffle_memory()
        runpy.run_path(argv[2], run_name="__main__")
        del kept
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Import what is shared, say so, and serve."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the duel ends it
    for name in SHARED:
        with suppress(ImportError):
            importlib.import_module(name)
    # Collections would touch, and so copy, what the children share.
    gc.collect()
    gc.freeze()
    with suppress(ConnectionError), connection:
        connection.send(b"ready")
        serve(connection)


if __name__ == "__main__":
    main()
