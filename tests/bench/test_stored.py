import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.bench.stored import drift, in_brief, slow_host, spread
from gemma3n_perf.store.types import COMMITTED, Baseline, Session
from tests.fakes import CHIP, STACK, WORKLOAD, measurement

TIMES = (0.0099, 0.01, 0.0101, 0.01, 0.01)


def baseline(times: tuple[float, ...] = TIMES, **changes: Any) -> Baseline:
    """Return stored sessions with these seconds per token."""
    sessions = tuple(
        Session(f"s{number}", CHIP, STACK, 0.0, "2026-07-01T10:00:00+00:00", (measurement(WORKLOAD, one, **changes),))
        for number, one in enumerate(times)
    )
    return Baseline(CHIP, STACK, sessions, COMMITTED, tuple(f"000{number}_x.json" for number in range(len(times))))


def test_stored_sessions_are_summed_up_in_a_line() -> None:
    """Their middle, where 95 of 100 such sessions lie, and today."""
    found = spread(baseline(), WORKLOAD)
    assert found is not None
    assert 97 < found[1] < 99 < found[0] < 101 < found[2] < 103
    assert in_brief(found, measurement(WORKLOAD, 0.0125)).endswith("; today 80.0")
    assert in_brief((109.0, 103.0, 115.0), None) == "stored: 109.0 tok/s [103.0, 115.0]; not timed today"


@pytest.mark.parametrize(
    ("stored", "today"),
    [
        (baseline(TIMES[:4]), measurement()),
        (baseline(checkpoint_digest="forged:2"), measurement()),
        (baseline(), measurement(generated_tokens=63)),
        (baseline(), measurement("nano/text/pp140-tg64")),
    ],
)
def test_fewer_than_five_of_a_kind_say_nothing(stored: Baseline, today: Any) -> None:
    """Nor do sessions of other bytes or tokens."""
    assert spread(stored, today.workload, today) is None


def test_sessions_of_another_checkpoint_are_left_out() -> None:
    """Where nothing was measured today, its digest tells."""
    assert spread(baseline(), WORKLOAD, None, "forged:1") is not None
    assert spread(baseline(), WORKLOAD, None, "forged:2") is None


def test_drift_is_said_outside_the_spread_alone() -> None:
    """Slower or faster, with what the records know to differ."""
    found = spread(baseline(), WORKLOAD)
    assert found is not None
    assert drift(found, measurement(tpot_s=0.0101), baseline(), STACK) is None
    slow = drift(found, measurement(tpot_s=0.0125), baseline(), replace(STACK, os="Linux 6.2"))
    assert slow is not None
    assert (slow.code, "slower than in its stored sessions" in slow.found) == ("drift", True)
    assert slow.found.endswith("what differs from them: os Linux 6.1 -> Linux 6.2")
    mac = replace(STACK, power_mode="high", wheel="macosx_26_0_arm64", neural_accelerator=True)
    before = replace(mac, power_mode="low", wheel="macosx_15_0_arm64", neural_accelerator=False)
    slow = drift(found, measurement(tpot_s=0.0125), replace(baseline(), stack=before), mac)
    assert slow is not None
    for name in ("power-mode low -> high", "neural-accelerator False -> True", "wheel macosx_15_0_arm64 -> "):
        assert name in slow.found
    fast = drift(found, measurement(tpot_s=0.008), baseline(), STACK)
    assert fast is not None
    assert "faster than in its stored sessions" in fast.found
    assert fast.found.endswith("what differs from them: nothing in the records")


def pool(times: Mapping[Any, Sequence[float]]) -> Baseline:
    """Return stored sessions of several hosts, by seconds per token."""
    sessions = tuple(
        Session(
            f"{host}{number}", replace(CHIP, host=host), STACK, 0.0, "2026-07-01T10:00:00+00:00",
            (measurement(WORKLOAD, one),),
        )
        for host, own in times.items()
        for number, one in enumerate(own)
    )  # fmt: skip
    return Baseline(CHIP, STACK, sessions, COMMITTED, tuple(one.id for one in sessions))


OTHERS = {"b": (0.01, 0.0101), "c": (0.0101, 0.0101), "d": (0.0099, 0.01)}


def test_a_slow_host_is_named_as_one() -> None:
    """By how much, and than how many; its stored sessions count with today's."""
    found = slow_host(pool(OTHERS), measurement(tpot_s=0.0134), "a")
    assert found is not None
    assert found.code == "slow-host"
    assert "this host is 25 % slower than the 3 others of its class in the records (1 session of each)" in found.found
    found = slow_host(pool(OTHERS | {"a": (0.0134, 0.0134)}), measurement(tpot_s=0.0134), "a")
    assert found is not None
    assert "25 % slower than the 3 others of its class in the records (2 sessions of each)" in found.found


@pytest.mark.parametrize(
    ("stored", "today", "host"),
    [
        (OTHERS, 0.0101, "a"),  # like the others
        (OTHERS, 0.007, "a"),  # faster
        (OTHERS, 0.0102, "a"),  # slower than matters
        (OTHERS, 0.0134, None),  # on a host without an id
        ({"b": OTHERS["b"], "c": OTHERS["c"]}, 0.0134, "a"),  # two others
        ({None: (0.01,) * 9}, 0.0134, "a"),  # records that tell no hosts
        ({"b": (0.009,), "c": (0.011,), "d": (0.01,)}, 0.0134, "a"),  # others that lie as far apart
        (OTHERS | {"a": (0.01, 0.01)}, 0.0103, "a"),  # slower today alone
    ],
)
def test_no_host_is_called_slow_without_support(stored: Any, today: float, host: str | None) -> None:
    """The spread of the others decides."""
    assert slow_host(pool(stored), measurement(tpot_s=today), host) is None


def test_hosts_that_are_alike_are_seldom_called_slow() -> None:
    """In 1 % of cases, however many sessions each has."""
    rng, wrong = random.Random(7), 0
    for _ in range(400):
        hosts = {name: rng.gauss(0.01, 0.0005) for name in "abcde"}
        times = {name: [rng.gauss(middle, 0.0003) for _ in range(rng.randint(1, 4))] for name, middle in hosts.items()}
        wrong += slow_host(pool(times), measurement(tpot_s=rng.gauss(hosts["a"], 0.0003)), "a") is not None
    assert wrong <= 10
