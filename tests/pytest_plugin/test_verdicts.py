"""What a user reads and what the shell gets, for every outcome of ``pytest perf/ --benchmark-compare``."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gemma3n_perf.decode.types import HostWork
from gemma3n_perf.errors import (
    ArmUnavailableError,
    BadConditionsError,
    NoBaselineError,
    NonFiniteError,
    OutOfMemoryError,
    UsageError,
)
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.pytest_plugin.stage import CHECKOUT, GRAPH, IMAGE, LONG, LOSS, TEXT, TPOT_S, WORKLOADS, Stage

COMPARE = "--benchmark-compare"
MORE = replace(GRAPH, operations={"QuantizedMatmul": 75}, nodes=901)
WIN = Judgement(Verdict.WIN, "the whole interval lies above 0.5 %", 0.03, 0.02, 0.04)
OPEN = Judgement(Verdict.INCONCLUSIVE, "the budget is spent", 0.0, -0.02, 0.02)
INVALID = Judgement(Verdict.INVALID, "the arms decode different greedy tokens")


def test_plain_session_measures_stores_and_passes(stage: Stage) -> None:
    """Without a comparison every workload has its row, no verdict, and one file is kept."""
    outcome = stage.run()
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 not compared"
    assert "100.0" in outcome.line("[", ",") or "100.0" in outcome.text
    assert len(stage.local_files) == 1
    assert stage.script.taken == [name for name in (TEXT, LONG, IMAGE) for _ in range(10)]


def test_a_first_run_answers_on_a_machine_that_never_measured(stage: Stage) -> None:
    """Without any baseline: a verdict for every workload of one family, what it is against, and how to choose."""
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 no-change"
    line = "change against ref:111111111111 (the parent commit); choose another with --against ARM"
    assert line in outcome.text
    assert "warning: no baseline" not in outcome.text
    assert stage.script.duelled == list(WORKLOADS)
    assert stage.script.taken == [name for name in WORKLOADS for _ in range(3)]
    assert len(list((stage.folder / "data" / "duels" / "cpu-fake-2c").iterdir())) == 1


def test_the_same_program_is_not_measured(stage: Stage) -> None:
    """Stored numbers stand in for today's; nothing is timed, counted or stored."""
    stage.commit()
    stage.script.same = True
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 no-change"
    assert f"{TEXT}: no-change: the same program; stored: 100.0 tok/s" in outcome.text
    assert "not timed today" in outcome.text
    assert (stage.script.taken, stage.script.duelled, stage.local_files) == ([], [], [])


def test_runs_are_taken_of_the_same_program_where_they_were_requested(stage: Stage) -> None:
    """Today's numbers beside the stored ones, and still no duel."""
    stage.commit()
    stage.script.same = True
    outcome = stage.run(COMPARE, "--runs", "2")
    assert outcome.code == 0
    assert f"{TEXT}: no-change: the same program; stored: 100.0 tok/s" in outcome.text
    assert "today 100.0" in outcome.text
    assert stage.script.taken == [name for name in WORKLOADS for _ in range(2)]
    assert stage.script.duelled == []


def test_the_same_program_is_duelled_where_that_was_requested(stage: Stage) -> None:
    """--measure-anyway shows what a duel of one program with itself shows."""
    stage.script.same = True
    outcome = stage.run(COMPARE, "--measure-anyway")
    assert outcome.code == 0
    assert stage.script.duelled == list(WORKLOADS)


def test_a_planted_slowdown_is_never_the_same_program(stage: Stage) -> None:
    """The test button rings on a machine that never measured."""
    stage.script.same = True
    outcome = stage.run(COMPARE, "--plant-slowdown", "25%")
    assert outcome.code == 1
    assert outcome.closing == "3 workloads: 3 loss [planted 25 %]"
    assert stage.script.requests[0].candidate == "here+plant:+25%"


def test_a_loss_fails_with_what_differs(stage: Stage) -> None:
    """Exit 1 with the workload, its change, the operations and the files."""
    stage.script.judgements = {TEXT: LOSS}
    stage.script.theirs = replace(GRAPH, operations={"QuantizedMatmul": 74}, nodes=900)
    stage.script.graph = replace(GRAPH, operations={"QuantizedMatmul": 74, "Transpose": 60}, nodes=960)
    outcome = stage.run(COMPARE)
    assert outcome.code == 1
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"
    assert f"warning: {TEXT}: loss: " in outcome.text
    assert f"{TEXT}: loss; what differs: graph: +60 Transpose decode/decoder.py changed" in outcome.text
    assert "-20.0 %" in outcome.out
    assert "Traceback" not in outcome.text


def test_a_loss_that_is_run_twice_fails_twice(stage: Stage) -> None:
    """A session of this machine is context and never what is compared with."""
    stage.script.judgements = {TEXT: LOSS}
    stage.script.tpot_s = {TEXT: 1.25 * TPOT_S}
    assert [stage.run(COMPARE).code for _ in range(3)] == [1, 1, 1]
    assert len(list((stage.folder / "data" / "sessions").rglob("*.json"))) == 3


@pytest.mark.parametrize(
    ("judgement", "code"),
    [(WIN, 0), (OPEN, 3), (INVALID, 5), (LOSS, 1), (replace(OPEN, verdict=Verdict.NOT_MEASURED), 4)],
)
def test_exit_codes_are_those_of_the_commands(stage: Stage, judgement: Judgement, code: int) -> None:
    """Without --strict too."""
    stage.script.judgements = {LONG: judgement}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    assert judgement.reason in outcome.text or code == 0


@pytest.mark.parametrize(("judgement", "code"), [(None, 1), (OPEN, 1), (WIN, 0)])
def test_a_count_that_rose_fails_without_a_win(stage: Stage, judgement: Judgement | None, code: int) -> None:
    """One node more is exit 1 where no win pays for it."""
    stage.script.graph = MORE
    stage.script.judgements = dict.fromkeys(WORKLOADS, judgement) if judgement else {}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    assert f"{TEXT}: exact counts rose: graph nodes 900 -> 901" in outcome.text
    assert "graph: +1 QuantizedMatmul" in outcome.text
    said = outcome.out.index(f"{TEXT}: exact counts rose")
    assert said < outcome.out.index("bench_decode.py")  # before anything is timed


@pytest.mark.parametrize(("effect", "code", "said"), [("-30 %", 0, "accepts it"), ("-3 %", 1, "accepts -3.0 %")])
def test_a_loss_that_a_maintainer_accepts_passes_and_is_named(stage: Stage, effect: str, code: int, said: str) -> None:
    """With the counts that rose; the verdict stays, and so does the loss of a workload that the file does not name."""
    head = Repository(CHECKOUT).commit()
    folder = stage.folder / "baselines" / "accepted"
    folder.mkdir(parents=True)
    text = f'commit = "{head}"\nworkload = "{TEXT}"\neffect = "{effect}"\nwhy = "users asked for it"\n'
    (folder / "sampler.toml").write_text(text)
    stage.script.judgements = {TEXT: LOSS}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"
    assert f"baselines/accepted/sampler.toml {said}" in outcome.text
    stage.script.judgements = {LONG: LOSS}
    assert stage.run(COMPARE).code == 1


def test_an_accepted_file_that_does_not_parse_is_named_before_measuring(stage: Stage) -> None:
    """Exit 5: nobody knows what it would accept."""
    folder = stage.folder / "baselines" / "accepted"
    folder.mkdir(parents=True)
    (folder / "sampler.toml").write_text("effect = ")
    outcome = stage.run(COMPARE)
    assert outcome.code == 5
    assert "sampler.toml" in outcome.text.replace(" ", "")
    assert stage.script.opened == 0


def test_a_count_that_fell_never_fails(stage: Stage) -> None:
    """Nor does peak memory, whatever stored sessions had."""
    stage.commit()
    stage.script.theirs = MORE
    stage.script.changes = {TEXT: {"peak_memory_bytes": 591_000_000, "kv_bytes": 2_000_001}}
    assert stage.run(COMPARE).code == 0


def test_counts_alone_are_compared_before_any_timing(stage: Stage) -> None:
    """-k graph opens no bench; a rise is exit 1 with its cause."""
    stage.script.graph = replace(MORE, host=HostWork(1001, 5, {}, "3.11"))
    stage.script.theirs = replace(GRAPH, host=HostWork(1000, 5, {}, "3.11"))
    outcome = stage.run(COMPARE, "-k", "graph")
    assert outcome.code == 1
    assert f"{TEXT}: Python calls 1000 -> 1001" in outcome.text
    assert "host: +1 Python calls" in outcome.text
    assert stage.script.opened == 0


def test_drift_of_the_machine_is_a_caution(stage: Stage) -> None:
    """Slower than all stored sessions on an unchanged program is the machine, and no loss."""
    stage.commit()
    stage.script.tpot_s = {TEXT: 1.25 * TPOT_S}
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 no-change"
    assert f"{TEXT}: stored: 100.0 tok/s" in outcome.text
    assert f"warning: {TEXT}: the program is unchanged, and this machine is slower than in its stored sessions" in (
        outcome.text
    )
    assert f"{LONG}: the program is unchanged" not in outcome.text


def test_nothing_to_compare_with_is_not_measured(stage: Stage) -> None:
    """Numbers are still taken and shown; exit 4 says what is lacking."""
    stage.script.incomparable = NoBaselineError("there is nothing to compare with", remedy="git fetch --unshallow")
    outcome = stage.run(COMPARE)
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 not-measured"
    assert "there is nothing to compare with" in outcome.text
    assert len(stage.script.taken) == 9


def test_an_arm_that_was_named_and_is_not_there_ends_the_session(stage: Stage) -> None:
    """Before anything is timed."""
    stage.script.incomparable = UsageError("ref:nowhere is no commit of this clone")
    outcome = stage.run(COMPARE, "--against", "ref:nowhere")
    assert outcome.code == 2
    assert "ref:nowhere is no commit of this clone" in outcome.text
    assert stage.script.taken == []


def test_the_arm_that_was_named_is_compared_with(stage: Stage) -> None:
    """And said in the report."""
    outcome = stage.run(COMPARE, "--against", "ref:v1")
    assert stage.script.requests[0].against == "ref:v1"
    assert "change against ref:v1 (" in outcome.text


def test_a_duel_that_failed_is_not_measured(stage: Stage) -> None:
    """The session's own numbers were stored before, and the reason is in every row."""
    stage.script.duel = ArmUnavailableError("a worker cannot be started")
    outcome = stage.run(COMPARE)
    assert len(list((stage.folder / "data" / "sessions").rglob("*.json"))) == 1
    assert outcome.closing == "3 workloads: 3 no-change"  # what launches before it had shown stands
    assert "a worker cannot be started" in outcome.text
    assert outcome.code == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadConditionsError("7 runs were discarded (steal x7)", remedy="measure when its neighbours are quiet"), 4),
        (OutOfMemoryError("it ran out of memory"), 4),
        (NonFiniteError("3 tensors hold NaN or infinity"), 5),
    ],
)
def test_failed_workload_has_its_reason_and_others_their_verdict(
    stage: Stage, error: BadConditionsError | OutOfMemoryError | NonFiniteError, code: int
) -> None:
    """One workload that cannot be measured sets the exit code; its baseline is not said to be missing."""
    stage.script.raises = {LONG: error}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    assert outcome.closing == "3 workloads: 2 no-change, 1 not-measured"
    assert f"{LONG}: {error.found}" in outcome.text
    assert "Traceback" not in outcome.text
    assert "stage.py" not in outcome.text


def test_a_bug_is_no_loss(stage: Stage) -> None:
    """It shows its traceback and exits 70, whatever named errors stand beside it."""
    stage.script.raises = {LONG: ValueError("a bug"), TEXT: OutOfMemoryError("it ran out of memory")}
    outcome = stage.run()
    assert outcome.code == 70
    assert "ValueError: a bug" in outcome.text
    assert outcome.closing == "3 workloads: 2 not-measured, 1 not compared"


def test_exit_code_names_the_worst(stage: Stage) -> None:
    """A loss outranks a workload that was not measured."""
    stage.script.judgements = {TEXT: LOSS}
    stage.script.raises = {LONG: OutOfMemoryError("it ran out of memory")}
    outcome = stage.run(COMPARE)
    assert outcome.code == 1
    assert outcome.closing == "3 workloads: 1 loss, 1 no-change, 1 not-measured"


def test_skipped_benchmarks_are_not_measured(stage: Stage) -> None:
    """pytest-benchmark's own --benchmark-skip leaves nothing to pass."""
    outcome = stage.run(COMPARE, "--benchmark-skip", "-k", "decode")
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 not-measured"
    assert stage.local_files == []


@pytest.mark.parametrize("place", ["/dev/full", "/proc/x.xml"])
def test_a_report_of_tests_that_cannot_be_written_costs_no_answer(stage: Stage, place: str) -> None:
    """A proven loss is one, with its table; without one, what was asked for and is missing is no success."""
    stage.script.judgements = {TEXT: LOSS}
    outcome = stage.run(COMPARE, "--junitxml", place)
    assert outcome.code == 1
    assert "loss" in outcome.text
    assert "Traceback" not in outcome.text
    stage.script.judgements = {}
    outcome = stage.run(COMPARE, "--junitxml", place)
    assert outcome.code == 4
    assert "no room is left" in outcome.text or "cannot be written" in outcome.text


def test_a_report_of_tests_carries_each_verdict(stage: Stage) -> None:
    """As JUnit properties of the workload's decode, for what reads ``--junitxml``; none where nothing is compared."""
    stage.script.judgements = {TEXT: LOSS, LONG: OPEN}
    report = stage.folder / "junit.xml"
    assert stage.run(COMPARE, "--junitxml", str(report)).code == 1
    found: dict[str, dict[str | None, str | None]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        values = {one.get("name"): one.get("value") for one in case.iter("property")}
        found |= {str(case.get("name")).partition("[")[2].rstrip("]"): values} if values else {}
    assert {name: values["verdict"] for name, values in found.items()} == {
        TEXT: "loss", LONG: "inconclusive", IMAGE: "no-change"
    }  # fmt: skip
    assert found[TEXT]["effect_percent"] == "-20.000"
    assert (found[TEXT]["low_percent"], found[TEXT]["high_percent"]) == ("-22.000", "-18.000")
    stage.run("--junitxml", str(report))
    assert list(ElementTree.parse(report).iter("property")) == []
