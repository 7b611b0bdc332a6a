import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from gemma3n_perf.bench import baselines_page
from gemma3n_perf.decode.types import Run
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.published import Figure, Publication
from gemma3n_perf.store.session_file import encode
from gemma3n_perf.store.types import Baseline, summarise
from tests.bench.reports import golden
from tests.fakes import CHIP, STACK, WORKLOAD, document, measurement

IMAGE = "nano/image/pp296-tg64"
PLOT = PurePosixPath("plots/baselines-cpu-fake-2c.svg")
PUBLICATION = Publication(
    1, "someone-1", "someone #1", "https://example.org/1", "June 2026", "their stack", {"raw": "best of 3"},
    (Figure("Fake CPU", None, "theirs", "nano", "text", 83.0, 84.5, "raw", "table 1", {"KNOB": "1"}),),
)  # fmt: skip


@pytest.fixture
def baseline(tmp_path: Path) -> Baseline:
    """Five sessions of two workloads, one per cent apart and with one discarded run."""
    discarded = (Run(1.0, 64, (1 / 64,) * 64, Conditions(steal=0.2), ("steal",)),)
    stack = replace(STACK, knobs={"MLX_MAX_OPS_PER_BUFFER": "1000"}, driver="580.1")
    folder = tmp_path / CHIP.chip_class
    folder.mkdir()
    for number, factor in enumerate((1.0, 1.01, 0.99, 1.02, 0.98), 1):
        made = document(
            f"s{number}",
            measurement(tpot_s=0.01 * factor, discarded=discarded),
            measurement(IMAGE, tpot_s=0.0125, ttft_s=(), soft_tokens="image: 256 forged soft tokens"),
            stack=stack,
        )
        made["datetime"] = f"2026-07-0{number}T10:00:00+00:00"
        (folder / f"000{number}_0123456789ab.json").write_bytes(encode(made))
    return Baselines(tmp_path).require(CHIP.chip_class)


def test_golden(baseline: Baseline) -> None:
    """The page is what the golden file shows, character by character."""
    files = baselines_page.build([baseline], [PUBLICATION])
    assert sorted(files) == [PurePosixPath("baselines.md"), PLOT]
    assert files[baselines_page.PAGE].decode() == golden("baselines.md")


def test_same_records_same_bytes(baseline: Baseline) -> None:
    """Plots too are the same bytes every time, and name no day and no program."""
    first, second = (baselines_page.build([baseline], []) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first[PLOT]
    assert b"Matplotlib v" not in first[PLOT]


def test_another_number_other_bytes(baseline: Baseline) -> None:
    """A changed record changes the plot, so a check can see it."""
    fewer = replace(baseline, sessions=baseline.sessions[:4], files=baseline.files[:4])
    before, after = (baselines_page.build([one], []) for one in (baseline, fewer))
    assert before[PLOT] != after[PLOT]
    assert before[baselines_page.PAGE] != after[baselines_page.PAGE]


def test_plot_is_transparent_text(baseline: Baseline) -> None:
    """The plot has no background of its own and keeps its words as text."""
    root = ET.fromstring(baselines_page.build([baseline], [])[PLOT])
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert WORKLOAD in words
    assert "fill: #ffffff" not in ET.tostring(root, encoding="unicode")


def test_one_session_can_be_drawn(baseline: Baseline) -> None:
    """A single session, which has no spread, still gives a plot."""
    alone = replace(baseline, sessions=baseline.sessions[:1], files=baseline.files[:1])
    assert b"</svg>" in baselines_page.build([alone], [])[PLOT]


def test_no_baseline_is_said() -> None:
    """A repository without records says so instead of showing an empty table."""
    assert b"No baseline is stored yet" in baselines_page.build([], [])[baselines_page.PAGE]


def test_summary_numbers(baseline: Baseline) -> None:
    """Throughput is the median of session medians; the spread is that of sessions, not of runs."""
    one = summarise(baseline, WORKLOAD)
    assert one.tokps == pytest.approx(100.0)
    assert one.sessions_tokps == pytest.approx((100.0, 99.0099, 101.0101, 98.0392, 102.0408))
    assert one.spread == pytest.approx(0.015813, rel=1e-3)
    assert one.within == pytest.approx(0.0100, rel=1e-2)
    assert (one.runs, one.discarded) == (15, 5)
    assert one.ttft_s == pytest.approx(0.11)
    assert summarise(baseline, IMAGE).ttft_s is None
    alone = replace(baseline, sessions=baseline.sessions[:1], files=baseline.files[:1])
    assert summarise(alone, WORKLOAD).spread is None


def test_conditions_tell_ranges_and_unknowns(baseline: Baseline) -> None:
    """Conditions are those of the runs that count; a discarded run appears only as a reason."""
    text = baselines_page.build([baseline], [])[baselines_page.PAGE].decode()
    assert "steal 0.0 %;" in text
    assert "Runs that count: 30; discarded: 5 for steal." in text
    assert "GPU" not in text
    assert "throttling unknown." in text


def test_gpu_conditions_are_in_words() -> None:
    """Clocks, temperature, power and throttling of a GPU are told as ranges and names."""
    states = [
        Conditions(gpu_clock_hz=1.98e9, gpu_temperature_c=61, throttle_reasons=(), power_source="mains"),
        Conditions(gpu_clock_hz=1.755e9, gpu_temperature_c=71, throttle_reasons=("sw-power-cap",)),
    ]
    text = baselines_page.conditions(states)
    assert "GPU clock 1755 to 1980 MHz; GPU 61 to 71 °C; throttling sw-power-cap" in text
    assert "power mains" in text
    assert "load unknown" in text
