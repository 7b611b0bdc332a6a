import pytest

from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.hardware.chip import detect, require_known
from tests.hardware.replay import NAMES, recorded

CLASSES = {
    "arm-two-kinds": "cpu-arm-41d85v0-41d87v0-4c",
    "container-quota": "cpu-amd-epyc-9b45-4c-quota1.5",
    "epyc-7763-smt": "cpu-amd-epyc-7763-2c4t",
    "epyc-9b45": "cpu-amd-epyc-9b45-2c",
    "epyc-masked": "cpu-amd-epyc-f25m1s1-2c",
    "gb10": "nvidia-gb10",
    "graviton3": "cpu-arm-41d40v1-4c",
    "h100": "nvidia-h100-80gb-hbm3",
    "h100-vm": "nvidia-h100-80gb-hbm3",
    "h200-vm": "nvidia-h200",
    "h100-capped": "nvidia-h100-80gb-hbm3-500w",
    "h100-mig": "nvidia-h100-80gb-hbm3-mig-1g.10gb",
    "h100-pcie": "nvidia-h100-pcie",
    "h200": "nvidia-h200",
    "m1": "apple-m1-7gpu-fanless",
    "m1-ultra-48": "apple-m1-ultra-48gpu",
    "m1-ultra-64": "apple-m1-ultra-64gpu",
    "m1-virtual": "apple-m1-virtual-gpu-unknown",
    "m4-pro": "apple-m4-pro-20gpu",
    "m5-max": "apple-m5-max-40gpu",
    "xeon-masked-cascade-lake": "cpu-intel-xeon-f6m85s7-2c",
    "xeon-masked-skylake": "cpu-intel-xeon-f6m85s4-2c",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_machine_has_its_frozen_class(name: str) -> None:
    """A class name is a folder of baselines: once published it never changes."""
    assert detect(recorded(name)).chip_class == CLASSES[name]


def test_no_two_kinds_of_machine_share_a_class() -> None:
    """Each recording is of different hardware, but for a board's second one, so each has a class of its own."""
    kinds = {name: one for name, one in CLASSES.items() if not name.endswith("-vm")}
    assert len(set(kinds.values())) == len(kinds)


@pytest.mark.parametrize("board", ["h100", "h200"])
def test_a_virtual_machine_with_the_whole_board_is_the_boards_class(board: str) -> None:
    """What was read on rented machines and what published output says of the board agree."""
    assert detect(recorded(f"{board}-vm")).chip_class == detect(recorded(board)).chip_class


def test_this_machine_has_a_class_fit_for_a_folder_name() -> None:
    """The real machine is detected without help, and the same way twice."""
    chip = detect()
    assert chip is detect()
    assert set(chip.chip_class) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_a_class_that_may_hold_variants_is_refused_where_it_would_be_shared() -> None:
    """The refusal names the class and what would tell variants apart."""
    with pytest.raises(NotComparableError, match="apple-m1-virtual-gpu-unknown") as refused:
        require_known(detect(recorded("m1-virtual")))
    assert "GPU cores" in str(refused.value)
    require_known(detect(recorded("m1")))
