import subprocess
import sys

from gemma3n_perf.decode.device import begin_generation


def test_off_metal_nothing_is_entered() -> None:
    """Neither a stream nor a limit, and mlx-vlm's generators are not even imported."""
    code = (
        "import sys, mlx.core as mx; before = mx.default_stream(mx.default_device())\n"
        "from gemma3n_perf.decode.device import begin_generation; begin_generation()\n"
        "print('mlx_vlm' in sys.modules, mx.default_stream(mx.default_device()) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["False", "True"] if sys.platform != "darwin" else ["True", "False"])
    begin_generation()


def test_on_metal_memory_is_wired_and_mlx_vlms_stream_is_the_default_until_the_process_ends() -> None:
    """By its own loop's means, once. MLX's answers about Metal are replaced here, and its streams are real."""
    code = """
import atexit
from types import SimpleNamespace
import mlx.core as mx
import mlx_vlm.generate
from gemma3n_perf.decode.device import begin_generation

limits = [0]

def set_limit(limit):
    limits.append(limit)
    return limits[-2]

before = mx.default_stream(mx.cpu)
atexit.register(lambda: print(limits, mx.default_stream(mx.cpu) == before))
mx.metal.is_available = lambda: True
mx.device_info = lambda *_: {"max_recommended_working_set_size": 123}
mx.set_wired_limit = set_limit
mx.default_device = lambda: SimpleNamespace(type=mx.DeviceType.gpu)
begin_generation()
begin_generation()
print(limits, mx.default_stream(mx.cpu) == before)
print((mx.ones((2, 2)) @ mx.ones((2, 2))).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[0, 123] False", "8.0", "[0, 123, 0] True"]
