import pytest

from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.cpu import has_model_number
from tests.hardware.replay import Machine, recorded


@pytest.mark.parametrize(
    "brand",
    [
        "AMD EPYC 9B45",
        "AMD EPYC 7763 64-Core Processor",
        "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "13th Gen Intel(R) Core(TM) i9-13900K",
        "Intel(R) N100",
        "AMD Ryzen AI 9 HX 370 w/ Radeon 890M",
    ],
)
def test_a_brand_string_with_a_model_number_is_enough(brand: str) -> None:
    """Such a name tells one microarchitecture."""
    assert has_model_number(brand)


@pytest.mark.parametrize(
    "brand",
    [
        "AMD EPYC",
        "AMD EPYC-Milan Processor",
        "Intel(R) Xeon(R) CPU @ 2.20GHz",
        "Intel Xeon E312xx (Sandy Bridge, IBRS update)",
        "Intel Xeon Processor (Skylake, IBRS)",
        "13th Gen Intel(R) CPU",
        "AMD EPYC 48-Core Processor",
        "QEMU Virtual CPU version 2.5+",
        "Common 32-bit KVM processor",
        "Genuine Intel(R) CPU 0000 @ 2.40GHz",
        "DO-Regular",
    ],
)
def test_clocks_cores_and_placeholders_are_no_model_number(brand: str) -> None:
    """A masked brand string must be joined by family, model and stepping."""
    assert not has_model_number(brand)


def test_a_masked_brand_string_without_family_is_unknown() -> None:
    """Nothing tells two microarchitectures apart then, and the class says so."""
    machine = Machine("epyc-masked")
    machine.files["/proc/cpuinfo"] = "processor\t: 0\nmodel name\t: AMD EPYC\n"
    assert detect(machine.system).chip_class == "cpu-amd-epyc-1c-unknown"


@pytest.mark.parametrize("cpuinfo", ["", None, "processor\t: 0\nisa\t: rv64imafdc\n"])
def test_a_cpu_that_does_not_name_itself_is_unknown(cpuinfo: str | None) -> None:
    """The machine type alone would merge every CPU of an instruction set."""
    machine = Machine("epyc-9b45")
    machine.files["/proc/cpuinfo"] = cpuinfo
    assert detect(machine.system).chip_class.startswith("cpu-x86-64-")
    assert detect(machine.system).chip_class.endswith("-unknown")


def test_only_the_cores_this_process_may_use_count() -> None:
    """A process pinned to one thread of two cores with two threads each is a class of its own."""
    machine = Machine("epyc-7763-smt")
    machine.document["affinity"] = [0, 2]
    chip = detect(machine.system)
    assert (chip.chip_class, chip.cpu_cores) == ("cpu-amd-epyc-7763-2c", 2)
    machine.document["affinity"] = [0, 1]
    assert detect(machine.system).chip_class == "cpu-amd-epyc-7763-1c2t"


@pytest.mark.parametrize(
    ("files", "suffix"),
    [
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, "4c-quota2"),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "/sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
            },
            "4c-quota0.5",
        ),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, "4c"),
        ({"/sys/fs/cgroup/cpu.max": "400000 100000\n"}, "4c"),
        ({"/sys/fs/cgroup/cpu.max": "nonsense\n"}, "4c"),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/job\n",
                "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            "4c-quota3",
        ),
    ],
)
def test_the_tightest_quota_that_binds_is_part_of_the_class(files: dict[str, str], suffix: str) -> None:
    """Quotas of the group itself and of its ancestors count, in both versions of control groups."""
    machine = Machine("container-quota")
    machine.files["/sys/fs/cgroup/cpu.max"] = None
    machine.files |= files
    assert detect(machine.system).chip_class == f"cpu-amd-epyc-9b45-{suffix}"


def test_an_arm_class_is_made_of_numbers_and_its_name_of_words() -> None:
    """The class must not change when a newer lscpu knows the name."""
    machine = Machine("graviton3")
    chip = detect(machine.system)
    assert chip.name == "Neoverse-V1"
    machine.commands["lscpu"] = None
    assert detect(machine.system).chip_class == chip.chip_class


def test_a_mac_whose_default_device_is_the_cpu_has_a_cpu_class() -> None:
    """The class follows MLX's device."""
    machine = Machine("m1-ultra-64")
    machine.document["accelerator"] = {"backend": "cpu", "info": {"architecture": "arm64"}}
    chip = detect(machine.system)
    assert (chip.chip_class, chip.vendor, chip.memory_bytes) == ("cpu-apple-m1-ultra-20c", "cpu", 128 * 2**30)


def test_memory_is_the_machines() -> None:
    """MemTotal counts in kibibytes."""
    assert detect(recorded("epyc-9b45")).memory_bytes == 16384000 * 1024
