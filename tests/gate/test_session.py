import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.duel.agreement import same_tokens
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.errors import InvalidError, NotMeasuredError, RegressionError, UsageError
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.facts import Checked, Dispatch, Parity
from gemma3n_perf.gate.record import Evidence, WorkloadEvidence
from gemma3n_perf.gate.session import CheckSpec, Dependencies, FusionDuel, Keep, expand, gather, refusal
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.stats.verdicts import Caution, not_measured
from tests.fakes import STACK
from tests.gate.evidence_files import ALTUP, BIG, BUDGET_S, GEGLU, ONE, TWO, FakeSources, Scratch, checked, workload

NOW = dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC)


@dataclass
class Bench:
    """A machine on which checks and duels come out as a test says."""

    sources: FakeSources
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    effects: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    duelled: list[str] = field(default_factory=list)
    checked: list[tuple[str, bool, str]] = field(default_factory=list)

    def check(self, specs: Sequence[CheckSpec]) -> list[Checked]:
        """Return what is reported of each fusion; where it is off, an unchanged graph."""
        self.checked += [(one.fusion, one.enabled, one.workload) for one in specs]
        return [self.found(one) for one in specs]

    def found(self, one: CheckSpec) -> Checked:
        """Return what is reported of one fusion on one checkpoint."""
        made = checked(one.checkpoint) if one.enabled else Checked(one.checkpoint, Dispatch((9, 9)))
        return replace(made, **self.checks.get(one.fusion, {}))

    def measure(
        self, names: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float, keep: Keep
    ) -> Mapping[tuple[str, str], FusionDuel]:
        """Return duels of 5 % unless told otherwise."""
        assert (sessions, budget_s) == (2, BUDGET_S)
        self.duelled += names
        found = {}
        for name in names:
            for one in workloads:
                made = workload(one, self.effects.get((name, one), (0.05, 0.05)))
                found[name, one] = FusionDuel(made, cautions=(Caution("other", "tokens differ", ""),))
        return found

    def gather(self, *names: str) -> tuple[Evidence, ...]:
        """Run a session over two workloads of a GPU."""
        chip = Chip(BIG, "fake", "Fake")
        dependencies = Dependencies(chip, STACK, self.sources, self.check, self.measure, lambda: NOW)
        return gather(names, (ONE, TWO), dependencies, budget_s=BUDGET_S)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """Return a repository of two fusions."""
    return Scratch(tmp_path_factory.mktemp("session") / "repo")


@pytest.fixture
def bench(scratch: Scratch) -> Bench:
    """Return a bench over the repository's fusions."""
    return Bench(FakeSources(scratch.root))


def test_a_fusion_that_cannot_be_imported_is_invalid(bench: Bench) -> None:
    """As with ``sys.exit(0)``: nothing of it is checked or timed, the others are, and its record says so."""

    class Leaving(FakeSources):
        def enabled(self, name: str, chip: Chip) -> bool:
            if name == ALTUP:
                raise InvalidError("altup.py cannot be imported: SystemExit: 0")
            return super().enabled(name, chip)

    bench.sources = Leaving(bench.sources.root)
    left, other = bench.gather(ALTUP, GEGLU)
    assert (left.verdict, other.verdict) == ("invalid", "win")
    assert "SystemExit: 0" in left.reason
    assert bench.duelled == [GEGLU]
    assert {name for name, _, _ in bench.checked} == {GEGLU}
    assert isinstance(refusal(left), InvalidError)


def test_a_fusion_that_runs_what_no_digest_holds_is_invalid(bench: Bench) -> None:
    """It could be another one tomorrow, with the evidence of today."""

    class Hiding(FakeSources):
        def unseen(self, name: str) -> list[str]:
            return ["importlib in altup.py, line 3"] if name == ALTUP else []

    bench.sources = Hiding(bench.sources.root)
    left, other = bench.gather(ALTUP, GEGLU)
    assert (left.verdict, other.verdict) == ("invalid", "win")
    assert "its digest cannot hold all that it runs: importlib in altup.py, line 3" in left.reason
    assert bench.duelled == [GEGLU]


def test_a_sound_fusion_is_duelled_and_recorded(bench: Bench, tmp_path: Path) -> None:
    """With everything the gate asks for, and a verdict by the gate's own rules."""
    (record,) = bench.gather(ALTUP)
    assert (record.verdict, record.fusion, record.enabled) == ("win", ALTUP, True)
    assert [one.workload for one in record.workloads] == [ONE, TWO]
    assert [one.checkpoint for one in record.checked] == ["e2b-4bit", "e4b-4bit"]
    assert record.sources == bench.sources.digest(ALTUP)
    assert (record.commit, record.dirty, record.date) == (STACK.commit, False, NOW.isoformat())
    assert record.notes == ("tokens differ",)
    assert estimates(record.workloads[0].raw)
    assert store.read(store.write(tmp_path, record)).workloads == record.workloads
    assert refusal(record) is None


def test_a_record_has_the_stacks_of_its_duels(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first broke off, the next tells: an arm need not run as who asks does."""
    measure, stacks = bench.measure, {"baseline": STACK, "candidate": replace(STACK, knobs={"MLX_KNOB": "1"})}

    def told(*args: Any) -> Mapping[tuple[str, str], FusionDuel]:
        return {key: replace(one, stacks=stacks if key[1] == TWO else {}) for key, one in measure(*args).items()}

    monkeypatch.setattr(bench, "measure", told)
    (record,) = bench.gather(ALTUP)
    assert record.stacks == stacks


def test_sources_that_are_edited_while_they_are_measured_belong_to_no_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they were put back before the end; the others do."""
    path, measure = bench.sources.files(GEGLU)[0], bench.measure

    def edited(names: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float, keep: Keep) -> Any:
        found, text = measure(names, workloads, sessions, budget_s, keep), path.read_text()
        for change in ("faster", None):
            path.write_text(change) if change else path.unlink()
            keep(found)
            path.write_text(text)
        return found

    monkeypatch.setattr(bench, "measure", edited)
    other, record = bench.gather(ALTUP, GEGLU)
    assert (other.dirty, record.dirty) == (False, True)
    assert record.notes[-1] == "its sources were edited while it was measured"


def test_what_is_unsound_is_not_timed_and_the_others_are(bench: Bench) -> None:
    """A NaN costs nobody a duel, and has its record."""
    bench.checks[ALTUP] = {"parity": Parity(False, False, "NaN")}
    wrong, right = bench.gather(ALTUP, GEGLU)
    assert bench.duelled == [GEGLU]
    assert (wrong.verdict, wrong.workloads) == ("invalid", ())
    assert "NaN or infinite logits" in wrong.reason
    assert right.verdict == "win"


@pytest.mark.parametrize(
    "checks",
    [
        {"dispatch": Dispatch((9, 9))},
        {"failure": "applying it raised TypeError: bfloat16 only"},
        {"weights_kept": False},
        {"memory_ratio": 2.0},
    ],
)
def test_every_kind_of_unsound_is_invalid(bench: Bench, checks: dict[str, Any]) -> None:
    """A fallback, an exception, changed weights, copied weights: nothing is duelled."""
    bench.checks[ALTUP] = checks
    (record,) = bench.gather(ALTUP)
    assert record.verdict == "invalid"
    assert bench.duelled == []
    assert isinstance(refusal(record), InvalidError)


def test_a_knob_that_changes_tokens_is_invalid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no models to compare, so its duel's note decides; a fusion's tokens are for its parity to judge."""
    (caution,) = same_tokens(("a", "b"), may_differ=True)
    measure = bench.measure

    def differing(*args: Any) -> Mapping[tuple[str, str], FusionDuel]:
        return {key: replace(one, cautions=(caution,)) for key, one in measure(*args).items()}

    monkeypatch.setattr(bench, "measure", differing)
    assert bench.gather(ALTUP)[0].verdict == "win"
    knob = Dispatch((9, 9), knobs={"MLX_MAX_OPS_PER_BUFFER": "9"}, same=True)
    bench.checks[ALTUP] = {"dispatch": knob, "parity": Parity(True, True)}
    (record,) = bench.gather(ALTUP)
    assert record.verdict == "invalid"
    assert "different greedy tokens" in record.reason


def test_off_is_proved_without_a_duel(bench: Bench) -> None:
    """The graph is looked at, nothing is timed, and the session does not fail."""
    bench.sources.off[ALTUP] = (BIG,)
    (record,) = bench.gather(ALTUP)
    assert bench.checked == [(ALTUP, False, ONE), (ALTUP, False, TWO)]
    assert (record.enabled, record.workloads, bench.duelled) == (False, (), [])
    assert "the decode graph is unchanged" in record.reason
    assert refusal(record) is None


def test_off_that_changes_the_graph_is_invalid(bench: Bench) -> None:
    """On a class where nothing was to happen."""
    bench.sources.off[ALTUP] = (BIG,)
    bench.checks[ALTUP] = {"dispatch": Dispatch((9, 8), {"operations.Add": (3, 2)})}
    (record,) = bench.gather(ALTUP)
    assert record.verdict == "invalid"


def test_one_workload_that_loses_is_a_loss(bench: Bench) -> None:
    """The worst workload is the record's verdict."""
    bench.effects[ALTUP, TWO] = (-0.05, -0.05)
    (record,) = bench.gather(ALTUP)
    assert record.verdict == "loss"
    error = refusal(record)
    assert isinstance(error, RegressionError)
    assert error.exit_code == 1


def test_a_win_in_one_session_is_no_win_here_either(bench: Bench) -> None:
    """The session judges as the gate will."""
    bench.effects[ALTUP, TWO] = (0.08, 0.002)
    assert bench.gather(ALTUP)[0].verdict == "inconclusive"


def test_a_duel_that_broke_off_is_not_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason, and exit 4."""
    monkeypatch.setattr(
        bench,
        "measure",
        lambda names, workloads, sessions, budget_s, keep: {
            (name, one): FusionDuel(WorkloadEvidence(one, not_measured("the worker hung"), (), budget_s, ()))
            for name in names
            for one in workloads
        },
    )
    (record,) = bench.gather(ALTUP)
    assert (record.verdict, record.reason) == ("not-measured", "the worker hung")
    assert isinstance(refusal(record), NotMeasuredError)


def test_unknown_and_repeated_names_are_refused(bench: Bench) -> None:
    """Before anything is checked."""
    for names in ((), (ALTUP, ALTUP), ("no-such",)):
        with pytest.raises(UsageError):
            bench.gather(*names)
    assert bench.checked == []


def test_all_is_every_fusion_once(bench: Bench) -> None:
    """Beside compositions; an unknown name is refused."""
    assert expand(["all", ALTUP, f"{ALTUP}+{GEGLU}"], bench.sources) == (ALTUP, GEGLU, f"{ALTUP}+{GEGLU}")
    with pytest.raises(UsageError):
        expand(["no-such"], bench.sources)
