import argparse
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.cli import fusion
from gemma3n_perf.decode import graph
from gemma3n_perf.errors import UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.workload.presets import PRESETS


def run(*arguments: str) -> str:
    """Run the command and return what it prints."""
    parser = argparse.ArgumentParser()
    fusion.add_arguments(parser)
    out = io.StringIO()
    assert fusion.run(parser.parse_args(arguments), out) == 0
    return out.getvalue()


def checkout(folder: Path) -> Path:
    """Return a folder that looks like a clone."""
    (folder / "perf" / "gemma3n_perf" / "fusions").mkdir(parents=True)
    return folder


def test_list_names_every_fusion_and_what_is_admitted(tmp_path: Path) -> None:
    """One that is admitted here is told from one that is merely on."""
    file = tmp_path / detect().chip_class / "fusions" / "admitted.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"schema": 1, "fusions": ["stacked-altup", "fused-qkv"]}))
    said = run("list", "--baselines", str(tmp_path))
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 1}
    assert set(registry.names()) <= rows.keys()
    assert rows["stacked-altup"] == "admitted"
    assert rows["fused-qkv"] == "admitted"
    assert rows["compiled-step"] == "on"
    assert "admitted here: stacked-altup+fused-qkv" in said


def test_show_says_what_it_replaces_and_what_it_needs() -> None:
    """Sources by name and digest, the declared graph, and a knob's variables."""
    said = run("show", "stacked-altup+fused-qkv")
    for part in (
        "Gemma3nAltUp.predict",
        "Gemma3nAttention.__call__",
        "more calls.addmm",
        "fused_qkv.py",
        "patching.py",
    ):
        assert part in said
    assert registry.digest("stacked-altup+fused-qkv")[:16] in said
    assert "MLX_USE_CUDA_GRAPHS=0" in run("show", "cuda-graphs-off")


def test_an_unknown_name_exits_2() -> None:
    """With the known names."""
    with pytest.raises(UsageError, match="compiled-step"):
        run("show", "nothing")


def test_new_writes_a_fusion_that_runs_and_a_test_that_asks_for_more(tmp_path: Path) -> None:
    """Until it is finished its graph is the unfused one, and it says so."""
    said = run("new", "my-first", "--into", str(checkout(tmp_path)))
    module = tmp_path / "perf" / "gemma3n_perf" / "fusions" / "my_first.py"
    test = tmp_path / "tests" / "fusions" / "test_my_first.py"
    assert "test_my_first.py" in said
    assert 'check.complaints("my-first") == ()' in test.read_text()
    compile(test.read_text(), str(test), "exec")
    made: Any = imported(module).FUSION
    assert made.name == "my-first"
    config = PRESETS["nano"].config()
    before, after = (graph.count(config, position=44, apply=apply) for apply in (None, made.apply))
    assert graph.difference(before, after) == {}
    assert any("fewer were declared" in complaint for complaint in made.graph.check(before, after))


@pytest.mark.parametrize("name", ["My-Fusion", "a--b", "../up", "import", "", "a_b", "1st"])
def test_new_refuses_what_cannot_be_a_name(name: str, tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match="cannot name a fusion"):
        run("new", name, "--into", str(checkout(tmp_path)))
    assert not list(tmp_path.rglob("*.py"))


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    """A name that is taken, by a fusion or a file, is refused and the file kept."""
    root = checkout(tmp_path)
    with pytest.raises(UsageError, match="there is a fusion stacked-altup already"):
        run("new", "stacked-altup", "--into", str(root))
    kept = root / "perf" / "gemma3n_perf" / "fusions" / "mine.py"
    kept.write_text("mine")
    with pytest.raises(UsageError, match="already"):
        run("new", "mine", "--into", str(root))
    assert kept.read_text() == "mine"


def test_new_needs_a_checkout(tmp_path: Path) -> None:
    """An installed package has no place for a new file."""
    with pytest.raises(UsageError, match="no checkout"):
        run("new", "mine", "--into", str(tmp_path))


def imported(path: Path) -> Any:
    """Import a file."""
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["written"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["written"]
    return module
