"""How other tools decide, over the same samples: yardsticks for this suite's own verdicts.

Opinion: a claim to be better than a rule is worth something only if the rule is the real one, so each
follows its source and says where it is from. Samples are seconds (per token or per run); lower is faster.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from asv_runner.statistics import compute_stats
from scipy.special import comb
from scipy.stats import mannwhitneyu, ttest_ind

Call = Literal["faster", "slower", "same"]
Rule = Callable[[Sequence[float], Sequence[float]], Call]


def best_of_three(baseline: Sequence[float], candidate: Sequence[float], *, threshold: float = 0.02) -> Call:
    """Compare the fastest of the first three samples; a change is more than ``threshold`` of throughput.

    Source: the habit of published decode tables ("best of 3, cool machine"), for instance
    lablup/mlxcel pull request 345, read with a 2 % tolerance.
    """
    change = min(baseline[:3]) / min(candidate[:3]) - 1.0
    return "faster" if change > threshold else "slower" if change < -threshold else "same"


def mean_welch(baseline: Sequence[float], candidate: Sequence[float], *, alpha: float = 0.05) -> Call:
    """Compare means by Welch's unequal-variance t test at ``alpha``, two-sided (Welch 1947; scipy ttest_ind)."""
    significant = float(ttest_ind(baseline, candidate, equal_var=False).pvalue) < alpha
    return _signed(significant, float(np.mean(baseline)), float(np.mean(candidate)))


def pytest_benchmark_mean(baseline: Sequence[float], candidate: Sequence[float], *, percent: float = 5.0) -> Call:
    """``--benchmark-compare-fail=mean:5%``: slower when the mean rose by more than ``percent``; never faster.

    Source: PercentageRegressionCheck in pytest_benchmark/utils.py, version 5.
    """
    return "slower" if float(np.mean(candidate) / np.mean(baseline)) * 100.0 - 100.0 > percent else "same"


def asv_compare(baseline: Sequence[float], candidate: Sequence[float], *, factor: float = 1.1) -> Call:
    """``asv compare``: medians differ by ``factor`` and the samples differ significantly.

    Significance is a Mann-Whitney U test at p < 0.002 where the sample sizes can reach it, else
    disjoint 99 % intervals of the medians; with one sample only the factor counts.
    Source: asv 0.6.6, commands/compare.py (_is_result_better), _stats.py (is_different).
    """
    old, old_stats = compute_stats(list(baseline), 1)
    new, new_stats = compute_stats(list(candidate), 1)
    if min(len(baseline), len(candidate)) > 1 and not _asv_different(baseline, candidate, old_stats, new_stats):
        return "same"
    return "faster" if new < old / factor else "slower" if old < new / factor else "same"


def disjoint_sd(baseline: Sequence[float], candidate: Sequence[float]) -> Call:
    """Compare ``mean +- sd`` of throughput as readers of llama-bench's ``t/s`` column do: apart or not.

    Source: llama.cpp tools/llama-bench, which prints the average and sample standard deviation of
    tokens per second over repetitions and leaves the comparison to the reader.
    """
    b, c = 1.0 / np.asarray(baseline), 1.0 / np.asarray(candidate)
    apart = abs(float(c.mean() - b.mean())) > float(b.std(ddof=1) + c.std(ddof=1))
    return _signed(apart, 1.0 / float(b.mean()), 1.0 / float(c.mean()))


def benchstat(baseline: Sequence[float], candidate: Sequence[float], *, alpha: float = 0.05) -> Call:
    """Go's benchstat: a Mann-Whitney U test at ``alpha``, the change being that of the medians.

    Source: golang/perf, benchmath/anone.go (AssumeNothing) and cmd/benchstat, default ``-alpha 0.05``.
    """
    significant = float(mannwhitneyu(baseline, candidate, alternative="two-sided").pvalue) < alpha
    return _signed(significant, float(np.median(baseline)), float(np.median(candidate)))


RULES: Mapping[str, Rule] = {
    "best of 3, 2 %": best_of_three,
    "mean, Welch 0.05": mean_welch,
    "pytest-benchmark mean:5%": pytest_benchmark_mean,
    "asv compare": asv_compare,
    "mean +- sd apart": disjoint_sd,
    "benchstat": benchstat,
}
"""Every rule by the name it has in tables."""


def _signed(significant: bool, old_s: float, new_s: float) -> Call:
    return ("faster" if new_s < old_s else "slower") if significant and new_s != old_s else "same"


def _asv_different(
    baseline: Sequence[float], candidate: Sequence[float], old: Mapping[str, float], new: Mapping[str, float]
) -> bool:
    m, n = len(baseline), len(candidate)
    if 1.0 / float(comb(m + n, min(m, n))) < 0.002:
        # asv takes no continuity correction, and goes over to the normal approximation above 20 samples.
        exact: Literal["exact", "asymptotic"] = "exact" if max(m, n) <= 20 else "asymptotic"
        test = mannwhitneyu(baseline, candidate, alternative="two-sided", method=exact, use_continuity=False)
        return float(test.pvalue) < 0.002
    return old["ci_99_b"] < new["ci_99_a"] or old["ci_99_a"] > new["ci_99_b"]
