import argparse
import io
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.cli import fusion
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.gate.facts import Dispatch, Parity
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, ONE, POLICY, SMALL, Scratch, launches, reworked, workload


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository without evidence."""
    return Scratch(tmp_path / "repository")


def page(scratch: Scratch, *options: str) -> tuple[int, str]:
    """Run the command on the repository; returns its exit code and what it says."""
    parser = argparse.ArgumentParser()
    fusion.add_arguments(parser)
    out = io.StringIO()
    folders = ["--baselines", str(scratch.baselines), "--docs", str(scratch.root / "docs")]
    code = fusion.run(parser.parse_args(["page", *folders, *options]), out)
    return code, out.getvalue()


def written(scratch: Scratch) -> str:
    """Write the page and return it."""
    assert page(scratch)[0] == 0
    return (scratch.root / "docs" / "evidence.md").read_text()


def row(text: str, section: str, name: str) -> list[str]:
    """Return the cells of a fusion's line below a heading; the overview is before any heading of two."""
    part = text.partition(f"## {section}\n")[2] if section else text
    line = next(line for line in part.splitlines() if line.startswith(f"| `{name}` |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_every_class_and_fusion_is_on_the_page(scratch: Scratch) -> None:
    """Winners, losers, what is off, and what was not measured: the largest win first."""
    workload = "nano/text/pp40-tg64"
    scratch.put(
        scratch.evidence(BIG),
        scratch.off(SMALL),
        scratch.evidence(SMALL, GEGLU, {workload: (-0.04, -0.04)}),
    )
    admitted.write(scratch.baselines, BIG, (ALTUP,))
    text = written(scratch)
    header = next(line for line in text.splitlines() if line.startswith("| fusion | "))
    big, small = (header.split(" | ").index(name) for name in (BIG, SMALL + " |"))
    assert row(text, "", ALTUP)[big].startswith("**win** +5.")
    assert row(text, "", ALTUP)[small] == "off"
    assert row(text, "", GEGLU)[big] == "-"
    assert row(text, "", GEGLU)[small].startswith("**loss** -3.9")
    assert text.index(f"| `{ALTUP}` | **win**") < text.index(f"| `{GEGLU}` | -")
    cells = row(text, BIG, ALTUP)
    assert "+5." in cells[2]
    assert "[+" in cells[2]
    assert cells[5] == "**win**"
    assert f"- admitted: `{ALTUP}`" in text
    assert f"Off: `{ALTUP}`." in text
    assert f"- `{GEGLU}`, {workload}: loss: the whole interval" in text
    assert "| `cuda-graphs-off` | kernels launched one by one" in text


def test_what_was_checked_stands_beside_the_effect(scratch: Scratch) -> None:
    """Nodes or the knob, the outputs as a part of their tolerance, memory, and how many launches were judged."""
    parity = Parity(True, True, figures={"worst_ratio": 0.1234})
    scratch.put(
        scratch.evidence(BIG, parity=parity),
        scratch.evidence(BIG, GEGLU, dispatch=Dispatch((9, 9), knobs={"MLX_KNOB": "0"}, same=True)),
    )
    text = written(scratch)
    assert row(text, BIG, ALTUP)[4:] == ["8", "**win**", "900 to 850", "0.12", "1.020"]
    assert row(text, BIG, GEGLU)[6:8] == ["`MLX_KNOB=0`", "passed"]


def test_a_class_lists_what_it_timed_by_effect(scratch: Scratch) -> None:
    """A win before what changed nothing at all, and that before a loss, whatever their names."""
    both = f"{ALTUP}+{GEGLU}"
    alike = tuple(
        replace(one, pairs=tuple((replace(a, tpot_s=0.02), replace(b, tpot_s=0.02)) for a, b in one.pairs))
        for one in launches((0.0, 0.0))
    )
    scratch.put(
        scratch.evidence(BIG, ALTUP, {ONE: (-0.05, -0.05)}),
        scratch.evidence(BIG, GEGLU, change=lambda one: replace(one, workloads=(workload(ONE, raw=alike),))),
        scratch.evidence(BIG, both, {ONE: (0.05, 0.05)}),
    )
    lines = written(scratch).partition(f"## {BIG}\n")[2].splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == [both, GEGLU, ALTUP]


def test_intervals_are_said_to_be_what_they_are(scratch: Scratch) -> None:
    """Which decides, which is shown, and what is assumed of sessions, by the policy that lies there."""
    scratch.put(scratch.evidence(BIG))
    scratch.write("baselines/policy.toml", POLICY.replace("[gate]", "[gate]\nsession_sd = 0.002"))
    said = next(line for line in written(scratch).splitlines() if line.startswith("- **effect**"))
    assert "intervals shown are of 95 %, those that decide of 98 %" in said
    assert "lie 0.2 % apart (session_sd of the policy), assumed until A/A duels of three days are stored" in said


def test_measuring_until_it_passes_is_seen(scratch: Scratch) -> None:
    """How often sources were measured is on the page, where that is more than once."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(BIG, GEGLU))
    assert "measured again" not in written(scratch)
    scratch.put(replace(scratch.evidence(BIG), attempts=2))
    assert f"- measured again, what came before is in `fusions/earlier/`: `{ALTUP}` 2 times\n" in written(scratch)


def test_the_same_records_give_the_same_page(scratch: Scratch) -> None:
    """A check passes on what was just written, and names the page once a record says something else."""
    scratch.put(scratch.evidence(BIG))
    first = written(scratch)
    assert page(scratch, "--check") == (0, "")
    scratch.put(scratch.evidence(BIG, effects={"e2b-4bit/text/pp320-tg64": (0.11, 0.11)}))
    code, said = page(scratch, "--check")
    assert code == 5
    assert "evidence.md is not what the records give" in said
    assert "next: gemma3n-perf fusion page" in said
    assert (scratch.root / "docs" / "evidence.md").read_text() == first


def test_what_broke_is_told_with_its_reason(scratch: Scratch) -> None:
    """A failure of the outputs has no effect, and is on the page all the same."""
    scratch.put(scratch.evidence(BIG, failure="NaN in the logits at position 516"))
    text = written(scratch)
    assert row(text, "", ALTUP)[1:].count("**invalid**") == 1
    assert "invalid: " in text
    assert "NaN in the logits at position 516" in text


@pytest.mark.parametrize("stated", [0.5, None])
def test_a_record_that_does_not_give_what_it_states_is_no_page(scratch: Scratch, stated: float | None) -> None:
    """The page never shows a forged effect."""
    (path,) = scratch.put(scratch.evidence(BIG))
    reworked(path, lambda tree: tree["workloads"][0]["judgement"].update(effect=stated))
    with pytest.raises(InvalidError, match=f"an effect of {stated} is stated"):
        page(scratch)


def test_without_evidence_it_says_so(scratch: Scratch) -> None:
    """And still tells which fusions there are."""
    text = written(scratch)
    assert "No evidence is committed yet." in text
    assert "| `cuda-step` |" in text


def test_the_committed_page_is_current() -> None:
    """It is what the committed records give."""
    parser = argparse.ArgumentParser()
    fusion.add_arguments(parser)
    out = io.StringIO()
    assert fusion.run(parser.parse_args(["page", "--check"]), out) == 0, out.getvalue()
