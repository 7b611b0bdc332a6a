import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.cli import graph
from gemma3n_perf.errors import CorruptCheckpointError, UsageError


def run(*arguments: str) -> str:
    """Run the command and return what it prints."""
    parser = argparse.ArgumentParser()
    graph.add_arguments(parser)
    out = io.StringIO()
    assert graph.run(parser.parse_args(arguments), out) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def e4b() -> dict[str, Any]:
    """Return the JSON of e4b-4bit."""
    found: dict[str, Any] = json.loads(run("e4b-4bit", "--json"))
    return found


def test_json_has_the_documented_form(e4b: dict[str, Any]) -> None:
    """Calls, operations and dtypes by name, nodes, bytes by part, and host work: all counts."""
    assert list(e4b) == ["calls", "operations", "dtypes", "nodes", "bytes", "host"]
    assert list(e4b["host"]) == ["python_calls", "mlx_calls", "by_name", "python"]
    assert e4b["host"]["mlx_calls"] == sum(e4b["host"]["by_name"].values())
    for counts in ("calls", "operations", "dtypes", "bytes"):
        assert e4b[counts]
        assert all(isinstance(name, str) and type(count) is int for name, count in e4b[counts].items())
    assert list(e4b["bytes"]) == ["streamed", "per_layer_embedding", "vision", "audio", "total"]
    assert type(e4b["nodes"]) is int
    assert e4b["nodes"] == sum(e4b["operations"].values())


def test_e4b_calls_and_bytes(e4b: dict[str, Any]) -> None:
    """The published counts, and 2.52 GB a token."""
    names = ("quantized_matmul", "rms_norm", "rope", "scaled_dot_product_attention")
    assert [e4b["calls"][name] for name in names] == [433, 357, 55, 35]
    assert e4b["operations"]["QuantizedMatmul"] == e4b["host"]["by_name"]["mlx.core.quantized_matmul"] == 433
    assert round(e4b["bytes"]["streamed"] / 1e9, 2) == 2.52


def test_text_shows_the_same() -> None:
    """Name, position and nodes first, then host work, then a table each, bytes in GB."""
    found = json.loads(run("nano", "--json"))
    lines = run("nano").splitlines()
    assert lines[0] == f"nano: one decode token at position 44, {found['nodes']} graph nodes"
    host = found["host"]
    assert (
        lines[1]
        == f"host: {host['python_calls']} Python calls, {host['mlx_calls']} MLX calls (Python {host['python']})"
    )
    rows = [tuple(line.split()) for line in lines]
    for counts in ("calls", "operations", "dtypes"):
        for name, count in found[counts].items():
            assert (name, str(count)) in rows
    assert ("streamed", f"{found['bytes']['streamed'] / 1e9:.4f}") in rows


@pytest.mark.parametrize("position", ["1", "0", "-5", "32769"])
def test_a_position_out_of_range_is_refused(position: str) -> None:
    """A graph needs some context, within the model's range."""
    with pytest.raises(UsageError, match=f"position {position} is out of range"):
        run("nano", f"--position={position}")


def test_a_folder_is_counted_by_its_config(tmp_path: Path) -> None:
    """No weights are needed there either, and damage is named."""
    from gemma3n_perf.workload.presets import PRESETS

    (tmp_path / "config.json").write_text(json.dumps(PRESETS["nano"].config()))
    assert json.loads(run(str(tmp_path), "--json", "--position", "44")) == json.loads(run("nano", "--json"))
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    with pytest.raises(CorruptCheckpointError, match="mistral"):
        run(str(tmp_path))
    with pytest.raises(UsageError, match="there is no checkpoint"):
        run("nan")
