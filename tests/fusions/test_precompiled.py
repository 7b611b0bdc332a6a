from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.fusions.kernels import precompiled
from gemma3n_perf.fusions.kernels.precompiled import Nvrtc, NvrtcError, Precompiled


class Compiler:
    """Compiles to the text itself, and counts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> bytes:
        """Return the text."""
        self.texts.append(text)
        return text.encode()


def call(made: Precompiled, width: int = 8, **constants: int) -> list[mx.array]:
    """Run one kernel through ``made``."""
    kernel = made(name="twice", input_names=["x"], output_names=["y"], source="  y[0] = 2;", header="// shared\n")
    return kernel(
        inputs=[mx.zeros((width,), mx.bfloat16)],
        template=[("T", mx.bfloat16), ("WIDE", width), *constants.items()], grid=(64, 1, 1),
        threadgroup=(32, 1, 1), output_shapes=[(width,)], output_dtypes=[mx.float32],
    )  # fmt: skip


def ran(log: list[dict[str, Any]]) -> Any:
    """Return a stand-in for MLX's launcher that writes into ``log``."""

    def run(**launch: Any) -> list[mx.array]:
        log.append(launch)
        return [
            mx.zeros(shape, dtype)
            for shape, dtype in zip(launch["output_shapes"], launch["output_dtypes"], strict=True)
        ]

    return run


def test_the_source_is_complete_and_needs_no_header(tmp_path: Path) -> None:
    """Name, arguments, constants, bounds and body, as NVRTC takes them."""
    compiler, log = Compiler(), list[dict[str, Any]]()
    call(Precompiled(tmp_path, compiler, ran(log)))
    (text,) = compiler.texts
    assert "#include" not in text
    assert 'extern "C" __global__ void __launch_bounds__(32) twice(' in text
    for part in ("const bf16* x, float* y", "using T = bf16;", "constexpr int WIDE = 8;", "y[0] = 2;", "// shared"):
        assert part in text
    assert log[0]["compiled_source"] == text.encode()
    assert (log[0]["name"], log[0]["scalars"]) == ("twice", [])


def test_registers_are_not_saved_for_more_blocks_than_are_resident(tmp_path: Path) -> None:
    """Where a source says how many there are."""
    compiler = Compiler()
    call(Precompiled(tmp_path, compiler, ran([])), RESIDENT=1)
    assert 'extern "C" __global__ void __launch_bounds__(32, 1) twice(' in compiler.texts[0]


def test_a_kernel_is_compiled_once_a_machine(tmp_path: Path) -> None:
    """Neither a second call nor a second process compiles it again; other constants do."""
    first, second = Compiler(), Compiler()
    made = Precompiled(tmp_path / "kept", first, ran([]))
    call(made)
    call(made)
    again = Precompiled(tmp_path / "kept", second, ran([]))
    call(again)
    assert (len(first.texts), len(second.texts)) == (1, 0)
    call(again, width=16)
    assert len(second.texts) == 1
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_disk_that_refuses_costs_nothing_but_time(tmp_path: Path) -> None:
    """The kernel runs all the same."""
    (tmp_path / "file").write_text("in the way")
    assert call(Precompiled(tmp_path / "file" / "kept", Compiler(), ran([])))[0].shape == (8,)


def test_without_nvrtc_mlx_builds_the_kernels() -> None:
    """On a machine without NVIDIA's compiler or GPU, MLX's own way is taken."""
    assert precompiled.maker() is mx.fast.cuda_kernel


def test_a_missing_library_is_named() -> None:
    """No traceback of the loader's."""
    with pytest.raises(NvrtcError, match="libnvrtc"):
        Nvrtc("sm_90", library="libno-such-compiler.so")
