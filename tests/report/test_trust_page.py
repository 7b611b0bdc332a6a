import random
from dataclasses import replace

from gemma3n_perf import powering
from gemma3n_perf.report import trust_page
from gemma3n_perf.store.power import PowerDuel, PowerHead, PowerLaunch
from tests.fakes import CHIP, STACK, WORKLOAD


def duel(planted: float, verdict: str, number: int) -> PowerDuel:
    """Return a duel of ten launches, 20 blocks each."""
    rng = random.Random(number)

    def blocks(factor: float) -> tuple[float, ...]:
        return tuple(factor * rng.gauss(0.02, 0.0002) for _ in range(20))

    launches = tuple(PowerLaunch(4.0, blocks(1.0), blocks(1 + planted)) for _ in range(10))
    truth = 1 / (1 + planted) - 1
    return PowerDuel("2026-07-01T10:00:00+00:00", None, number, planted, truth, 60.0, verdict, truth, truth - 0.01,
                     truth + 0.01, launches)  # fmt: skip


def test_the_page_counts_every_verdict_and_says_the_same_twice() -> None:
    """Rows by truth, rules beside each other, and the same bytes from the same records."""
    duels = [duel(0.0, "no-change", 1), duel(0.02, "loss", 1), duel(0.02, "inconclusive", 2), duel(-0.02, "win", 2)]
    measured = {"cpu-fake-2c": (PowerHead(1, CHIP, WORKLOAD, replace(STACK)), powering.trials(duels))}
    files = trust_page.build(measured, {"cpu-fake-2c": duels})
    page = files[trust_page.PAGE].decode()
    assert "4 duels of `nano/text/pp40-tg64` in 2 rounds, 3 minutes of measuring" in page
    assert "| -1.96 % | 60 s | 2 | 0 | 1 | 0 | 1 |" in page
    assert "| 0 (A/A) | 60 s | 1 | 0 | 0 | 1 | 0 |" in page
    assert "| **this suite** | 1/2 [1, 99] % | 0/2 |" in page
    plot = files[trust_page.PLOTS / "trust-cpu-fake-2c.svg"].decode()
    assert "pytest-benchmark mean:5%" in plot
    assert files == trust_page.build(measured, {"cpu-fake-2c": duels})


def test_where_steps_were_told_the_page_compares_ways_to_read_them() -> None:
    """Each with what it scatters by; a class that told none has no such part."""
    rng = random.Random(3)

    def launch() -> PowerLaunch:
        base, cand = (tuple(tuple(rng.gauss(0.02, 0.0002) for _ in range(3)) for _ in range(8)) for _ in range(2))
        means = [tuple(sum(block) / 3 for block in arm) for arm in (base, cand)]
        return PowerLaunch(4.0, means[0], means[1], (base, cand))

    one = replace(duel(0.0, "no-change", 1), launches=tuple(launch() for _ in range(4)))
    measured = {"cpu-fake-2c": (PowerHead(1, CHIP, WORKLOAD, replace(STACK)), powering.trials([one]))}
    page = trust_page.build(measured, {"cpu-fake-2c": [one]})[trust_page.PAGE].decode()
    assert "Of 4 launches of this class the steps were told." in page
    assert "| aligned (used) | 0." in page
    assert "| ratio of whole times | 0." in page
    assert ". Launches scatter about the truth" in page
    both = [one, duel(0.0, "no-change", 2)]
    measured = {"cpu-fake-2c": (PowerHead(1, CHIP, WORKLOAD, replace(STACK)), powering.trials(both))}
    page = trust_page.build(measured, {"cpu-fake-2c": both})[trust_page.PAGE].decode()
    assert "The 4 launches whose steps were told (of 14; the others were read another way) scatter about" in page
    plain = [duel(0.0, "no-change", 1)]
    measured = {"cpu-fake-2c": (PowerHead(1, CHIP, WORKLOAD, replace(STACK)), powering.trials(plain))}
    assert "steps" not in trust_page.build(measured, {"cpu-fake-2c": plain})[trust_page.PAGE].decode()
