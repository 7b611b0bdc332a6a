from dataclasses import replace

from gemma3n_perf.hardware.types import Chip, Conditions
from gemma3n_perf.report import describe
from gemma3n_perf.store.summary import conditions_of
from tests.fakes import STACK, measurement


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


def test_gpu_conditions_are_in_words() -> None:
    """Clocks, temperature, power and throttling of a GPU are told as ranges and names."""
    one = measurement()
    states = [
        Conditions(gpu_clock_hz=1.98e9, gpu_temperature_c=61, throttle_reasons=(), power_source="mains"),
        Conditions(gpu_clock_hz=1.755e9, gpu_temperature_c=71, throttle_reasons=("sw-power-cap",)),
    ]
    runs = tuple(replace(run, conditions=state) for run, state in zip(one.runs, states, strict=False))
    text = describe.conditions(conditions_of([replace(one, runs=runs)]))
    assert "GPU clock 1755 to 1980 MHz; GPU 61 to 71 °C; throttling sw-power-cap." in text
    assert "power mains" in text
    assert "load unknown" in text
