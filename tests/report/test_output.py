import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma3n_perf.report.output import plain

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
    assert plain("\r12 s", returns=True) == "\r12 s"
    code, err = typed(
        r"| grep -c '\\u001b\[2J' > /dev/null; exit ${PIPESTATUS[1]}", PROGRAM.replace("a line", r"\x1b[2J")
    )
    assert (code, err) == (0, "")
