"""``gemma3n_perf.fuse``: the admitted fusions of this machine's chip class, for a user of mlx-vlm, in one line."""

import os
from pathlib import Path
from typing import Any

from gemma3n_perf.fusions import registry
from gemma3n_perf.fusions.types import Fusion, applied
from gemma3n_perf.hardware.types import Chip


def fuse(model: Any, *, chip: Chip | None = None, baselines: Path | None = None) -> tuple[str, ...]:
    """Apply to mlx-vlm's Gemma3n ``model`` what the gate admitted for this chip class; returns the names, in order.

    Nothing is applied where nothing is admitted, where it is off here, or where its variables were not set before the
    process started. A model that was fused before is left alone.

    Raises UsageError for a model that is not Gemma3n, MalformedRecordError for a broken record of admission.
    """
    from gemma3n_perf.errors import UsageError

    language_model = getattr(model, "language_model", None)
    if getattr(getattr(language_model, "config", None), "model_type", None) != "gemma3n_text":
        raise UsageError(
            f"{type(model).__name__} is not mlx-vlm's Gemma3n",
            expected="what mlx_vlm.load returns for a Gemma3n checkpoint",
            remedy="leave other models as they are",
        )
    if applied(model):
        return ()
    if chip is None:
        from gemma3n_perf.hardware.chip import detect

        chip = detect()
    fusion = registry.admitted(chip, baselines or _baselines())
    if fusion is None or not fusion.enabled(chip) or not _set(fusion):
        return ()
    fusion.apply(model)
    return tuple(fusion.name.split("+"))


def _set(fusion: Fusion) -> bool:
    """Whether the variables of a knob were set before this process started."""
    return all(os.environ.get(name) == value for name, value in fusion.env.items())


def _baselines() -> Path:
    return Path(__file__).resolve().parents[3] / "baselines"
