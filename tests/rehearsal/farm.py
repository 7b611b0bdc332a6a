"""A farm of one's own, step by step: a fresh fork, one recorded Mac, its first baseline, its gate, its site.

Opinion: the fork's commands and workflow steps are the real ones. Only what the Mac would measure is planted: its
sessions are synthetic, and the rehearsal says so.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.bench.recording import Recorder
from gemma3n_perf.cli import init
from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.hardware.chip import detect
from tests.fakes import STACK, write_session
from tests.hardware.replay import recorded
from tests.rehearsal import github
from tests.rehearsal.github import Clone
from tests.rehearsal.steps import carry_out, read_steps

MAC = "m1-ultra-64"
NIGHTLY = Path(".github/workflows/nightly.yml")


def founded(source: Path, folder: Path, api: str, out: TextIO) -> Clone:
    """Return a fork of ``source`` whose one machine is a recorded Mac, with its first baseline.

    Raises NotMeasuredError where the workflow would queue or wait for anything but that Mac.
    """
    fork, mac = Clone.of(source, folder / "fork"), detect(recorded(MAC))
    name, baselines = mac.chip_class, fork.root / "baselines"
    commit = fork.git("rev-parse", "HEAD").strip()
    stack, data = replace(STACK, commit=commit), folder / "data"

    def measured(command: Sequence[str]) -> int:
        sessions = data / "sessions" / name
        write_session(sessions, len(list(sessions.glob("*"))) + 1, chip=mac, stack=stack)
        return 0

    out.write("$ gemma3n-perf init --park\n")
    init.carry_out(mac, stack, baselines, out, Recorder(measured, Path("perf"), data), park=True)
    fork.save(f"measure {name}")
    policy = read_policy(baselines / POLICY_FILE)
    queued = [one["class"] for one in _matrix(fork.root, folder, api)["include"]]
    if queued != [name] or policy.required != (name,):
        raise NotMeasuredError(f"the fork queues {queued} and requires {policy.required}", expected=f"{name} alone")
    out.write(f"nightly would queue: {', '.join(queued)}\n")
    return fork


def site(fork: Clone, folder: Path) -> str:
    """Build the fork's site by its own command, and say where the Mac is. Raises NotMeasuredError where it is not."""
    github.installed(fork.root)
    name, built = detect(recorded(MAC)).chip_class, folder / "site"
    argv = [str(fork.root / ".venv/bin/gemma3n-perf"), "site", "--out", str(built)]
    done = subprocess.run(argv, cwd=fork.root, capture_output=True, text=True, check=False)
    pages = [path.name for path in built.glob("*.html") if name in path.read_text()]
    if done.returncode or not pages:
        raise NotMeasuredError(f"the site has no {name}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return f"site: {name} is on {', '.join(sorted(pages))}\n"


def _matrix(root: Path, folder: Path, api: str) -> dict[str, list[dict[str, str]]]:
    at = folder / "nightly"
    at.mkdir()
    ended = carry_out(read_steps(root / NIGHTLY, "classes")["Read the policy"], root, {}, github.variables(at, api))
    if ended.code:
        raise NotMeasuredError(f"the policy cannot be read: {ended.said}")
    line = (at / "outputs").read_text().strip()
    found: dict[str, list[dict[str, str]]] = json.loads(line.removeprefix("matrix="))
    return found
