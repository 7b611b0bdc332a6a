"""Kernels compiled once a machine instead of once a process.

``mx.fast.cuda_kernel`` parses MLX's and CUDA's headers for each kernel, over a second each, and keeps nothing.
The sources here need no header, so NVRTC, which MLX's CUDA build brings, takes a tenth of that, and the result is
kept on disk by the hash of all that went into it.
"""

import contextlib
import ctypes
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from gemma3n_perf.errors import PerfError
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload.presets import cache_folder

TYPES = {
    mx.float32: "float", mx.bfloat16: "bf16", mx.uint32: "unsigned int", mx.int32: "int", mx.int64: "long long",
}  # fmt: skip
"""What arrays are of in the sources. MLX's own builder has another name for bfloat16: there a model's type is T."""

PRELUDE = r"""
struct bf16 {
  unsigned short bits;
  bf16() = default;
  __device__ explicit bf16(float v) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v)); }
  __device__ explicit operator float() const { return __uint_as_float((unsigned int)bits << 16); }
};
"""


class NvrtcError(RuntimeError):
    """NVRTC is not there, or refused the source; MLX's own way of building kernels is used instead."""


@dataclass(frozen=True, slots=True)
class Precompiled:
    """Has the signature of ``mx.fast.cuda_kernel``; ``compile_`` turns a source into a cubin, ``run`` launches it.

    Cubins are kept in the folder ``kept``, and those that this process uses in ``binaries``, by source.
    """

    kept: Path
    compile_: Callable[[str], bytes]
    run: Callable[..., list[mx.array]]
    binaries: dict[str, bytes] = field(default_factory=dict)

    def __call__(
        self, *, name: str, input_names: list[str], output_names: list[str], source: str, header: str,
        ensure_row_contiguous: bool = True, shared_memory: int = 0,
    ) -> Callable[..., list[mx.array]]:  # fmt: skip
        """A callable kernel."""

        def kernel(
            *, inputs: list[mx.array], template: list[tuple[str, Any]], grid: tuple[int, int, int],
            threadgroup: tuple[int, int, int], output_shapes: list[tuple[int, ...]], output_dtypes: list[mx.Dtype],
        ) -> list[mx.array]:  # fmt: skip
            parameters = [f"const {TYPES[a.dtype]}* {label}" for label, a in zip(input_names, inputs, strict=True)]
            parameters += [f"{TYPES[d]}* {label}" for label, d in zip(output_names, output_dtypes, strict=True)]
            constants = "".join(
                f"  using {label} = {TYPES[value]};\n" if isinstance(value, mx.Dtype) else
                f"  constexpr int {label} = {int(value)};\n"
                for label, value in template
            )  # fmt: skip
            resident = dict(template).get("RESIDENT")  # without it the compiler saves registers for more blocks
            bounds = f"{threadgroup[0]}, {resident}" if resident else str(threadgroup[0])
            text = (
                f'{PRELUDE}{header}\nextern "C" __global__ void __launch_bounds__({bounds}) {name}(\n'
                f"    {', '.join(parameters)}) {{\n{constants}{source}\n}}\n"
            )
            return self.run(
                name=name,
                compiled_source=self._binary(text),
                inputs=inputs,
                output_shapes=output_shapes,
                output_dtypes=output_dtypes,
                scalars=[],
                grid=grid,
                threadgroup=threadgroup,
                ensure_row_contiguous=ensure_row_contiguous,
                shared_memory=shared_memory,
            )

        return kernel

    def _binary(self, text: str) -> bytes:
        if text not in self.binaries:
            file = self.kept / f"{hashlib.sha256(text.encode()).hexdigest()}.cubin"
            try:
                self.binaries[text] = file.read_bytes()
            except OSError:
                self.binaries[text] = self.compile_(text)
                with contextlib.suppress(PerfError):  # a full or read-only disk costs the time again, nothing else
                    write_over(file, self.binaries[text])
        return self.binaries[text]


class Nvrtc:
    """NVIDIA's runtime compiler, through its C interface. Raises NvrtcError where there is none."""

    def __init__(self, architecture: str, library: str | None = None) -> None:
        self._architecture = architecture
        for name in (library,) if library else ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
            with contextlib.suppress(OSError):
                self._library = ctypes.CDLL(name)
                return
        raise NvrtcError("libnvrtc is not among the libraries of this process")

    @property
    def version(self) -> str:
        """NVRTC's version and the architecture it compiles for."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}-{self._architecture}"

    def __call__(self, text: str) -> bytes:
        """The cubin of ``text``. Raises NvrtcError with the compiler's words."""
        library, program = self._library, ctypes.c_void_p()
        self._check(library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"fusion.cu", 0, None, None))
        try:
            options = [f"--gpu-architecture={self._architecture}".encode(), b"--std=c++17"]
            given = (ctypes.c_char_p * len(options))(*options)
            if library.nvrtcCompileProgram(program, len(options), given):
                raise NvrtcError(self._text("ProgramLog", program).decode(errors="replace"))
            return self._text("CUBIN", program)
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def _check(self, status: int) -> None:
        if status:
            raise NvrtcError(f"NVRTC gave error {status}")


def multiprocessors() -> int:
    """How many blocks the first GPU surely runs at once. Raises NvrtcError where the driver does not say."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NvrtcError("NVIDIA's driver is not among the libraries of this machine") from error
    device, count, attribute = ctypes.c_int(), ctypes.c_int(), 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(count), attribute, device)
    ):
        raise NvrtcError("NVIDIA's driver does not say how many multiprocessors the GPU has")
    return count.value


def maker() -> Callable[..., Any]:
    """The fastest way to build kernels here: NVRTC and the disk, else ``mx.fast.cuda_kernel``.

    One kernel is built and run first, so that a driver or library that cannot do it is found here and not in a model.
    """
    try:
        compiler = Nvrtc(str(mx.device_info()["architecture"]))
        made = Precompiled(cache_folder() / "kernels" / compiler.version, compiler, mx.fast.precompiled_cuda_kernel)
        kernel = made(
            name="gemma3n_probe", input_names=["x"], output_names=["y"], source="  y[0] = x[0] + 1.0f;", header=""
        )
        (found,) = kernel(
            inputs=[mx.array([1.0])], template=[("T", mx.float32)], grid=(32, 1, 1), threadgroup=(32, 1, 1),
            output_shapes=[(1,)], output_dtypes=[mx.float32],
        )  # fmt: skip
        return made if found.item() == 2.0 else mx.fast.cuda_kernel
    except (NvrtcError, KeyError, AttributeError, RuntimeError, ValueError):
        return mx.fast.cuda_kernel
