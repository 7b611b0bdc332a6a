import ctypes
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.fusions.kernels import phases, precompiled
from gemma3n_perf.fusions.kernels.common import Kernels
from gemma3n_perf.fusions.kernels.phases import Grid, Phases
from gemma3n_perf.fusions.kernels.precompiled import NvrtcError, Precompiled


class Built:
    """Stands in for a builder of kernels, and keeps what it is given."""

    def __call__(self, **kernel: Any) -> Any:
        """Return a kernel of zeros."""
        self.kernel = kernel

        def run(**launch: Any) -> list[mx.array]:
            self.launch = launch
            return [
                mx.zeros(shape, t) for shape, t in zip(launch["output_shapes"], launch["output_dtypes"], strict=True)
            ]

        return run


def note(k: Phases, name: str, *given: Any, **more: Any) -> Any:
    """Note a phase called ``name`` of one result that reads ``given``."""
    inputs = {f"x{i}": each for i, each in enumerate(given)}
    constants = {"T": mx.float32, "THREADS": 64}
    return k(
        name, f"// does {name}", inputs, {"y": (8,)}, mx.float32, blocks=6, threads=64, constants=constants, **more
    )[0]


def recorded() -> tuple[Built, Phases]:
    """Return a builder, and phases for it."""
    built = Built()
    return built, Phases(Kernels(built), Grid(4, 64), phases.new_counter())


def order(text: str) -> list[str]:
    """Return phases and barriers of a kernel's source, in order."""
    marks = (line.strip() for line in text.splitlines())
    return ["|" if m.startswith("grid_barrier") else m[8:] for m in marks if m.startswith(("// does", "grid_barrier"))]


def test_blocks_wait_where_one_phase_reads_another_and_nowhere_else() -> None:
    """Two that read inputs alone share a stretch; what a third reads of the first is behind a barrier."""
    built, k = recorded()
    x = mx.zeros((8,))
    one, two = note(k, "one", x), note(k, "two", x)
    three = note(k, "three", one)
    four = note(k, "four", two)  # seen since the same barrier
    (result,) = k.launch("all", [note(k, "five", three, four)])
    assert order(built.kernel["source"]) == ["one", "two", "|", "three", "four", "|", "five"]
    assert result.shape == (8,)


def test_what_each_block_makes_for_itself_is_not_waited_for() -> None:
    """Until a barrier that something else needs: then the first block's result is read."""
    built, k = recorded()
    mine = note(k, "mine", mx.zeros((8,)), everywhere=True)
    after = note(k, "after", mine)
    k.launch("all", [note(k, "late", mine, after)])
    text = built.kernel["source"]
    assert order(text) == ["mine", "after", "|", "late"]
    early, late = text.split("grid_barrier")
    assert f"= {mine.name}_own;" in early
    assert f"x0 = {mine.name};" in late


def test_only_what_leaves_the_kernel_is_an_array_of_its_own() -> None:
    """One array is handed over once, whoever reads it; the rest shares scratch memory, without overlap."""
    built, k = recorded()
    x = mx.zeros((8,))
    one, two = note(k, "one", x), note(k, "two", x, x)
    k.launch("all", [note(k, "three", one, two)])
    assert built.kernel["input_names"] == ["a0", "counter"]
    assert built.kernel["output_names"] == ["value2", "scratch0"]
    assert {f"auto* {one.name} = scratch0 + 0;", f"auto* {two.name} = scratch0 + 32;"} <= set(
        built.kernel["source"].splitlines()
    )
    assert built.launch["output_shapes"] == [(8,), (64,)]
    assert built.launch["grid"] == (256, 1, 1)


def test_phases_of_one_stretch_begin_at_different_blocks() -> None:
    """Six blocks of the first leave two of four with less to do: the second begins with these."""
    built, k = recorded()
    x = mx.zeros((8,))
    k.launch("all", [note(k, "one", x), note(k, "two", x)])
    loops = [line for line in built.kernel["source"].splitlines() if line.startswith("for (int vb")]
    assert [loop.partition(";")[0] for loop in loops] == [
        "for (int vb = (blockIdx.x + 4) % 4",
        "for (int vb = (blockIdx.x + 2) % 4",
    ]


def driver(count: int, status: int = 0) -> Any:
    """Return a stand-in for NVIDIA's driver."""

    def attribute(value: Any, which: int, device: Any) -> int:
        value._obj.value = count if which == 16 else -1
        return 0

    calls = {"cuInit": lambda flags: status, "cuDeviceGet": lambda device, index: 0, "cuDeviceGetAttribute": attribute}
    return SimpleNamespace(**calls)


@pytest.mark.parametrize(("count", "blocks"), [(132, 128), (128, 128), (108, 64), (20, 16)])
def test_a_grid_fits_the_gpu_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, count: int, blocks: int) -> None:
    """A power of two of blocks, and half the threads where registers cannot be bounded."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(count))
    assert phases.grid(mx.fast.cuda_kernel) == Grid(blocks, 256)
    assert phases.grid(Precompiled(tmp_path, lambda text: b"", lambda **launch: [])) == Grid(blocks, 512)


def test_without_a_driver_there_is_no_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guess: blocks that are not there would be waited for."""

    def missing(name: str) -> Any:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(NvrtcError, match="driver"):
        precompiled.multiprocessors()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(132, status=100))
    with pytest.raises(NvrtcError, match="multiprocessors"):
        precompiled.multiprocessors()
