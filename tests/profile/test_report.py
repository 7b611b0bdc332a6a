"""The page of a profile: every figure from the record, the answer first, the same bytes each time."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.profile import report
from gemma3n_perf.profile.report import tried
from gemma3n_perf.profile.types import Knob
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, ONE, TWO, Scratch
from tests.profile.made import contexts, floor, profile, split, sweep, trace, whole, workload

PAGE = PurePosixPath("profiles/cpu-fake-2c.md")


def text(*workloads: object) -> str:
    """Build and return the page."""
    return report.build(profile(*workloads), {})[PAGE].decode()  # type: ignore[arg-type]


def test_the_answer_comes_first_with_its_reason() -> None:
    """A reviewer reads one line."""
    page = text()
    assert page.index("Is a fusion justified?") < page.index("Pipeline split")
    line = next(one for one in page.splitlines() if one.startswith("| `nano/text/pp40-tg64` |"))
    assert "**unknown**" in line or "**yes**" in line or "**no**" in line


def test_every_part_has_its_section_and_its_plot() -> None:
    """And every plot that the page shows is among the files."""
    files = report.build(profile(), {})
    page = files[PAGE].decode()
    for title in ("Pipeline split", "Streaming floor", "Operations", "KV length", "Knobs", "Engines", "Not measured"):
        assert f"### {title}" in page or f"### Text, image and {title}" in page
    drawn = {path.name for path in files if path.suffix == ".svg"}
    assert drawn == {name.partition(")")[0] for name in page.split("](") if name.partition(")")[0].endswith(".svg")}
    assert {name.rpartition("-")[2] for name in drawn} == {
        "split.svg", "floor.svg", "operations.svg", "context.svg", "sweep.svg",
    }  # fmt: skip


def test_plots_are_svg_without_a_background_and_the_same_each_time() -> None:
    """Readable on light and dark pages, and comparable byte by byte."""
    first, second = (report.build(profile(), {}) for _ in range(2))
    assert first == second
    for path, data in first.items():
        if path.suffix == ".svg":
            root = ET.fromstring(data)
            assert root.tag.endswith("svg")
            assert b"fill: #ffffff" not in data
            assert b"#000000" not in data


def test_what_was_not_measured_is_said_with_its_reason() -> None:
    """A failed part, a refused knob, an engine that cannot load: each in its words, none as a number."""
    page = text()
    assert "no CUPTI \\| and no NVML" in page
    assert "this build of MLX does not read MLX_B" in page
    assert "KeyError: 'model'" in page
    assert "other from token 5 on" in page
    assert "No setting is suggested" not in page
    assert "Suggested for this class: `MLX_A=1`" in page


def test_differences_are_explained_by_name_or_said_not_to_be() -> None:
    """Of the published histogram, every row has a reason or is called unexplained. A preset's reasons are today's,
    another checkpoint's those of the day it was measured."""
    page = text()
    assert "| `Full` | 149 | 1 | mlx-vlm's numbers become constants" in page
    assert "| `Odd` | 0 | 3 | not explained |" in page
    assert "| `Full` | 149 | 1 | a reason |" in text(whole("mine/text/pp40-tg64"))


def test_parts_alone_make_a_page() -> None:
    """Whatever is there is shown; nothing is invented for the rest."""
    page = text(workload(trace=trace(0.006)))
    assert "CUPTI" in page
    assert "Pipeline split" not in page
    assert "**unknown**" in page
    alone = text(workload(contexts=contexts(image=None)))
    assert "Image not measured: no tower" in alone


def test_a_device_trace_tells_the_idle_share() -> None:
    """6 ms busy of 28 ms a token."""
    page = text(workload(split=split(0.007, 0.02, 0.001, 0.95, "host-bound"), trace=trace(0.006)))
    assert "does nothing for 79 %" in page


def test_a_chain_that_waits_for_its_dispatch_is_called_that() -> None:
    """Then the floor is not the device's alone, and the page says so."""
    made = floor(0.0036, 2.5e12)
    assert "waits for the host's dispatch" not in text(workload(floor=made))
    slow = replace(made, dispatch_s=replace(made.chain_s))
    assert "waits for the host's dispatch" in text(workload(floor=slow))


def test_parts_of_several_commits_are_pointed_out() -> None:
    """They may be one table only with that said."""
    one = whole()
    taken = {
        part: replace(when, commit="f" * 40 if part == "split" else when.commit) for part, when in one.taken.items()
    }
    assert "parts of several commits" in text(replace(one, taken=taken))
    assert "parts of several commits" not in text(one)


def test_no_plot_is_drawn_of_knobs_that_were_not_measured() -> None:
    """An empty plot would look like no effect."""
    files = report.build(profile(workload(sweep=sweep(Knob("MLX_A=1", "not-measured", "crashed")))), {})
    assert not any("sweep" in path.name for path in files)


def test_the_terminal_shows_the_same_answer() -> None:
    """In a few lines, reasons included."""
    said = report.render(whole())
    assert said.splitlines()[0].startswith("nano/text/pp40-tg64: fusion justified: ")
    for text in ("host-bound", "433 products", "MLX_A=1: win: +11.0 % [+10.0, +12.0]", "not measured: trace"):
        assert text in said


def test_fusions_with_sound_evidence_are_what_was_tried(tmp_path: Path) -> None:
    """By workload, with the interval; what was invalid or off is no evidence of what a fusion can win."""
    scratch = Scratch(tmp_path / "repo")
    scratch.put(
        scratch.evidence(),
        replace(scratch.evidence(fusion=GEGLU), verdict="invalid"),
        scratch.evidence(fusion=f"{ALTUP}+{GEGLU}", effects={ONE: (0.1, 0.1)}),
    )
    found = tried(scratch.baselines, BIG)
    assert {workload: [one.name for one in each] for workload, each in found.items()} == {
        ONE: [f"{ALTUP}+{GEGLU}", ALTUP],
        TWO: [ALTUP],
    }
    assert found[TWO][0].low < 0.05 < found[TWO][0].high
    assert tried(scratch.baselines, "another-class") == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """No page is made from half of the evidence."""
    scratch = Scratch(tmp_path / "repo")
    path = scratch.put(scratch.evidence())[0]
    path.write_text(path.read_text()[:-50])
    with pytest.raises(MalformedRecordError, match=path.name):
        tried(scratch.baselines, BIG)
