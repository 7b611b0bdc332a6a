from pathlib import Path

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate import farm
from gemma3n_perf.gate.policy import POLICY_FILE, parse_policy
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.types import Chip
from tests.hardware.replay import recorded

CHIP = Chip("fake-cpu-2c", "cpu", "Fake")
MAC = detect(recorded("m1-ultra-64"))
NANO = "nano/text/pp40-tg64"
LISTED = f"""# ours
[gate]
required = [
    "a",  # the first
    "b",
]
sessions = 2

[regression]
required = ["a", "b"]

# an old one
[classes.a]
workloads = ["{NANO}"]
runner = ["x"]

[classes."b"]  # quoted
state = "required"
workloads = [
    "{NANO}",
]

[classes.c]
workloads = ["{NANO}"]
"""


def test_an_empty_policy_becomes_one_that_requires_this_machine() -> None:
    """With what suits its chip, and the labels that GitHub gives its runner."""
    text, policy = farm.with_machine("", MAC)
    assert policy.required == policy.compared == ("apple-m1-ultra-64gpu",)
    own = policy.classes["apple-m1-ultra-64gpu"]
    assert own.runner == ("self-hosted", "macOS", "ARM64", "apple-m1-ultra-64gpu")
    assert own.workloads
    assert all(one.split("/")[1] == "text" for one in own.workloads)
    assert farm.with_machine(text, MAC)[0] == text
    assert farm.with_machine("", CHIP)[1].classes["fake-cpu-2c"].runner == ("self-hosted", "linux", "fake-cpu-2c")


def test_a_further_machine_is_measured_and_nothing_else_changes() -> None:
    """A list of required classes becomes states of the tables; comments stay."""
    text, policy = farm.with_machine(LISTED, CHIP)
    assert policy.required == ("a", "b")
    assert (policy.classes["fake-cpu-2c"].state, policy.classes["c"].state) == ("measured", "measured")
    assert policy.regression.required == ("a", "b")
    assert "# ours" in text
    assert "# an old one" in text
    assert "# the first" not in text
    assert policy.classes["a"].runner == ("x",)
    assert "\n[classes.fake-cpu-2c]\n" in text
    assert farm.with_machine("", Chip("fake.5", "cpu", "Fake"))[1].required == ("fake.5",)


def test_other_farms_classes_await_a_machine() -> None:
    """And are asked for nowhere: neither by the gate nor by the comparison of programs."""
    text, policy = farm.with_machine(LISTED, CHIP, park=True)
    assert policy.awaiting == ("a", "b", "c")
    assert policy.required == policy.compared == ("fake-cpu-2c",)
    assert farm.with_machine(text, CHIP, park=True)[0] == text
    back, policy = farm.with_machine(text, Chip("a", "cpu", "Fake"))
    assert policy.classes["a"].state == "measured"
    assert policy.classes["a"].runner == ("self-hosted", "linux", "a")
    assert back.count("[classes.a]") == 1


def test_a_state_that_is_asked_for_is_given() -> None:
    """A second required class; not one of none that are required."""
    assert farm.with_machine(LISTED, CHIP, "required")[1].required == ("a", "b", "fake-cpu-2c")
    with pytest.raises(UsageError, match="required classes"):
        farm.with_machine("", CHIP, "measured")
    with pytest.raises(UsageError, match="required classes"):
        farm.with_machine(LISTED, CHIP, "awaiting", park=True)


@pytest.mark.parametrize(
    "text",
    [
        f'classes = {{a = {{state = "required", workloads = ["{NANO}"]}}}}\n',
        f'[classes]\na = {{state = "required", workloads = ["{NANO}"]}}\n',
    ],
)
def test_a_policy_that_is_written_otherwise_is_not_spoilt(text: str) -> None:
    """Inline tables cannot be edited line by line: a person is asked to."""
    assert parse_policy(text).required == ("a",)
    with pytest.raises(UsageError, match="edit it by hand"):
        farm.with_machine(text, CHIP, park=True)


@pytest.mark.parametrize("spoilt", ["[gate", "[gate]\nrequird = []\n", '[classes.a]\nstate = "gone"\n'])
def test_a_policy_with_a_fault_is_named(spoilt: str) -> None:
    """It is mended before anything is added to it."""
    with pytest.raises(UsageError):
        farm.with_machine(spoilt, CHIP)


def test_this_checkouts_own_policy_can_be_made_anyones() -> None:
    """Whatever it names: one machine is left, and the rest is shown as awaiting."""
    text = (Path(__file__).parents[2] / "baselines" / POLICY_FILE).read_text()
    others = set(parse_policy(text).classes) - {MAC.chip_class}
    _, policy = farm.with_machine(text, MAC, park=True)
    assert policy.required == (MAC.chip_class,)
    assert set(policy.awaiting) == others
