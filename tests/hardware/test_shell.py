import sys

import pytest

from gemma3n_perf.hardware.shell import Done, run_command


def test_what_a_command_said_is_kept() -> None:
    """Exit code and both streams."""
    done = run_command(
        (sys.executable, "-S", "-c", "import sys; print('o'); print('e', file=sys.stderr); sys.exit(3)"), 30
    )
    assert done == Done(3, "o\n", "e\n")


def test_a_command_that_is_missing_or_hangs_is_an_answer() -> None:
    """Nothing is raised: the caller knows what it means."""
    assert run_command(("/no/such/command",), 5).code == 127
    hung = run_command((sys.executable, "-S", "-c", "import time; time.sleep(30)"), 0.2)
    assert (hung.code, "did not end within" in hung.err) == (124, True)


def test_gits_own_variables_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook points them at another repository."""
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    done = run_command((sys.executable, "-S", "-c", "import os; print(os.environ.get('GIT_DIR'))"), 30)
    assert done.out == "None\n"


def test_last_words_are_the_last_lines() -> None:
    """Of standard error, else of the output, else the exit code."""
    assert Done(1, "out", "a\nb\n\nc\nd\n").last_output == "b c d"
    assert Done(1, "out\n", "").last_output == "out"
    assert Done(9, "", "").last_output == "exit code 9"
