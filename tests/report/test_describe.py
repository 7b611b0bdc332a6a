from dataclasses import replace

from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.report import describe
from tests.fakes import STACK


def test_unknown_parts_of_a_chip_are_left_out() -> None:
    """What a machine does not tell is not made up."""
    assert describe.chip(Chip("x", "apple", "Apple M9")) == "Apple M9 (x)"
    full = Chip("x-20gpu", "apple", "Apple M9", gpu_cores=20, memory_bytes=64 * 10**9)
    assert describe.chip(full) == "Apple M9, 20 GPU cores, 64 GB of memory (x-20gpu)"


def test_knobs_and_driver_are_part_of_the_stack() -> None:
    """A knob in the environment is never left out: it changes the numbers."""
    text = describe.stack(replace(STACK, knobs={"MLX_B": "2", "MLX_A": "1"}, driver="580.1", mlx_vlm=None))
    assert text == "mlx 0.32.4 (cpu), mlx-vlm absent, Python 3.11.7, Linux 6.1, driver 580.1, MLX_A=1, MLX_B=2"


def test_dirty_and_unknown_commits_are_told() -> None:
    """A commit that is not the whole truth is not shown as if it were."""
    assert describe.commit(replace(STACK, dirty=True)) == "0123456789ab with uncommitted changes"
    assert describe.commit(replace(STACK, commit=None)) == "unknown"
