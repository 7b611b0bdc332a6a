import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf import errors
from gemma3n_perf.cli import workloads
from tests import interrupts

ROOT = Path(__file__).parents[2]
COMPILING = "[Compile::eval_cpu] Failed to compile function f: Failed to execute command: g++ x.cpp, the output is:"


def subclasses(kind: type[errors.PerfError]) -> list[type[errors.PerfError]]:
    """Return an error class and all below it."""
    return [kind, *(found for child in kind.__subclasses__() for found in subclasses(child))]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command which raises or returns what it is given."""

    def call(outcome: BaseException | int) -> tuple[int, str, str]:
        def command(args: Any, out: Any) -> int:
            if isinstance(outcome, int):
                print("done", file=out)
                return outcome
            raise outcome

        monkeypatch.setattr(workloads, "run", command)
        out, err = io.StringIO(), io.StringIO()
        return program.run(["workloads"], out, err), out.getvalue(), err.getvalue()

    return call


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("dule",), "there is no command 'dule'\n  expected: duel"),
        ((), "no command is named\n  expected: one of chip, "),
    ],
)
def test_a_command_that_is_none_is_told_the_nearest(argv: tuple[str, ...], said: str) -> None:
    """Exit 2, without all of the help."""
    err = io.StringIO()
    assert program.run(argv, io.StringIO(), err) == 2
    assert said in err.getvalue()


EXIT_CODES = (
    {errors.PerfError: 70, errors.UsageError: 2, errors.RegressionError: 1, errors.InconclusiveError: 3}
    | dict.fromkeys(subclasses(errors.NotMeasuredError), 4)
    | dict.fromkeys(subclasses(errors.InvalidError), 5)
)


def test_every_error_has_an_exit_code() -> None:
    """The table above leaves none out."""
    assert set(EXIT_CODES) == set(subclasses(errors.PerfError))


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_a_named_error_becomes_its_exit_code(
    run: Callable[..., tuple[int, str, str]], kind: type[errors.PerfError]
) -> None:
    """What was found, what was expected and what to do next, on stderr, without a traceback."""
    code, out, err = run(kind("it broke", expected="that it holds", remedy="mend it"))
    assert code == EXIT_CODES[kind]
    assert out == ""
    assert err == "gemma3n-perf workloads: it broke\n  expected: that it holds\n  next: mend it\n"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_commands_own_code_is_passed_on(run: Callable[..., tuple[int, str, str]], code: int) -> None:
    """3 is inconclusive, which no error says."""
    assert run(code) == (code, "done\n", "")


def test_an_interrupt_gives_130(run: Callable[..., tuple[int, str, str]]) -> None:
    """One line, no traceback."""
    code, _, err = run(KeyboardInterrupt())
    assert code == 130
    assert err == "gemma3n-perf workloads: interrupted; nothing half-written was kept\n"


def test_a_bug_keeps_its_traceback_and_is_no_loss(run: Callable[..., tuple[int, str, str]]) -> None:
    """An error nobody named: exit 70."""
    code, _, err = run(ZeroDivisionError("at the root of it"))
    assert code == 70
    assert "ZeroDivisionError: at the root of it" in err
    assert "this is a fault of the program, and no result" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "no memory is left: MemoryError"),
        (RuntimeError("[malloc] Unable to allocate 999 bytes."), "no memory is left: [malloc]"),
        (ImportError("x.so: failed to map segment from shared object"), "no memory is left: x.so"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory is left"),
        (OSError(errno.ENOSPC, "No space left on device"), "no room is left to write"),
        (OSError(errno.EFBIG, "File too large", "/tmp/x"), "no room is left to write"),
        (RuntimeError("filesystem error: temp_directory_path: No such file or directory"), "TMPDIR"),
        (OSError("262144 requested and 4064 written"), "no room is left to write"),
        (RuntimeError(f"{COMPILING}: /t/x.s: No space left on device\nterminated."), "no room is left to write: MLX"),
        (RuntimeError(f"{COMPILING} sh: 1: g++: not found"), "MLX could not compile a kernel: sh: 1: g++: not found"),
        (PermissionError(errno.EACCES, "Permission denied", "/kept/x"), "'/kept/x'"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "the system refused"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/t']"), "TMPDIR"),
    ],
)
def test_what_a_machine_lacks_is_not_measured(
    run: Callable[..., tuple[int, str, str]], error: Exception, said: str
) -> None:
    """Whoever noticed: exit 4, what to do, and no traceback."""
    code, _, err = run(error)
    assert code == 4
    assert said in err
    assert "next: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["-m", "gemma3n_perf", "chip"], ["-m", "pytest", "perf/", "--co"]])
def test_too_small_a_memory_limit_is_said_before_a_library_ends_the_process(command: list[str]) -> None:
    """OpenBLAS exits 1 under some limits, and sends itself SIGINT under others."""
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, 2 * (2**28,))"
    run = f"{limited}; sys.argv = {command[1:]}; runpy.run_module({command[1]!r}, run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "perf")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "this process may use 268 MB of memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["-m", "gemma3n_perf", "chip"], ["-m", "pytest", "perf/", "--co"]])
@pytest.mark.parametrize("value", ["nonsense", "-1", "0", ""])
def test_a_count_that_is_none_is_refused_before_mlx_computes_for_ever(command: list[str], value: str) -> None:
    """MLX takes it for 0, and walks graphs of no width."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "perf"), "MLX_BFS_MAX_WIDTH": value},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"MLX_BFS_MAX_WIDTH={value}\n" in done.stderr
    assert "next: unset MLX_BFS_MAX_WIDTH" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["forge"], ["graph", "nano", "--position", "x"]])
def test_a_wrong_command_line_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        program.run(arguments, io.StringIO(), io.StringIO())
    assert caught.value.code == 2
    assert "usage: gemma3n-perf" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *program.COMMANDS])
def test_help_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the whole and of every command; the whole names every command and the exit codes."""
    with pytest.raises(SystemExit) as caught:
        program.run([*command.split(), "--help"], io.StringIO(), io.StringIO())
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: gemma3n-perf {command}".rstrip())
    if not command:
        assert all(name in text for name in program.COMMANDS)
        assert "4 not measured" in " ".join(text.split())


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start Python code as a process of its own."""
    command, pipe = [sys.executable, "-c", code, *arguments], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=interrupts.heard)


def test_the_program_runs_as_a_module(tmp_path: Path) -> None:
    """An unknown preset exits 2 with three lines and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "gemma3n_perf", "forge", "e9b", "--root", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "gemma3n-perf forge: there is no preset 'e9b'"
    assert len(done.stderr.splitlines()) == 3


SLOW_FORGE = """
import sys, time
from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import forge
real = forge.forge.ensure_forged
def slow(preset, root, note, **options):
    return real(preset, root, lambda text: (print("writing", flush=True), time.sleep(0.2)), **options)
forge.forge.ensure_forged = slow
sys.argv[1:] = ["forge", "nano", "--root", sys.argv[1]]
program.main()
"""


def test_ctrl_c_while_forging_stops_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """A real signal while files are written: 130 within seconds, one line, no partial folder."""
    process = started(SLOW_FORGE, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "gemma3n-perf forge: interrupted; nothing half-written was kept\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


CLEARING = """
import atexit, time
import gemma3n_perf.__main__ as program
atexit.register(lambda: (print("clearing away", flush=True), time.sleep(0.5)))
def interrupted(*given):
    raise KeyboardInterrupt
program.parser = interrupted
program.main()
"""


def test_another_ctrl_c_while_it_ends_changes_nothing() -> None:
    """The first one is answered; what is cleared away after that is not told in a traceback, nor cut short."""
    process = started(CLEARING, "workloads")
    assert process.stdout is not None
    assert process.stdout.readline() == "clearing away\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "gemma3n-perf: interrupted; nothing half-written was kept\n"


CLOSED = """
import os, sys
from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import workloads
workloads.run = lambda args, out: print("x" * 100_000, file=out) or 0
sys.argv[1:] = ["workloads"]
program.main()
"""


def test_a_reader_that_went_away_is_no_error() -> None:
    """``gemma3n-perf workloads | head -0`` prints no traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("old", program.RENAMED, ids=" ".join)
def test_a_command_of_an_earlier_release_exits_2_and_names_the_new_one(old: tuple[str, ...]) -> None:
    """Whatever follows it."""
    out, err = io.StringIO(), io.StringIO()
    assert program.run([*old, "--json", "x"], out, err) == 2
    assert f"gemma3n-perf {' '.join(old)} is no longer a command; now: {program.RENAMED[old]}" in err.getvalue()
