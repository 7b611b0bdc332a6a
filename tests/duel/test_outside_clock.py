import random

import pytest

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.outside_clock import OutsideClock


def blocks(hidden_s: dict[str, float], *, tpot_s: tuple[float, float] = (0.01, 0.01), n: int = 140) -> OutsideClock:
    """Return blocks of both arms, each with so much outside its clock, more or less."""
    rng, made = random.Random(3), OutsideClock()
    for _ in range(n):
        for arm, own_s in zip(ARMS, tpot_s, strict=True):
            claimed = own_s * rng.uniform(0.9, 1.3)
            made.blocks[arm].append((claimed + hidden_s[arm] * rng.uniform(0.8, 1.4), claimed))
    return made


def rewound(
    slow: float = 1.0,
    *,
    rewind_s: tuple[float, float] = (0.003, 0.0035),
    n: int = 12,
    tpot_s: float = 0.004,
    seed: int = 3,
) -> OutsideClock:
    """Return blocks of 7 steps and of 4 that rewind first; the candidate's clock shows so much of what passes."""
    rng, made = random.Random(seed), OutsideClock()
    for arm, own_s, shown in zip(ARMS, rewind_s, (1.0, slow), strict=True):
        for number in range(2 * n):
            steps = (7, 4)[number % 2]
            passed = steps * tpot_s * rng.uniform(0.9, 1.3)
            kept = made.short if steps == 4 else made.blocks
            kept[arm].append((passed + own_s * rng.uniform(0.8, 1.4), passed * shown))
    return made


def test_an_honest_arm_hides_nothing() -> None:
    """Whatever it costs to ask a process, both arms cost it, and a faster one no less."""
    for hidden in (0.0002, 0.003):
        assert blocks(dict.fromkeys(ARMS, hidden)).fault() is None
        assert blocks(dict.fromkeys(ARMS, hidden), tpot_s=(0.02, 0.004)).fault() is None


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("slow", [0.97, 0.8, 0.3])
def test_a_slow_clock_is_seen_from_outside(arm: str, slow: float) -> None:
    """In either arm, with what it hides."""
    made = blocks(dict.fromkeys(ARMS, 0.0004))
    made.blocks[arm] = [(elapsed, claimed * slow) for elapsed, claimed in made.blocks[arm]]
    fault = made.fault()
    assert fault is not None
    assert f"a block of the {arm} takes" in fault.found
    assert "outside its own clock" in fault.found
    assert fault.expected == "the same of both, within 1 % of a block"
    assert made.hidden_share() is None
    made.rewound[ARMS[0]] = [(0.03, 0.01)]
    share = made.hidden_share()
    assert share is not None
    assert (share < 0) is (arm == ARMS[0])
    assert abs(share) > 0.9 * (1 - slow)


def test_an_arm_may_take_a_little_longer_to_rewind() -> None:
    """Not as long as a step that is done there."""
    for seed in range(300):
        assert rewound(seed=seed, n=random.Random(seed).choice((5, 9, 20))).fault() is None, seed
    fault = rewound(rewind_s=(0.003, 0.012)).fault()
    assert fault is not None
    assert "of one of the baseline" in fault.found


def test_what_is_done_as_an_arm_rewinds_is_seen() -> None:
    """A copy and a step are done there in both arms; what follows is not. One of two may have been disturbed."""
    cases = ((0.012, 0.4), (0.35, 0.4), (0.35,), (0.09, 0.1), (0.09, 0.1, 0.4), (0.012, 0.1, 0.4), (0.012, 0.7, 0.8))
    for hidden_s, invalid in zip(cases, (False, True, False, False, True, False, True), strict=True):
        made = blocks(dict.fromkeys(ARMS, 0.0004))
        made.rewound[ARMS[0]] = [(0.022, 0.01), (0.024, 0.01), (0.023, 0.01)]
        made.rewound[ARMS[1]] = [(0.01 + one, 0.01) for one in hidden_s]
        fault = made.fault()
        assert (fault is not None) is invalid, hidden_s
        shown = hidden_s[0] if hidden_s[0] > 0.02 else hidden_s[1]
        said = f"as it rewinds, the candidate works {1000 * shown:.0f} ms outside its own clock"
        assert fault is None or said in fault.found


@pytest.mark.parametrize(("slow", "held"), [(0.93, "a shorter one"), (0.5, "one of the baseline")])
def test_a_slow_clock_is_seen_where_blocks_rewind(slow: float, held: str) -> None:
    """What lies outside it grows with the steps."""
    fault = rewound(slow, rewind_s=(0.001, 0.001), n=60).fault()
    assert fault is not None
    assert "a block of the candidate takes" in fault.found
    assert fault.found.endswith(f"of {held}")


def test_an_arm_rests_while_the_other_is_timed() -> None:
    """A thread of its own that works then slows the other; what is left to do after a reply does not."""
    made = blocks(dict.fromkeys(ARMS, 0.0004))
    made.short = {arm: [(0.01, 0.009)] for arm in ARMS}
    made.add_idle(ARMS[1], 1.2, 0.02, after=False)
    made.add_idle(ARMS[0], 0.05, 0.05, after=False)
    made.add_idle(ARMS[1], 1.2, 0.1, after=True)
    assert made.fault() is None
    # Where blocks go on where others ended, a process has nothing left to do.
    made.short = {arm: [] for arm in ARMS}
    assert made.fault() is not None
    made.short = {arm: [(0.01, 0.009)] for arm in ARMS}
    made.add_idle(ARMS[1], 1.2, 0.5, after=True)
    assert made.fault() is not None
    made.idle_after[ARMS[1]] = (0.0, 0.0)
    made.add_idle(ARMS[1], 1.3, 0.4, after=False)
    fault = made.fault()
    assert fault is not None
    assert fault.found == "the candidate used 0.42 s of CPU time in 2.50 s in which the baseline was timed"


def test_what_lies_at_the_ends_of_blocks_is_held_against_the_other_arm() -> None:
    """Tokens there do not count, and a fusion takes a little longer over them; a clock that shortens others shows."""
    made = blocks(dict.fromkeys(ARMS, 0.0004))
    made.uncounted[ARMS[0]] = [0.145, 0.15, 0.14, 0.16, 0.145]
    made.uncounted[ARMS[1]] = [0.2, 0.21, 0.19, 0.3, 0.2]
    assert made.fault() is None
    made.uncounted[ARMS[1]] = [share + 0.05 for share in made.uncounted[ARMS[1]]]
    fault = made.fault()
    assert fault is not None
    assert fault.found.startswith(
        "25 % of a block of the candidate lie in tokens at its ends, which do not count, and 14 %"
    )


def test_a_few_blocks_show_what_is_gross() -> None:
    """The fewest launches have six pairs; what is hidden must be more than chance."""
    assert blocks(dict.fromkeys(ARMS, 0.0004), n=6).fault() is None
    assert blocks({ARMS[0]: 0.0004, ARMS[1]: 0.008}, n=6).fault() is not None
    assert blocks({ARMS[0]: 0.0004, ARMS[1]: 0.008}, n=4).fault() is None


def test_a_busy_machine_hides_alike() -> None:
    """In 300 launches whose blocks wait for a core now and then, none is at fault."""
    for seed in range(300):
        rng, made = random.Random(seed), OutsideClock()
        for _ in range(rng.choice((6, 12, 30, 140))):
            for arm in ARMS:
                claimed = 0.01 * rng.uniform(0.9, 2)
                waited = rng.expovariate(1 / 0.004) if rng.random() < 0.3 else 0.0
                made.blocks[arm].append((claimed + 0.0004 * rng.uniform(0.8, 1.4) + waited, claimed))
        assert made.fault() is None, seed
