import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.hardware import apple_gpu
from gemma3n_perf.hardware.conditions import Limits
from gemma3n_perf.hardware.fitness import SAMPLE_S, Check, Doctor, Fitness, Needs, State
from gemma3n_perf.hardware.system import System, this_machine
from tests.hardware.macs import CLIENTS, PS, QUIET, Mac, busy
from tests.hardware.replay import ROOT_PID, Machine
from tests.hardware.test_lock import holder

FOLDER = Path("/checkpoints")
THERMAL = "notifyutil -g com.apple.system.thermalpressurelevel"


def doctor(machine: Machine, tmp_path: Path, **used: float) -> Doctor:
    """Return a doctor for a recorded machine whose CPUs are used so while it looks."""
    return Doctor(
        machine.system,
        ROOT_PID,
        Limits.for_cores(machine.cpus),
        FOLDER,
        lock=tmp_path / "lock",
        sleep=lambda seconds: machine.passes(seconds, **used),
    )


def unfit(found: Fitness) -> list[str]:
    """Return the codes of what keeps a machine from measuring."""
    return [check.code for check in found.unfit]


def check(found: Fitness, code: str) -> Check:
    """Return one check."""
    return next(one for one in found.checks if one.code == code)


def linux(name: str = "epyc-9b45") -> Machine:
    """Return a recorded Linux machine at rest, with the files the doctor reads."""
    machine = Machine(name)
    machine.files |= {
        "/proc/uptime": "90000.5 170000.1\n",
        "/proc/meminfo": "MemTotal: 24576000 kB\nMemFree: 1000 kB\nMemAvailable:   20480000 kB\n",
        "/proc/1/stat": stat(1, "systemd", 0, 5000),
    }
    machine.commands["df -Pk /checkpoints"] = None
    machine.commands["df -Pk /"] = (
        "Filesystem 1024-blocks Used Available Capacity Mounted on\nover lay 9 9 99000000 5% /\n"
    )
    return machine


def stat(pid: int, name: str, parent: int, ticks: int, reaped: int = 0) -> str:
    """Return /proc/<pid>/stat of a process that has used so many ticks of CPU, and its ended children others."""
    return f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {ticks} 0 {reaped} 0 20 0 1 0 5 1000 1\n"


def watched(machine: Machine, tmp_path: Path, files: dict[str, str], **used: float) -> Fitness:
    """Examine a Linux machine whose process table becomes ``files`` while it is looked at."""
    looking = doctor(machine, tmp_path)

    def sleep(seconds: float) -> None:
        machine.files |= files
        machine.passes(seconds, **used)

    return replace(looking, sleep=sleep).examine()


def test_a_mac_at_rest_is_fit(tmp_path: Path) -> None:
    """Every check has an answer, and none keeps it from measuring."""
    found = doctor(Mac(), tmp_path).examine()
    assert (found.fit, unfit(found)) == (True, [])
    assert check(found, "battery").found == "ac power"
    assert check(found, "memory").found == "22.3 GiB"
    assert check(found, "disk").found == "429.2 GiB"
    assert check(found, "uptime").found == "3.0 days"
    assert check(found, "gpu-busy").state is State.FIT
    assert check(found, "sleep").found == "never sleeps"
    unknown = {one.code for one in found.checks if one.state is State.UNKNOWN}
    assert unknown == {"throttled", "steal", "gpu-processes"}


@pytest.mark.parametrize(
    ("command", "output", "code"),
    [
        ("pmset -g batt", "Now drawing from 'Battery Power'\n", "battery"),
        ("pmset -g", "Currently in use:\n powermode            1\n", "low-power-mode"),
        (THERMAL, "com.apple.system.thermalpressurelevel 2\n", "thermal"),
        ("sysctl -n kern.memorystatus_vm_pressure_level", "2\n", "memory-pressure"),
        ("tmutil status", "Backup session status:\n{\n    Running = 1;\n}\n", "backup-running"),
        ("ioreg -r -d 1 -c AGXAccelerator", '"PerformanceStatistics" = {"Device Utilization %"=83}', "gpu-busy"),
        ("sysctl -n kern.osproductversion", "26.1\n", "neural-accelerator"),
        ("sysctl -n kern.boottime", "{ sec = 1789999940, usec = 0 } Mon\n", "uptime"),
        ("df -Pk /checkpoints", "head\n/dev/disk3s5 971350180 965000000 6350180 100% /\n", "disk"),
        ("vm_stat", "(page size of 16384 bytes)\nPages free:    60000.\n", "memory"),
    ],
)
def test_a_mac_in_trouble_is_unfit_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str, code: str
) -> None:
    """Each by what macOS tells of it."""
    monkeypatch.setattr("gemma3n_perf.hardware.fitness.mlx_wheel", lambda: "macosx_26_0_arm64")
    mac = Mac()
    mac.commands[command] = output
    found = doctor(mac, tmp_path).examine()
    assert unfit(found) == [code]
    assert check(found, code).remedy


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mds_stores", "spotlight"),
        ("mdworker_shared", "spotlight"),
        ("backupd", "backup"),
        ("swift-frontend", "build"),
        ("clang", "build"),
        ("softwareupdated", "housekeeping"),
        ("OneDrive", "sync"),
        ("OneDrive File Provider", "sync"),
    ],
)
def test_what_works_on_a_mac_is_named(tmp_path: Path, name: str, code: str) -> None:
    """By the CPU it used while it was watched, with its name and id."""
    mac = Mac()
    mac.while_watched = busy(name, 0.5 * SAMPLE_S)
    found = doctor(mac, tmp_path).examine()
    assert unfit(found) == [code]
    assert f"{name} (900) 50% of a core" in check(found, code).found


def test_the_process_that_uses_a_macs_gpu_is_named(tmp_path: Path) -> None:
    """By what the GPU worked for each while it was watched; ours and what is older than the watch do not count."""
    mac, text = Mac(), {"ours": 0, "window_server": 900_000_000, "ollama": 10**10}
    key = " ".join(apple_gpu.CLIENTS)
    mac.commands[key] = CLIENTS.format(**text)
    assert check(doctor(mac, tmp_path).examine(), "gpu-busy").state is State.FIT
    looking = doctor(mac, tmp_path)

    def sleep(seconds: float) -> None:
        mac.commands[key] = CLIENTS.format(**text | {"ours": 10**9, "ollama": 10**10 + int(seconds * 4e8)})
        mac.passes(seconds)

    found = replace(looking, sleep=sleep).examine()
    assert unfit(found) == ["gpu-busy"]
    assert check(found, "gpu-busy").found == "process 29493 uses 40% of the GPU"


def test_spotlight_that_only_sits_there_is_no_fault(tmp_path: Path) -> None:
    """mds is always present; only its work counts."""
    mac = Mac()
    mac.while_watched = QUIET.replace("12:01.50", "12:01.53")
    assert doctor(mac, tmp_path).examine().fit


def test_sleep_settings_are_a_note(tmp_path: Path) -> None:
    """The suite keeps a machine awake while it measures; a runner waiting for work would fall asleep."""
    mac = Mac()
    mac.commands["pmset -g"] = "Currently in use:\n sleep 10\n powernap 1\n lowpowermode 0\n"
    found = doctor(mac, tmp_path).examine()
    assert found.fit
    assert (check(found, "sleep").state, check(found, "sleep").found) == (
        State.NOTE,
        "may sleep or work by itself: sleep 10, powernap 1",
    )


def test_a_machine_that_ran_for_months_is_a_note(tmp_path: Path) -> None:
    """It measures, and should be restarted some time."""
    mac = Mac()
    mac.commands["sysctl -n kern.boottime"] = "{ sec = 1780000000, usec = 0 } Thu\n"
    found = doctor(mac, tmp_path).examine()
    assert (found.fit, check(found, "uptime").state) == (True, State.NOTE)


def test_a_mac_that_answers_nothing_is_unknown_and_fit(tmp_path: Path) -> None:
    """What is not told is no reason to refuse, and is not called fine."""
    mac = Mac()
    mac.commands = dict.fromkeys(mac.commands)
    found = doctor(mac, tmp_path).examine()
    assert found.fit
    assert {one.state for one in found.checks if one.code not in ("measuring", "foreign-cpu")} == {State.UNKNOWN}


def test_a_linux_server_at_rest_is_fit(tmp_path: Path) -> None:
    """The checkpoints' folder need not exist yet: its file system counts."""
    found = doctor(linux(), tmp_path).examine()
    assert found.fit
    assert check(found, "memory").found == "19.5 GiB"
    assert check(found, "disk").found == "94.4 GiB"
    assert check(found, "uptime").found == "1.0 days"
    assert not [one for one in found.checks if one.code == "spotlight"]


def test_a_build_on_linux_is_found_by_its_driver_and_its_ended_compilers(tmp_path: Path) -> None:
    """Compilers come and go between two looks; ninja has reaped them."""
    machine = linux()
    machine.files["/proc/50/stat"] = stat(50, "ninja", 1, 3, reaped=1000)
    found = watched(machine, tmp_path, {"/proc/50/stat": stat(50, "ninja", 1, 3, reaped=1190)})
    assert unfit(found) == ["build"]
    assert "ninja (50) 95% of a core" in check(found, "build").found


def test_a_compiler_that_started_while_watched_is_found(tmp_path: Path) -> None:
    """All it used fell into the watch; the other CPU time names it too."""
    machine = linux()
    found = watched(machine, tmp_path, {"/proc/51/stat": stat(51, "cc1plus", 1, 180)}, foreign=1.8)
    assert unfit(found) == ["foreign-cpu", "build"]
    assert "cc1plus (51) 90% of a core" in check(found, "foreign-cpu").found


def test_what_we_descend_from_is_not_foreign(tmp_path: Path) -> None:
    """make may have started the doctor."""
    machine = linux()
    machine.files |= {
        "/proc/60/stat": stat(60, "make", 1, 10),
        f"/proc/{ROOT_PID}/stat": stat(ROOT_PID, "python", 60, 100),
    }
    after = {"/proc/60/stat": stat(60, "make", 1, 30), f"/proc/{ROOT_PID}/stat": stat(ROOT_PID, "python", 60, 300)}
    assert watched(machine, tmp_path, after).fit


def test_a_capped_clock_is_a_note(tmp_path: Path) -> None:
    """It may be how this class is always measured."""
    machine = linux()
    base = "/sys/devices/system/cpu/cpu0/cpufreq/"
    machine.files |= {f"{base}scaling_max_freq": "2000000\n", f"{base}cpuinfo_max_freq": "4000000\n"}
    found = doctor(machine, tmp_path).examine()
    assert (found.fit, check(found, "clock-capped").found) == (True, "capped at 2.00 of 4.00 GHz")


def test_a_gpu_that_others_use_or_that_is_held_down_is_unfit(tmp_path: Path) -> None:
    """NVML tells of both, and the process is named."""
    machine = linux("h100")
    assert machine.nvml is not None
    machine.nvml.results["nvmlDeviceGetComputeRunningProcesses"] = [{"pid": 7}]
    machine.nvml.results["nvmlDeviceGetCurrentClocksEventReasons"] = 0x40
    machine.alive = {7: 7}
    machine.files["/proc/7/stat"] = stat(7, "python", 1, 0)
    found = doctor(machine, tmp_path).examine()
    assert unfit(found) == ["throttled", "gpu-processes"]
    assert check(found, "gpu-processes").found.endswith("compute on the GPU (limit 0): python (7)")


def test_a_look_sees_what_a_run_is_discarded_for_and_no_more(tmp_path: Path) -> None:
    """A full disk or a machine that has just started spoils no run."""
    mac = Mac()
    mac.commands["sysctl -n kern.boottime"] = "{ sec = 1789999940, usec = 0 } Mon\n"
    mac.commands["pmset -g batt"] = "Now drawing from 'Battery Power'\n"
    assert unfit(doctor(mac, tmp_path).look()) == ["battery"]
    assert unfit(doctor(mac, tmp_path).examine()) == ["battery", "uptime"]


def test_waiting_backs_off_until_the_machine_is_fit(tmp_path: Path) -> None:
    """5 s, then 10 s, then 20 s; each pause is told with its reason."""
    mac = Mac()
    mac.commands["pmset -g batt"] = "Now drawing from 'Battery Power'\n"
    pauses: list[tuple[list[str], float]] = []

    def tell(found: Fitness, pause_s: float) -> None:
        pauses.append((unfit(found), pause_s))
        if len(pauses) == 3:
            mac.commands["pmset -g batt"] = "Now drawing from 'AC Power'\n"

    found = doctor(mac, tmp_path).wait(600.0, tell)
    assert found.fit
    assert pauses == [(["battery"], 5.0), (["battery"], 10.0), (["battery"], 20.0)]


def test_waiting_ends_and_says_so(tmp_path: Path) -> None:
    """The last look is after the whole time, and it decides."""
    mac = Mac()
    mac.commands["pmset -g batt"] = "Now drawing from 'Battery Power'\n"
    pauses: list[float] = []
    began = mac.time_s
    found = doctor(mac, tmp_path).wait(30.0, lambda found, pause_s: pauses.append(pause_s))
    assert unfit(found) == ["battery"]
    assert pauses == [5.0, 10.0, pytest.approx(30 - 15 - 3 * SAMPLE_S)]
    assert mac.time_s - began == pytest.approx(30 + SAMPLE_S)


def test_a_second_measurement_is_found_by_its_lock(tmp_path: Path) -> None:
    """A real process holds it; looking takes it from nobody."""
    path = tmp_path / "lock"
    with holder(path) as process:
        found = replace(doctor(Mac(), tmp_path), lock=path).examine()
        assert unfit(found) == ["measuring"]
        assert f"process {process.pid}" in check(found, "measuring").found
        process.kill()
        process.wait()
        assert replace(doctor(Mac(), tmp_path), lock=path).examine().fit


@contextmanager
def compiling(folder: Path) -> Iterator[int]:
    """Run a process that computes under a compiler's name."""
    compiler = folder / "cc1plus"
    compiler.symlink_to(sys.executable)
    spin = "import time\nprint(flush=True)\nwhile time.process_time() < 60: pass"
    process = subprocess.Popen([str(compiler), "-S", "-c", spin], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def stranger(system: System) -> System:
    """Return this machine as somebody sees it who did not start the compiler."""
    return replace(system, tree=lambda root: frozenset([root]))


if sys.platform == "linux":  # where a process is called as its link is

    def test_a_compile_started_beside_it_is_found_on_this_machine(tmp_path: Path) -> None:
        """A real one, by real clocks."""
        with compiling(tmp_path) as pid:
            found = Doctor(
                stranger(this_machine()), os.getpid(), Limits.for_cores(os.cpu_count() or 1), tmp_path, Needs(),
                tmp_path / "lock", time.sleep,
            ).examine()  # fmt: skip
        assert "build" in unfit(found)
        assert f"cc1plus ({pid})" in check(found, "build").found


def test_processes_are_read_with_spaces_days_and_hours() -> None:
    """What ps writes for long-lived processes, and names with spaces."""
    from gemma3n_perf.hardware.other_processes import snapshot

    mac = Mac()
    mac.commands[PS] = (
        "    9     1 1-02:03:04.50 /Applications/My App.app/Contents/MacOS/My App\n   10     9   2:03:04 x\n"
    )
    found = snapshot(mac.system)
    assert found is not None
    assert (found[9].name, found[9].cpu_s) == ("My App", 26 * 3600 + 184.5)
    assert (found[10].parent, found[10].cpu_s) == (9, 7384.0)
