import json
from dataclasses import replace
from pathlib import Path

from gemma3n_perf.history import asv_files, staging
from gemma3n_perf.history.asv_files import ENV, RATE, TIME, Entry, ResultFile, Value
from tests.fakes import CHIP, COMMIT, WORKLOAD

OTHER = "f" * 40


def result(commit: str = COMMIT, env: str = ENV, **values: Value) -> ResultFile:
    """Return a result file of one commit."""
    times = {WORKLOAD: Value(0.01, (0.01,))} | {f"nano/text/{name}": value for name, value in values.items()}
    axes = asv_files.machine(CHIP)
    return ResultFile(CHIP.chip_class, commit, 5, axes, {TIME: Entry(times), RATE: Entry({})}, env)


def results(tmp_path: Path, *files: ResultFile) -> Path:
    """Write result files and their machine."""
    asv_files.write_machine(tmp_path, asv_files.machine(CHIP))
    for one in files:
        asv_files.write_result(tmp_path, one)
    return tmp_path


def test_what_asv_run_recorded_joins_the_series(tmp_path: Path) -> None:
    """Its Python version is an axis of asv's own, which would split the line at every update."""
    own = result(env="existing-py3.13", more=Value(2.0, (2.0, 2.1)))
    own = replace(own, params=own.params | {"python": "3.13"})
    found = staging.read_all(results(tmp_path, result(), own))
    (one,) = found.files
    assert one.params == asv_files.machine(CHIP)
    assert one.env == ENV
    assert one.entries[TIME].values.keys() == {WORKLOAD, "nano/text/more"}


def test_a_machine_without_its_file_is_named_and_left(tmp_path: Path) -> None:
    """The others are staged."""
    folder = results(tmp_path, result())
    stray = folder / "nobody" / "0123abcd-suite.json"
    stray.parent.mkdir()
    stray.write_bytes(asv_files.encode_result(result()))
    found = staging.read_all(folder)
    assert len(found.files) == 1
    assert "nobody" in found.refused[0].reason
    assert stray.exists()


def test_files_that_are_no_results_are_named_and_left(tmp_path: Path) -> None:
    """Half a file, a list, and results of another machine."""
    folder = results(tmp_path, result()) / CHIP.chip_class
    (folder / "a-suite.json").write_text("[]")
    (folder / "b-suite.json").write_bytes(asv_files.encode_result(result())[:50])
    data = asv_files.encode_result(result()).replace(b'"machine":"cpu-fake-2c"', b'"machine":"other"')
    (folder / "c-suite.json").write_bytes(data)
    found = staging.read_all(tmp_path)
    assert len(found.files) == 1
    assert len(found.refused) == 3
    assert len(list(folder.iterdir())) == 5


def test_a_renamed_benchmark_is_named_and_kept(tmp_path: Path) -> None:
    """Its row stays in the result file, and its commit's other results are used."""
    folder = results(tmp_path, result())
    (path,) = asv_files.result_files(folder)
    data = json.loads(path.read_bytes())
    data["results"]["decode.track_old_name"] = [[1.0], [["'x'"]], "1"]
    path.write_text(json.dumps(data))
    found = staging.read_all(folder)
    assert "decode.track_old_name" in found.notes[0]
    assert len(found.files) == 1
    assert "decode.track_old_name" in json.loads(path.read_bytes())["results"]


def test_only_commits_of_the_history_are_staged(tmp_path: Path) -> None:
    """What was rebased away is named."""
    found = staging.read_all(results(tmp_path / "in", result(), result(OTHER)))
    kept = staging.stage(tmp_path / "out", found, {COMMIT})
    assert [one.commit for one in kept] == [COMMIT]
    assert OTHER[:12] in staging.strangers(found, {COMMIT})[0]
    assert asv_files.read_benchmarks(tmp_path / "out") == (WORKLOAD,)
