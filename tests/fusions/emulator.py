"""Stands in for ``mx.fast.cuda_kernel`` on a machine without a GPU: the same source, compiled for the CPU and run.

A block runs until it ends or waits for others, so it is slow and honest: indices, barriers and shared memory are those
of the source. Only float32 is emulated.
"""

import ctypes
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

_HERE = Path(__file__).parent
_TYPES = {mx.float32: "float", mx.uint32: "unsigned int", mx.int32: "int", mx.int64: "long long"}


class Emulator:
    """``make`` for ``Kernels``; libraries are compiled once into ``folder``. ``calls`` counts launches by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.calls: dict[str, int] = {}
        self._libraries: dict[str, Any] = {}
        self._kept: list[Any] = []

    def __call__(
        self, *, name: str, input_names: list[str], output_names: list[str], source: str, header: str, **_: Any
    ) -> Callable[..., list[mx.array]]:
        """A callable kernel; compiled when it is first called."""

        def kernel(
            *, inputs: list[mx.array], template: list[tuple[str, Any]], grid: tuple[int, int, int],
            threadgroup: tuple[int, int, int], output_shapes: list[tuple[int, ...]], output_dtypes: list[Any],
        ) -> list[mx.array]:  # fmt: skip
            self.calls[name] = self.calls.get(name, 0) + 1
            copies = [np.ascontiguousarray(np.array(array)) for array in inputs]
            results = [
                np.full(shape, np.nan, np.float32) if dtype == mx.float32 else np.zeros(shape, np.int64)
                for shape, dtype in zip(output_shapes, output_dtypes, strict=True)
            ]
            if name.endswith("_addresses"):
                self._kept += copies  # whose addresses are given away
            text = _program(header, source, input_names, inputs, output_names, output_dtypes, template, copies)
            library = self._library(text)
            pointers = (ctypes.c_void_p * (len(copies) + len(results)))(*[a.ctypes.data for a in (*copies, *results)])
            stuck = library.run(pointers, -(-grid[0] // threadgroup[0]), threadgroup[0])
            assert not stuck, f"the blocks of {name} wait for each other for ever"
            return [mx.array(result) for result in results]

        return kernel

    def _library(self, text: str) -> Any:
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._scheduler()
        if key not in self._libraries:
            source, target = self._folder / f"{key}.cpp", self._folder / f"{key}.so"
            if not target.exists():
                source.write_text(text)
                _compile(source, target)
            self._libraries[key] = ctypes.CDLL(str(target))
        return self._libraries[key]

    def _scheduler(self) -> None:
        """Load what kernels link to, where all of them find it."""
        target = self._folder / "emulator.so"
        if "scheduler" not in self._libraries:
            _compile(_HERE / "emulator.cpp", target)
            self._libraries["scheduler"] = ctypes.CDLL(str(target), mode=ctypes.RTLD_GLOBAL)


def _compile(source: Path, target: Path) -> None:
    # Fortified longjmp refuses to leave one stack for another, which is all that a coroutine does.
    flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", f"-I{_HERE}"]
    flags += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    done = subprocess.run(["c++", *flags, str(source), "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]


def _program(
    header: str, source: str, names: list[str], inputs: list[mx.array], outputs: list[str], types: list[Any],
    template: list[tuple[str, Any]], copies: list[Any],
) -> str:  # fmt: skip
    lines = ['#include "emulator.h"', header, "static void** given;", "static void kernel() {"]
    for index, (label, array) in enumerate(zip(names, inputs, strict=True)):
        kind = _TYPES[array.dtype]
        lines.append(f"  const {kind}* {label} = (const {kind}*)given[{index}];")
        if f"{label}_strides" in source:
            strides = ", ".join(str(s // copies[index].itemsize) for s in copies[index].strides)
            lines.append(f"  long {label}_strides[] = {{{strides}}};")
    for index, (label, dtype) in enumerate(zip(outputs, types, strict=True)):
        lines.append(f"  {_TYPES[dtype]}* {label} = ({_TYPES[dtype]}*)given[{len(names) + index}];")
    for label, value in template:
        known = _TYPES.get(value) if isinstance(value, mx.Dtype) else None
        lines.append(f"  using {label} = {known};" if known else f"  constexpr int {label} = {int(value)};")
    call = 'extern "C" int run(void** p, int n, int threads) { given = p; return launch(n, threads, kernel); }'
    body = source.replace("extern __shared__ float stage[];", "alignas(16) static float stage[1 << 16];")
    return "\n".join([*lines, body, "}", call])
