from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch, LaunchPlan, measure
from gemma3n_perf.duel.spot_checks import CHECKS
from gemma3n_perf.duel.startup import Prepared, prepare, started
from gemma3n_perf.duel.tools import ON_CPU, BlockLayout, Job, Tools
from gemma3n_perf.errors import InvalidError
from tests.duel.arena import ARMS, Arena, arm

JOB = Job("nano/text/pp40-tg64", "nano", "/root")
OTHER = np.arange(8, dtype=np.float32)


@contextmanager
def ready(arms: Sequence[ReadyArm], tools: Tools, job: Job = JOB) -> Iterator[Prepared]:
    """Start arms and prepare a workload on all of them."""
    with started(arms, tools) as running:
        yield prepare(running, job, [arm.name for arm in arms[1:]], tools)


def blocks(arena: Arena) -> list[list[wire.Request]]:
    """Blocks and what was asked for of them, of each worker."""
    return [[one for one in own.asked if isinstance(one, wire.Block | wire.LastLogits)] for own in arena.workers]


@pytest.mark.parametrize("layout", [ON_CPU, BlockLayout()])
def test_a_candidate_whose_blocks_give_other_logits_is_invalid(layout: BlockLayout) -> None:
    """Though it decodes the same tokens, and its whole runs are right; the other candidate is measured."""
    arena = Arena(block_logits={"1:x": OTHER})
    arms = (arm("baseline"), arm("1:x"), arm("2:y"))
    with ready(arms, replace(arena.tools, layout=layout)) as running:
        found = measure(running, LaunchPlan(7, 30), arena.tools, session=0, start_s=1.0)
    assert isinstance(found["2:y"], Launch)
    assert isinstance(found["1:x"], InvalidError)
    assert "% apart in a block, where rounding explains 0.1 %" in found["1:x"].found
    alone = Arena(block_logits={"candidate": OTHER})
    with ready(ARMS, replace(alone.tools, layout=layout)) as running, pytest.raises(InvalidError, match="in a block"):
        measure(running, LaunchPlan(7, 30), alone.tools, session=0, start_s=1.0)


def test_nothing_tells_a_step_that_is_looked_at_before() -> None:
    """Blocks of any length up to those that are timed, of one text in both arms, at other places in every launch."""
    places, lengths = set[tuple[int, ...]](), set[int]()
    arena = Arena()
    tools = arena.tools
    for _ in range(6):
        with ready(ARMS, tools) as running:
            launch = measure(running, LaunchPlan(7, 30), tools, session=0, start_s=1.0)["candidate"]
        assert isinstance(launch, Launch)
        assert len(launch.pairs) == 30
        base, cand = blocks(arena)[-2:]
        for asked in (base, cand):
            looked = [number for number, one in enumerate(asked) if isinstance(one, wire.LastLogits)]
            assert len(looked) == CHECKS
            places.add(tuple(looked))
            checked = [asked[number - 1] for number in looked]
            lengths |= {one.steps for one in checked if isinstance(one, wire.Block)}
        texts = [[(one.text, one.steps) for one in own if isinstance(one, wire.Block) and one.text >= 0]
                 for own in (base, cand)]  # fmt: skip
        assert sorted(texts[0]) == sorted(texts[1])
    assert len(places) == 6
    assert min(lengths) == 1
    assert max(lengths) == 7


def test_on_a_cpu_blocks_rewind_after_one_that_was_looked_at() -> None:
    """The step that was built ahead is computed then, outside every clock."""
    arena = Arena()
    tools = replace(arena.tools, layout=ON_CPU)
    with ready(ARMS, tools) as running:
        measure(running, LaunchPlan(1, 100), tools, session=0, start_s=1.0)
    for asked in blocks(arena):
        after = [asked[n + 1] for n, one in enumerate(asked[:-1]) if isinstance(one, wire.LastLogits)]
        assert len(after) >= CHECKS - 1
        assert all(isinstance(one, wire.Block) and not one.continued for one in after)
        assert sum(isinstance(one, wire.Block) for one in asked) == 100


@pytest.mark.parametrize(
    ("arena", "arms", "job"),
    [
        (Arena(), ARMS, replace(JOB, outputs_may_differ=True)),
        (Arena(protocols={"baseline": 12}), ARMS, JOB),
        (Arena(), (ARMS[0], replace(ARMS[1], engine="mlx_lm")), JOB),
        (Arena(), ARMS, replace(JOB, workload="nano/text/pp40-tg64@mlx_lm")),
    ],
)
def test_where_logits_may_differ_or_cannot_be_had_none_are_asked_for(
    arena: Arena, arms: Sequence[ReadyArm], job: Job
) -> None:
    """Other outputs that were allowed, an older worker, an engine with a loop of its own."""
    arena.block_logits["candidate"] = OTHER
    with ready(arms, arena.tools, job) as running:
        found = measure(running, LaunchPlan(7, 30), arena.tools, session=0, start_s=1.0)["candidate"]
    assert isinstance(found, Launch)
    assert not arena.looked_at


@pytest.mark.parametrize("layout", [ON_CPU, BlockLayout()])
def test_logits_of_texts_that_parted_are_not_compared(layout: BlockLayout) -> None:
    """A near tie parts a text now and then; what follows is another one."""
    arena = Arena(block_logits={"candidate": OTHER}, block_token=lambda name: 7 + (name == "candidate"))
    with ready(ARMS, replace(arena.tools, layout=layout)) as running:
        found = measure(running, LaunchPlan(7, 9), arena.tools, session=0, start_s=1.0)["candidate"]
    assert isinstance(found, Launch)
    assert not arena.looked_at
