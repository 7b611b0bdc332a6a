import os
import subprocess
import sys
import time
from typing import Any

import pytest

from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.processes import cpu_seconds
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Conditions
from tests.hardware.replay import ROOT_PID, Machine

LIMITS = Limits.for_cores(2)


def sampled(machine: Machine, seconds: float = 1.0, **used: float) -> Conditions:
    """Return the conditions of an interval in which the CPUs were used so."""
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.passes(seconds, **used)
    return probe.stop()


def codes(conditions: Conditions, limits: Limits = LIMITS) -> list[str]:
    """Return the codes of the faults."""
    return [fault.code for fault in faults(conditions, limits)]


def test_our_own_work_is_not_foreign() -> None:
    """Both cores busy with the measured process is what a measurement looks like."""
    conditions = sampled(Machine("epyc-masked"), own=2.0)
    assert (conditions.foreign_cpu, conditions.steal) == (0.0, 0.0)
    assert codes(conditions) == []


def test_one_foreign_compiler_beside_our_work_is_caught() -> None:
    """It takes one of two cores: half of all, but for the counters' resolution."""
    conditions = sampled(Machine("epyc-masked"), own=1.0, foreign=1.0)
    assert conditions.foreign_cpu == pytest.approx(0.495)
    assert codes(conditions) == ["foreign-cpu"]


def test_stolen_time_is_steal_and_not_foreign() -> None:
    """What the hypervisor took is told apart from what other processes used."""
    conditions = sampled(Machine("epyc-masked"), own=1.0, steal=0.4)
    assert conditions.steal == pytest.approx(0.195)
    assert conditions.foreign_cpu == pytest.approx(0.0)
    assert codes(conditions) == ["steal"]


def test_one_tick_is_not_told_from_none() -> None:
    """In a block of 60 ms the counters' resolution alone would be 8 % of two cores."""
    conditions = sampled(Machine("epyc-masked"), seconds=0.06, own=0.06, foreign=0.01, steal=0.01)
    assert (conditions.foreign_cpu, conditions.steal) == (0.0, 0.0)


@pytest.mark.parametrize("cores", [2, 4, 8, 16, 20, 32, 48])
def test_one_compiler_is_caught_whatever_the_number_of_cores(cores: int) -> None:
    """The limit shrinks as one core becomes a smaller part of the machine."""
    conditions = sampled(Machine("epyc-masked", cpus=cores), seconds=2.0, own=2.0, foreign=2.0)
    assert codes(conditions, Limits.for_cores(cores)) == ["foreign-cpu"]


@pytest.mark.parametrize("cores", [2, 8, 16, 32, 192])
def test_the_daemons_of_an_idle_machine_are_no_fault(cores: int) -> None:
    """Half a percent of all cores is what a quiet machine shows."""
    conditions = sampled(Machine("epyc-masked", cpus=cores), own=1.0, foreign=0.005 * cores)
    assert codes(conditions, Limits.for_cores(cores)) == []


def test_a_child_started_during_the_run_is_ours() -> None:
    """Its whole CPU time fell into the run."""
    machine = Machine("epyc-masked")
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.passes(1.0, own=0.5, foreign=0.9)
    machine.processes[101] = 0.9
    assert probe.stop().foreign_cpu == 0.0


def test_counters_that_stand_still_tell_nothing() -> None:
    """Sandboxes serve constant CPU counters; all cores busy must not be read out of them."""
    machine = Machine("epyc-masked")
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.time_s += 1.0
    conditions = probe.stop()
    assert (conditions.foreign_cpu, conditions.steal) == (None, None)


def test_an_interval_too_short_for_the_counters_tells_nothing() -> None:
    """20 ms of two cores are four ticks."""
    conditions = sampled(Machine("epyc-masked"), seconds=0.02, foreign=0.02)
    assert (conditions.foreign_cpu, conditions.steal) == (None, None)


def test_a_platform_without_steal_leaves_it_unknown() -> None:
    """macOS counts none; foreign time is known all the same."""
    machine = Machine("m1")
    machine.steal_s = None
    conditions = sampled(machine, own=1.0, foreign=0.5)
    assert conditions.steal is None
    assert conditions.foreign_cpu == pytest.approx(0.245)


def test_memory_pressure_is_the_share_of_the_run_spent_waiting() -> None:
    """Linux counts microseconds of stalls since boot."""
    machine = Machine("epyc-masked")
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.passes(2.0)
    machine.files["/proc/pressure/memory"] = "some avg10=9.00 avg60=1.00 avg300=0.00 total=500000\nfull total=1\n"
    conditions = probe.stop()
    assert conditions.memory_pressure == pytest.approx(0.25)
    assert codes(conditions) == ["memory-pressure"]


def test_a_kernel_without_pressure_information_leaves_it_unknown() -> None:
    """No file, no number, no fault."""
    machine = Machine("epyc-masked")
    machine.files["/proc/pressure/memory"] = None
    conditions = sampled(machine)
    assert conditions.memory_pressure is None


def test_a_linux_laptop_on_battery_with_a_saving_profile() -> None:
    """Power supply and platform profile are read from /sys, and the clock where the kernel tells it."""
    machine = Machine("epyc-9b45")
    machine.files |= {
        "/sys/class/power_supply/AC/type": "Mains\n",
        "/sys/class/power_supply/AC/online": "0\n",
        "/sys/class/power_supply/BAT0/type": "Battery\n",
        "/sys/class/power_supply/BAT0/status": "Discharging\n",
        "/sys/firmware/acpi/platform_profile": "low-power\n",
        "/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3400000\n",
    }
    conditions = sampled(machine)
    assert (conditions.power_source, conditions.low_power_mode, conditions.cpu_clock_hz) == ("battery", True, 3.4e9)
    assert codes(conditions) == ["battery", "low-power-mode"]
    machine.files["/sys/class/power_supply/AC/online"] = "1\n"
    assert sampled(machine).power_source == "ac"


def test_a_processor_slowed_by_heat_during_the_run_is_throttled() -> None:
    """Intel's counter of such events grew."""
    machine = Machine("epyc-9b45")
    counter = "/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    machine.files[counter] = "7\n"
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.passes(1.0)
    machine.files[counter] = "9\n"
    assert codes(probe.stop()) == ["throttled"]
    assert sampled(machine).throttle_reasons == ()


def test_a_server_that_tells_little_has_no_faults() -> None:
    """What is unknown is never a fault."""
    conditions = sampled(Machine("epyc-masked"), own=1.0)
    unknown = (conditions.thermal, conditions.power_source, conditions.low_power_mode, conditions.throttle_reasons)
    assert unknown == (None, None, None, None)
    assert faults(Conditions(), LIMITS) == ()


def test_a_mac_in_trouble_tells_all_of_it() -> None:
    """Heat, battery, Low Power Mode and memory pressure, each with a remedy."""
    machine = Machine("m5-max")
    machine.commands |= {
        "notifyutil -g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 2\n",
        "pmset -g batt": "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=0)\t48%; discharging\n",
        "pmset -g": "Currently in use:\n powermode            1\n",
        "sysctl -n kern.memorystatus_vm_pressure_level": "2\n",
    }
    found = faults(sampled(machine), LIMITS)
    assert [fault.code for fault in found] == ["thermal", "battery", "low-power-mode", "memory-pressure"]
    assert all(fault.found and fault.remedy for fault in found)


def test_the_slow_commands_of_macos_run_once_in_five_seconds() -> None:
    """Blocks of 60 ms must not pay 80 ms each; a change is seen after five seconds at the latest."""
    machine = Machine("m4-pro")
    probe = ConditionProbe(machine.system, ROOT_PID)
    for _ in range(40):
        probe.start()
        machine.passes(0.1)
        probe.stop()
    assert machine.requests["pmset -g batt"] == 1
    machine.commands["pmset -g batt"] = "Now drawing from 'Battery Power'\n"
    probe.start()
    machine.passes(2.0)
    assert probe.stop().power_source == "battery"
    assert machine.requests["pmset -g batt"] == 2


def test_no_command_runs_between_start_and_stop_of_the_clock() -> None:
    """The first reading of the slow commands happens before the interval begins."""
    machine = Machine("m4-pro")
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    assert machine.requests["pmset -g batt"] == 1


def test_a_gpu_held_down_by_heat_and_shared_with_another_process() -> None:
    """Both are faults; the power cap and the idle clock are only recorded."""
    machine = Machine("h200")
    assert machine.nvml is not None
    results: dict[str, Any] = machine.nvml.results
    results["nvmlDeviceGetComputeRunningProcesses"] = [{"pid": ROOT_PID}, {"pid": 7}]
    results["nvmlDeviceGetCurrentClocksEventReasons"] = 0x1 | 0x4
    machine.alive = {7: 7}
    probe = ConditionProbe(machine.system, ROOT_PID)
    probe.start()
    machine.passes(1.0)
    results["nvmlDeviceGetViolationStatus 1"] = {"violationTime": 1_000_000}
    conditions = probe.stop()
    assert conditions.throttle_reasons == ("gpu-idle", "sw-power-cap", "thermal-violation")
    assert (conditions.gpu_clock_hz, conditions.gpu_temperature_c, conditions.gpu_processes) == (345e6, 28, 1)
    found = faults(conditions, LIMITS)
    assert [fault.code for fault in found] == ["throttled", "gpu-processes"]
    assert found[0].found == "clocks were held down: thermal-violation"


@pytest.mark.parametrize("reason", ["gpu-idle", "applications-clocks", "display-clocks", "sync-boost", "sw-power-cap"])
def test_reasons_that_are_no_fault_of_the_moment(reason: str) -> None:
    """Settings and the board's working point are recorded, and discard nothing."""
    assert codes(Conditions(throttle_reasons=(reason,))) == []


@pytest.mark.parametrize(
    "reason",
    ["hw-slowdown", "hw-thermal-slowdown", "sw-thermal-slowdown", "hw-power-brake", "thermal-violation", "cpu-thermal"],
)
def test_reasons_that_discard_a_run(reason: str) -> None:
    """Heat and failing power change the clock from run to run."""
    assert codes(Conditions(throttle_reasons=(reason,))) == ["throttled"]


def test_a_value_at_the_limit_still_counts() -> None:
    """Only what exceeds a limit is a fault."""
    assert codes(Conditions(steal=LIMITS.steal, foreign_cpu=LIMITS.foreign_cpu, gpu_processes=0)) == []


def test_stop_without_start_is_refused() -> None:
    """A second stop would describe an interval nobody began."""
    probe = ConditionProbe(Machine("epyc-9b45").system, ROOT_PID)
    probe.start()
    probe.stop()
    with pytest.raises(RuntimeError, match="without start"):
        probe.stop()


def test_a_busy_process_outside_the_tree_is_foreign_on_this_machine() -> None:
    """The real counters of this machine see one spinning process."""
    quiet = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 20
        while (cpu_seconds(busy.pid) or 0.0) < 0.1 and time.monotonic() < deadline:
            time.sleep(0.01)
        probe = ConditionProbe(this_machine(), quiet.pid)
        probe.start()
        time.sleep(0.4)
        conditions = probe.stop()
    finally:
        busy.kill()
        quiet.kill()
        busy.wait()
        quiet.communicate()
    assert conditions.foreign_cpu is not None
    assert conditions.foreign_cpu * (os.cpu_count() or 1) > 0.3
