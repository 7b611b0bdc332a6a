import struct

import pytest

from gemma3n_perf.hardware import apple, apple_gpu
from gemma3n_perf.hardware.conditions import CLOCKS_DOWN_S, SLOW_EVERY_S, ConditionProbe, Limits, faults
from gemma3n_perf.hardware.types import Conditions
from tests.hardware.macs import CLIENTS, Mac
from tests.hardware.replay import ROOT_PID

# Published of an M3 Pro, in MHz and mV: `ioreg -lw0 -p IODeviceTree -n pmgr`, key voltage-states9.
M3_PRO_MHZ = (0, 338, 618, 796, 832, 924, 952, 1056, 1064, 1182, 1182, 1312, 1242, 1380)
M3_PRO_MV = (125, 665, 705, 710, 745, 745, 805, 805, 880, 880, 935, 935, 965, 965)
TABLE = b"".join(struct.pack("<II", mhz * 10**6, mv) for mhz, mv in zip(M3_PRO_MHZ, M3_PRO_MV, strict=True)).hex()
PMGR = f"""+-o pmgr  <class AppleARMIODevice, id 0x10000011d, registered, matched, active, busy 0 (7 ms), retain 52>
    {{
      "voltage-states9-sram" = <{"00" * 16}>
      "voltage-states9" = <{TABLE}>
    }}
"""
# Lines of a whole registry published of an M1 Max (gist.github.com/philipturner/48c72e3fcce0ce9489071eb083a5086e).
STATISTICS = """    | | |   +-o AGXAcceleratorG13X  <class AGXAcceleratorG13X, id 0x100000983, registered, matched>
    | | |   | {
    | | |   |   "SchedulerState" = {"Stamps"=(),"BusyWorkQueues"=()}
    | | |   |   "MetalPluginName" = "AGXMetalG13X"
    | | |   |   "PerformanceStatistics" = {"TiledSceneBytes"=1703936,"Alloc system memory"=3730522112,\
"Tiler Utilization %"=7,"recoveryCount"=0,"Renderer Utilization %"=7,"SplitSceneCount"=0,\
"Allocated PB Size"=42598400,"Device Utilization %"=7}
    | | |   | }
"""
MS = 10**6


def on_gpu(mac: Mac, window_server: int = 1_500, ours: int = 0, ollama: int = 0) -> None:
    """Say how many nanoseconds the GPU has worked for three processes."""
    mac.commands[" ".join(apple_gpu.CLIENTS)] = CLIENTS.format(window_server=window_server, ours=ours, ollama=ollama)


def mac_with(states: list[dict[str, int] | None], work_s: list[float] | None = None) -> Mac:
    """Return a Mac whose GPU tells these states and takes so long for the fixed computation."""
    mac = Mac()
    mac.gpu_states = lambda: states.pop(0)
    mac.gpu_work_s = lambda: work_s.pop(0) if work_s else None
    mac.commands[" ".join(apple_gpu.POWER_MANAGER)] = PMGR
    return mac


def interval(mac: Mac, probe: ConditionProbe, seconds: float = 1.0) -> Conditions:
    """Return the conditions of an interval in which one core is ours."""
    probe.start()
    mac.passes(seconds, own=seconds)
    return probe.stop()


def test_the_clocks_of_a_gpu_are_read_from_the_power_managers_table() -> None:
    """Without the state in which it is off; a table that is not there, or is none, tells nothing."""
    mac = mac_with([])
    assert apple_gpu.clocks_hz(mac.system) == tuple(mhz * 1e6 for mhz in M3_PRO_MHZ[1:])
    for text in (None, "", '"voltage-states9" = <0102>', '"voltage-states9" = <>'):
        mac.commands[" ".join(apple_gpu.POWER_MANAGER)] = text
        assert apple_gpu.clocks_hz(mac.system) == ()


def test_clock_and_use_are_the_means_of_the_interval() -> None:
    """The states are those since the interval began: what came before is read and let go."""
    names = ["OFF", *(f"P{number}" for number in range(1, 14))]
    states = dict.fromkeys(names, 0) | {"OFF": 25, "P1": 25, "P13": 50}
    mac = mac_with([{"OFF": 1}, states])
    found = interval(mac, ConditionProbe(mac.system, ROOT_PID))
    assert found.gpu_clock_hz == pytest.approx((25 * 338e6 + 50 * 1380e6) / 75)
    assert (found.gpu_use, found.gpu_speed) == (0.75, 1.0)


def test_a_clock_that_falls_is_throttling() -> None:
    """Against the session's first interval; one that rises is none, nor one within the limit."""
    low, middle, high = ({"OFF": 10, "P1": 0, "P2": 0, "P3": 0} | {name: 90} for name in ("P1", "P2", "P3"))
    mac = mac_with([{}, middle, {}, high, {}, low])
    probe = ConditionProbe(mac.system, ROOT_PID)
    found = [interval(mac, probe) for _ in range(3)]
    assert [one.gpu_speed for one in found] == [1.0, round(796 / 618, 4), round(338 / 618, 4)]
    assert [[fault.code for fault in faults(one, Limits())] for one in found] == [[], [], ["throttled"]]
    assert faults(found[2], Limits())[0].found == "the GPU ran at 55% of its speed at first (limit 80%)"
    assert not faults(Conditions(gpu_speed=Limits().gpu_speed), Limits())


def test_without_states_a_fixed_computation_tells_the_speed() -> None:
    """It is timed at the end of each interval, and never where the clock is read."""
    mac = mac_with([None] * 6, [0.010, 0.011, 0.014])
    probe = ConditionProbe(mac.system, ROOT_PID)
    found = [interval(mac, probe) for _ in range(3)]
    assert [one.gpu_speed for one in found] == [1.0, round(10 / 11, 4), round(10 / 14, 4)]
    assert [bool(faults(one, Limits())) for one in found] == [False, False, True]
    assert all(one.gpu_clock_hz is None for one in found)
    mac = mac_with([{"OFF": 1, "P1": 1}] * 2)
    mac.gpu_work_s = lambda: pytest.fail("the clock is known")
    interval(mac, ConditionProbe(mac.system, ROOT_PID))


def test_states_that_the_table_does_not_cover_give_a_use_and_no_clock() -> None:
    """A clock is not guessed, and an idle GPU has none."""
    for states, use in (({f"P{number}": 1 for number in range(20)}, 1.0), ({"OFF": 7, "P1": 0}, 0.0)):
        mac = mac_with([{}, states])
        found = interval(mac, ConditionProbe(mac.system, ROOT_PID))
        assert (found.gpu_clock_hz, found.gpu_use, found.gpu_speed) == (None, use, None)


def test_use_of_a_gpu_from_the_drivers_statistics() -> None:
    """The whole device's share, in per cent."""
    mac = Mac()
    mac.commands["ioreg -r -d 1 -c AGXAccelerator"] = STATISTICS
    assert apple.gpu_use(mac.system) == 0.07
    assert interval(mac, ConditionProbe(mac.system, ROOT_PID)).gpu_use == 0.07


def test_time_on_the_gpu_is_summed_over_the_clients_of_a_process() -> None:
    """A client without any use is a process all the same; one whose creator is not told is nobody's."""
    mac = Mac()
    on_gpu(mac)
    nobodys = '+-o AGXDeviceUserClient\n    {\n      "AppUsage" = ({"accumulatedGPUTime"=9})\n    }\n'
    mac.commands[" ".join(apple_gpu.CLIENTS)] = f"{mac.commands[' '.join(apple_gpu.CLIENTS)]}{nobodys}"
    assert apple_gpu.seconds_by_process(mac.system) == pytest.approx({443: 2e-6, ROOT_PID: 0.0, 29493: 0.0})
    for text in (None, "", "nothing here"):
        mac.commands[" ".join(apple_gpu.CLIENTS)] = text
        assert apple_gpu.seconds_by_process(mac.system) is None


def test_others_on_the_gpu_discard_a_run_and_ours_do_not() -> None:
    """Of the time since the commands of macOS were run last; what ended meanwhile is unknown, and no fault."""
    mac = Mac()
    probe = ConditionProbe(mac.system, ROOT_PID)
    on_gpu(mac)
    assert interval(mac, probe).foreign_gpu is None
    on_gpu(mac, 60 * MS, 5_000 * MS, 1_000 * MS)
    busy = interval(mac, probe, SLOW_EVERY_S)
    assert busy.foreign_gpu == pytest.approx(1.06 / (SLOW_EVERY_S + 1.0), abs=1e-3)
    assert [fault.found for fault in faults(busy, Limits())] == ["other processes used 17.7% of the GPU (limit 10.0%)"]
    on_gpu(mac)
    assert interval(mac, probe, SLOW_EVERY_S).foreign_gpu == 0.0


def test_a_gpu_has_had_time_to_clock_down_where_conditions_took_some() -> None:
    """At first, and wherever more than a moment lies between two intervals; off a Mac's GPU, never."""
    mac = Mac()
    probe = ConditionProbe(mac.system, ROOT_PID)
    assert probe.start()
    probe.stop()
    assert not probe.start()
    probe.stop()
    mac.time_s += 2 * CLOCKS_DOWN_S
    assert probe.start()
