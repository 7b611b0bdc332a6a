import argparse
import io
import json
from pathlib import Path

import pytest

from gemma3n_perf.cli import doctor
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.fitness import consult
from tests.hardware.macs import Mac
from tests.hardware.test_fitness import doctor as doctor_of


def consulted(mac: Mac, tmp_path: Path, wait_s: float = 0.0, *, as_json: bool = False) -> tuple[int, str]:
    """Return the exit code and what is printed for a recorded Mac."""
    out = io.StringIO()
    return consult(doctor_of(mac, tmp_path), wait_s, as_json, out), out.getvalue()


def on_battery() -> Mac:
    """Return a Mac that was unplugged."""
    mac = Mac()
    mac.commands["pmset -g batt"] = "Now drawing from 'Battery Power'\n"
    return mac


def test_a_fit_machine_exits_0(tmp_path: Path) -> None:
    """The verdict is the first line, every check follows."""
    code, text = consulted(Mac(), tmp_path)
    lines = text.splitlines()
    assert (code, lines[0]) == (0, "apple-m5-max-40gpu: fit to measure")
    assert "power adapter         ac power" in lines
    assert "Spotlight             none" in lines


def test_an_unfit_machine_exits_4_with_each_reason_and_remedy(tmp_path: Path) -> None:
    """Reasons come before the table."""
    mac = on_battery()
    mac.commands["tmutil status"] = "Running = 1;"
    code, text = consulted(mac, tmp_path)
    assert code == 4
    lines = text.splitlines()
    assert lines[0] == "apple-m5-max-40gpu: not fit to measure, for 2 reasons"
    at = lines.index("unfit battery: the machine runs on battery power")
    assert lines[at + 1] == "  next: plug it in"
    assert "unfit backup-running: a backup is being made" in lines


def test_waiting_says_why_and_how_long(tmp_path: Path) -> None:
    """One line a look, so that a job's log shows what it waited for."""
    code, text = consulted(on_battery(), tmp_path, 20.0)
    assert code == 4
    waits = [line for line in text.splitlines() if line.startswith("waiting")]
    assert waits[0] == "waiting 5 s: battery: the machine runs on battery power"
    assert len(waits) == 2


def test_json_is_one_object_with_the_documented_names(tmp_path: Path) -> None:
    """Even after waiting; a change of names must raise the schema's number."""
    code, text = consulted(on_battery(), tmp_path, 20.0, as_json=True)
    printed = json.loads(text)
    assert (code, printed["schema"], printed["fit"], printed["looks"]) == (4, 1, False, 3)
    assert set(printed) == {"schema", "chip_class", "fit", "looks", "checks", "conditions"}
    battery = next(one for one in printed["checks"] if one["code"] == "battery")
    assert battery == {
        "code": "battery",
        "subject": "power adapter",
        "state": "unfit",
        "found": "the machine runs on battery power",
        "remedy": "plug it in",
    }


@pytest.mark.parametrize("option", ["--wait", "--memory", "--disk"])
def test_numbers_below_zero_are_usage_errors(option: str) -> None:
    """They would mean nothing."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    with pytest.raises(UsageError):
        doctor.run(parser.parse_args([option, "-1"]), io.StringIO())


def test_the_command_on_this_machine() -> None:
    """It answers for the real machine: fit or not, each check has a state, each unfit one a remedy."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    out = io.StringIO()
    code = doctor.run(parser.parse_args(["--json"]), out)
    printed = json.loads(out.getvalue())
    unfit = [one for one in printed["checks"] if one["state"] == "unfit"]
    assert code == (4 if unfit else 0)
    assert printed["fit"] is not bool(unfit)
    assert all(one["remedy"] for one in unfit)
    states = {one["code"]: one["state"] for one in printed["checks"]}
    assert {"measuring", "foreign-cpu", "build", "memory", "disk", "uptime"} <= set(states)
