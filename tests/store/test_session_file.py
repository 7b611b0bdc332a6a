import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.decode.types import Graph, HostWork, Run
from gemma3n_perf.errors import DiskFullError, MalformedRecordError, UsageError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.files import local_folder
from gemma3n_perf.store.session_file import decode, encode, measurement_json, save_session
from tests.fakes import CHIP, COMMIT, STACK, WORKLOAD, document, edited, measurement, write_session
from tests.store.test_files import FullDisk

PAYLOAD = "benchmarks.0.extra_info.gemma3n_perf"
HEADER = "machine_info.gemma3n_perf"


def test_round_trip_keeps_everything() -> None:
    """What is read back equals what was measured, discarded runs and conditions included."""
    discarded = Run(9.0, 64, (0.140625,) * 64, Conditions(throttle_reasons=("thermal",)), ("steal",))
    measured = measurement(discarded=(discarded,), copy_bandwidth=12e9, soft_tokens="256 forged soft tokens")
    stack = replace(STACK, knobs={"MLX_MAX_OPS_PER_BUFFER": "1000"}, driver="580.1")
    session = decode(encode(document("s9", measured, stack=stack)), source="x")
    assert session.measurements == (measured,)
    assert (session.id, session.chip, session.stack, session.planted) == ("s9", CHIP, stack, 0.0)
    assert session.measurement(WORKLOAD) == measured
    assert session.measurement("nano/text/pp140-tg64") is None


def test_what_is_not_known_takes_no_space_and_intervals_are_whole_nanoseconds() -> None:
    """Both read back as they were; older files, which have every field, are read too."""
    run = replace(measurement().runs[0], conditions=Conditions(load1=0.5))
    run = replace(run, step_s=(0.0123456789876, *run.step_s[1:]))
    payload = measurement_json(measurement(runs=(run,)))["runs"][0]
    assert payload["conditions"] == {"load1": 0.5}
    assert payload["step_s"][0] == 0.012345679
    assert payload["seconds"] == run.seconds
    older = document("s1", measurement(runs=(run,)))
    new = decode(encode(older), source="it")
    first = "benchmarks.0.extra_info.gemma3n_perf.runs.0.step_s.0"
    assert decode(edited(encode(older), first, 0.0123456789876), source="it") == new


def test_host_work_is_optional() -> None:
    """A graph is read back with its host work; one counted without is written as earlier releases wrote it."""
    host = HostWork(574, 600, {"mlx.core.transpose": 42}, "3.11")
    for graph in (Graph({}, {}, {}, 0, host=host), Graph({}, {}, {}, 0)):
        data = encode(document("s9", measurement(graph=graph)))
        assert decode(data, source="x").measurements[0].graph == graph
        written = json.loads(data)["benchmarks"][0]["extra_info"]["gemma3n_perf"]["graph"]
        assert ("host" in written) == (graph.host is not None)


def test_host_name_is_not_recorded() -> None:
    """The machine's own name never reaches a file, the rest of pytest-benchmark's facts do."""
    data = encode(document())
    assert b"somebodys-machine" not in data
    assert json.loads(data)["machine_info"]["python_version"] == "3.11.7"


def test_raw_samples_are_kept() -> None:
    """pytest-benchmark's own samples are in the file, to the last digit."""
    made = document()
    stored = json.loads(encode(made))
    assert stored["benchmarks"][0]["stats"]["data"] == made["benchmarks"][0]["stats"]["data"]


def test_encode_leaves_its_argument_alone() -> None:
    """pytest-benchmark goes on using the document it handed over."""
    made = document()
    before = copy.deepcopy(made)
    encode(made)
    assert made == before


def test_benchmarks_of_one_workload_share_a_measurement() -> None:
    """Throughput and prefill benchmarks of a workload give one measurement, not two."""
    one = measurement()
    assert decode(encode(document("s1", one, one)), source="x").measurements == (one,)


def test_benchmarks_without_payload_are_passed_over() -> None:
    """A user's own benchmark in the same run is neither read nor refused."""
    made = document()
    other = {"fullname": "x", "name": "x", "extra_info": {}, "stats": {"data": [1.0]}}
    made["benchmarks"].append(other)
    assert len(decode(encode(made), source="x").measurements) == 1


def test_real_tool_reads_our_files(tmp_path: Path) -> None:
    """``pytest-benchmark compare`` lists both sessions and warns of none."""
    for number in (1, 2):
        write_session(tmp_path / "cpu-fake-2c", number)
    command = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{tmp_path}", "compare"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "benchmark: 2 tests" in done.stdout
    assert "0001" in done.stdout
    assert "0002" in done.stdout
    assert "Failed to load" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "value", "place", "said"),
    [
        (f"{HEADER}.schema", 2, "schema", "schema 2"),
        (f"{HEADER}.session", " ", "session", "no id"),
        (f"{HEADER}.chip.chip_class", "../etc", "chip_class", "cannot name a folder"),
        (f"{HEADER}.stack.knobs", [], "stack.knobs", "Expected `object`"),
        (f"{HEADER}.planted", -0.1, "planted", "-0.1"),
        ("commit_info.id", "f" * 40, "commit_info.id", "f" * 40),
        ("benchmarks", [], "benchmarks", "no workload"),
        ("benchmarks.0.stats.data", [], "stats.data", "missing"),
        ("benchmarks.0.stats.data", [0.01, -1.0], "stats.data", "not positive"),
        (f"{PAYLOAD}.runs", [], "runs", "no run counts"),
        (f"{PAYLOAD}.runs.1.seconds", -0.5, "runs[1].seconds", "-0.5"),
        (f"{PAYLOAD}.runs.1.seconds", "fast", "seconds", "Expected `float`, got `str`"),
        (f"{PAYLOAD}.runs.2.seconds", math.nan, "runs[2].seconds", "nan"),
        (f"{PAYLOAD}.runs.2.seconds", math.inf, "runs[2].seconds", "inf"),
        (f"{PAYLOAD}.runs.0.step_s.5", -0.01, "runs[0].step_s[5]", "-0.01"),
        (f"{PAYLOAD}.runs.0.step_s", [0.01], "runs[0].step_s", "1 intervals"),
        (f"{PAYLOAD}.runs.0.tokens", 63, "runs[0].tokens", "63 tokens"),
        (f"{PAYLOAD}.runs.0.faults", ["steal"], "runs[0].faults", "steal"),
        (f"{PAYLOAD}.runs.0.conditions.load1", math.nan, "load1", "nan"),
        (f"{PAYLOAD}.ttft_s", [0.1, 0.0], "ttft_s[1]", "0.0 s"),
        (f"{PAYLOAD}.workload", "nano", "workload", "'nano' is not understood"),
        (f"{PAYLOAD}.prompt_tokens", 41, "prompt_tokens", "41 tokens"),
        (f"{PAYLOAD}.generated_tokens", 60, "generated_tokens", "60 tokens"),
        (f"{PAYLOAD}.kv_bytes", -1, "kv_bytes", "-1 bytes"),
        (f"{PAYLOAD}.peak_memory_bytes", 1.5, "peak_memory_bytes", "Expected `int`"),
        (f"{PAYLOAD}.planted", 0.1, "planted", "planted 0.1"),
        (f"{PAYLOAD}.copy_bandwidth", 0.0, "copy_bandwidth", "0.0"),
    ],
)
def test_faults_are_named(path: str, value: Any, place: str, said: str) -> None:
    """Each fault names the file, the place in it and what was found there."""
    with pytest.raises(MalformedRecordError) as caught:
        decode(edited(encode(document()), path, value), source="0003_abc.json")
    assert caught.value.found.startswith("0003_abc.json: $")
    assert place in caught.value.found
    assert said in caught.value.found
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"machine_info": {}}'])
def test_alien_bytes_are_refused(data: bytes) -> None:
    """Whatever the bytes are, the answer is one named error."""
    with pytest.raises(MalformedRecordError, match=r"x\.json"):
        decode(data, source="x.json")


def test_every_truncation_is_refused() -> None:
    """A file cut anywhere is never taken for a whole one."""
    data = encode(document())
    for end in range(0, len(data) - 2, 37):
        with pytest.raises(MalformedRecordError):
            decode(data[:end], source="x")


def test_overflowing_numbers_are_refused() -> None:
    """A number too large for a float is not read as infinity."""
    data = encode(document()).replace(b'"load1":0.5', b'"load1":1e999', 1)
    with pytest.raises(MalformedRecordError):
        decode(data, source="x")


def test_two_measurements_of_one_workload_are_refused() -> None:
    """A session that measured a workload twice does not say which counts."""
    with pytest.raises(MalformedRecordError, match="second, different measurement"):
        encode(document("s1", measurement(), measurement(tpot_s=0.02)))


def test_encode_refuses_what_decode_would() -> None:
    """A record that could not be read back is never written."""
    bad = document()
    bad["benchmarks"][0]["extra_info"]["gemma3n_perf"]["runs"][0]["seconds"] = math.nan
    with pytest.raises(MalformedRecordError, match=r"runs\[0\]\.seconds: the number is nan"):
        encode(bad)


def test_unversioned_commit_info_is_accepted() -> None:
    """Outside a git checkout pytest-benchmark knows no commit; the stack's own stands."""
    made = document()
    made["commit_info"]["id"] = "unversioned"
    assert decode(encode(made), source="x").stack.commit == COMMIT


def test_sessions_are_stored_by_chip_class(tmp_path: Path) -> None:
    """Each session becomes the next file of its class and can be read back as the stand-in."""
    first = save_session(document("a"), tmp_path)
    second = save_session(document("b", stack=replace(STACK, dirty=True)), tmp_path)
    assert first == tmp_path / "sessions" / CHIP.chip_class / "0001_0123456789ab.json"
    assert second.name == "0002_0123456789ab-dirty.json"
    baseline = Baselines.local(local_folder(CHIP.chip_class, tmp_path))
    assert baseline is not None
    assert baseline.sessions[0].id == "b"


def test_unversioned_session_can_be_read_back(tmp_path: Path) -> None:
    """A session measured outside a git checkout is kept locally under a name that says so."""
    path = save_session(document("a", stack=replace(STACK, commit=None, dirty=None)), tmp_path)
    assert path.name == "0001_unversioned.json"
    assert Baselines.local(path.parent) is not None


def test_planted_session_is_not_saved(tmp_path: Path) -> None:
    """A smoke detector's test never becomes a reference."""
    with pytest.raises(UsageError, match="planted"):
        save_session(document(planted=0.25), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_full_disk_is_named(tmp_path: Path) -> None:
    """Without room the error says so and leaves no half file behind."""
    with pytest.raises(DiskFullError):
        save_session(document(), tmp_path, FullDisk(0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
