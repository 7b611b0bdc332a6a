import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.processes import ProcessWorker, Spawner
from gemma3n_perf.errors import NonFiniteError, OutOfMemoryError, UsageError, WorkerFailedError
from tests.duel.arena import arm
from tests.interrupts import ended, until

HELLO = f'print(\'{{"type": "Hello", "protocol": {wire.PROTOCOL}, "pid": 1, "stack": {{}}}}\', flush=True)\n'


def started(script: str, **environ: str) -> ProcessWorker:
    """Start a Python script in place of a worker."""
    return ProcessWorker(
        replace(arm("candidate", "here+x"), argv=(sys.executable, "-S", "-c", script), environ=environ)
    )


def gone(pid: int) -> bool:
    """Whether a process has ended and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_lines_are_answers_however_they_arrive() -> None:
    """Two answers in one piece, and one in two pieces, are each read once."""
    worker = started(
        "import sys, time\n"
        + HELLO
        + HELLO
        + 'sys.stdout.write(\'{"type": "Prepared",\'); sys.stdout.flush(); time.sleep(0.05)\n'
        + 'print(\'"token_digest": "x"}\', flush=True); sys.stdin.readline()'
    )
    assert isinstance(worker.receive(5), wire.Hello)
    assert isinstance(worker.receive(5), wire.Hello)
    assert worker.receive(5) == wire.Prepared("x")
    worker.close()


def test_the_environment_is_set_before_the_start() -> None:
    """A knob is there when the process begins."""
    worker = started(
        'import os\nprint(\'{"type": "Prepared", "token_digest": "\' + os.environ[\'KNOB\'] + \'"}\')', KNOB="7"
    )
    assert worker.receive(5) == wire.Prepared("7")
    worker.close()


def test_a_hang_is_killed_with_its_last_words() -> None:
    """The process and its children are gone, and the error says what it last said."""
    worker = started("import sys, time\nprint('deep in a kernel', file=sys.stderr, flush=True)\ntime.sleep(60)")
    time.sleep(0.2)
    with pytest.raises(WorkerFailedError, match=r"did not reply in 0 s and was killed.*deep in a kernel"):
        worker.receive(0.1)
    assert gone(worker._process.pid)
    worker.close()


def test_a_crash_is_told_with_its_exit_code_and_last_words() -> None:
    """A traceback on standard error is part of the answer."""
    worker = started("raise SystemExit('the library was not found')")
    with pytest.raises(WorkerFailedError, match=r"here\+x ended with exit code 1.*the library was not found"):
        worker.receive(5)
    worker.close()


def test_a_segmentation_fault_names_its_signal() -> None:
    """What no exception reports is reported too."""
    worker = started(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(WorkerFailedError, match="killed by signal 11"):
        worker.receive(5)
    worker.close()


def test_the_kernels_kill_is_out_of_memory() -> None:
    """Nobody here sends SIGKILL, so it was the kernel."""
    worker = started(f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(OutOfMemoryError, match="as when memory runs out"):
        worker.receive(5)
    worker.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("NonFiniteError", NonFiniteError),
        ("UsageError", UsageError),
        ("Exception", WorkerFailedError),
        ("os", WorkerFailedError),
    ],
)
def test_a_workers_error_is_raised_here(kind: str, error: type[Exception]) -> None:
    """By its name, where that names an error of this suite."""
    worker = started(f'print(\'{{"type": "Failed", "kind": "{kind}", "found": "it broke"}}\')')
    with pytest.raises(error, match=r"here\+x: it broke"):
        worker.receive(5)
    worker.close()


def test_an_answer_of_another_protocol_is_a_failure() -> None:
    """A line that is no answer ends the conversation with what it was."""
    worker = started("print('Loading weights')")
    with pytest.raises(WorkerFailedError, match="Loading weights"):
        worker.receive(5)
    worker.close()


def test_closing_ends_a_worker_that_listens_and_one_that_does_not() -> None:
    """A worker that ignores everything is killed, with its group."""
    polite = started(HELLO + "import sys; sys.stdin.readline()")
    polite.receive(5)
    polite.close()
    assert polite._process.wait(5) == 0


def test_what_cannot_be_started_is_named() -> None:
    """A missing interpreter is a failure of that worker."""
    with pytest.raises(WorkerFailedError, match="cannot be started"):
        ProcessWorker(replace(arm("candidate"), argv=(str(Path("/no/such/python")),)))


def test_last_words_name_nobodys_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end in records, which are committed."""
    monkeypatch.setenv("HOME", "/home/somebody")
    worker = started("import sys; print('No such file: /home/somebody/.cache/x', file=sys.stderr); sys.exit(3)")
    with pytest.raises(WorkerFailedError, match=r"No such file: ~/\.cache/x"):
        worker.receive(10.0)
    worker.close()


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    """Return what forks workers."""
    made = Spawner(forking=True)
    yield made
    made.close()


def forked(spawner: Spawner, folder: Path, script: str, **environ: str) -> ProcessWorker:
    """Fork a worker that runs a Python script."""
    (folder / "worker.py").write_text(script)
    argv = (sys.executable, "-P", str(folder / "worker.py"))
    return spawner(replace(arm("candidate", "here+x"), argv=argv, environ=environ, parent="p"), True)


def fresh_arm(folder: Path) -> ReadyArm:
    """Return an arm whose worker is the script that was forked before."""
    return replace(arm("candidate", "here+x"), argv=(sys.executable, "-P", str(folder / "worker.py")), environ={})


@pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux alone")
class TestForked:
    """Workers that are forked from one parent behave as fresh ones do."""

    def test_it_runs_with_its_own_path_environment_and_arguments(self, spawner: Spawner, tmp_path: Path) -> None:
        """And finds imported what all arms share."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "only_here.py").write_text("NAME = 'n'")
        script = (
            "import os, sys\nshared = 'mlx.core' in sys.modules and 'gemma3n_perf' not in sys.modules\n"
            "import only_here\n"
            'print(\'{"type": "Prepared", "token_digest": "\' + f"{only_here.NAME} {shared} {os.environ[\'KNOB\']} '
            "{os.getpgid(0) == os.getpid()} {len(sys.argv)}\" + '\"}', flush=True)\n"
        )
        worker = forked(spawner, tmp_path, script, KNOB="7", PYTHONPATH=str(tmp_path / "mine"))
        assert worker.receive(60) == wire.Prepared("n True 7 True 1")
        worker.close()

    def test_its_environment_may_hold_any_bytes(self, spawner: Spawner, tmp_path: Path) -> None:
        """A shell does not ask whether a variable is UTF-8."""
        reply = """'{"type": "Prepared", "token_digest": "' + os.environb[b"KNOB"].hex() + '"}'"""
        script = f"import os\nprint({reply}, flush=True)\n"
        worker = forked(spawner, tmp_path, script, KNOB=os.fsdecode(b"a\xff"))
        assert worker.receive(60) == wire.Prepared("61ff")
        worker.close()

    def test_no_two_begin_with_the_same_memory(self, spawner: Spawner, tmp_path: Path) -> None:
        """Else a path of another length would move every array of an arm, in each launch alike."""
        script = (
            "import numpy\nfew, many = numpy.ones(900), numpy.ones(1 << 20)\n"
            "places = [id(bytes(200)), few.ctypes.data, many.ctypes.data]\n"
            'print(\'{"type": "Prepared", "token_digest": "\' + f"{places}" + \'"}\', flush=True)\n'
        )
        replies = set()
        for _ in range(4):
            worker = forked(spawner, tmp_path, script)
            replies.add(worker.receive(60))
            worker.close()
        places = [json.loads(one.token_digest) for one in replies if isinstance(one, wire.Prepared)]
        assert [len(set(column)) > 1 for column in zip(*places, strict=True)] == [True, True, True]

    def test_a_signal_that_stopped_it_is_known(self, spawner: Spawner, tmp_path: Path) -> None:
        """Once, of one that goes on as if nothing had been; so it is of a fresh one."""
        script = 'import time\nprint(\'{"type": "Prepared", "token_digest": "x"}\', flush=True)\ntime.sleep(60)'
        for worker in (forked(spawner, tmp_path, script), ProcessWorker(fresh_arm(tmp_path))):
            worker.receive(60)
            assert not worker.was_stopped()
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(worker._process.pid, number)
                time.sleep(0.05)
            assert worker.was_stopped()
            assert not worker.was_stopped()
            worker._kill()
            assert not worker.was_stopped()
            worker._close()

    def test_its_exit_code_and_last_output_are_known(self, spawner: Spawner, tmp_path: Path) -> None:
        """As those of a child."""
        worker = forked(spawner, tmp_path, "import sys\nprint('oh no', file=sys.stderr)\nsys.exit(3)")
        with pytest.raises(WorkerFailedError, match=r"exit code 3; its last output: oh no"):
            worker.receive(60)
        worker.close()

    def test_a_kill_is_told_as_memory(self, spawner: Spawner, tmp_path: Path) -> None:
        """Nobody here killed it."""
        worker = forked(spawner, tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(OutOfMemoryError):
            worker.receive(60)
        worker.close()

    def test_a_hang_is_killed(self, spawner: Spawner, tmp_path: Path) -> None:
        """And leaves nothing behind."""
        worker = forked(spawner, tmp_path, "import time\ntime.sleep(60)")
        with pytest.raises(WorkerFailedError, match="did not reply in"):
            worker.receive(0.2)
        worker.close()

    def test_arms_of_other_packages_are_started_afresh(self, tmp_path: Path) -> None:
        """A launch whose arms share no parent forks none of them."""
        made = Spawner(forking=True)
        script = HELLO
        argv = (sys.executable, "-S", "-c", script)
        worker = made(replace(arm("candidate"), argv=argv), False)
        assert isinstance(worker.receive(5), wire.Hello)
        worker.close()
        made.close()

    def test_a_parent_that_cannot_start_is_named(self, tmp_path: Path) -> None:
        """With what to do."""
        made = Spawner(forking=True)
        with pytest.raises(WorkerFailedError, match="ended or hung"):
            made(replace(arm("candidate"), argv=("/bin/false", "-P", "x")), True)
        made.close()

    def test_what_a_parent_said_last_is_in_the_error_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A working directory that is removed while workers start stops Python itself: no traceback is shown."""
        gone = tmp_path / "gone"
        gone.mkdir()
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\nrmdir {gone}\nexec {sys.executable} -c 'import os; os.getcwd()'\n")
        python.chmod(0o755)
        monkeypatch.chdir(gone)
        made = Spawner(forking=True)
        with pytest.raises(WorkerFailedError, match="FileNotFoundError") as error:
            made(replace(arm("candidate"), argv=(str(python), "-P", "x")), True)
        made.close()
        assert "working directory" in str(error.value)
        assert capfd.readouterr().err == ""


DUEL = """
import sys, time
from dataclasses import replace
from pathlib import Path
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.processes import Spawner
from tests.duel.arena import arm
how, script, perf = sys.argv[1:]
argv, environ = (sys.executable, "-P", script), {"PYTHONPATH": perf}
spawner = Spawner(forking=how == "forked")
worker = spawner(replace(arm("candidate"), argv=argv, environ=environ, parent="p"), True)
worker.receive(60)
worker.send(wire.Load("w", "s", "r", "e", 0.0))
print(worker._process.pid, *(server._process.pid for server in spawner._servers.values()), flush=True)
time.sleep(60)
"""
BUSY = """
import time
from pathlib import Path
from gemma3n_perf.duel import worker
class Slow(worker.MlxVlmLoader):
    def stack(self):
        return {}
    def load(self, request):
        Path(__file__).with_name("busy").touch()
        time.sleep(60)
worker.MlxVlmLoader = Slow
worker.main()
"""
OLD = HELLO + "import time; from pathlib import Path; Path(__file__).with_name('busy').touch(); time.sleep(60)"
"""One that does not know of its parent's end, as those of earlier commits."""
FORKED = pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux alone")


@pytest.mark.parametrize(
    ("how", "script"),
    [("fresh", BUSY), pytest.param("forked", BUSY, marks=FORKED), pytest.param("forked", OLD, marks=FORKED)],
    ids=["fresh", "forked", "forked from an earlier commit"],
)
def test_a_killed_duel_leaves_nobody_behind(tmp_path: Path, how: str, script: str) -> None:
    """Not even a worker in the middle of a long request, nor the parent that workers are forked from."""
    (tmp_path / "busy.py").write_text(script)
    root = Path(__file__).parents[2]
    duel = subprocess.Popen(
        [sys.executable, "-c", DUEL, how, str(tmp_path / "busy.py"), str(root / "perf")],
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'perf'}"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert duel.stdout is not None
    pids = [int(word) for word in duel.stdout.readline().split()]
    assert pids
    assert until((tmp_path / "busy").exists, 10)
    assert not any(ended(pid) for pid in pids)
    duel.kill()
    duel.communicate()
    assert until(lambda: all(ended(pid) for pid in pids), 5), [pid for pid in pids if not ended(pid)]


@FORKED
def test_a_killed_parent_of_workers_takes_them_along(tmp_path: Path) -> None:
    """The duel is told, and nobody goes on decoding for nobody."""
    (tmp_path / "busy.py").write_text(BUSY)
    spawner = Spawner(forking=True)
    argv = (sys.executable, "-P", str(tmp_path / "busy.py"))
    environ = {"PYTHONPATH": str(Path(__file__).parents[2] / "perf")}
    worker = spawner(replace(arm("candidate"), argv=argv, environ=environ, parent="p"), True)
    worker.receive(60)
    worker.send(wire.Load("w", "s", "r", "e", 0.0))
    assert until((tmp_path / "busy").exists, 10)
    spawner._servers["p"]._process.kill()
    assert until(lambda: ended(worker._process.pid), 5)
    with pytest.raises(OutOfMemoryError, match="was killed"):
        worker.receive(5)
    worker.close()
    spawner.close()
