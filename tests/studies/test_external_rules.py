"""Other tools' rules decide as their own tools do."""

import numpy as np
import pytest
from asv.commands.compare import _is_result_better
from asv_runner.statistics import compute_stats
from pytest_benchmark.utils import PercentageRegressionCheck

from studies import external_rules

RNG = np.random.default_rng(1)


def pairs(n: int, count: int, spread: float = 0.05) -> list[tuple[list[float], list[float]]]:
    """Sample pairs whose true ratio runs from 0.8 to 1.25."""
    ratios = np.geomspace(0.8, 1.25, count)
    return [
        ((0.02 * RNG.lognormal(0, spread, n)).tolist(), (0.02 * r * RNG.lognormal(0, spread, n)).tolist())
        for r in ratios
    ]


@pytest.mark.parametrize("n", [1, 3, 5, 8, 25])
def test_asv_rule_is_asvs(n: int) -> None:
    """Our reading of asv compare agrees with asv's own code at every sample size it treats apart."""
    calls = set()
    for base, cand in pairs(n, 60):
        old, old_stats = compute_stats(base, 1)
        new, new_stats = compute_stats(cand, 1)
        old_ss, new_ss = (old_stats, base), (new_stats, cand)
        expected = "same"
        if _is_result_better(new, old, new_ss, old_ss, 1.1):
            expected = "faster"
        elif _is_result_better(old, new, old_ss, new_ss, 1.1):
            expected = "slower"
        assert external_rules.asv_compare(base, cand) == expected
        calls.add(expected)
    assert calls == {"faster", "same", "slower"}


def test_pytest_benchmark_rule_is_pytest_benchmarks() -> None:
    """Our reading of compare-fail agrees with pytest-benchmark's own check."""
    check = PercentageRegressionCheck("mean", 5)  # type: ignore[no-untyped-call]
    calls = set()
    for base, cand in pairs(5, 60):
        current, stored = {"mean": float(np.mean(cand))}, {"mean": float(np.mean(base))}
        fails = bool(check.fails(current, stored))  # type: ignore[no-untyped-call]
        assert external_rules.pytest_benchmark_mean(base, cand) == ("slower" if fails else "same")
        calls.add(fails)
    assert calls == {True, False}


def test_best_of_three_reads_three() -> None:
    """The fastest of the first three counts, a later fast run does not."""
    assert external_rules.best_of_three([0.02, 0.03, 0.03], [0.019, 0.03, 0.03]) == "faster"
    assert external_rules.best_of_three([0.02, 0.02, 0.02, 0.01], [0.02, 0.02, 0.02]) == "same"
    assert external_rules.best_of_three([0.02] * 3, [0.0205] * 3) == "slower"


def test_welch_errs_one_time_in_twenty_on_independent_samples() -> None:
    """On samples that really are independent, the rule keeps its word."""
    x = np.random.default_rng(3).normal(1, 0.05, (600, 2, 8))
    calls = [external_rules.mean_welch(a.tolist(), b.tolist()) for a, b in x]
    assert 0.03 < np.mean([call != "same" for call in calls]) < 0.07
    assert external_rules.mean_welch([1.0, 1.01, 0.99], [0.8, 0.81, 0.79]) == "faster"
    assert external_rules.mean_welch([0.8, 0.81, 0.79], [1.0, 1.01, 0.99]) == "slower"


def test_disjoint_sd_compares_throughput() -> None:
    """Means one sum of deviations apart are told, closer ones not."""
    base = [1 / 99, 1 / 100, 1 / 101]
    assert external_rules.disjoint_sd(base, [1 / 101.1, 1 / 102.1, 1 / 103.1]) == "faster"
    assert external_rules.disjoint_sd(base, [1 / 100.8, 1 / 101.8, 1 / 102.8]) == "same"
    assert external_rules.disjoint_sd(base, [1 / 96, 1 / 97, 1 / 98]) == "slower"


def test_benchstat_needs_ranks_apart() -> None:
    """Five against five wholly apart is significant; three against three never is."""
    low, high = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]
    assert external_rules.benchstat(high, low) == "faster"
    assert external_rules.benchstat(low, high) == "slower"
    assert external_rules.benchstat(low[:3], high[:3]) == "same"


@pytest.mark.parametrize("name", list(external_rules.RULES))
def test_every_rule_is_direction_right(name: str) -> None:
    """A candidate taking 1.5 times as long is never faster by any rule, nor the reverse slower."""
    base, cand = [0.02 + 1e-5 * i for i in range(8)], [0.03 + 1e-5 * i for i in range(8)]
    assert external_rules.RULES[name](base, cand) == "slower"
    assert external_rules.RULES[name](cand, base) in ("faster", "same")
