"""How often and how soon the judge is right: each promise of it as one number, from simulated launches of known truth.

``python -m studies.operating_characteristics --json``, from perf/. The launches are drawn, the judging is the project's
own: the judge's intervals on many duels at once (``studies.simulation.replay``), the judge itself on two sessions, the
noise floor. Seeds are fixed, so it repeats.
"""

import argparse
import datetime as dt
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TextIO

import numpy as np

from gemma3n_perf.bench.against import BUDGET_S
from gemma3n_perf.gate.policy import SESSION_SD
from gemma3n_perf.gate.run import GPU_BUDGETS
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, win_repeats
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor, noise_floor
from gemma3n_perf.stats.verdicts import Verdict
from studies import carry_out
from studies.simulation import Outcome, Scenario, simulate

SEED = 20
POWER = 0.95
_DAY = dt.date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Class:
    """What a chip class is simulated by. Times are seconds.

    ``launch_sd``: spread of launches of ``launch_s`` of blocks, log units. ``starts``: what a launch costs besides, by
    how it is started. ``session_s``: what a session of evidence may measure.
    """

    name: str
    launch_sd: float
    launch_s: float
    starts: dict[str, float]
    session_s: float = Policy().budget_s


CPU = Class("CPU", 0.0107, 2.9, {"fresh": 3.7 + 2.6, "forked": 1.44 + 2.6})
"""Campaign and ``starts.json`` of cpu-amd-epyc-f25m17s1-2c: seconds until ready, and 2.6 of whole runs and prompts."""

CPU_NOISY = replace(CPU, name="CPU, 1.2 %", launch_sd=0.012)
H100 = Class("H100", 0.0135, 8.0, {"fresh": 15.0}, GPU_BUDGETS * Policy().budget_s)
"""Calibration of nvidia-h100-80gb-hbm3; starts took 9 to 25 s."""


@dataclass(frozen=True, slots=True)
class Line:
    """One number: ``what`` it is of, its ``value`` (a share, or seconds, or launches) and the ``most`` or ``least``
    that is asked of it, None where nothing is."""

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is what is asked."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def calibrated(launch_sd: float) -> NoiseFloor:
    """A calibration that found this spread of launches, and no floor."""
    return NoiseFloor(0.0, launch_sd, 60, 10, 0.0, _DAY)


def admitted(of: Class, truth: float, duels: int, seed: int, *, sessions: int = 2) -> tuple[float, float]:
    """Share of fusions with this true effect that win, and do so in each session; and launches, on average.

    Measured as ``pytest perf/ --fusion`` does: each session ends where all launches so far show something and a win is
    one of every session, or with its share of the budget.
    """
    policy, noise = Policy(session_sd=SESSION_SD), calibrated(of.launch_sd)
    budget_s = sessions * of.session_s
    rng = np.random.default_rng(seed)
    won = count = 0
    for _ in range(duels):
        launches: list[LaunchEstimate] = []

        def judged(spent: bool = False, launches: list[LaunchEstimate] = launches) -> Verdict:
            return judge(launches, policy, budget_s=budget_s, noise=noise, budget_spent=spent).verdict

        for session in range(sessions):
            offset = math.log1p(truth) + SESSION_SD * rng.standard_normal()
            own = 0
            while own < policy.min_launches or len(launches) * of.launch_s < budget_s * (session + 1) / sessions - 1e-9:
                found = judged() if own >= policy.min_launches else Verdict.INCONCLUSIVE
                if found.decided and (found is not Verdict.WIN or win_repeats(launches, policy, noise)):
                    break
                value = offset + of.launch_sd * rng.standard_normal()
                launches.append(LaunchEstimate(value, of.launch_s, None, session))
                own += 1
        won += judged(len(launches) * of.launch_s >= budget_s) is Verdict.WIN and win_repeats(launches, policy, noise)
        count += len(launches)
    return won / duels, count / duels


def budget_for(of: Class, truth: float, duels: int, seed: int) -> tuple[int, Outcome]:
    """Fewest launches of a budget that shows this effect with 95 % power, and how duels of it come out."""
    for launches in range(4, 60):
        scenario = Scenario(
            effect=truth, launch_sd=of.launch_sd, calibration="right", launch_s=of.launch_s,
            budget_s=launches * of.launch_s,
        )  # fmt: skip
        found = simulate(scenario, duels, seed)
        if found.right(truth) >= POWER:
            return launches, found
    raise ValueError(f"no budget shows {truth:+.1%} on {of.name}")


def unchanged(launch_sd: float, budget: int, workloads: int, duels: int, seed: int) -> tuple[float, float]:
    """Share of A/A sessions of so many workloads that end in no-change for all, and launches until all are settled."""
    scenario = Scenario(launch_sd=launch_sd, calibration="right", launch_s=1.0, budget_s=float(budget))
    policy = Policy(shares=workloads)
    found = [simulate(scenario, duels, seed + number, policy) for number in range(workloads)]
    every = float(np.prod([one.no_change for one in found]))
    return every, float(np.mean(np.max([one.seconds for one in found], axis=0)))


def floors(launch_sd: float, duels: int, seed: int) -> float:
    """Share of calibrations by 6 A/A duels of 8 launches, of sessions that do not differ, that find more than 0.5 %."""
    rng = np.random.default_rng(seed)
    found = [noise_floor((launch_sd * rng.standard_normal((6, 8))).tolist(), _DAY).effect for _ in range(duels)]
    return float(np.mean(np.array(found) > 0.005))


def lines(duels: int) -> Iterator[Line]:
    """Every number; ``duels`` is how many each is of, a tenth where each launch is judged by itself."""
    few = max(duels // 10, 20)
    for of in (CPU_NOISY, CPU, H100):
        for truth, least, most in ((0.02, 0.95, None), (0.005, None, 0.01), (0.0, None, 0.0)):
            share, launches = admitted(of, truth, few, SEED)
            yield Line(f"{of.name}: a true {truth:+.1%} admitted by the gate", share, "share", least, most)
            if least:
                yield Line(f"{of.name}: launches of that, both sessions", launches, "launches")
    targets = {("CPU", "fresh"): (60.0, 40.0), ("CPU", "forked"): (40.0, 25.0), ("H100", "fresh"): (220.0, 170.0)}
    for of in (CPU, H100):
        launches, found = budget_for(of, 0.02, duels, SEED)
        for start, start_s in of.starts.items():
            budget_s, mean_s = targets[of.name, start]
            wall = (of.launch_s + start_s) / of.launch_s
            yield Line(f"{of.name}, {start}: wall time that shows 2 % with 95 % power", launches * of.launch_s * wall,
                       "s", most=budget_s)  # fmt: skip
            yield Line(f"{of.name}, {start}: mean of it", found.mean_s * wall, "s", most=mean_s)
    for noise, most in (("gaussian", 0.01), ("skewed", 0.02), ("ar0.3", 0.02)):
        worst = max(
            simulate(Scenario(truth, noise=noise, budget_s=180.0, calibration=calibration), duels, SEED).no_change
            for truth in (0.01, -0.01)
            for calibration in ("none", "right", "half")
        )
        yield Line(f"false no-change at a true +-1 %, {noise}", worst, "share", most=most)
    for calibration in ("none", "right", "half"):
        worst = max(
            simulate(Scenario(0.005, sd, calibration=calibration, budget_s=budget_s), duels, SEED).win
            for sd in (0.007, 0.012)
            for budget_s in (60.0, 180.0)
        )
        yield Line(f"false win at exactly 0.5 %, calibration {calibration}", worst, "share", most=0.01)
    walked = simulate(Scenario(launch_sd=0.006, noise="walk", budget_s=180.0, within=0.0), duels, SEED)
    yield Line("random walk of 0.6 % a launch, A/A, called changed", walked.win + walked.loss, "share", most=0.02)
    yield Line("noise floor above 0.5 % where there is none", floors(0.012, few, SEED), "share", most=0.05)
    for budget in (20, int(BUDGET_S / CPU.launch_s)):
        for workloads in (1, 3):
            share, launches = unchanged(CPU.launch_sd, budget, workloads, duels, SEED)
            what = f"{workloads} unchanged workload(s) at 1.0 %, at most {budget} launches"
            yield Line(f"{what}: no-change for all", share, "share")
            yield Line(f"{what}: launches until settled", launches, "launches")


def main(arguments: Sequence[str], out: TextIO) -> int:
    """Print every number beside what is asked of it."""
    parser = argparse.ArgumentParser(prog="python -m studies.operating_characteristics", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--duels", type=int, default=7_000, help="simulated duels of a number (default 7000)")
    args = parser.parse_args(arguments)
    found = list(lines(args.duels))
    if args.json:
        json.dump([{**asdict(one), "kept": one.kept} for one in found], out, indent=1)
        out.write("\n")
        return 0
    for one in found:
        shown = f"{100 * one.value:.2f} %" if one.unit == "share" else f"{one.value:.1f} {one.unit}"
        bound, scale = (">=", one.least) if one.least is not None else ("<=", one.most)
        times, unit = (100, "%") if one.unit == "share" else (1, one.unit)
        target = "" if scale is None else f"  asked {bound} {times * scale:g} {unit}"
        out.write(f"{one.what:70} {shown:>14}{target}{'' if one.kept else '  NOT KEPT'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
