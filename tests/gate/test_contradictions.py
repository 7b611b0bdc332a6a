"""Evidence that says against itself what no digest tells; and none of what is committed does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.contradictions import contradictions
from gemma3n_perf.gate.record import Evidence

BASELINES = Path(__file__).parents[2] / "baselines"
FILES = [path for path in sorted(BASELINES.glob("*/fusions/*.json")) if path.name != "admitted.json"]
MEASURED = BASELINES / "nvidia-h100-80gb-hbm3" / "fusions" / "fused-qkv.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_honest_evidence_does_not_contradict_itself(path: Path) -> None:
    """Rules that a real record breaks would refuse honest work."""
    assert list(contradictions(store.read(path))) == []


def with_parity(record: Evidence, **changes: object) -> Evidence:
    """Change the first checkpoint's parity."""
    first, *others = record.checked
    assert first.parity is not None
    return replace(record, checked=(replace(first, parity=replace(first.parity, **changes)), *others))  # type: ignore[arg-type]


def with_memory(record: Evidence, ratio: float) -> Evidence:
    """State another ratio of memory."""
    return replace(record, checked=tuple(replace(one, memory_ratio=ratio) for one in record.checked))


def with_nodes(record: Evidence, nodes: tuple[int, int]) -> Evidence:
    """State another size of the graphs."""
    first, *others = record.checked
    assert first.dispatch is not None
    return replace(record, checked=(replace(first, dispatch=replace(first.dispatch, nodes=nodes)), *others))


def with_candidate(record: Evidence, *, steps: bool) -> Evidence:
    """Halve the candidate's seconds per token; its steps too, or not."""
    first, *others = record.workloads
    pairs = first.raw[0].pairs
    changed: Any = tuple(
        tuple(
            replace(
                block,
                tpot_s=block.tpot_s / 2,
                step_s=tuple(step / 2 for step in block.step_s) if steps else block.step_s,
            )
            if block.arm == "candidate"
            else block
            for block in pair
        )
        for pair in pairs
    )
    launch = replace(first.raw[0], pairs=changed)
    return replace(record, workloads=(replace(first, raw=(launch, *first.raw[1:])), *others))


def with_short_blocks(record: Evidence, steps: int = 0) -> Evidence:
    """Let blocks of so many steps, or of none that is known, end at half of their time."""
    first, *others = record.workloads
    changed: Any = tuple(
        tuple(
            replace(block, seconds=block.tpot_s * max(1, steps) / 2, step_s=(block.tpot_s,) * steps) for block in pair
        )
        for pair in first.raw[0].pairs
    )
    launch = replace(first.raw[0], pairs=changed)
    return replace(record, workloads=(replace(first, raw=(launch, *first.raw[1:])), *others))


def with_anothers_launches(record: Evidence) -> Evidence:
    """Give a second workload the first one's launches."""
    first = record.workloads[0]
    return replace(record, workloads=(first, replace(first, workload="e2b-4bit/text/pp1-tg2")))


CASES: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    "not finite": (lambda one: with_parity(one, figures={"not_finite": 3}), "3 logits that are not finite"),
    "no figures": (lambda one: with_parity(one, figures={}), "none of its figures"),
    "negative memory": (lambda one: with_memory(one, -1.0), "-1 times the memory"),
    "no nodes": (lambda one: with_nodes(one, (900, 0)), "a decode step without a node"),
    "halved, steps kept": (lambda one: with_candidate(one, steps=False), "steps of"),
    "halved, seconds kept": (lambda one: with_candidate(one, steps=True), "times in the candidate"),
    "shorter than a token": (with_short_blocks, "s for tokens of"),
    "shorter than its steps": (lambda one: with_short_blocks(one, 8), "s for tokens of"),
    "another's launches": (with_anothers_launches, "those of another workload"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_contradiction_is_told(case: str) -> None:
    """In words that name it."""
    change, said = CASES[case]
    assert any(said in one for one in contradictions(change(store.read(MEASURED))))
