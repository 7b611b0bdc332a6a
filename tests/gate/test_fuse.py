import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

import gemma3n_perf
from gemma3n_perf.errors import UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.fusions.sharing import share
from tests.fakes import CHIP


def baselines(folder: Path, *names: str) -> Path:
    """Write what is admitted for the fake chip."""
    file = folder / CHIP.chip_class / "fusions" / "admitted.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"schema": 1, "fusions": names}))
    return folder


def test_the_admitted_composition_is_applied_whole(nano_model: Any, tmp_path: Path) -> None:
    """Every part of it, in order; the names say what was done."""
    twin = share(nano_model)
    kept = baselines(tmp_path, "stacked-altup", "fused-qkv")
    assert gemma3n_perf.fuse(twin, chip=CHIP, baselines=kept) == ("stacked-altup", "fused-qkv")
    layer, plain = twin.language_model.model.layers[0], nano_model.language_model.model.layers[0]
    assert type(layer.altup) is not type(plain.altup)
    assert type(layer.self_attn) is not type(plain.self_attn)
    assert type(twin.language_model) is type(nano_model.language_model)


@pytest.mark.parametrize("names", [("ops-per-buffer",), ("cuda-step",), ("stacked-altup", "cuda-attention")])
def test_what_is_not_on_here_is_not_applied(nano_model: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Not where its variable was not set, not on another chip, and not in part."""
    twin = share(nano_model)
    assert gemma3n_perf.fuse(twin, chip=CHIP, baselines=baselines(tmp_path, *names)) == ()
    assert type(twin.language_model.model.layers[0].altup) is type(nano_model.language_model.model.layers[0].altup)


def test_a_knob_counts_where_it_was_set(nano_model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Before the process started: ``fuse`` cannot set it any more."""
    chip = replace(CHIP, vendor="nvidia", gpu_cores=16896)
    knob = registry.get("ops-per-buffer")
    assert knob.enabled(chip)
    kept = baselines(tmp_path, "ops-per-buffer")
    for name, value in knob.env.items():
        monkeypatch.delenv(name, raising=False)
        assert gemma3n_perf.fuse(share(nano_model), chip=chip, baselines=kept) == ()
        monkeypatch.setenv(name, value)
    assert gemma3n_perf.fuse(share(nano_model), chip=chip, baselines=kept) == ("ops-per-buffer",)


def test_a_part_that_finds_nothing_to_replace_is_said(nano_model: Any, tmp_path: Path) -> None:
    """Names that come back are of what runs: a model with one matrix of 8 bits has no step that could be compiled."""
    twin = share(nano_model)
    up = twin.language_model.model.layers[0].mlp.up_proj
    dense = mx.dequantize(up.weight, up.scales, up.biases, up.group_size, up.bits)
    up.weight, up.scales, up.biases = mx.quantize(dense, up.group_size, 8)
    up.bits = 8
    with pytest.warns(RuntimeWarning, match="compiled-step finds nothing to replace"):
        assert gemma3n_perf.fuse(twin, chip=CHIP, baselines=baselines(tmp_path, "compiled-step")) == ()


def test_a_part_that_fails_leaves_the_model_as_it_was(nano_model: Any, tmp_path: Path) -> None:
    """Whole or not at all: the first part would fit."""
    twin = share(nano_model)
    twin.language_model.model.layers[0].self_attn.k_norm = nn.Identity()
    with pytest.warns(RuntimeWarning, match="fused-qkv fails on this model") as warned:
        found = gemma3n_perf.fuse(twin, chip=CHIP, baselines=baselines(tmp_path, "stacked-altup", "fused-qkv"))
    assert (found, warned[0].filename) == ((), __file__)
    assert type(twin.language_model.model.layers[0].altup) is type(nano_model.language_model.model.layers[0].altup)


def test_weights_of_a_kind_nobody_measured_are_left_alone(nano_model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """What wins on 4-bit weights may lose on dense ones."""
    kept = baselines(tmp_path, "fused-qkv")
    (kept / CHIP.chip_class / "fusions" / "fused-qkv.json").touch()
    measured = SimpleNamespace(workloads=(SimpleNamespace(workload="e4b-bf16/text/pp320-tg64"),))
    monkeypatch.setattr("gemma3n_perf.gate.record.read", lambda path: measured)
    with pytest.warns(RuntimeWarning, match="its evidence is of dense weights, and these are 4-bit"):
        assert gemma3n_perf.fuse(share(nano_model), chip=CHIP, baselines=kept) == ()
    measured.workloads = (SimpleNamespace(workload="e2b-4bit/text/pp320-tg64"),)
    assert gemma3n_perf.fuse(share(nano_model), chip=CHIP, baselines=kept) == ("fused-qkv",)


def test_without_baselines_it_says_so(nano_model: Any, tmp_path: Path) -> None:
    """As where the package was installed without them."""
    with pytest.warns(RuntimeWarning, match="pass baselines=FOLDER"):
        assert gemma3n_perf.fuse(share(nano_model), chip=CHIP, baselines=tmp_path / "none") == ()


def test_a_second_call_changes_nothing(nano_model: Any, tmp_path: Path) -> None:
    """Fused twice is fused once."""
    twin = share(nano_model)
    kept = baselines(tmp_path, "fused-qkv")
    assert gemma3n_perf.fuse(twin, chip=CHIP, baselines=kept) == ("fused-qkv",)
    kind = type(twin.language_model.model.layers[0].self_attn)
    assert gemma3n_perf.fuse(twin, chip=CHIP, baselines=kept) == ()
    assert type(twin.language_model.model.layers[0].self_attn) is kind


def test_nothing_admitted_is_nothing_done(nano_model: Any, tmp_path: Path) -> None:
    """An unmeasured chip class runs mlx-vlm as it is."""
    assert gemma3n_perf.fuse(share(nano_model), chip=CHIP, baselines=tmp_path) == ()


def test_another_model_is_refused(tmp_path: Path) -> None:
    """A fusion of Gemma3n's is applied to nothing else."""
    with pytest.raises(UsageError, match="not mlx-vlm's Gemma3n"):
        gemma3n_perf.fuse(nn.Linear(2, 2), chip=CHIP, baselines=tmp_path)


def test_the_package_has_no_other_surprises() -> None:
    """What is not there is an AttributeError, as everywhere."""
    with pytest.raises(AttributeError, match="fuze"):
        getattr(gemma3n_perf, "fuze")  # noqa: B009
