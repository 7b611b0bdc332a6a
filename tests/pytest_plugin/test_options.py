"""What the command line accepts, refuses and leaves out."""

from pathlib import Path

import pytest

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.pytest_plugin import session
from tests.decode import fakes as decode_fakes
from tests.pytest_plugin.stage import IMAGE, TEXT, WORKLOADS, Stage

COMPARE = "--benchmark-compare"


@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        (("--runs", "1"), "--runs 1", "2 or more"),
        (("--runs", "many"), "--runs many", "a whole number"),
        (("--time-budget", "0"), "--budget 0", "seconds above 0"),
        (("--budget", "nan"), "--budget nan", "seconds above 0"),
        (("--budget", "inf"), "--budget inf", "seconds above 0"),
        (("--plant-slowdown", "nonsense"), "--plant-slowdown nonsense", "a percentage above 0, for instance 10%"),
        (("--plant-slowdown", "0.1"), "--plant-slowdown 0.1", "a percentage"),
        (("--plant-slowdown", ""), "--plant-slowdown", "a percentage"),
        (("--plant-slowdown", "0%"), "--plant-slowdown 0%", "above 0"),
        (("--plant-slowdown=-5%",), "--plant-slowdown -5%", "above 0"),
        (("--plant-slowdown", "nan%"), "--plant-slowdown nan%", "above 0"),
        (("--shape", "pp250-tg64-b1"), "shape pp250-tg64-b1 is none that is measured", "-b2 to -b64"),
        (("--set", "all"), "--set all", "default or wide"),
        (("--set", "wide", "--shape", "pp40-tg64"), "--set and --shape both", "one of the two"),
        (("--shape", "long"), "shape 'long' is not understood", "ppN-tgM"),
        (("--shape", "pp40-tg1"), "shape pp40-tg1 is empty", "at least 1 prompt token, and 2 decode steps or none"),
        (("--modality", "video"), "--modality video", "text or image"),
        (("--modality", "image", "--shape", "pp40-tg64"), "an image prompt of 40 tokens", "more than 256"),
        (("--checkpoint", "e9b-4bit"), "there is no checkpoint 'e9b-4bit'", "a preset (nano, "),
        (("--checkpoint", "google/gemma-3n-E2B-it"), "names no revision", "a pinned revision"),
        ((COMPARE, "--benchmark-compare-fail", "mean:5%"), "a bare percentage", "--benchmark-compare alone"),
        (("--benchmark-json", "/none/b.json"), "/none is no folder", "a folder that is there"),
        (("--benchmark-json", "/tmp"), "/tmp is a folder", "a file to write"),
        ((COMPARE, "--no-confirm"), "there is no screen of stored numbers any more", "--benchmark-compare alone"),
        ((COMPARE, "--against", "nonsense"), "the part 'nonsense' is not understood", "parts joined by +"),
        (("--against", "ref:v1"), "no comparison was requested", "--benchmark-compare beside them"),
        (("--measure-anyway",), "no comparison was requested", "--benchmark-compare beside them"),
        (("--plant-slowdown", "10%", "--benchmark-autosave"), "planted slowdown is never saved", "without"),
        (("--plant-slowdown", "10%", "--benchmark-save", "x"), "planted slowdown is never saved", "without"),
    ],
)
def test_bad_option_is_refused_before_measuring(
    stage: Stage, arguments: tuple[str, ...], found: str, expected: str
) -> None:
    """Exit 2 with what was found and what was expected, no traceback, and nothing measured."""
    outcome = stage.run(*arguments)
    assert outcome.code == 2
    assert found in outcome.text
    assert f"expected: {expected}" in outcome.text or expected in outcome.text.partition("expected: ")[2]
    assert "Traceback" not in outcome.text
    assert stage.script.opened == 0


def test_swallowed_path_is_named_when_pytest_turns_to_the_tests(stage: Stage) -> None:
    """``pytest --benchmark-compare perf/`` leaves no path; it must not run tests/ and look fine."""
    (stage.folder / "tests" / "test_other.py").write_text("def test_other(): print('ran another suite')\n")
    outcome = stage.command(COMPARE, "perf/")
    assert outcome.code == 2
    assert "--benchmark-compare took 'perf/' for the run to compare with" in outcome.text
    assert "next: pytest perf/ --benchmark-compare" in outcome.text
    assert "passed" not in outcome.text


@pytest.mark.parametrize("path", ["perf/bench_graph.py", "perf/bench_decode.py::test_decode"])
def test_swallowed_path_is_named_beside_another(stage: Stage, path: str) -> None:
    """A second path behind the option is no run to compare with either, and would go unmeasured."""
    outcome = stage.run(COMPARE, path)
    assert outcome.code == 2
    assert f"next: pytest {path} --benchmark-compare" in outcome.text


def test_run_id_is_still_taken(stage: Stage) -> None:
    """A stored run can be named, as pytest-benchmark allows, for its own table; the verdict is a duel's."""
    stage.commit()
    outcome = stage.run(f"{COMPARE}=0003")
    assert outcome.code == 0
    assert "the run 0003 is for pytest-benchmark's own table" in outcome.text


def test_collecting_measures_nothing(stage: Stage) -> None:
    """--collect-only lists every benchmark of every workload, opens no bench and reports nothing."""
    outcome = stage.run("--collect-only", "-q", COMPARE)
    assert outcome.code == 0
    for name in WORKLOADS:
        for test in ("graph", "prefill", "decode", "memory"):
            assert f"test_{test}[{name}]" in outcome.out
    assert stage.script.opened == 0
    assert "not-measured" not in outcome.text
    assert "no decode benchmark was selected" not in outcome.text


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures-per-test", "--setup-plan", "--setup-only"])
def test_listing_measures_nothing(stage: Stage, option: str) -> None:
    """Whatever of pytest's own is listed: nothing is called not measured where nothing was to be."""
    outcome = stage.run(option, "-q", COMPARE)
    assert outcome.code == 0, outcome.text
    assert stage.script.taken == []
    assert stage.script.duelled == []
    assert "not-measured" not in outcome.text
    assert "did not finish" not in outcome.text


def test_pytest_without_its_own_python_files_is_refused(stage: Stage) -> None:
    """By name, and not as a fault of this suite."""
    outcome = stage.run("-p", "no:python")
    assert outcome.code == 2
    assert "-p no:python" in outcome.text


def test_one_workload_is_finished_before_the_next(stage: Stage) -> None:
    """Exact counts of all come first, then the rest of a workload, so that a checkpoint is loaded once."""
    outcome = stage.run("--collect-only", "-q")
    listed = [line.partition("::")[2] for line in outcome.out.splitlines() if "::" in line]
    counted = [f"test_graph[{name}]" for name in WORKLOADS]
    timed = [f"test_{test}[{name}]" for name in WORKLOADS for test in ("prefill", "decode", "memory")]
    assert listed == counted + timed


def test_selecting_prefill_times_prefill_alone(stage: Stage) -> None:
    """-k prefill takes no run, stores nothing, and says that no throughput was compared."""
    stage.commit()
    outcome = stage.run("-k", "prefill", COMPARE)
    assert outcome.code == 0
    assert "3 passed" in outcome.out
    assert stage.script.taken == []
    assert stage.local_files == []
    assert "no decode benchmark was selected, so no throughput was compared" in outcome.text


def test_selecting_nothing_is_not_measured(stage: Stage) -> None:
    """A mistyped -k measured nothing, which is neither a pass nor pytest's 5, invalid here."""
    assert stage.run("-k", "no_such_benchmark").code == 4


def test_workloads_are_narrowed_and_reshaped(stage: Stage) -> None:
    """Modality narrows what is customary; shapes replace it; what is asked twice is measured once."""
    stage.run("--modality", "image", "--runs", "2")
    assert stage.script.taken == [IMAGE, IMAGE]
    stage.script.taken.clear()
    stage.run("--checkpoint", "nano", "--checkpoint", "nano", *(2 * ("--shape", "pp4-tg4")), "--runs", "2")
    assert stage.script.taken == ["nano/text/pp4-tg4"] * 2


def test_wide_set_has_each_workload_once(stage: Stage) -> None:
    """Other weights that it adds may be named as well."""
    outcome = stage.run(
        "--checkpoint", "nano", "--checkpoint", "nano-8bit", "--set", "wide", "--collect-only", "-q", "-k", "decode"
    )
    listed = [line.partition("::")[2] for line in outcome.out.splitlines() if "::" in line]
    assert len(set(listed)) == len(listed)
    assert {f"test_decode[nano{name}]" for name in ("/text/pp40-tg64@mlx_lm", "-8bit/text/pp40-tg64")} < set(listed)


def test_a_shape_may_name_an_engine(stage: Stage) -> None:
    """It is the last part of the workload's id; what the engine cannot decode is exit 2."""
    assert "[nano/text/pp4-tg4@mlx_lm]" in stage.run("--shape", "pp4-tg4@mlx_lm", "--collect-only", "-q").out
    outcome = stage.run("--shape", "pp4-tg4-b2@mlx_lm")
    assert outcome.code == 2
    assert "the engine mlx_lm does not decode text/pp4-tg4-b2" in outcome.text


def test_preset_need_not_be_forged_to_be_listed_or_counted(stage: Stage) -> None:
    """A preset that is not on disk is forged when it is first measured; its graph needs no weights at all."""
    outcome = stage.run("--checkpoint", "e2b-4bit", "-k", "graph")
    assert outcome.code == 0
    assert "1 passed" in outcome.out


def test_folder_is_measured_and_not_a_preset_of_its_name(stage: Stage) -> None:
    """A folder called nano would be measured as the preset; it is refused."""
    (stage.folder / "nano").mkdir()
    outcome = stage.run("--checkpoint", "./nano")
    assert outcome.code == 2
    assert "./nano and nano are both called nano" in outcome.text


def test_two_checkpoints_of_one_name_are_refused(stage: Stage) -> None:
    """Their workloads would share an id, and the second would pass for the first."""
    for parent in ("a", "b"):
        (stage.folder / parent / "mine").mkdir(parents=True)
    outcome = stage.run("--checkpoint", "a/mine", "--checkpoint", "b/mine")
    assert outcome.code == 2
    assert "b/mine and a/mine are both called mine" in outcome.text


def test_folder_is_found_by_its_path(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The real bench inspects the folder that was named; an image asked of it without a tower is exit 2."""
    folder = decode_fakes.nano_copy(tmp_path_factory.getbasetemp(), stage.folder / "far" / "mine")
    decode_fakes.edit_config(folder, lambda config: config.pop("gemma3n_perf"))
    monkeypatch.setattr(session, "Bench", Bench)
    outcome = stage.run("--checkpoint", "far/mine", "--modality", "image", "--shape", "pp296-tg4", "-k", "decode")
    assert outcome.code == 2
    assert "mine has no vision tower, so it takes no image" in outcome.text
    assert "use --modality text" in outcome.text
    assert outcome.closing == "1 workload: 1 not-measured"


def test_corrupt_checkpoint_is_invalid(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A truncated shard is exit 5, named once a workload, with the workload in the table."""
    folder = decode_fakes.nano_copy(tmp_path_factory.getbasetemp(), stage.folder / "mine")
    shard = folder / decode_fakes.SHARD
    shard.write_bytes(shard.read_bytes()[:-1000])
    monkeypatch.setattr(session, "Bench", Bench)
    outcome = stage.run("--checkpoint", str(folder), "--shape", "pp4-tg4")
    assert outcome.code == 5
    assert decode_fakes.SHARD in outcome.text
    assert outcome.closing == "1 workload: 1 not-measured"
    assert "Traceback" not in outcome.text


def test_absent_conftest_options_have_help(stage: Stage) -> None:
    """--help lists the suite's options and measures nothing."""
    outcome = stage.run("--help")
    assert outcome.code == 0
    for option in ("--checkpoint", "--modality", "--shape", "--runs", "--budget", "--plant-slowdown"):
        assert option in outcome.out
    assert not Path(stage.folder / "data").exists()
    assert TEXT not in outcome.out
