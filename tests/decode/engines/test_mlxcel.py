"""mlxcel-bench-decode: its flags and its report.

REPORT is not a recording: mlxcel has not run here. It is written after the form that the project's own script parses
(lablup/mlxcel, scripts/bench_decode.sh, ``parse_profile``).
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gemma3n_perf.decode.engines import mlxcel
from gemma3n_perf.errors import ArmUnavailableError, InvalidError, WorkerFailedError
from gemma3n_perf.hardware.shell import Done

REPORT = """\
[Profile Results]
  Prompt tokens: 320
  Generated tokens: 64
  Prefill: 654.32 ms (489.1 tok/s)
  Decode: 770.16 ms (83.10 tok/s)
"""


class Shell:
    """Answers every command with one text."""

    def __init__(self, out: str, code: int = 0, err: str = "") -> None:
        self.done, self.asked = Done(code, out, err), list[Sequence[str]]()

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Done:
        """Note what was asked."""
        self.asked.append(argv)
        return self.done


def engine(shell: Shell) -> mlxcel.Mlxcel:
    """Return an engine whose program is found."""
    made = mlxcel.Mlxcel(Path("/checkpoint"), shell, which=lambda name: f"/bin/{name}")
    made.load()
    return made


def test_the_report_is_read() -> None:
    """Tokens, seconds and throughput of the decode, not of the prefill."""
    found = mlxcel.parse(REPORT)
    assert (found.prompt_tokens, found.generated_tokens, found.tokps) == (320, 64, 83.10)
    assert found.decode_s == pytest.approx(0.77016)


def test_it_is_run_raw_for_a_fixed_count() -> None:
    """No chat template, EOS ignored, a prompt of the length asked for, a warm-up."""
    shell = Shell(REPORT)
    assert engine(shell).tpot_s(320, 64) == pytest.approx(1 / 83.10)
    asked = " ".join(shell.asked[0])
    assert asked.startswith("/bin/mlxcel-bench-decode -m /checkpoint")
    for flag in ("-n 64", "--prompt-tokens 320", "--ignore-eos", "--no-chat-template", "--warmup-tokens 20"):
        assert flag in asked


def test_a_program_that_is_not_there_says_so() -> None:
    """It is looked for on the PATH, once asked for."""
    with pytest.raises(ArmUnavailableError, match="not on the PATH"):
        mlxcel.Mlxcel(Path("/checkpoint"), Shell(""), which=lambda name: None).load()


def test_a_program_that_fails_gives_its_last_words() -> None:
    """As for a checkpoint without a tokenizer."""
    with pytest.raises(WorkerFailedError, match="failed to load model"):
        engine(Shell("", 1, "Error: failed to load model")).tpot_s(320, 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        REPORT.replace("Decode", "Decoded"),
        REPORT.replace("83.10", "183.10"),
        REPORT.replace("Generated tokens: 64", "Generated tokens: 31"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(text: str) -> None:
    """A figure that its own seconds do not bear out is no measurement."""
    with pytest.raises(InvalidError):
        mlxcel.parse(text)


def test_another_count_than_asked_for_is_refused() -> None:
    """It stopped at EOS."""
    with pytest.raises(InvalidError, match="64 tokens, not 128"):
        engine(Shell(REPORT)).tpot_s(320, 128)
