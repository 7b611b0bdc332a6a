"""An invented history, to try asv, the import and the site at scale. Every name in it says that it is invented.

Invented numbers must never be mistaken for measured ones, so its machines, its vendor and its sessions are called
synthetic, and it lives in a folder of its own.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.publishing import asv_configuration
from gemma3n_perf.history.results import ResultFile, value_of
from gemma3n_perf.store.session_file import KEY
from studies import carry_out

_FIRST_DAY = 1_700_000_000
_RUNS = 5


def generate(folder: Path, commits: int, classes: int, workloads: int, seed: int = 1) -> int:
    """Write a repository and asv results of ``commits`` x ``classes`` x ``workloads``; returns the result files.

    Raises UsageError where the folder exists. A tenth of the series has one step of 5 %, half of those a speed-up.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists", expected="a new folder")
    names = [f"synthetic/text/pp{40 + one}-tg64" for one in range(workloads)]
    hashes = repository(folder / "repository", commits)
    results, rng = folder / "results", random.Random(seed)
    files, machines = list[ResultFile](), list[dict[str, str]]()
    for number in range(1, classes + 1):
        machine = f"synthetic-{number}"
        axes = {"machine": machine, "chip_class": machine, "vendor": "synthetic", "gpu_cores": "none", "memory": "1 GB"}
        machines.append(axes)
        steps = {name: (rng.randrange(commits), rng.choice((0.95, 1.05))) for name in names if rng.random() < 0.1}
        for place, commit in enumerate(hashes):
            times = {}
            for one, name in enumerate(names):
                at, factor = steps.get(name, (commits, 1.0))
                level = 0.01 * number * (1 + one / 10) * (factor if place >= at else 1.0)
                times[name] = value_of([[level * rng.lognormvariate(0, 0.01) for _ in range(_RUNS)]])
            files.append(ResultFile(machine, commit, (_FIRST_DAY + place) * 1000, axes, times))
    asv_files.write(results, files, machines)
    (folder / "asv.conf.json").write_bytes(
        asv_configuration("synthetic history", folder / "repository", ["main"], results, folder / "html")
    )
    return len(files)


def repository(path: Path, commits: int) -> list[str]:
    """Make a bare repository of empty commits on ``main``; returns their hashes, oldest first."""
    stream = []
    for place in range(commits):
        stamp = _FIRST_DAY + place
        message = f"synthetic commit {place}\n"
        stream.append(
            f"commit refs/heads/main\nmark :{place + 1}\nauthor s <s@localhost> {stamp} +0000\n"
            f"committer s <s@localhost> {stamp} +0000\ndata {len(message)}\n{message}"
        )
        if place:
            stream.append(f"from :{place}\n")
    for argv, text in (
        (["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], ""),
        (["git", "-C", str(path), "fast-import", "--quiet"], "\n".join(stream)),
    ):
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasuredError(f"git failed: {done.stderr.strip()}", expected="git 2.28 or later")
    listed = ["git", "-C", str(path), "rev-list", "--reverse", "main"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def sessions(like: Path, folder: Path, hashes: Sequence[str], each: int) -> int:
    """Write ``each`` session files per commit, patterned on the recorded one in ``like``; returns how many."""
    document = json.loads(like.read_bytes())
    chip_class = document["machine_info"][KEY]["chip"]["chip_class"]
    target = folder / chip_class
    target.mkdir(parents=True)
    for number in range(len(hashes) * each):
        commit = hashes[number // each]
        document["machine_info"][KEY]["session"] = f"synthetic-{number}"
        document["machine_info"][KEY]["stack"] |= {"commit": commit, "dirty": False}
        document["commit_info"] = {"id": commit, "dirty": False}
        (target / f"{number:06}_{commit[:12]}.json").write_bytes(json.dumps(document).encode())
    return len(hashes) * each


def main(argv: Sequence[str], out: TextIO) -> int:
    """Write an invented history and say how asv publishes it. Raises UsageError where the folder exists."""
    parser = argparse.ArgumentParser(prog="python -m studies.synthetic_history", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder for its repository and results")
    parser.add_argument("--commits", type=int, default=1000, metavar="N")
    parser.add_argument("--classes", type=int, default=6, metavar="N")
    parser.add_argument("--workloads", type=int, default=12, metavar="N")
    args = parser.parse_args(argv)
    made = generate(args.folder, args.commits, args.classes, args.workloads)
    out.write(f"{args.folder}: invented: {made} result files; asv publish --config {args.folder}/asv.conf.json\n")
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
