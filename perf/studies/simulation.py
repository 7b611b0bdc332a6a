"""How often the judge is right, over duels whose truth is known.

A rule that nobody has tried on noise it does not expect is a guess. ``python -m
studies.simulation`` prints the table of docs/method.md; the seed is fixed, so it repeats.
"""

import argparse
import datetime as dt
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

import numpy as np

from gemma3n_perf.stats.policy import MARGIN, RARE, Policy
from gemma3n_perf.stats.sequential import tail_probabilities
from gemma3n_perf.stats.spread import (
    DEPENDENT,
    PERHAPS_DEPENDENT,
    Floats,
    NoiseFloor,
    half_widths,
    halves_differ,
    serial_inflation,
    unexcluded,
)
from studies import carry_out

NOISES = ("gaussian", "t3", "contaminated", "skewed", "ar0.3", "drift", "walk")
CALIBRATIONS = {"none": None, "right": 1.0, "half": 0.5, "double": 2.0}
_DAY = dt.date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of duel. Times are seconds.

    ``effect``: the truth, a fraction.
    ``launch_sd``: spread of a launch's number, log units. ``noise``: its shape, one of ``NOISES``.
    ``calibration``: how the class's stored spread relates to the truth, one of ``CALIBRATIONS``.
    ``within``: share of the launch variance that the blocks inside launches show.
    ``session_sd``: spread of whole duels, log units. ``floor``: the calibrated noise floor, a fraction.
    """

    effect: float = 0.0
    launch_sd: float = 0.007
    noise: str = "gaussian"
    calibration: str = "none"
    within: float = 0.4
    launch_s: float = 5.0
    budget_s: float = 60.0
    session_sd: float = 0.0
    floor: float = 0.0

    def prior(self) -> NoiseFloor | None:
        """The noise floor the judge is given."""
        scale = CALIBRATIONS[self.calibration]
        if scale is None:
            return None
        return NoiseFloor(math.log1p(self.floor), scale * self.launch_sd, 60, 10, self.floor, _DAY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares (0..1) of verdicts over duels, coverage of the reported interval, and measuring seconds, of each duel in
    ``seconds``."""

    win: float
    loss: float
    no_change: float
    inconclusive: float
    coverage: float
    seconds: Floats

    @property
    def mean_s(self) -> float:
        """Measuring time on average."""
        return float(self.seconds.mean())

    @property
    def p95_s(self) -> float:
        """Measuring time of all but one duel in twenty."""
        return float(np.quantile(self.seconds, 0.95))

    def right(self, effect: float) -> float:
        """Share of verdicts that name the true direction, or no-change where there is none."""
        return self.win if effect > 0 else self.loss if effect < 0 else self.no_change

    def wrong(self, effect: float) -> float:
        """Share of verdicts that claim a change that is not there, or its opposite."""
        return self.loss if effect > 0 else self.win if effect < 0 else self.win + self.loss

    def missed(self, effect: float) -> float:
        """Share of verdicts that say no-change of a change as large as the margin, or larger."""
        return self.no_change if abs(effect) >= MARGIN else 0.0


def launch_noise(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Noise of launches with unit variance, shape (duels, launches).

    ``t3`` is Student's t with 3 df, ``contaminated`` has 5 % of launches three times as noisy, ``skewed``
    is a shifted exponential, ``ar0.3`` correlates neighbours, ``drift`` adds a random walk, ``walk``
    is one.
    """
    x = rng.standard_normal(shape)
    match kind:
        case "gaussian":
            return x
        case "t3":
            return rng.standard_t(3, shape) / math.sqrt(3.0)
        case "contaminated":
            return x * np.where(rng.random(shape) < 0.05, 3.0, 1.0) / math.sqrt(1.4)
        case "skewed":
            return rng.standard_exponential(shape) - 1.0
        case "ar0.3":
            for i in range(1, shape[1]):
                x[:, i] = 0.3 * x[:, i - 1] + math.sqrt(1.0 - 0.09) * x[:, i]
            return x
        case "drift":
            walk = 0.2 * rng.standard_normal(shape).cumsum(axis=1)
            return x + walk - walk[:, :1]
        case "walk":
            return x.cumsum(axis=1)
        case _:
            raise ValueError(f"noise {kind!r} is none of {NOISES}")


def simulate(scenario: Scenario, duels: int, seed: int, policy: Policy | None = None) -> Outcome:
    """Run ``duels`` duels of one scenario through the judge's own intervals, all duels at once."""
    policy = policy or Policy()
    rng = np.random.default_rng(seed)
    count = int(scenario.budget_s / scenario.launch_s + 1e-9)
    truth = math.log1p(scenario.effect)
    values = truth + scenario.launch_sd * launch_noise(scenario.noise, (duels, count), rng)
    values += scenario.session_sd * rng.standard_normal((duels, 1))
    blocks = scenario.within * scenario.launch_sd**2 * rng.gamma(25.0, 1.0 / 25.0, (duels, count))
    return _outcome(values, blocks, truth, scenario, policy)


def replay(
    values: Floats, blocks: Floats, scenario: Scenario, policy: Policy, wholes: Floats | None = None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Stop every duel as the judge would: (verdict, launches, low, high), low and high in log units.

    ``values`` and ``blocks`` are (duels, launches): log ratios, and the variances their blocks show; ``wholes`` the log
    ratios of whole times, where they are known.
    Verdicts are 1 win, -1 loss, 0 no-change, nan inconclusive.
    """
    duels, count = values.shape
    verdict, low, high = (np.full(duels, np.nan) for _ in range(3))
    stopped = np.full(duels, float(count))
    first, prior = policy.min_launches, scenario.prior()
    fractions = [min(scenario.launch_s * n / scenario.budget_s, 1.0) for n in range(first, count)]
    looks, spent = range(first, count + 1), [*fractions, 1.0]
    tails = tail_probabilities(looks, spent, policy.alpha / policy.shares, policy.rho)
    tails_alone = tail_probabilities(looks, spent, policy.of_no_change.alpha, policy.rho)
    threshold = max(policy.minimum_effect, scenario.floor if prior else 0.0)
    going = np.arange(duels)
    for n, tail, alone in zip(looks, tails, tails_alone, strict=True):
        seen = values[going, :n]
        mean = seen.mean(axis=1)
        widths, of_one = (
            half_widths(
                seen.var(axis=1, ddof=1),
                n,
                tail=each,
                reported=policy.reported / shares,
                inflation=serial_inflation(seen, errors)[0],
                within=np.median(blocks[going, :n], axis=1),
                prior=prior,
                prior_weight=policy.prior_weight,
                sessions=policy.session_sd**2,
            )
            for each, shares, errors in ((tail, policy.shares, DEPENDENT), (alone, 1, PERHAPS_DEPENDENT))
        )
        call = _calls(mean, widths.repeated, threshold, policy.margin)
        same = _calls(mean, of_one.repeated, threshold, policy.margin) == 0
        call = np.where(np.abs(call) == 1, call, np.where(same, 0.0, np.nan))
        if wholes is not None:
            effect = unexcluded(wholes[going, :n], alpha=policy.reported, margin=policy.margin, most=RARE)
            call = np.where((call == 0) & ~np.isnan(effect), np.nan, call)
        call = np.where(halves_differ(seen), np.nan, call)
        shown = ~np.isnan(call)
        half = np.where(call == 0, of_one.plain, widths.plain)
        verdict[going], low[going], high[going] = call, mean - half, mean + half
        stopped[going[shown]] = n
        going = going[~shown]
    return verdict, stopped, low, high


def _calls(mean: Floats, half: Floats, threshold: float, margin: float) -> Floats:
    lower, upper = np.expm1(mean - half), np.expm1(mean + half)
    same = (lower > -margin) & (upper < margin)
    return np.select([lower > threshold, upper < -threshold, same], [1.0, -1.0, 0.0], np.nan)


def _outcome(values: Floats, blocks: Floats, truth: float, scenario: Scenario, policy: Policy) -> Outcome:
    verdict, stopped, low, high = replay(values, blocks, scenario, policy)
    return Outcome(
        win=float((verdict == 1).mean()),
        loss=float((verdict == -1).mean()),
        no_change=float((verdict == 0).mean()),
        inconclusive=float(np.isnan(verdict).mean()),
        coverage=float(((low <= truth) & (truth <= high)).mean()),
        seconds=stopped * scenario.launch_s,
    )


def study() -> Iterator[tuple[str, Scenario]]:
    """The scenarios of docs/method.md, by section."""
    truths = ((0.0, 60.0), (0.02, 60.0), (-0.02, 60.0), (0.01, 180.0), (-0.01, 180.0), (0.1, 60.0), (0.1, 180.0))
    base = Scenario()
    for sd in (0.003, 0.005, 0.007, 0.009, 0.015):
        for effect, budget in truths:
            yield "launch spread", replace(base, launch_sd=sd, effect=effect, budget_s=budget)
    for noise in NOISES[1:]:
        for effect, budget in truths[:2] + truths[3:4]:
            yield "shape of the noise", replace(base, noise=noise, effect=effect, budget_s=budget)
    for noise in ("t3", "ar0.3", "drift"):
        yield "shape of the noise", replace(base, noise=noise, launch_sd=0.015)
    for calibration in ("right", "half", "double"):
        for effect, budget in (*truths[:2], truths[3], truths[5]):
            yield "calibrated spread", replace(base, calibration=calibration, effect=effect, budget_s=budget)
    for within in (0.0, 0.8):
        for effect, budget in (*truths[:2], truths[3], truths[5]):
            yield "variance seen by blocks", replace(base, within=within, effect=effect, budget_s=budget)
    for calibration, floor in (("none", 0.0), ("right", 0.006)):
        yield "sessions 0.3 % apart", replace(base, session_sd=0.003, calibration=calibration, floor=floor)


def table(scenarios: Sequence[tuple[str, Scenario]], duels: int, seed: int) -> str:
    """Markdown table of the outcomes, percentages and seconds."""
    lines = [
        "| varied | launch sd | noise | calibration | blocks show | budget | effect "
        "| right | wrong | missed | inconclusive | coverage | mean s | 95 % s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, (name, s) in enumerate(scenarios):
        o = simulate(s, duels, seed + number)
        lines.append(
            f"| {name} | {100 * s.launch_sd:.1f} % | {s.noise} | {s.calibration} | {100 * s.within:.0f} % "
            f"| {s.budget_s:.0f} s | {100 * s.effect:+.0f} % | {100 * o.right(s.effect):.1f} "
            f"| {100 * o.wrong(s.effect):.2f} | {100 * o.missed(s.effect):.2f} | {100 * o.inconclusive:.1f} "
            f"| {100 * o.coverage:.1f} | {o.mean_s:.0f} | {o.p95_s:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str], out: TextIO) -> int:
    """Print the study's table."""
    parser = argparse.ArgumentParser(prog="python -m studies.simulation", description=__doc__)
    parser.add_argument("--duels", type=int, default=20_000, help="duels per row (default 20000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first row (default 1)")
    args = parser.parse_args(arguments)
    print(table(list(study()), args.duels, args.seed), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
