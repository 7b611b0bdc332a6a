from dataclasses import replace

import pytest

from gemma3n_perf.errors import OutOfMemoryError
from gemma3n_perf.workload.memory import needed, require
from tests.hardware.replay import Machine, recorded

SIZES = {"streamed": 3, "per_layer_embedding": 2, "vision": 5, "total": 12}


def test_towers_are_kept_in_memory_only_where_they_see() -> None:
    """A text's decode leaves them on disk."""
    assert (needed(SIZES, with_towers=False), needed(SIZES, with_towers=True)) == (5, 12)


def test_on_metal_the_working_set_is_the_limit() -> None:
    """As mx.device_info() gives it, well below the machine's memory."""
    system = recorded("m5-max")
    require("mine", 103_079_215_104, system)
    with pytest.raises(OutOfMemoryError, match=r"mine needs 103\.1 GB, Metal keeps resident here 103\.1 GB") as refused:
        require("mine", 103_079_215_105, system)
    assert "smaller checkpoint" in str(refused.value.remedy)


def test_elsewhere_the_memory_is() -> None:
    """Read without psutil; where it is unknown, nothing is refused."""
    machine = Machine("epyc-9b45")
    machine.files["/proc/meminfo"] = "MemTotal: 1000 kB\n"
    require("mine", 1_024_000, machine.system)
    with pytest.raises(OutOfMemoryError, match="this machine has"):
        require("mine", 1_024_001, machine.system)
    require("mine", 10**15, replace(machine.system, read=lambda path: None))
