"""``gemma3n_perf.fuse``: the admitted fusions of this machine's chip class, for a user of mlx-vlm, in one line."""

import os
import warnings
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import Fusion, applied
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.stack import shipped_baselines
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store import admitted
from gemma3n_perf.workload.presets import PRESETS


def fuse(model: Any, *, chip: Chip | None = None, baselines: Path | None = None) -> tuple[str, ...]:
    """Apply to mlx-vlm's Gemma3n ``model`` what the gate admitted for this chip class; returns the names, in order.

    Nothing is applied where nothing is admitted, where it is off here, or where its variables were not set before the
    process started; nor, with a RuntimeWarning that says why, to weights of another kind than its evidence measured,
    and where a part of it fails or finds nothing to replace in this model. A model that was fused before is left alone.
    Fuse last: weights that are replaced afterwards may not be seen.

    Raises UsageError for a model that is not Gemma3n, MalformedRecordError for a broken record of admission.
    """
    language_model = getattr(model, "language_model", None)
    if getattr(getattr(language_model, "config", None), "model_type", None) != "gemma3n_text":
        raise UsageError(
            f"{type(model).__name__} is not mlx-vlm's Gemma3n",
            expected="what mlx_vlm.load returns for a Gemma3n checkpoint",
            remedy="leave other models as they are",
        )
    if applied(model):
        return ()
    chip = chip or detect()
    folder = baselines or shipped_baselines()
    if not folder.is_dir():
        return _warned(f"there is no {folder}, so nothing is known to be admitted: pass baselines=FOLDER")
    fusion = registry.admitted(chip, folder)
    if fusion is None or not fusion.enabled(chip):
        return ()
    if any(os.environ.get(name) != value for name, value in fusion.env.items()):
        return ()  # the variables of a knob must be set before the process starts
    against = _unmeasured(model, fusion, chip, folder) or _without_effect(model, fusion)
    if against:
        return _warned(f"{fusion.name} is admitted for {chip.chip_class}, and was not applied: {against}")
    fusion.apply(model)
    return tuple(fusion.name.split("+"))


def _warned(why: str) -> tuple[str, ...]:
    warnings.warn(f"gemma3n_perf.fuse: {why}", RuntimeWarning, stacklevel=3)
    return ()


def _unmeasured(model: Any, fusion: Fusion, chip: Chip, baselines: Path) -> str | None:
    """How these weights differ in kind from all that admitted it. Checkpoints that are no presets tell of none."""
    path, short = evidence.path_of(baselines, chip.chip_class, fusion.name), admitted.find(baselines, chip.chip_class)
    grounds = evidence.read(path) if path.is_file() else short.grounds if short else None
    checkpoints = {one.workload.partition("/")[0] for one in grounds.workloads} if grounds else set()
    measured = {PRESETS[name].bits for name in checkpoints & PRESETS.keys()}
    found = getattr(model.language_model.model.layers[0].mlp.down_proj, "bits", None)
    if not measured or found in measured:
        return None
    return f"its evidence is of {_kinds(measured)} weights, and these are {_kinds({found})}"


def _kinds(bits: set[int | None]) -> str:
    return " and ".join("dense" if one is None else f"{one}-bit" for one in sorted(bits, key=lambda one: one or 99))


def _without_effect(model: Any, fusion: Fusion) -> str | None:
    """Try it on a twin that shares the weights: the part that fails, or that replaces nothing."""
    twin = share(model)
    for name in fusion.name.split("+"):
        part, before = registry.get(name), _types(twin)
        try:
            part.apply(twin)
        except Exception as error:
            return f"{name} fails on this model: {type(error).__name__}: {error}"
        if not part.graph.same and _types(twin) == before:
            return f"{name} finds nothing to replace in this model"
    return None


def _types(model: Any) -> list[type]:
    return [type(module) for _, module in sorted(model.named_modules(), key=lambda one: one[0])]
