from typing import Any

import pytest

from gemma3n_perf.hardware.machine import keep_awake


class Mode:
    """Stands in for wakepy's mode."""

    method = None

    def __init__(self, active: bool, entering: str = "", leaving: str = "") -> None:
        self.active = active
        self.entering, self.leaving = entering, leaving
        self.left = False

    def __enter__(self) -> "Mode":
        if self.entering:
            raise RuntimeError(self.entering)
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True
        if self.leaving:
            raise RuntimeError(self.leaving)


def awake(mode: Any) -> str:
    """Return what keep_awake says it achieved."""
    with keep_awake(lambda: mode) as status:
        assert not mode.left
    return status


def test_keep_awake_tells_what_it_achieved() -> None:
    """Being refused is an answer, not a failure; what was begun is ended."""
    kept, refused = Mode(active=True), Mode(active=False)
    assert awake(kept) == "kept awake by wakepy"
    assert awake(refused).startswith("not kept awake: neither caffeinate")
    assert kept.left
    assert refused.left


def test_keep_awake_never_fails_a_measurement() -> None:
    """Neither on the way in nor on the way out."""
    assert awake(Mode(active=True, entering="no bus")) == "not kept awake: no bus"
    assert awake(Mode(active=True, leaving="lost bus")) == "kept awake by wakepy"


def test_keep_awake_hides_no_error_of_the_measurement() -> None:
    """What the measurement raised comes out, even where letting go fails."""
    mode: Any = Mode(active=True, leaving="lost bus")
    with pytest.raises(ValueError, match="measured"), keep_awake(lambda: mode):
        raise ValueError("measured")
    assert mode.left


def test_keep_awake_on_this_machine_says_something() -> None:
    """With the real keeper, whatever this machine has to offer."""
    with keep_awake() as status:
        assert "kept awake" in status
