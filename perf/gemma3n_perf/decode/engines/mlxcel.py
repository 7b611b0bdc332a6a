"""mlxcel's ``mlxcel-bench-decode``, where it is on the PATH: it times itself, and its report is read.

Its flags and report as its repository documents them (lablup/mlxcel, scripts/bench_decode.sh): a line
``Decode: 1203.20 ms (83.11 tok/s)`` and counts of prompt and generated tokens. It takes text, so its prompt is of its
own making, of the length asked for.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError, InvalidError, WorkerFailedError
from gemma3n_perf.hardware.shell import Run

PROGRAM = "mlxcel-bench-decode"
WARM_TOKENS = 20
TIMEOUT_S = 900.0
_DECODE = re.compile(r"Decode:\s*([0-9.]+) ms.*?\(([0-9.]+) tok/s\)")
_GENERATED = re.compile(r"Generated tokens:\s*([0-9]+)")
_PROMPT = re.compile(r"Prompt tokens:\s*([0-9]+)")


@dataclass(frozen=True, slots=True)
class Report:
    """One run: tokens of the prompt and generated, milliseconds of decode as reported in seconds, and tok/s."""

    prompt_tokens: int
    generated_tokens: int
    decode_s: float
    tokps: float


def parse(text: str) -> Report:
    """Read the program's report. Raises InvalidError where a figure is missing or two of them disagree."""
    decode, generated, prompt = _DECODE.search(text), _GENERATED.search(text), _PROMPT.search(text)
    if decode is None or generated is None or prompt is None:
        raise InvalidError(
            f"the report of {PROGRAM} is not understood: {' '.join(text.split())[-200:] or 'nothing was printed'}",
            expected="lines with Prompt tokens, Generated tokens and Decode: N ms (M tok/s)",
        )
    found = Report(int(prompt[1]), int(generated[1]), float(decode[1]) / 1e3, float(decode[2]))
    counted = found.tokps * found.decode_s
    if found.generated_tokens < 2 or abs(counted - found.generated_tokens) > 1.6:
        raise InvalidError(
            f"{PROGRAM} reports {found.generated_tokens} tokens, but {found.tokps} tok/s for {found.decode_s:.3f} s",
            expected="figures that agree within a token",
        )
    return found


class Mlxcel:
    """The program on one checkpoint folder. ``which`` finds it, ``run`` runs it for at most so many seconds."""

    name = "mlxcel"
    version: str | None = None

    def __init__(self, path: Path, run: Run, *, which: Callable[[str], str | None] = shutil.which) -> None:
        self._path = path
        self._run = run
        self._which = which
        self._program = PROGRAM
        self.note: str | None = "its own prompt of the same length, and its own clock"

    def load(self) -> None:
        """Find the program. Raises ArmUnavailableError where it is not on the PATH."""
        program = self._which(PROGRAM)
        if program is None:
            raise ArmUnavailableError(f"{PROGRAM} is not on the PATH", expected="a built mlxcel, or no such line")
        self._program = program

    def tpot_s(self, prompt_tokens: int, count: int) -> float:
        """Run it once; seconds per token. Raises WorkerFailedError with its last words, InvalidError."""
        done = self._run(
            (
                self._program, "-m", str(self._path), "-p", "x", "-n", str(count), "--warmup-tokens", str(WARM_TOKENS),
                "--ignore-eos", "--no-chat-template", "--prompt-tokens", str(prompt_tokens),
            ),
            TIMEOUT_S,
        )  # fmt: skip
        if done.code != 0:
            raise WorkerFailedError(f"{PROGRAM} ended with {done.code}: {done.last_output}")
        found = parse(done.out)
        if found.generated_tokens != count:
            raise InvalidError(
                f"{PROGRAM} decoded {found.generated_tokens} tokens, not {count}", expected="a fixed count, EOS ignored"
            )
        return 1 / found.tokps
