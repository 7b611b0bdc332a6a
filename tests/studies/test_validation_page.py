import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from gemma3n_perf.duel.validation_record import PowerDuel, PowerHead, PowerLaunch, PowerRecord
from studies import validation_page
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


def build(duels: Sequence[PowerDuel]) -> dict[PurePosixPath, bytes]:
    """Return the page of one campaign."""
    return validation_page.build(
        validation_page.campaigns(PowerRecord(PowerHead(1, CHIP, WORKLOAD, STACK), tuple(duels)))
    )


def test_the_page_counts_every_verdict_and_says_the_same_twice() -> None:
    """Rows by truth, rules beside each other, and the same bytes from the same records."""
    duels = [duel(0.0, "no-change", 1), duel(0.02, "loss", 1), duel(0.02, "inconclusive", 2), duel(-0.02, "win", 2)]
    files = build(duels)
    page = files[validation_page.PAGE].decode()
    assert "4 duels of `nano/text/pp40-tg64` in 2 rounds, worth " in page
    assert "| -1.96 % | 60 s | 2 / 2 | 1/2 [" in page
    assert "| 0, 1, 0, 1 |" in page
    assert "| 0 (A/A) | 60 s | 1 / 1 | 1/1 [" in page
    assert "| **this suite** | 0/2 [" in page
    plot = files[validation_page.PLOTS / f"trust-{CHIP.chip_class}.svg"].decode()
    assert plot.count("pytest-benchmark mean:5%") >= 1
    assert plot.count("interleaved pairs, t test") >= 1
    assert files == build(duels)


def test_the_worst_case_comes_before_every_row() -> None:
    """Of the classes with rounds enough to resample; the others have none."""
    few = build([duel(0.0, "no-change", 1)])[validation_page.PAGE].decode()
    assert "duels resampled" not in few
    page = build([duel(0.0, "no-change", number) for number in range(1, 7)])[validation_page.PAGE].decode()
    line = next(one for one in page.splitlines() if one.startswith(f"| {CHIP.chip_class} |"))
    assert page.index(line) < page.index("### Verdicts of this suite") < page.index("duels resampled for each row")
    false, missed, shown, _ = (float(cell.strip(" %")) for cell in line.strip("| ").split("|")[1:])
    assert false < 5
    assert missed < 5
    assert shown > 95


def test_where_steps_were_told_the_page_compares_ways_to_read_them() -> None:
    """Each with what it scatters by; a class that told none has no such part."""
    rng = random.Random(3)

    def launch() -> PowerLaunch:
        base, cand = (tuple(tuple(rng.gauss(0.02, 0.0002) for _ in range(3)) for _ in range(8)) for _ in range(2))
        averages = [tuple(sum(block) / 3 for block in arm) for arm in (base, cand)]
        return PowerLaunch(4.0, averages[0], averages[1], (base, cand))

    one = replace(duel(0.0, "no-change", 1), launches=tuple(launch() for _ in range(4)))
    page = build([one])[validation_page.PAGE].decode()
    assert "Of 4 launches of this class the steps were recorded." in page
    assert "| aligned (used) | 0." in page
    assert "| ratio of whole times | 0." in page
    assert ". Launches scatter about the truth" in page
    both = [one, duel(0.0, "no-change", 2)]
    page = build(both)[validation_page.PAGE].decode()
    assert "The 4 launches whose steps were recorded (of 14; the others were read another way) scatter about" in page
    assert "beside the baseline's" not in page  # a round alone is its own comparison
    page = build([one, replace(one, round=2)])[validation_page.PAGE].decode()
    assert "### The candidates' processes beside the baseline's" in page
    assert page.count("| 4 | ") == 2
    plain = [duel(0.0, "no-change", 1)]
    assert "steps" not in build(plain)[validation_page.PAGE].decode()


def test_fused_arms_have_a_part_of_their_own() -> None:
    """Under a heading that names them, with the option that repeats it, and a plot whose name is one of a file."""
    duels = [replace(duel(0.0, "inconclusive", 1), arm="fusion:stacked-altup")]
    files = build(duels)
    page = files[validation_page.PAGE].decode()
    assert f"## {CHIP.chip_class}, fusion:stacked-altup\n" in page
    assert f"`gemma3n-perf validate --workload {WORKLOAD} --arm fusion:stacked-altup`" in page
    assert validation_page.PLOTS / f"trust-{CHIP.chip_class}-fusion-stacked-altup.svg" in files
