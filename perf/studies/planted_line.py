"""Whether ``bisect`` names every planted step: ``python -m studies.planted_line``, from perf/, on a quiet machine.

Six commits in a scratch clone of this checkout's HEAD, of which the third and the fifth slow every run by a spin; then
the command itself, over all of them. It prints what that says, and how far each share is from what was planted.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.store.files import SHORT_COMMIT
from studies import carry_out

PLANTED = {"C": -0.08, "E": -0.03}
"""Effects on throughput, by commit, of A to F."""

WORKER, REQUESTED = "perf/gemma3n_perf/duel/worker.py", "self._guard.check, request.planted,"
_NEAR = 0.015
_CHANGED = re.compile(r"^ref:([0-9a-f]+) (?:probably )?changed it: ([+-][\d.]+) %", re.MULTILINE)


def line(clone: Path) -> dict[str, str]:
    """Make the commits in ``clone``; returns their ids by letter. Raises UsageError."""
    repository, made, factor = Repository(clone), dict[str, str](), 1.0
    source = (clone / WORKER).read_text(encoding="utf-8")
    if REQUESTED not in source:
        raise UsageError(f"{WORKER} has no {REQUESTED!r}", expected="the place where a slowdown is planted")
    for letter in "ABCDEF":
        factor /= 1 + PLANTED.get(letter, 0.0)
        slowed = REQUESTED.replace("request.planted", f"(1 + request.planted) * {factor!r} - 1")
        (clone / WORKER).write_text(source.replace(REQUESTED, slowed) + f"\n# {letter}\n", encoding="utf-8")
        who = ("-c", "user.name=study", "-c", "user.email=study@localhost")
        done = repository.git(*who, "commit", "--quiet", "--all", "--message", letter)
        done.checked(UsageError, "git commit failed", expected="a clone that can be written")
        made[letter] = repository.commit() or ""
    return made


def main(argv: Sequence[str], out: TextIO) -> int:
    """Plant, search, and say how near it came; returns 0 where both steps were named near enough, and no other."""
    parser = argparse.ArgumentParser(prog="python -m studies.planted_line", description=__doc__)
    parser.add_argument("--budget", default="60", metavar="SECONDS", help="of each duel (default 60)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "line")
        checkout = in_checkout("perf").resolve().parent
        done = Repository(checkout).git("clone", "--quiet", str(checkout), str(clone))
        done.checked(UsageError, f"{checkout} cannot be cloned", expected="a checkout with a commit")
        made = line(clone)
        ends = (f"ref:{made['A']}", f"ref:{made['F']}")
        command = ("env", f"PYTHONPATH={clone / 'perf'}", sys.executable, "-m", "gemma3n_perf", "bisect", *ends)
        argv = [*command, "--budget", args.budget]
        # Python looks into the working directory first: from perf/ it would run this checkout's suite.
        said = subprocess.run(argv, cwd=clone, stdout=subprocess.PIPE, text=True, check=False).stdout
    out.write(said)
    found = {commit: float(value) / 100 for commit, value in _CHANGED.findall(said)}
    expected = {made[letter][:SHORT_COMMIT]: effect for letter, effect in PLANTED.items()}
    for commit, effect in expected.items():
        off = f"off by {100 * (found[commit] - effect):+.2f} points" if commit in found else "not named"
        out.write(f"planted {100 * effect:+g} %: {off}\n")
    near = all(abs(found.get(commit, 1.0) - effect) <= _NEAR for commit, effect in expected.items())
    return 0 if near and found.keys() == expected.keys() else 1


if __name__ == "__main__":
    sys.exit(carry_out(main))
