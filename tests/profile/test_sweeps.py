"""Knobs as duels: what is suggested, what is refused, and what a crash costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.errors import UsageError, WorkerFailedError
from gemma3n_perf.profile import sweeps
from gemma3n_perf.profile.sweeps import Setting
from gemma3n_perf.profile.types import Knob
from gemma3n_perf.stats.verdicts import Judgement, Verdict


def judged(verdict: Verdict, low: float, high: float) -> Judgement:
    """Return a judgement over an interval."""
    return Judgement(verdict, "a reason", effect=(low + high) / 2, low=low, high=high, launches=4)


class Duels:
    """Duels by a table of effects; an arm that is not in it brings the whole duel down."""

    def __init__(self, table: Mapping[str, Judgement]) -> None:
        self.table, self.requests = table, list[tuple[str, ...]]()

    def __call__(self, arms: Sequence[str]) -> Mapping[str, Judgement]:
        """Judge all, or fail."""
        self.requests.append(tuple(arms))
        lost = [arm for arm in arms if arm not in self.table]
        if lost:
            raise WorkerFailedError(f"the worker of {lost[0]} crashed")
        return {arm: self.table[arm] for arm in arms}


def measured(duels: Duels, *texts: str, present: Mapping[str, str] | None = None) -> dict[str, Knob]:
    """Measure; MLX reads what begins with MLX_KNOWN."""
    settings = [Setting.parse(text) for text in texts]
    found = sweeps.measure(settings, duels, reads=lambda name: name.startswith("MLX_KNOWN"), present=present or {})
    return {one.setting: one for one in found.knobs}


def test_only_a_win_is_suggested_and_the_surest_of_them() -> None:
    """A larger estimate with a lower low end is the worse bet; a loss and no change are none."""
    knobs = [
        Knob("A=1", "win", "", 0.20, 0.02, 0.38), Knob("B=1", "win", "", 0.10, 0.08, 0.12),
        Knob("C=1", "no-change", "", 0.001, -0.004, 0.006), Knob("D=1", "inconclusive", "", 0.3, -0.1, 0.7),
    ]  # fmt: skip
    assert sweeps.suggestion(knobs) == "B=1"
    assert sweeps.suggestion(knobs[2:]) is None
    assert sweeps.suggestion([]) is None


def test_all_settings_go_through_the_same_duels() -> None:
    """One field for all of them, each as an arm of this environment with the variables set."""
    first, both = "here+env:MLX_KNOWN=1", "here+env:MLX_KNOWN=1+env:MLX_KNOWN_TOO=2"
    duels = Duels({first: judged(Verdict.WIN, 0.1, 0.2), both: judged(Verdict.LOSS, -0.2, -0.1)})
    found = measured(duels, "MLX_KNOWN=1", "MLX_KNOWN=1+MLX_KNOWN_TOO=2")
    assert duels.requests == [(first, both)]
    assert parse(both).env == (("MLX_KNOWN", "1"), ("MLX_KNOWN_TOO", "2"))
    assert found["MLX_KNOWN=1"].verdict == "win"
    assert (found["MLX_KNOWN=1+MLX_KNOWN_TOO=2"].low, found["MLX_KNOWN=1"].launches) == (-0.2, 4)


def test_a_value_that_crashes_costs_only_itself() -> None:
    """Where the duel of all fails, each is tried by itself, and the one that fails again says why."""
    good = "here+env:MLX_KNOWN=1"
    duels = Duels({good: judged(Verdict.NO_CHANGE, -0.001, 0.001)})
    found = measured(duels, "MLX_KNOWN=1", "MLX_KNOWN_BAD=0")
    assert found["MLX_KNOWN=1"].verdict == "no-change"
    assert found["MLX_KNOWN_BAD=0"].verdict == "not-measured"
    assert "crashed" in found["MLX_KNOWN_BAD=0"].reason
    assert len(duels.requests) == 3


def test_a_variable_that_mlx_never_reads_is_no_setting() -> None:
    """It would duel as no change, which says that a knob makes no difference: there is no knob."""
    duels = Duels({})
    found = measured(duels, "MLX_MISSPELT=1", "MLX_KNOWN=1+OTHER=2")
    assert [one.verdict for one in found.values()] == ["not-measured"] * 2
    assert "does not read MLX_MISSPELT" in found["MLX_MISSPELT=1"].reason
    assert duels.requests == []


def test_a_variable_that_is_set_already_is_not_judged_against_the_default() -> None:
    """Both arms would have it."""
    found = measured(Duels({}), "MLX_KNOWN=1", present={"MLX_KNOWN": "5"})
    assert "set already" in found["MLX_KNOWN=1"].reason


@pytest.mark.parametrize("text", ["", "MLX_A", "mlx_a=1", "MLX_A=1+", "MLX_A=1+MLX_A=2", "MLX_A= 1"])
def test_a_setting_that_is_not_understood_is_refused(text: str) -> None:
    """Before anything is measured."""
    with pytest.raises(UsageError, match="setting"):
        Setting.parse(text)


def test_each_limit_is_tried_alone_and_with_its_twin() -> None:
    """One of the two can hide the other; every default is a setting, and a quick sweep keeps a pair."""
    for vendor in ("apple", "nvidia"):
        names = [Setting.parse(text).names for text in sweeps.DEFAULTS[vendor]]
        assert {(sweeps.OPS,), (sweeps.MB,), (sweeps.OPS, sweeps.MB)} <= set(names)
    assert ("MLX_USE_CUDA_GRAPHS",) in [Setting.parse(text).names for text in sweeps.DEFAULTS["nvidia"]]


def test_the_library_is_asked_which_variables_it_reads(tmp_path: Path) -> None:
    """By name, in any of its files; without a library nothing can be said."""
    (tmp_path / "lib").mkdir()
    assert sweeps.library_reads(tmp_path)("MLX_A") is None
    (tmp_path / "lib" / "libmlx.so").write_bytes(b"\x00MLX_BFS_MAX_WIDTH\x00")
    (tmp_path / "core.dylib").write_bytes(b"")
    reads = sweeps.library_reads(tmp_path)
    assert (reads("MLX_BFS_MAX_WIDTH"), reads("MLX_MISSPELT")) == (True, False)


def test_this_mlx_reads_what_a_cpus_sweep_sets() -> None:
    """The default sweep of a CPU would else measure nothing."""
    import mlx.core as mx

    reads = sweeps.library_reads(Path(mx.__file__).parent)
    assert reads("MLX_DISABLE_COMPILE") is True
    assert reads("MLX_NO_SUCH_KNOB_AT_ALL") is False
