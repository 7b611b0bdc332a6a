import inspect
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store.published import Figure, PublishedFigure, read_published, references_for

COMMITTED = Path(__file__).parents[2] / "baselines" / "published"
ULTRA = Chip("apple-m1-ultra-64gpu", "apple", "Apple M1 Ultra", gpu_cores=64)
MAX = Chip("apple-m5-max-40gpu", "apple", "Apple M5 Max", gpu_cores=40)


def figures(chip: Chip, checkpoint: str, modality: str, engine: str, **knobs: str) -> list[str]:
    """Return what one engine is published to do, in words."""
    found = references_for(read_published(COMMITTED), chip, checkpoint, modality, knobs=knobs)
    return [one.figure.tokps for one in found if one.figure.engine == engine]


def test_committed_figures_are_the_published_ones() -> None:
    """The figures in the repository are those of the source's tables."""
    assert figures(ULTRA, "e2b-4bit", "text", "mlxcel")[0] == "83.1"
    assert figures(ULTRA, "e4b-4bit", "image", "mlxcel") == ["58.7"]
    assert figures(ULTRA, "e4b-4bit", "text", "mlx-vlm") == ["52.6"]
    assert figures(ULTRA, "e4b-4bit", "text", "mlxcel", MLX_MAX_OPS_PER_BUFFER="1000") == ["68.4 to 70.0"]
    assert figures(MAX, "e4b-bf16", "text", "mlxcel")[0] == "40.4"
    assert figures(MAX, "e2b-4bit", "text", "mlx-vlm") == ["135.9"]


def test_core_count_matches_only_where_the_source_states_it() -> None:
    """A figure with no core count fits both variants of a chip; one with a count fits only that."""
    assert figures(replace(ULTRA, gpu_cores=48), "e2b-4bit", "text", "mlxcel")
    assert figures(replace(MAX, gpu_cores=32), "e2b-4bit", "text", "mlxcel") == []
    assert figures(replace(MAX, gpu_cores=None), "e2b-4bit", "text", "mlxcel") == []


def test_other_chips_have_no_references() -> None:
    """A chip nobody published for gets nothing rather than its neighbour's figures."""
    h100 = Chip("nvidia-h100-80gb-hbm3", "nvidia", "NVIDIA H100 80GB HBM3")
    assert references_for(read_published(COMMITTED), h100, "e2b-4bit", "text") == ()
    assert references_for(read_published(COMMITTED), ULTRA, "nano", "text") == ()


def test_references_cannot_gate() -> None:
    """A figure has neither runs nor a spread, and the package that judges imports nothing of the store."""
    assert {"runs", "sessions", "stack"}.isdisjoint(field.name for field in fields(Figure))
    package = Path(inspect.getfile(Figure)).parents[1]
    users = list((package / "stats").rglob("*.py"))
    assert users
    assert not [path for path in users if "gemma3n_perf.store" in path.read_text()]


def test_source_is_told_in_full() -> None:
    """What is printed beside a figure names page, date, protocol and knobs."""
    publication = next(one for one in read_published(COMMITTED) if one.id == "mlxcel-345")
    swept = next(one for one in publication.figures if one.knobs)
    shown = PublishedFigure(publication, swept)
    assert shown.source.startswith("lablup/mlxcel #345, section")
    assert shown.source.endswith("June 2026")
    assert shown.engine == "mlxcel (raw, MLX_MAX_OPS_PER_BUFFER=1000)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"date": None}, "$.date"),
        ({"figures": [{"low": -1.0}]}, "-1.0"),
        ({"figures": [{"low": 2.0, "high": 1.0}]}, "2.0 to 1.0"),
        ({"figures": [{"modality": "smell"}]}, "smell"),
        ({"figures": [{"protocol": "unheard of"}]}, "unheard of"),
        ({"figures": [{"chip": 3}]}, "$.figures[0].chip"),
    ],
)
def test_malformed_publication_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A fault in a publication names the file and the place."""
    made = json.loads((COMMITTED / "mlxcel-345.json").read_text())
    figure = made["figures"][0]
    given = change.pop("figures", [{}])
    made |= change | {"figures": [figure | one for one in given]}
    (tmp_path / "bad.json").write_text(json.dumps(made))
    with pytest.raises(MalformedRecordError) as caught:
        read_published(tmp_path)
    assert "bad.json" in caught.value.found
    assert said in caught.value.found


def test_absent_folder_has_no_publications(tmp_path: Path) -> None:
    """A checkout without published figures still reports."""
    assert read_published(tmp_path / "nowhere") == ()
