"""mlxcel's ``mlxcel-bench-decode``, where it is on the PATH: it times itself, and its report is read.

Its flags and report as its repository documents them (lablup/mlxcel, src/bin/bench_decode.rs and
scripts/bench_decode.sh): a line ``Decode: 1203.20 ms (83.11 tok/s)`` and counts of prompt and generated tokens. It
takes text, so its prompt is of its own making, of the length asked for.

The first token comes of the prefill, so n tokens take n - 1 decode steps, as this suite counts. On Apple chips without
neural accelerators it sets MLX_MAX_OPS_PER_BUFFER to 1,000 unless that is given, so it is given what MLX has here.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError, InvalidError, WorkerFailedError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.hardware.system import this_machine

PROGRAM = "mlxcel-bench-decode"
WARM_TOKENS = 20
TIMEOUT_S = 900.0
HELP_TIMEOUT_S = 60.0
OPS = "MLX_MAX_OPS_PER_BUFFER"
_OPS_OF = {"p": 20, "s": 50, "d": 50}
"""MLX's own number of operations, by the last letter of the GPU's architecture; 40 for others (Device::Device in
mlx/backend/metal/device.cpp)."""

_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
_DECODE = re.compile(rf"Decode:\s*{_NUMBER} ms.*?\({_NUMBER} tok/s\)")
_GENERATED = re.compile(r"Generated tokens:\s*([0-9]{1,9})")
_PROMPT = re.compile(r"Prompt tokens:\s*([0-9]{1,9})")


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

    def __init__(
        self,
        path: Path,
        run: Run,
        *,
        which: Callable[[str], str | None] = shutil.which,
        environ: Mapping[str, str] = os.environ,
        architecture: Callable[[], str | None] = lambda: this_machine().accelerator().architecture,
    ) -> None:
        self._path = path
        self._run = run
        self._which = which
        self._environ = environ
        self._architecture = architecture
        self._command: tuple[str, ...] = ()
        self._ignores_eos = False
        self.note: str | None = "its own prompt of the same length, and its own clock"

    def load(self) -> None:
        """Find the program. Raises ArmUnavailableError where it is not on the PATH."""
        program = self._which(PROGRAM)
        if program is None:
            raise ArmUnavailableError(f"{PROGRAM} is not on the PATH", expected="a built mlxcel, or no such line")
        ops = self._environ.get(OPS)
        architecture = self._architecture() or ""
        if ops is None and architecture.startswith("applegpu"):
            ops = str(_OPS_OF.get(architecture[-1], 40))
        self._command = ("env", f"{OPS}={ops}", program) if ops else (program,)
        # Older versions know neither this nor another way to go on after EOS.
        self._ignores_eos = "--ignore-eos" in self._run((*self._command, "--help"), HELP_TIMEOUT_S).out
        self.note = f"its own prompt of the same length, and its own clock{f', {OPS}={ops}' if ops else ''}"

    def tpot_s(self, prompt_tokens: int, count: int) -> float:
        """Run it once; seconds per token. Raises WorkerFailedError with its last words, InvalidError."""
        done = self._run(
            (
                *self._command, "-m", str(self._path), "-p", "x", "-n", str(count), "--warmup-tokens", str(WARM_TOKENS),
                *(("--ignore-eos",) if self._ignores_eos else ()),
                "--no-chat-template", "--prompt-tokens", str(prompt_tokens),
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
        return found.decode_s / (found.generated_tokens - 1)
