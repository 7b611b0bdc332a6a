import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import asv.benchmark
import pytest

from gemma3n_perf.errors import BadConditionsError
from gemma3n_perf.history import asv_adapter, asv_files
from gemma3n_perf.history.asv_files import RATE, TIME
from gemma3n_perf.workload.workload import Workload, defaults

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = "nano/text/pp40-tg64", "nano/text/pp140-tg64"


class FakeBench:
    """Measures 10, 11 and 12 ms a token, and nothing at all of the second workload."""

    def required(self, workload: Workload) -> int:
        """Three runs."""
        return 3

    def take_run(self, workload: Workload) -> SimpleNamespace:
        """Return the next run, or fail."""
        if str(workload) == SECOND:
            raise BadConditionsError("a compiler ran beside it")
        self.taken = getattr(self, "taken", -1) + 1
        return SimpleNamespace(tpot_s=0.010 + 0.001 * self.taken)


@contextmanager
def fake() -> Iterator[FakeBench]:
    """Stand in for holding the machine."""
    yield FakeBench()


def discovered(tmp_path: Path) -> dict[str, dict[str, object]]:
    """Return what asv discovers, in a process of its own without PYTHONPATH, as asv starts it."""
    out = tmp_path / "found.json"
    argv = [sys.executable, asv.benchmark.__file__, "discover", str(ROOT / "perf" / "asv_suite"), str(out)]
    subprocess.run(argv, check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, cwd=tmp_path)
    return {one["name"]: one for one in json.loads(out.read_bytes())}


def test_asv_finds_the_two_frozen_benchmarks_and_no_others(tmp_path: Path) -> None:
    """Over this chip's workloads, in seconds and tok/s, without asv's limit of a minute."""
    found = discovered(tmp_path)
    assert set(found) == {TIME, RATE}
    workloads = asv_adapter.default_workloads()
    for name, one in found.items():
        described = asv_files.description(name, workloads)
        for key in ("param_names", "params", "pretty_name", "type", "unit", "version", "timeout"):
            assert one[key] == described[key], key
    assert found[TIME]["setup_cache_key"] == found[RATE]["setup_cache_key"]


def test_the_configuration_never_judges_throughput() -> None:
    """And keeps all that asv writes below one folder that git ignores."""
    lines = (ROOT / "asv.conf.json").read_text().splitlines()
    conf = json.loads("\n".join(line for line in lines if not line.strip().startswith("//")))
    assert conf["regressions_first_commits"] == {r"decode\.track_throughput.*": None}
    assert all(conf[key].startswith(".asv/") for key in ("env_dir", "results_dir", "html_dir"))
    assert conf["default_benchmark_timeout"] >= 3600
    assert "/.asv/" in (ROOT / ".gitignore").read_text().split()


def test_one_measurement_serves_both_benchmarks() -> None:
    """With the raw samples of every run."""
    measured = asv_adapter.measure_all([FIRST], fake)
    assert asv_adapter.samples(measured, FIRST) == {"samples": pytest.approx([0.010, 0.011, 0.012]), "number": 1}
    assert asv_adapter.rates(measured, FIRST)["samples"] == pytest.approx([100.0, 90.909, 83.333], rel=1e-4)


def test_a_workload_that_fails_fails_alone() -> None:
    """With its reason, which asv shows and stores as a missing value."""
    measured = asv_adapter.measure_all([SECOND, FIRST], fake)
    with pytest.raises(RuntimeError, match="a compiler ran beside it"):
        asv_adapter.rates(measured, SECOND)
    assert len(asv_adapter.samples(measured, FIRST)["samples"]) == 3


def test_workloads_are_those_of_pytest() -> None:
    """The ids that baselines are stored under."""
    found = asv_adapter.default_workloads()
    assert found in [[str(one) for one in defaults(vendor)] for vendor in ("cpu", "nvidia")]
