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
    """Answers every command with one text, and a question for help with ``help_text``."""

    def __init__(self, out: str, code: int = 0, err: str = "", help_text: str = "      --ignore-eos\n") -> None:
        self.done, self.asked, self.help_text = Done(code, out, err), list[Sequence[str]](), help_text

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Done:
        """Note what was asked."""
        if argv[-1] == "--help":
            return Done(0, self.help_text, "")
        self.asked.append(argv)
        return self.done


def engine(shell: Shell, architecture: str | None = None, **environ: str) -> mlxcel.Mlxcel:
    """Return an engine whose program is found."""
    made = mlxcel.Mlxcel(
        Path("/checkpoint"), shell,
        which=lambda name: f"/bin/{name}", environ=environ, architecture=lambda: architecture,
    )  # fmt: skip
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
    assert engine(shell).tpot_s(320, 64) == pytest.approx(0.77016 / 63)
    asked = " ".join(shell.asked[0])
    assert asked.startswith("/bin/mlxcel-bench-decode -m /checkpoint")
    for flag in ("-n 64", "--prompt-tokens 320", "--ignore-eos", "--no-chat-template", "--warmup-tokens 20"):
        assert flag in asked


def test_eos_is_ignored_only_where_the_version_knows_how() -> None:
    """An older one ends with a usage error for an option that it does not know."""
    shell = Shell(REPORT, help_text="      --warmup-tokens <N>\n")
    engine(shell).tpot_s(320, 64)
    assert "--ignore-eos" not in shell.asked[0]


@pytest.mark.parametrize(
    ("architecture", "environ", "ops"),
    [
        ("applegpu_g13d", {}, "50"),
        ("applegpu_g16s", {}, "50"),
        ("applegpu_g16g", {}, "40"),
        ("applegpu_g17p", {}, "20"),
        ("applegpu_g13d", {"MLX_MAX_OPS_PER_BUFFER": "1000"}, "1000"),
        (None, {"MLX_MAX_OPS_PER_BUFFER": "7"}, "7"),
    ],
)
def test_both_have_the_same_operations_a_buffer(architecture: str | None, environ: dict[str, str], ops: str) -> None:
    """mlxcel raises MLX's own number on some chips; it is given what MLX has in this process, and the row says so."""
    shell = Shell(REPORT)
    made = engine(shell, architecture, **environ)
    made.tpot_s(320, 64)
    assert list(shell.asked[0][:3]) == ["env", f"MLX_MAX_OPS_PER_BUFFER={ops}", "/bin/mlxcel-bench-decode"]
    assert f"MLX_MAX_OPS_PER_BUFFER={ops}" in str(made.note)


def test_where_there_is_no_metal_nothing_is_set() -> None:
    """MLX's CPU backend has no buffers, and CUDA's numbers are its own."""
    shell = Shell(REPORT)
    engine(shell, "sm_90").tpot_s(320, 64)
    assert shell.asked[0][0] == "/bin/mlxcel-bench-decode"


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
