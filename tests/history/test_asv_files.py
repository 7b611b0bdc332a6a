import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from asv.results import Results

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import RATE, TIME, read_result, write_result
from gemma3n_perf.history.results import ResultFile, Value
from tests.fakes import CHIP, COMMIT

NANO, LONG = "nano/text/pp40-tg64", "nano/text/pp140-tg64"
AXES = asv_files.machine_axes(CHIP)
FILE = ResultFile(
    CHIP.chip_class,
    COMMIT,
    1_700_000_000_000,
    AXES,
    {NANO: Value(0.01, (0.009, 0.01, 0.011), 0.008, 0.012), LONG: Value(None)},
    1_700_000_000_123,
)


def test_round_trip(tmp_path: Path) -> None:
    """Values, intervals, samples and recorded failures come back as they were."""
    assert read_result(write_result(tmp_path, FILE)) == FILE


def test_the_same_content_is_the_same_bytes() -> None:
    """So importing twice changes nothing."""
    assert asv_files.encode_result(FILE) == asv_files.encode_result(FILE)


def test_asv_reads_what_is_written(tmp_path: Path) -> None:
    """Its own reader finds values by workload, samples, intervals and missing ones."""
    path = write_result(tmp_path, FILE)
    asv_files.write_machine(tmp_path, AXES)
    found = Results.load(str(path), machine_name=CHIP.chip_class)
    params = [[repr(NANO), repr("not/text/measured"), repr(LONG)]]
    assert found.commit_hash == COMMIT
    assert found.get_result_value(TIME, params) == [0.01, None, None]
    assert found.get_result_samples(TIME, params)[0] == [0.009, 0.01, 0.011]
    stats = found.get_result_stats(TIME, params)[0]
    assert (stats["ci_99_a"], stats["ci_99_b"]) == (0.008, 0.012)
    assert found.get_result_stats(RATE, [[repr(NANO)]])[0]["ci_99_b"] == 125.0
    assert found.params == AXES


def test_what_asv_writes_is_read(tmp_path: Path) -> None:
    """A result that asv's own code stored, samples kept, is one of ours."""
    made = Results(dict(AXES), {}, COMMIT, 5, "3.11", "existing", {})
    benchmark = {"name": TIME, "version": "1", "params": [[repr(NANO)]]}

    class Ran:
        result, samples, number = [None], [[0.03, 0.01, 0.02]], [1]
        stderr, errcode, profile = "", 0, None

    Ran.result = [0.0]  # type: ignore[list-item]
    made.add_result(benchmark, Ran, record_samples=True)
    made.save(str(tmp_path))
    (path,) = asv_files.result_files(tmp_path)
    found = read_result(path).times[NANO]
    assert found.result == pytest.approx(0.02)
    assert found.samples == (0.03, 0.01, 0.02)


def test_benchmarks_of_others_survive(tmp_path: Path) -> None:
    """A row of a benchmark that was renamed is kept as it was."""
    path = write_result(tmp_path, FILE)
    data = json.loads(path.read_bytes())
    data["results"]["decode.track_old_name"] = [[1.0], [["'x'"]], "7"]
    path.write_text(json.dumps(data))
    again = read_result(write_result(tmp_path, read_result(path)))
    assert again.others["decode.track_old_name"] == {"result": [1.0], "params": [["'x'"]], "version": "7"}


def test_an_unbounded_interval_stays_unbounded(tmp_path: Path) -> None:
    """In time and in throughput: asv then cannot tell."""
    one = replace(FILE, times={NANO: Value(0.01, (0.01,))})
    found = Results.load(str(write_result(tmp_path, one)), machine_name=CHIP.chip_class)
    for name in (TIME, RATE):
        stats = found.get_result_stats(name, [[repr(NANO)]])[0]
        assert (stats["ci_99_a"], stats["ci_99_b"]) == (-math.inf, math.inf)


def test_throughput_that_stands_alone_is_read(tmp_path: Path) -> None:
    """As asv stores it where only that benchmark was run."""
    path = write_result(tmp_path, FILE)
    data = json.loads(path.read_bytes())
    del data["results"][TIME]
    path.write_text(json.dumps(data))
    assert read_result(path).times[NANO].result == pytest.approx(0.01)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"commit_hash": "a',
        b'{"version": 2}',
        asv_files.encode_result(FILE)[:-40],
        asv_files.encode_result(FILE).replace(b'"version":2', b'"version":1'),
        asv_files.encode_result(FILE).replace(b'"stats_q_25"', b'"something"'),
        asv_files.encode_result(FILE).replace(b'"params":{', b'"params":[],"x":{', 1),
        asv_files.encode_result(FILE).replace(COMMIT.encode(), b"HEAD"),
        asv_files.encode_result(FILE).replace(b'"1"', b'"2"', 1),
        asv_files.encode_result(FILE).replace(b"[100.0,null]", b"[0.0,null]"),
        asv_files.encode_result(FILE).replace(b"[0.01,null]", b"[0.0,null]"),
        asv_files.encode_result(FILE).replace(b"[0.009,0.01,0.011]", b"[0.009,-0.01,0.011]"),
    ],
)
def test_half_a_file_is_named_and_left(tmp_path: Path, data: bytes) -> None:
    """Whatever is wrong with it."""
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(MalformedRecordError, match=r"x\.json"):
        read_result(path)
    assert path.read_bytes() == data


def test_a_machine_is_its_chip_class() -> None:
    """Its axes hold nothing that an update of Python or the operating system changes."""
    assert AXES == {
        "machine": "cpu-fake-2c", "chip_class": "cpu-fake-2c", "vendor": "cpu", "gpu_cores": "none", "memory": "9 GB",
    }  # fmt: skip


def test_an_existing_machine_file_stays(tmp_path: Path) -> None:
    """A machine whose memory is seen a little differently is no new series."""
    asv_files.write_machine(tmp_path, AXES)
    asv_files.write_machine(tmp_path, AXES | {"memory": "10 GB"})
    assert asv_files.read_machine(tmp_path / CHIP.chip_class)["memory"] == "9 GB"


@pytest.mark.parametrize("data", [None, b"{", b'{"machine": "other", "version": 1}', b'{"machine": "cpu-fake-2c"}'])
def test_an_unknown_machine_is_named(tmp_path: Path, data: bytes | None) -> None:
    """No machine.json, half of one, or somebody else's."""
    folder = tmp_path / CHIP.chip_class
    folder.mkdir()
    if data is not None:
        (folder / "machine.json").write_bytes(data)
    with pytest.raises(MalformedRecordError, match="machine"):
        asv_files.read_machine(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, None])
def test_benchmarks_that_cannot_be_read_name_no_workload(tmp_path: Path, content: str | None) -> None:
    """They nest without end, or are a pipe."""
    if content is None:
        os.mkfifo(tmp_path / "benchmarks.json")
    else:
        (tmp_path / "benchmarks.json").write_text(content)
    assert asv_files.read_benchmarks(tmp_path) == ()
