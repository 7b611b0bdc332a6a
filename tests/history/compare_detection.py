"""asv's detection, ours and Apache Otava's on the same invented series: the table of docs/history.md.

Run ``python -m tests.history.compare_detection``; with ``--otava PYTHON``, an interpreter of an environment that holds
apache-otava, its columns are there too.
"""

import argparse
import json
import math
import random
import subprocess
from collections.abc import Callable, Sequence

from asv.step_detect import detect_steps

from gemma3n_perf.history.series import changes

SERIES, POINTS, FLOOR = 200, 30, 0.005
SCATTERS = (0.005, 0.01, 0.02, 0.03)
CHANGES = {"none": 1.0, "5 % slower": 1.05, "2 % slower": 1.02}
Detect = Callable[[Sequence[Sequence[float]]], list[list[int]]]
_OTAVA = """
import json, sys
from otava.analysis import compute_change_points
rules = {"window_len": 50, "max_pvalue": 0.001, "min_magnitude": 0.005}
found = [compute_change_points(one, **rules) for one in json.load(sys.stdin)]
print(json.dumps([[int(point.index) for point in one[0]] for one in found]))
"""


def series(change: str, scatter: float) -> list[list[float]]:
    """Return seconds per token of 30 commits, changed at the middle, in normal scatter."""
    made = []
    for seed in range(SERIES):
        rng = random.Random(f"{change} {scatter} {seed}")
        factors = [CHANGES[change] if place >= POINTS // 2 else 1.0 for place in range(POINTS)]
        made.append([0.02 * factor * math.exp(rng.gauss(0, scatter)) for factor in factors])
    return made


def by_asv(listed: Sequence[Sequence[float]]) -> list[list[int]]:
    """Return the places of asv's steps, as it finds them by itself."""
    return [[piece[0] for piece in detect_steps(list(one))[1:]] for one in listed]


def by_us(listed: Sequence[Sequence[float]]) -> list[list[int]]:
    """Return the places of our steps."""
    return [[step.after for step in changes(one, floor=FLOOR)] for one in listed]


def by_otava(python: str) -> Detect:
    """Return Otava in another interpreter."""

    def detect(listed: Sequence[Sequence[float]]) -> list[list[int]]:
        done = subprocess.run(
            [python, "-c", _OTAVA], input=json.dumps(listed), capture_output=True, text=True, check=True
        )
        found: list[list[int]] = json.loads(done.stdout)
        return found

    return detect


def table(detectors: dict[str, Detect]) -> str:
    """Return the comparison as a Markdown table."""
    heads = [f"{name}: {what}" for name in detectors for what in ("found", "there")]
    lines = [f"| change | scatter | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * len(heads)}"]
    for change in CHANGES:
        for scatter in SCATTERS:
            listed, cells = series(change, scatter), list[str]()
            for detect in detectors.values():
                found = detect(listed)
                share = sum((len(one) > 0) if change == "none" else (len(one) == 1) for one in found) / SERIES
                there = sum(one == [POINTS // 2] for one in found) / SERIES
                cells += [f"{100 * share:.1f} %", "-" if change == "none" else f"{100 * there:.0f} %"]
            lines.append(f"| {change} | {100 * scatter:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--otava", metavar="PYTHON")
    args = parser.parse_args()
    detectors: dict[str, Detect] = {"asv": by_asv, "this suite": by_us}
    if args.otava:
        detectors["Otava"] = by_otava(args.otava)
    print(table(detectors))


if __name__ == "__main__":
    main()
