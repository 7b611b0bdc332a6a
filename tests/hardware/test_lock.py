import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gemma3n_perf.errors import MachineBusyError, NotMeasuredError
from gemma3n_perf.hardware import lock
from gemma3n_perf.hardware.lock import LOCK_PATH, measuring_lock, read_holder

TAKE = """
import sys
from pathlib import Path
from gemma3n_perf.errors import MachineBusyError
from gemma3n_perf.hardware.lock import measuring_lock
try:
    with measuring_lock(Path(sys.argv[1])) as taken:
        print("taken" if taken else "ancestor's", flush=True)
        sys.stdin.readline()
except MachineBusyError:
    print("busy", flush=True)
"""
# A process that is not our descendant in the eyes of the lock: its parent ends at once.
ORPHAN = "import os, sys\nif os.fork() == 0:\n    exec(sys.argv.pop(1))\n    os._exit(0)\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the lock is for this test."""
    return tmp_path / "measuring.lock"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_lock_is_taken_named_and_given_back(path: Path) -> None:
    """While held the file names us; afterwards it names nobody and can be taken again."""
    for _ in range(2):
        with measuring_lock(path) as taken:
            assert taken
            found = read_holder(path)
            assert found is not None
            assert found.pid == os.getpid()
        assert read_holder(path) is None


def test_every_user_may_open_the_lock_whatever_the_umask(path: Path) -> None:
    """Two users of one machine exclude each other."""
    umask = os.umask(0o077)
    try:
        with measuring_lock(path):
            assert path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(umask)


def test_a_second_measurement_is_refused_naming_the_first(path: Path) -> None:
    """The message tells process, user, time and command, and what to do."""
    with holder(path) as process:
        with pytest.raises(MachineBusyError) as refused, measuring_lock(path):
            pass
        found = read_holder(path)
    assert found is not None
    message = str(refused.value)
    assert f"process {process.pid} of {found.user}, since 20" in message
    assert "python" in message.splitlines()[0]
    assert "wait for it to end" in message
    assert refused.value.exit_code == 4


def test_a_lock_outlives_no_crash(path: Path) -> None:
    """The kernel drops the lock of a killed process, and its stale name keeps nobody out."""
    with holder(path) as process:
        process.kill()
        process.wait()
        assert read_holder(path) is not None
        with measuring_lock(path) as taken:
            assert taken


def test_a_waiting_measurement_takes_the_lock_when_it_is_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends as soon as the holder does."""
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    with holder(path) as process:
        ending = threading.Timer(0.1, process.kill)
        ending.start()
        begun = time.monotonic()
        with measuring_lock(path, wait_s=60) as taken:
            assert taken
            assert 0.1 <= time.monotonic() - begun < 30


def test_a_wait_that_is_over_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting has an end."""
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    begun = time.monotonic()
    with holder(path), pytest.raises(MachineBusyError), measuring_lock(path, wait_s=0.2):
        pass
    assert time.monotonic() - begun >= 0.2


def test_workers_do_not_need_the_lock_their_ancestor_holds(path: Path) -> None:
    """Nested use in one process and in a child goes on, and leaves the lock with its holder."""
    with measuring_lock(path):
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with measuring_lock(path) as again:
            assert not again
        worker = subprocess.run(
            [sys.executable, "-c", TAKE, str(path)], input="\n", capture_output=True, text=True, env=environ, check=True
        )
        assert worker.stdout == "ancestor's\n"
        orphan = subprocess.run(
            [sys.executable, "-c", ORPHAN, TAKE, str(path)],
            input="\n",
            capture_output=True,
            text=True,
            env=environ,
            check=True,
        )
        assert orphan.stdout == "busy\n"
        found = read_holder(path)
        assert found is not None
        assert found.pid == os.getpid()


def test_a_failed_measurement_gives_the_lock_back(path: Path) -> None:
    """Ctrl-C included."""
    with pytest.raises(KeyboardInterrupt), measuring_lock(path):
        raise KeyboardInterrupt
    with measuring_lock(path) as taken:
        assert taken


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_lies_in_the_names_place_is_neither_followed_nor_waited_for(path: Path, tmp_path: Path, kind: str) -> None:
    """In a folder that everybody may write to, anything can lie there; the lock holds all the same."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with measuring_lock(path) as taken:
        assert taken
        assert read_holder(path) is None
        busy = subprocess.run(
            [sys.executable, "-c", TAKE, str(path)], input="\n", capture_output=True, text=True, check=True, timeout=60,
            env={name: value for name, value in os.environ.items() if "MEASURED_BY" not in name}
            | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert busy.stdout == "busy\n"
    assert victim.read_text() == "precious"


def test_removing_the_name_lets_nobody_in(path: Path) -> None:
    """Nor does a new file in its place, or one that claims to be from an ancestor of who reads it."""
    with holder(path) as process:
        path.unlink()
        for content in (b"", json.dumps(vars_of_this_process()).encode()):
            path.write_bytes(content)
            with pytest.raises(MachineBusyError), measuring_lock(path):
                pass
        assert process.poll() is None


def vars_of_this_process() -> dict[str, object]:
    """Return what this process would write of itself."""
    return {"pid": os.getpid(), "user": "me", "command": "c", "since": time.time()}


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    """With what to look at."""
    with (
        pytest.raises(NotMeasuredError, match=r"cannot be taken on .*missing.*\n.*\n.*ls -ld"),
        measuring_lock(tmp_path / "missing" / "lock"),
    ):
        pass


def test_a_holder_that_cannot_be_read_is_another_process(path: Path) -> None:
    """The lock counts, not the name in it."""
    with holder(path):
        for content in (
            b"",
            b"not json",
            b'{"pid": "many"}',
            b"\xff",
            b"[" * 5000,
            *(
                json.dumps(vars_of_this_process() | strange).encode()
                for strange in ({"pid": 10**12}, {"pid": -1}, {"since": 1e300}, {"since": -1e9}, {"user": "x" * 9999})
            ),
        ):
            path.write_bytes(content)
            with pytest.raises(MachineBusyError, match="being measured by another process"), measuring_lock(path):
                pass


def test_a_command_that_is_no_text_is_named_all_the_same(path: Path) -> None:
    """Names of files may be any bytes."""
    take = subprocess.run(
        [sys.executable, "-c", TAKE, str(path), b"caf\xe9"], input="\n", text=True, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (take.returncode, take.stdout) == (0, "taken\n"), take.stderr


def test_the_lock_is_one_place_for_all_users() -> None:
    """TMPDIR is each user's own on macOS."""
    assert Path("/tmp/gemma3n-perf.lock") == LOCK_PATH
