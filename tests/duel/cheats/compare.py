"""A duel of cheats, in a package that holds them: prints verdict, lower end and reason of each as JSON."""

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from gemma3n_perf.duel import run
from gemma3n_perf.hardware.machine import open_machine


def main(lock: Path, root: Path, budget_s: float, memory: int, names: list[str]) -> None:
    """Compare every fusion of ``names`` with the unfused model, through the same launches, on nano.

    ``memory`` in bytes is what the machine is said to have, 0 for what it has.
    """
    vars(run).update(open_machine=partial(open_machine, lock=lock))
    with run.machine(lock.parent / "baselines", sys.stderr) as here:
        tools = replace(here.tools, faults_of=lambda conditions: ())
        chip = replace(here.chip, memory_bytes=memory) if memory else here.chip
        here = replace(here, tools=tools, root=root, chip=chip)
        arms = tuple(f"here+fusion:{name}" for name in names)
        spec = run.DuelSpec("here", arms, ("nano/text/pp40-tg64",), budget_s)
        result = run.duel(spec, here)
        found = {}
        for number, name in enumerate(names):
            (one,) = result.of(number).values()
            found[name] = (one.judgement.verdict.value, one.judgement.low, one.judgement.reason)
    os.write(1, json.dumps(found).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
