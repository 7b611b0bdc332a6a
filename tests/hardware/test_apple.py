from collections.abc import Callable
from dataclasses import replace

import pytest

from gemma3n_perf.hardware import apple
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.system import Accelerator, System
from gemma3n_perf.hardware.types import Fault
from tests.hardware.replay import Machine, recorded, without


def answering(command: str, output: str | None, name: str = "m5-max") -> System:
    """Return a recorded Mac on which one command answers otherwise."""
    machine = Machine(name)
    machine.commands[command] = output
    return machine.system


def test_all_facts_of_an_m1_ultra() -> None:
    """Name, cores, memory, macOS and MLX's architecture come from the recorded commands."""
    chip = detect(recorded("m1-ultra-64"))
    assert (chip.vendor, chip.name, chip.gpu_cores, chip.cpu_cores) == ("apple", "Apple M1 Ultra", 64, 20)
    assert (chip.memory_bytes, chip.architecture, chip.os_version) == (128 * 2**30, "applegpu_g13d", "26.2")
    assert chip.neural_accelerator is False


def test_the_class_does_not_depend_on_macos_or_memory() -> None:
    """An update of macOS or another memory size leaves the class as it was."""
    machine = Machine("m1-ultra-64")
    machine.commands |= {"sysctl -n kern.osproductversion": "27.0\n", "sysctl -n hw.memsize": f"{64 * 2**30}\n"}
    assert detect(machine.system).chip_class == "apple-m1-ultra-64gpu"


@pytest.mark.parametrize(
    ("name", "macos", "expected"),
    [
        ("Apple M5 Max", "26.2", True),
        ("Apple M5", "26.10", True),
        ("Apple M10 Pro", "27", True),
        ("Apple M5 Max", "26.1", False),
        ("Apple M5 Max", "26", False),
        ("Apple M4 Max", "27.0", False),
        ("Apple M1 Ultra", None, False),
        ("Apple M5", None, None),
        ("Apple A18 Pro", "26.2", None),
    ],
)
def test_neural_accelerator_needs_generation_5_and_macos_26_2(
    name: str, macos: str | None, expected: bool | None
) -> None:
    """The rule is known from M5 and macOS 26.2 on; without the facts it is unknown."""
    assert apple.neural_accelerator(name, macos) is expected


@pytest.mark.parametrize(
    ("name", "macos", "wheel", "taken", "fault"),
    [
        ("Apple M5 Max", "26.0", "macosx_26_0_arm64", True, True),
        ("Apple M5", "26.1", "macosx_26_0_arm64", True, True),
        ("Apple M5", "26.2", "macosx_26_0_arm64", True, False),
        ("Apple M5", "27.0", "macosx_26_0_arm64", True, False),
        ("Apple M5", "26.4", "macosx_15_0_arm64", False, False),
        ("Apple M5", "26.1", "macosx_14_0_arm64", False, False),
        ("Apple M4", "26.1", "macosx_26_0_arm64", False, False),
        ("Apple M5", "26.1", None, False, False),
        ("Apple M5", "26.2", None, True, False),
        ("Apple M5", None, "macosx_26_0_arm64", True, None),
        ("Apple A18 Pro", "26.2", "macosx_26_0_arm64", None, None),
    ],
)
def test_kernels_for_the_neural_accelerator_go_by_the_wheel(
    name: str, macos: str | None, wheel: str | None, taken: bool | None, fault: bool | None
) -> None:
    """A wheel for macosx_26_0 is built for 26.2 and installs on 26.0 (github.com/ml-explore/mlx, issue 4525)."""
    assert apple.neural_accelerator(name, macos, wheel) is taken
    machine = Machine("m5-max")
    machine.commands |= {"sysctl -n machdep.cpu.brand_string": name, "sysctl -n kern.osproductversion": macos}
    found = apple.neural_kernels(machine.system, wheel)
    if fault is None:
        assert found is None
    else:
        assert isinstance(found, Fault) is fault
        assert not isinstance(found, Fault) or found.remedy == "update macOS to 26.2 or later"


def test_gpu_cores_are_read_from_the_registry_where_system_profiler_fails() -> None:
    """ioreg tells the same number."""
    assert detect(without("m1-ultra-48", "system_profiler")).gpu_cores == 48


@pytest.mark.parametrize("output", [None, "", "not json", "[]", '{"SPDisplaysDataType": [{"sppci_cores": "many"}]}'])
def test_unreadable_gpu_cores_are_said_so_in_the_class(output: str | None) -> None:
    """Where neither command tells, the 48 and the 64 core part are not taken for one known class."""
    machine = Machine("m1-ultra-48")
    machine.commands |= {"system_profiler SPDisplaysDataType -json": output, "ioreg -r -d 1 -c AGXAccelerator": None}
    assert detect(machine.system).chip_class == "apple-m1-ultra-gpu-unknown"


@pytest.mark.parametrize(
    ("level", "expected"),
    [("0", "nominal"), ("1", "moderate"), ("2", "heavy"), ("3", "trapping"), ("4", "sleeping")],
)
def test_thermal_pressure_is_named_as_macos_names_it(level: str, expected: str) -> None:
    """The notification wins over pmset, which reports nothing on Apple silicon while the chip throttles."""
    reported = f"com.apple.system.thermalpressurelevel {level}\n"
    assert apple.thermal(answering("notifyutil -g com.apple.system.thermalpressurelevel", reported)) == expected


NOTHING_RECORDED = (
    "Note: No thermal warning level has been recorded\nNote: No performance warning level has been recorded\n"
)
LIMITED = """2026-08-20 05:08:37 -0700 CPU Power notify
\tCPU_Scheduler_Limit \t= 80
\tCPU_Available_CPUs \t= 12
\tCPU_Speed_Limit \t= 62
"""


@pytest.mark.parametrize(
    ("therm", "expected"),
    [
        (NOTHING_RECORDED, "nominal"),
        (LIMITED, "speed-limit-62"),
        (LIMITED.replace("62", "100").replace("80", "100"), "nominal"),
        ("something new\n", None),
        (None, None),
    ],
)
def test_pmset_tells_thermal_state_where_the_notification_does_not(therm: str | None, expected: str | None) -> None:
    """A speed limit under 100 % is throttling; output that is not understood is unknown."""
    machine = Machine("m4-pro")
    machine.commands |= {"notifyutil -g com.apple.system.thermalpressurelevel": None, "pmset -g therm": therm}
    assert apple.thermal(machine.system) == expected


@pytest.mark.parametrize(
    ("batt", "expected"),
    [
        (
            "Now drawing from 'AC Power'\n -InternalBattery-0 (id=0)\t78%; charging; 0:24 remaining\n",
            "ac",
        ),
        (
            "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=0)\t72%; discharging; 3:15 remaining\n",
            "battery",
        ),
        ("Now drawing from 'UPS Power'\n", "ups"),
        ("", None),
        (None, None),
    ],
)
def test_power_source_is_the_one_being_drawn_from(batt: str | None, expected: str | None) -> None:
    """A battery that is present but charging is no battery power."""
    assert apple.power_source(answering("pmset -g batt", batt)) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("Currently in use:\n lowpowermode         1\n womp                 0\n", True),
        ("Currently in use:\n lowpowermode         0\n", False),
        ("Currently in use:\n powermode            1\n", True),
        ("Currently in use:\n powermode            2\n", False),
        ("Currently in use:\n hibernatemode        1\n", None),
        (None, None),
    ],
)
def test_low_power_mode_under_its_old_and_new_name(settings: str | None, expected: bool | None) -> None:
    """macOS 26 renamed the setting, and its value 2 is High Power Mode."""
    assert apple.low_power_mode(answering("pmset -g", settings)) is expected


@pytest.mark.parametrize(("level", "expected"), [("1\n", 0.0), ("2\n", 0.5), ("4\n", 1.0), ("7\n", None), (None, None)])
def test_memory_pressure_is_the_kernels_level(level: str | None, expected: float | None) -> None:
    """Normal, warning and critical are a scale from 0 to 1."""
    assert apple.memory_pressure(answering("sysctl -n kern.memorystatus_vm_pressure_level", level)) == expected


@pytest.mark.parametrize(
    "read", [apple.thermal, apple.power_source, apple.low_power_mode, apple.memory_pressure, apple.gpu_cores]
)
def test_a_mac_that_answers_nothing_is_unknown(read: Callable[[System], object]) -> None:
    """No reading is guessed."""
    assert read(without("m1", "")) is None


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        (" powermode            0\n", "automatic"),
        (" powermode            1\n", "low"),
        (" powermode            2\n", "high"),
        (" lowpowermode         0\n", "automatic"),
        (" lowpowermode         1\n", "low"),
        (" highpowermode        1\n lowpowermode         0\n", "high"),
        (" powermode            0\n lowpowermode         1\n", "low"),
        (" sleep                1\n", None),
        ("", None),
    ],
)
def test_power_mode_is_read_from_the_settings(settings: str, mode: str | None) -> None:
    """One setting of three values, or on older systems one for each; low is what spoils runs."""
    system = answering("pmset -g", f"System-wide power settings:\nCurrently in use:\n standby 1\n{settings}")
    assert apple.power_mode(system) == mode
    assert apple.low_power_mode(system) is (None if mode is None else mode == "low")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("MacBookAir10,1", True),
        ("Mac14,2", True),
        ("Mac16,13", True),
        ("MacBookPro17,1", False),
        ("Macmini9,1", False),
        ("Mac13,2", False),
        ("Mac15,9", False),
        ("Mac17,2", False),
        ("Mac17,3", True),
        ("Mac17,5", True),
        ("Mac18,1", None),
        ("VirtualMac2,1", None),
        (None, None),
    ],
)
def test_a_fanless_mac_is_told_by_its_model(model: str | None, expected: bool | None) -> None:
    """An Air throttles where a mini with the same chip does not, so its class says so; unknown is never shared."""
    machine = Machine("m1")
    machine.commands["sysctl -n hw.model"] = model
    chip = detect(machine.system)
    assert (chip.model, chip.fanless) == (model, expected)
    ends = {True: "-fanless", False: "", None: "-fan-unknown"}
    assert chip.chip_class == f"apple-m1-7gpu{ends[expected]}"
    accelerator = Accelerator("cpu", {"architecture": "applegpu_g13g"})
    on_cpu = detect(replace(machine.system, accelerator=lambda: accelerator)).chip_class
    ends = {True: "apple-m1-fanless-8c", False: "apple-m1-8c", None: "apple-m1-fan-8c-unknown"}
    assert on_cpu == f"cpu-{ends[expected]}"


@pytest.mark.parametrize(
    ("name", "gpu", "cpu", "model", "expected"),
    [
        ("Apple M1 Pro", 14, 8, "MacBookPro18,3", "apple-m1-pro-14gpu-8cpu"),
        ("Apple M1 Pro", 14, 10, "MacBookPro18,3", "apple-m1-pro-14gpu-10cpu"),
        ("Apple M1 Pro", 14, None, "MacBookPro18,3", "apple-m1-pro-14gpu-cpu-unknown"),
        ("Apple M1 Pro", 16, 10, "MacBookPro18,3", "apple-m1-pro-16gpu"),
        ("Apple M4", 8, 8, "Mac16,2", "apple-m4-8gpu-8cpu"),
        ("Apple M4", 8, 10, "Mac16,12", "apple-m4-8gpu-10cpu-fanless"),
        ("Apple M4", 10, 10, "Mac16,10", "apple-m4-10gpu"),
        ("Apple M4 Pro", 20, 14, None, "apple-m4-pro-20gpu"),
        ("Apple M5", 10, 10, "Mac17,4", "apple-m5-10gpu-fanless"),
        ("Apple M5 Max", 40, 18, "Mac17,7", "apple-m5-max-40gpu"),
        ("Apple A18 Pro", 5, 6, "Mac17,5", "apple-a18-pro-5gpu-fanless"),
        ("Apple M6 Pro", 20, 16, None, "apple-m6-pro-20gpu-16cpu"),
        ("Apple M6", 10, None, None, "apple-m6-10gpu-fan-unknown"),
    ],
)
def test_cpu_cores_are_part_of_the_class_where_variants_differ(
    name: str, gpu: int, cpu: int | None, model: str | None, expected: str
) -> None:
    """Source: Apple's technical specifications. Of chips that came later nothing is known, so they are counted."""
    machine = Machine("m4-pro")
    machine.commands |= {
        "sysctl -n machdep.cpu.brand_string": f"{name}\n",
        "sysctl -n hw.physicalcpu": None if cpu is None else f"{cpu}\n",
        "sysctl -n hw.model": model,
        "system_profiler SPDisplaysDataType -json": f'{{"SPDisplaysDataType": [{{"sppci_cores": "{gpu}"}}]}}',
    }
    assert detect(machine.system).chip_class == expected


@pytest.mark.parametrize(
    ("file_backed", "pages"),
    [("File-backed pages:  300.\n", 1000 + 50 + 10 + 300), ("File-backed pages:  900.\n", 1460), ("", 1460)],
)
def test_inactive_pages_that_no_file_backs_are_not_free(file_backed: str, pages: int) -> None:
    """They would have to be compressed first."""
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:  1000.\nPages inactive:  400.\nPages speculative:  50.\nPages purgeable:  10.\n"
    )
    assert apple.free_memory_bytes(answering("vm_stat", text + file_backed)) == 16384 * pages
