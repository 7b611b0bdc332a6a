import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma3n_perf.report.output import plain, shown, tolerant, unsaid

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import workloads
def found(args, out):
    for _ in range(20_000):
        print("a line that somebody may read", file=out)
    return 1
workloads.run = found
sys.argv[1:] = ["workloads"]
program.main()
"""


def typed(redirection: str, program: str = PROGRAM, **more: str) -> tuple[int, str]:
    """Run a command that finds a loss and says much, as a shell would."""
    line = f'"$PYTHON" -c "$PROGRAM" {redirection}'
    environ = os.environ | {"PYTHON": sys.executable, "PROGRAM": program, "PYTHONPATH": str(ROOT / "perf")} | more
    done = subprocess.run(["bash", "-c", line], env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("reader", ["true", "head -1", "cat"])
def test_a_reader_that_leaves_does_not_change_the_exit_code(reader: str) -> None:
    """A loss is one whoever reads of it."""
    code, err = typed(f"| {reader} > /dev/null; exit ${{PIPESTATUS[0]}}")
    assert (code, err) == (1, "")


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_nor_does_one_of_both_streams(reader: str) -> None:
    """``2>&1 | head``, with an error to say: not measured is not a loss."""
    program = PROGRAM.replace(
        "    return 1", '    from gemma3n_perf.errors import NotMeasuredError\n    raise NotMeasuredError("no")'
    )
    line = f'"$PYTHON" -c "$PROGRAM" 2>&1 | {reader} > /dev/null; exit ${{PIPESTATUS[0]}}'
    environ = os.environ | {"PYTHON": sys.executable, "PROGRAM": program, "PYTHONPATH": str(ROOT / "perf")}
    assert subprocess.run(["bash", "-c", line], env=environ, check=False).returncode == 4


def test_without_standard_output_the_exit_code_is_all_there_is() -> None:
    """Closed by whoever started the command."""
    assert typed(">&-") == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
@pytest.mark.parametrize(("found", "expected"), [(1, 1), (0, 4)])
def test_a_full_disk_is_said_once(found: int, expected: int) -> None:
    """By a named error, and no traceback. A loss stays one; a pass that nobody can read is none."""
    code, err = typed("> /dev/full", PROGRAM.replace("return 1", f"return {found}"))
    assert code == expected
    assert err.count("standard output cannot be written") == 1
    assert "Traceback" not in err


def test_what_an_encoding_cannot_spell_is_replaced() -> None:
    """A report in Unicode, on a terminal that has ASCII alone, costs no answer."""
    reader = "| grep -c gr?.er > /dev/null; exit ${PIPESTATUS[0]}"
    code, err = typed(reader, PROGRAM.replace("a line", "größer"), PYTHONIOENCODING="ascii")
    assert (code, err) == (1, "")


def test_a_terminal_obeys_nothing_that_a_record_says() -> None:
    """Control characters of names and words are told, not sent; progress may go back to the start of its line."""
    text = "a\x1b]0;title\x07\r\n\tb\x9b2J\u202eé"
    assert plain(text) == r"a\u001b]0;title\u0007\u000d" + "\n\tb" + r"\u009b2J\u202e" + "é"
    code, err = typed(
        r"| grep -c '\\u001b\[2J' > /dev/null; exit ${PIPESTATUS[1]}", PROGRAM.replace("a line", r"\x1b[2J")
    )
    assert (code, err) == (0, "")


@pytest.mark.parametrize("returns", [False, True])
def test_colours_stay_and_progress_returns(tmp_path: Path, returns: bool) -> None:
    """What pytest writes on a terminal is no danger; hiding text is, and so is a return where no progress is shown."""
    coloured = "\x1b[1m\x1b[31mloss\x1b[0m \x1b[39;49;00m\x1b[01;94mline\x1b[m"
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        stream = tolerant(file, returns=returns)
        stream.write(f"\r12 s {coloured}\x1b[2J\x1b[8m\x1b[31;8m\x1b[38;5;8m")
        assert unsaid(stream) is None
    start = "\r" if returns else r"\u000d"
    hidden = r"\u001b[2J\u001b[8m\u001b[31;8m\u001b[38;5;8m"
    assert (tmp_path / "out").read_bytes().decode() == f"{start}12 s {coloured}{hidden}"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), 2, "File name too long: aaa"),
        (OSError(errno.ELOOP, "Too many levels of links", "loop"), 2, "Too many levels of links: loop"),
        (FileNotFoundError(errno.ENOENT, "No such file"), 4, "the working directory is not there any more"),
    ],
)
def test_a_path_that_no_file_can_have_is_named(error: OSError, code: int, said: str) -> None:
    """Whichever call noticed; a file that was there and is gone is still a fault of the program."""
    found = shown(error)
    assert (found.exit_code, found.found[: len(said)]) == (code, said)
    assert shown(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), io.StringIO()).exit_code == 70
