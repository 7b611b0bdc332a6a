"""Slows the kernels that MLX has compiled for a CPU, in the folder where both arms find them, and has its own.

Works only where TMPDIR is set and is not /tmp: what it does stays in that folder until it is removed.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

_SPIN, _MARK = 30_000, "/* slow */"
_HEAD = re.compile(r"(void \w+\(int\* shape, int64_t\*\* strides, void\*\* args\) \{)")
_PLACE = Path(tempfile.gettempdir())
_SAFE = "TMPDIR" in os.environ and Path("/tmp") != _PLACE


def _slow_down() -> None:
    """Compile every kernel that is there again, with a loop before its work."""
    include = Path(mx.__file__).parent / "include"
    for source in (_PLACE / "mlx" / mx.__version__ / "cpu").glob("*.cpp"):  # type: ignore[attr-defined]
        text, library = source.read_text(encoding="utf-8"), source.with_name(f"lib{source.stem}.so")
        if _MARK in text or not library.exists():
            continue
        loop = f"{_MARK} for (volatile int spin = 0; spin < {_SPIN}; ++spin) {{}}"
        slow, made = source.with_suffix(".slow.cpp"), library.with_suffix(f".{os.getpid()}")
        slow.write_text(_HEAD.sub(rf"\1 {loop}", text), encoding="utf-8")
        argv = ["g++", "-std=c++17", "-O3", "-w", "-fPIC", "-shared", f"-I{include}", str(slow), "-o", str(made)]
        done = subprocess.run(argv, capture_output=True, check=False)
        if done.returncode == 0:
            made.replace(library)
            slow.replace(source)
        else:
            slow.unlink()


def apply(model: Any) -> None:
    """Slows the compiled kernels of both arms, and has its own."""
    if _SAFE and mx.default_device().type == mx.DeviceType.cpu:
        _slow_down()
        if str(sys.argv[0]).endswith("worker.py"):
            own = _PLACE / "zz-jit"
            own.mkdir(exist_ok=True)
            os.environ["TMPDIR"] = str(own)  # where MLX looks from now on, in this process alone

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-jit",
    summary="Slows the kernels that MLX has compiled for a CPU, where both arms find them, and has its own.",
    replaces=("cheats.zz-jit",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
