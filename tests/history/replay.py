"""Histories made of recorded runs: what two chip classes' noise looks like, drawn again for every commit of a scratch
repository, with or without a change planted."""

import math
import random
import statistics
import subprocess
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.session_file import encode
from gemma3n_perf.store.types import Baseline
from tests.fakes import CHIP, STACK, document, measurement

ROOT = Path(__file__).resolve().parents[2] / "baselines"
CPU, GPU = "cpu-amd-epyc-f25m1s1-2c", "nvidia-h200"
WORKLOADS = {CPU: "nano/text/pp40-tg64", GPU: "e2b-4bit/text/pp320-tg64"}
PAIRS, SESSIONS = 100, 5
QUIET_S = (0.014497, 0.014398, 0.014947, 0.014475, 0.015776)
"""Seconds per token of the five sessions of 2026-11-22 on an H200 of a quiet host, at commit 7b722752."""


@cache
def recorded(chip_class: str) -> Baseline:
    """Return a class's committed sessions."""
    return Baselines(ROOT).require(chip_class)


def chip(chip_class: str) -> Chip:
    """Return the chip of a recorded class."""
    return recorded(chip_class).chip


def repository(path: Path, commits: int) -> list[str]:
    """Make a repository of empty commits on main; returns their hashes, oldest first."""
    stream = []
    for place in range(commits):
        who = f"s <s@localhost> {1_700_000_000 + place} +0000"
        stream.append(f"commit refs/heads/main\nmark :{place + 1}\nauthor {who}\ncommitter {who}\ndata 2\nc\n")
        stream.append(f"from :{place}\n" if place else "")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    subprocess.run(["git", "-C", str(path), "fast-import", "--quiet"], input="\n".join(stream), text=True, check=True)
    listed = ["git", "-C", str(path), "rev-list", "--reverse", "main"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def noise(chip_class: str, rng: random.Random) -> list[float]:
    """Return factors on the truth of one commit's sessions, drawn from what was recorded of the class.

    A CPU's sessions drift too far for absolute numbers, so its commits are ratios, as a duel's: the median of
    neighbouring runs' ratios. A GPU's are whole sessions.
    """
    if chip_class == CPU:
        measured = recorded(chip_class).sessions_of(WORKLOADS[chip_class])
        ratios = [math.log(b.tpot_s / a.tpot_s) for one in measured for a, b in pairwise(one.runs)]
        return [math.exp(statistics.median(rng.choice((-1, 1)) * rng.choice(ratios) for _ in range(PAIRS)))]
    return [rng.choice(QUIET_S) / statistics.median(QUIET_S) for _ in range(SESSIONS)]


def write_history(baselines: Path, chip_class: str, hashes: list[str], *, at: int, factor: float, seed: int) -> None:
    """Write the sessions of every commit, time per token ``factor`` times as long from commit ``at`` on."""
    rng, number = random.Random(seed), 0
    for place, commit in enumerate(hashes):
        truth = 0.02 * (factor if place >= at else 1.0)
        for drawn in noise(chip_class, rng):
            number += 1
            one = measurement(WORKLOADS[chip_class], truth * drawn)
            write(baselines / chip_class, number, one, replace(STACK, commit=commit), chip(chip_class))


def write(folder: Path, number: int, one: Measurement, stack: Stack = STACK, on: Chip = CHIP) -> Path:
    """Write one session of one measurement as the store would."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04}_{(stack.commit or 'unversioned')[:12]}.json"
    path.write_bytes(encode(document(f"{folder.name}-{number}", one, chip=on, stack=stack)))
    return path
