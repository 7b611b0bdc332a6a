"""Checks of fusions in processes of their own, several at a time where the machine has room.

Opinion: a fusion may also end the process that it runs in, or hang it, and that is an answer like any other. Nothing is
timed meanwhile, so the whole machine may work.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gemma3n_perf.duel.processes import error_class, last_output
from gemma3n_perf.duel.worker import Failed, failed
from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate.facts import Checked
from gemma3n_perf.gate.session import CheckSpec
from gemma3n_perf.hardware.types import Chip

LIMIT_S = 900.0
"""Seconds after which a fusion counts as hung."""

CORES_EACH, BYTES_EACH = 3, 16e9
"""What a process is given: comparing outputs holds a model, its twins in float32, and the driver's own."""


class Task(msgspec.Struct, frozen=True):
    """What one process is to check: a fusion on the checkpoint of a workload."""

    chip: Chip
    root: str
    name: str
    enabled: bool
    workload: str
    sources: dict[str, str] = {}


class CheckResult(msgspec.Struct, frozen=True):
    """What was found of the fusion, or the named error that kept it from being checked."""

    checked: Checked | None = None
    error: Failed | None = None


@dataclass(frozen=True, slots=True)
class CheckProcesses:
    """Checks fusions on this machine; ``root`` holds the forged checkpoints."""

    chip: Chip
    root: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None
    argv: tuple[str, ...] = (sys.executable, "-P", "-m", "gemma3n_perf.gate.check_processes")
    limit_s: float = LIMIT_S

    def __call__(self, wanted: Sequence[CheckSpec]) -> list[Checked]:
        """Check each fusion on each workload's checkpoint; answers in the order of ``wanted``.

        Raises what loading a checkpoint raises.
        """
        jobs = min(at_once(self.chip, os.cpu_count() or 1), len(wanted))
        self.note(f"graph, outputs and memory: {len(wanted)} checks, {jobs} at a time")
        with ThreadPoolExecutor(jobs) as pool:
            running = [pool.submit(self._checked, one) for one in wanted]
            for number, done in enumerate(as_completed(running), start=1):
                one = wanted[running.index(done)]
                self.note(f"{one.fusion} checked on {one.workload.split('/')[0]}, {number} of {len(wanted)}")
        return [done.result() for done in running]

    def _checked(self, wanted: CheckSpec) -> Checked:
        task = Task(self.chip, str(self.root), wanted.fusion, wanted.enabled, wanted.workload, dict(self.sources))
        try:
            done = subprocess.run(
                self.argv, input=msgspec.json.encode(task), capture_output=True, timeout=self.limit_s, check=False,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(_paths()), "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _failed(task, f"checking it did not end within {self.limit_s:g} s")
        try:
            if done.returncode == 0:
                return _told(msgspec.json.decode(done.stdout, type=CheckResult))
        except msgspec.MsgspecError as error:
            return _failed(task, f"checking it answered what is no record: {error}")
        how = (
            f"ended its process with {signal.Signals(-done.returncode).name}"
            if done.returncode < 0
            else f"ended its process with exit code {done.returncode}"
        )
        words = " | ".join(done.stderr.decode(errors="replace").split("\n")).strip(" |")
        return _failed(task, f"checking it {how}{last_output(words)}")


def at_once(chip: Chip, cores: int) -> int:
    """How many processes the machine has room for."""
    room = int((chip.memory_bytes or 0) // BYTES_EACH)
    return max(1, min(cores // CORES_EACH, room))


def _paths() -> list[str]:
    package = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH", "")
    return [package, inherited] if inherited else [package]


def _told(answer: CheckResult) -> Checked:
    """What was found; where the checkpoint was at fault, and no fusion, that is raised."""
    if answer.error is not None:
        raise error_class(answer.error.kind)(
            answer.error.found, expected=answer.error.expected, remedy=answer.error.remedy
        )
    if answer.checked is None:
        raise msgspec.ValidationError("neither a finding nor an error")
    return answer.checked


def _failed(task: Task, failure: str) -> Checked:
    return Checked(task.workload.split("/")[0], failure=failure)


def main() -> None:
    """Check what standard input names, and answer on standard output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from gemma3n_perf.gate.checks import Checks
    from gemma3n_perf.gate.run import outputs

    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    checks = Checks(task.chip, Path(task.root), outputs, sources=task.sources)
    try:
        answer = CheckResult(checks([CheckSpec(task.name, task.enabled, task.workload)])[0])
    except PerfError as error:
        answer = CheckResult(error=failed(error))
    answers.write(msgspec.json.encode(answer))
    answers.close()


if __name__ == "__main__":
    main()
