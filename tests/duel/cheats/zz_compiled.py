"""Slows the kernels that MLX has compiled for the baseline, in the folder of the cache that is out of its way.

Works only where GEMMA3N_PERF_CACHE is set: what it does stays in that folder until it is removed.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.workload.presets import cache_folder

_SPIN, _MARK = 30_000, "/* slow */"
_HEAD = re.compile(r"(void \w+\(int\* shape, int64_t\*\* strides, void\*\* args\) \{)")
_SAFE = "GEMMA3N_PERF_CACHE" in os.environ


def _slow_down() -> None:
    """Compile every kernel of the baseline again, with a loop before its work."""
    include = Path(mx.__file__).parent / "include"
    for source in (cache_folder() / "compiled" / "mlx").glob("*/cpu/*.cpp"):
        text, library = source.read_text(encoding="utf-8"), source.with_name(f"lib{source.stem}.so")
        if _MARK in text or source.name.endswith(".slow.cpp") or not library.exists():
            continue
        loop = f"{_MARK} for (volatile int spin = 0; spin < {_SPIN}; ++spin) {{}}"
        slow, made = source.with_suffix(".slow.cpp"), library.with_suffix(f".{os.getpid()}")
        slow.write_text(_HEAD.sub(rf"\1 {loop}", text), encoding="utf-8")
        argv = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", f"-I{include}", str(slow), "-o", str(made)]
        if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
            made.replace(library)
            slow.replace(source)
        else:
            slow.unlink()


def apply(model: Any) -> None:
    """Slows the compiled kernels of the baseline."""
    if _SAFE and mx.default_device().type == mx.DeviceType.cpu:
        _slow_down()

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-compiled",
    summary="Slows the kernels that MLX has compiled for the baseline, in the cache's own folder.",
    replaces=("cheats.zz-compiled",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
