import re
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.hardware.chip import detect, host_id
from studies.record_machine import Recorder
from tests.hardware.macs import Mac
from tests.hardware.replay import Machine

OWN = "3d1219c7c4c5404aaa1f6d2a48adfda4"
UUID = "A1B2C3D4-1111-2222-3333-444455556666"
IOREG = "ioreg -r -d 1 -c IOPlatformExpertDevice"


def linux(text: str | None) -> Machine:
    """Return a Linux machine with that id."""
    machine = Machine("epyc-9b45")
    machine.files["/etc/machine-id"] = text
    return machine


def test_an_id_is_the_same_on_one_machine_and_another_on_the_next(tmp_path: Path) -> None:
    """It holds nothing of the machine's own id, and nothing is written."""
    one = host_id(linux(f"{OWN}\n").system, tmp_path)
    assert one is not None
    assert re.fullmatch(r"[0-9a-f]{16}", one)
    assert one not in OWN
    assert host_id(linux(OWN).system, tmp_path) == one
    assert host_id(linux(OWN[::-1]).system, tmp_path) not in (one, None)
    assert list(tmp_path.iterdir()) == []


def test_a_mac_is_known_by_its_platform_id(tmp_path: Path) -> None:
    """As ioreg writes it."""
    mac = Mac()
    mac.commands[IOREG] = f'+-o J314\n    {{\n      "IOPlatformUUID" = "{UUID}"\n      "model" = <"Mac13,2">\n    }}\n'
    found = host_id(mac.system, tmp_path)
    assert found is not None
    assert UUID.lower()[:8] not in found
    assert host_id(mac.system, tmp_path) == found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "", "uninitialized\n", "0" * 32])
def test_a_machine_without_an_id_keeps_a_random_one(text: str | None, tmp_path: Path) -> None:
    """As containers do; two of them differ."""
    system = linux(text).system
    found = host_id(system, tmp_path / "a")
    assert found is not None
    assert host_id(system, tmp_path / "a") == found
    assert host_id(system, tmp_path / "b") not in (found, None)


def test_a_machine_that_can_keep_none_has_none(tmp_path: Path) -> None:
    """A home that is a file, or read-only."""
    (tmp_path / "file").write_text("")
    assert host_id(linux(None).system, tmp_path / "file") is None


def test_this_machine_has_one_and_its_class_does_not_depend_on_it() -> None:
    """It is recorded beside the class."""
    chip = detect()
    assert chip.host is not None
    assert replace(chip, host=None).chip_class == chip.chip_class
    assert chip.host not in chip.chip_class


def test_recordings_hold_no_machine_id(tmp_path: Path) -> None:
    """They are committed."""
    for machine in (linux(OWN), Mac()):
        machine.commands[IOREG] = f'  "IOPlatformUUID" = "{UUID}"\n  "IOPlatformSerialNumber" = "C02XXXXX"\n'
        recorder = Recorder(machine.system)
        host_id(recorder.system, tmp_path)
        text = str(recorder.document("note"))
        assert OWN not in text
        assert UUID not in text
