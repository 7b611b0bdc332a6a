import importlib.util
import json
import py_compile
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma3n_perf import fusions
from gemma3n_perf.errors import InvalidError, MalformedRecordError, UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.hardware.types import Chip
from tests.fakes import CHIP

H100 = Chip("nvidia-h100-80gb-hbm3", "nvidia", "NVIDIA H100 80GB HBM3")


def admit(folder: Path, text: str) -> Path:
    """Write a record of admission and return the baselines."""
    file = folder / CHIP.chip_class / "fusions" / "admitted.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return folder


def test_every_fusion_says_what_it_is() -> None:
    """Each has a summary, a place, a file of its own, and a declaration that can be checked."""
    for name in registry.names():
        fusion = registry.get(name)
        assert fusion.name == name
        assert fusion.summary
        assert fusion.where
        assert Path(fusion.file).stem == name.replace("-", "_")
        assert fusion.graph.same or fusion.graph.fewer or fusion.graph.more
        assert bool(fusion.env) == fusion.graph.same


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    """A typing error does not measure nothing."""
    with pytest.raises(UsageError, match="stacked-altup"):
        registry.get("staked-altup")


def test_cuda_fusions_are_off_on_a_cpu() -> None:
    """Kernels for one backend are on there alone; portable ones everywhere."""
    on = {name for name in registry.names() if registry.get(name).enabled(CHIP)}
    assert {"stacked-altup", "compiled-geglu", "fused-qkv", "compiled-step"} <= on
    assert not on & {"cuda-step", "cuda-attention", "fused-mlp", "altup-router-predict", "ops-per-buffer"}
    assert all(registry.get(name).enabled(H100) for name in registry.names())


@pytest.mark.parametrize(
    "name",
    [
        "stacked-altup+stacked-altup",
        "stacked-altup+altup-router-predict",
        "fused-mlp+compiled-geglu",
        "cuda-step+fused-qkv",
    ],
)
def test_two_that_replace_one_thing_do_not_go_together(name: str) -> None:
    """The second would silently undo the first."""
    with pytest.raises(UsageError, match="cannot be composed"):
        registry.compose(name)


def test_a_composition_is_a_fusion() -> None:
    """Names, conditions and variables of all its parts; its declaration is theirs together."""
    both = registry.get("cuda-step+ops-per-buffer")
    assert both.name == "cuda-step+ops-per-buffer"
    assert both.env == registry.get("ops-per-buffer").env
    assert set(both.graph.fewer) == set(registry.get("cuda-step").graph.fewer)
    assert both.enabled(H100)
    assert not both.enabled(CHIP)
    assert registry.compose("ops-per-buffer+cuda-graphs-off").graph.same


def test_what_one_adds_and_another_removes_is_not_declared() -> None:
    """Of addmm, which stacked-altup adds, a composition still says that there is more."""
    graph = registry.compose("stacked-altup+fused-qkv").graph
    assert "calls.addmm" in graph.more
    assert set(graph.fewer) >= {"nodes", "calls.rope"}


def test_sources_are_all_that_a_fusion_imports_from_here() -> None:
    """A change of a shared kernel makes the evidence of every fusion that uses it another's."""
    names = {file.name for file in registry.files("cuda-step")}
    assert {"cuda_step.py", "products.py", "decode.py", "patching.py", "types.py"} <= names
    assert not names & {"stacked_altup.py", "parity.py", "registry.py"}
    assert registry.digest("cuda-step") == registry.digest("cuda-step")
    different = {registry.digest(name) for name in (*registry.names(), "stacked-altup+fused-qkv")}
    assert len(different) == len(registry.names()) + 1


def test_a_digest_knows_which_file_holds_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes cut elsewhere, or under another name, are other sources."""
    found = set()
    for number, files in enumerate(
        ({"a.py": "xy", "b.py": ""}, {"a.py": "x", "b.py": "y"}, {"a.py": "xy", "c.py": ""})
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        monkeypatch.setattr(registry, "files", lambda name, folder=folder: tuple(sorted(folder.iterdir())))
        found.add(registry.digest("any"))
    assert len(found) == 3


def test_nothing_is_admitted_without_a_record(tmp_path: Path) -> None:
    """A chip class that was never measured runs mlx-vlm as it is."""
    assert registry.admitted(CHIP, tmp_path) is None


def test_admitted_is_what_the_record_says(tmp_path: Path) -> None:
    """One composition, its parts in order."""
    baselines = admit(tmp_path, json.dumps({"schema": 1, "fusions": ["stacked-altup", "fused-qkv"]}))
    found = registry.admitted(CHIP, baselines)
    assert found is not None
    assert found.name == "stacked-altup+fused-qkv"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 1}', '{"schema": 2, "fusions": []}', '{"schema": 1, "fusions": ["gone"]}', "\xff"]
)
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    """It is never read as an empty one."""
    with pytest.raises(MalformedRecordError, match=r"admitted\.json"):
        registry.admitted(CHIP, admit(tmp_path, text))


def test_a_composition_applies_in_order_and_marks_once() -> None:
    """A twin is fused with the composition, not with its parts as well."""
    from gemma3n_perf.fusions.types import applied

    model = SimpleNamespace()
    registry.compose("ops-per-buffer+cuda-graphs-off").apply(model)
    assert len(applied(model)) == 1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the package of fusions, with whatever a test puts there."""
    monkeypatch.setattr(fusions, "__path__", [str(tmp_path)])
    return tmp_path


def test_relative_imports_are_sources_too(package: Path) -> None:
    """However many dots: a helper that changes makes another fusion."""
    for name, text in {
        "dotted.py": "from . import helper\nfrom .deep.inner import x\n\nFUSION = 1\n",
        "helper.py": "",
        "unused.py": "",
        "deep/__init__.py": "from ..shared import y\n",
        "deep/inner.py": "from ..other import z\nfrom . import twin\n",
        "deep/twin.py": "",
        "shared.py": "",
        "other.py": "",
    }.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
    found = {path.relative_to(package).as_posix() for path in registry.files("dotted")}
    assert found == {
        "dotted.py", "helper.py", "deep/__init__.py", "deep/inner.py", "deep/twin.py", "shared.py", "other.py"
    }  # fmt: skip
    before = registry.digest("dotted")
    (package / "other.py").write_text("# changed")
    assert registry.digest("dotted") != before


@pytest.mark.parametrize("text", ["import sys\nsys.exit(0)", "raise RuntimeError('boom')", "import no_such_thing"])
def test_a_fusion_that_ends_its_import_is_invalid(package: Path, text: str) -> None:
    """``sys.exit(0)`` would end the process that asks, and well; and others are still to be had."""
    (package / "leaves_early.py").write_text(f"{text}\n\nFUSION = 1\n")
    assert registry.names() == ("leaves-early",)
    assert registry.digest("leaves-early")
    with pytest.raises(InvalidError, match="cannot be imported"):
        registry.get("leaves-early")


def test_a_module_and_its_fusion_have_one_name(package: Path) -> None:
    """Names are read from files, so a fusion of another name would be measured under this one."""
    (package / "quick_win.py").write_text(
        "from gemma3n_perf.fusions.types import Declared, Fusion\n"
        "FUSION = Fusion('slow-win', 'none', (), Declared(same=True), __file__)\n"
    )
    with pytest.raises(InvalidError, match="defines a fusion called 'slow-win'"):
        registry.get("quick-win")


def test_bytecode_of_other_sources_is_not_believed(package: Path) -> None:
    """It says that nobody need compare it with its source, and no digest holds it."""
    fusion = (
        "from gemma3n_perf.fusions.types import Declared, Fusion\n"
        "FUSION = Fusion('planted-code', {!r}, (), Declared(same=True), __file__)\n"
    )
    source, other = package / "planted_code.py", package / "other"
    source.write_text(fusion.format("what the source says"))
    other.write_text(fusion.format("what nobody sees"))
    planted = importlib.util.cache_from_source(str(source))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=planted, dfile=str(source), invalidation_mode=unchecked)
    other.unlink()
    assert registry.get("planted-code").summary == "what the source says"
    assert sys.pycache_prefix is None


def test_asking_what_a_fusion_is_made_of_imports_none() -> None:
    """What writes the gate's answer never runs the change's code."""
    script = (
        "import sys; from gemma3n_perf.fusions import registry as r\n"
        "assert all((r.files(n), r.digest(n)) for n in r.names()); r.digest('stacked-altup+fused-qkv')\n"
        "print(*sorted(n for n in sys.modules if n.startswith('gemma3n_perf.fusions.') or n == 'mlx'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"gemma3n_perf.fusions.{one}" for one in ("registry", "sources", "types")]


def test_what_a_fusion_reads_beside_it_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name or its suffix, and a helper of the suite that lies elsewhere; not what all that measures shares."""
    package = tmp_path / "gemma3n_perf" / "fusions"
    package.mkdir(parents=True)
    (package.parent / "decode").mkdir()
    (package.parent / "decode" / "helper.py").touch()
    (package.parent / "errors.py").touch()
    for name in ("table.npy", "mine.txt", "other.txt"):
        (package / name).write_text(name)
    (package / "mine.py").write_text(
        "from pathlib import Path\n"
        "from gemma3n_perf.decode.helper import x\n"
        "from gemma3n_perf.errors import UsageError\n"
        "TABLE, TEXT = Path(__file__).with_name('table.npy'), Path(__file__).with_suffix('.txt')\n"
        "FUSION = 1\n"
    )
    monkeypatch.setattr(fusions, "__path__", [str(package)])
    assert {path.name for path in registry.files("mine")} == {"mine.py", "helper.py", "table.npy", "mine.txt"}
    before = registry.digest("mine")
    (package / "mine.txt").write_text("off")
    assert registry.digest("mine") != before


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import importlib", ["importlib in mine.py, line 1"]),
        ("from importlib.util import find_spec", ["importlib.util in mine.py, line 1"]),
        ("from importlib import import_module, metadata", ["importlib in mine.py, line 1"]),
        ("from importlib import metadata, resources", []),
        ("x = __import__('a')", ["__import__ in mine.py, line 1"]),
        ("exec('a')", ["exec in mine.py, line 1"]),
        ("import mlx.core as mx; mx.eval(1)", []),
        ("import sys", ["sys in mine.py, line 1"]),
        ("import os.path", ["os.path in mine.py, line 1"]),
        ("from pathlib import Path", ["Path in mine.py, line 1", "pathlib in mine.py, line 1"]),
        ("from gemma3n_perf.hardware import shell", ["gemma3n_perf.hardware in mine.py, line 1"]),
        ("from gemma3n_perf.fusions import patching, types", []),
        ("from mlx_vlm.utils import os", ["os in mine.py, line 1"]),
        ("from mlx_vlm.utils import Path", ["Path in mine.py, line 1"]),
        ("import numpy as np; np.save('x', 1)", ["save in mine.py, line 1"]),
        ("import dataclasses; dataclasses.sys.argv", ["sys in mine.py, line 1"]),
        ("x = getattr(int, 'real')", []),
        ("x = getattr(int, 'sy' + 's')", ["getattr by a name that is no constant in mine.py, line 1"]),
        ("x = [getattr(int, n) for n in ('real', 'imag')]", []),
        ("for n in ['real']:\n    getattr(int, n)\ndict(n=1)", []),
        (
            "x = [getattr(int, n) for n in ('real', 'sys')]",
            ["getattr by a name that is no constant in mine.py, line 1"],
        ),
        (
            "for n in ['real']:\n    n = 'sy' + 's'\n    getattr(int, n)",
            ["getattr by a name that is no constant in mine.py, line 3"],
        ),
        (
            "for n in ['real']:\n    pass\ndef f(n): getattr(int, n)",
            ["getattr by a name that is no constant in mine.py, line 3"],
        ),
        (
            "import math as n\nfor n in ['real']:\n    getattr(int, n)",
            ["getattr by a name that is no constant in mine.py, line 3"],
        ),
        ("load: int = 0", []),
        ("load(1)", ["load in mine.py, line 1"]),
        ("import copy, warnings; copy.copy(1)", []),
        ("import warnings; warnings.sys", ["sys in mine.py, line 1"]),
        ("from mlx_vlm.models import cache\ndef f(cache): cache.offset += 1", []),
        (
            "from mlx_vlm.models import cache\ndef f(cache): pass\ncache.offset += 1",
            ["cache.offset replaced in mine.py, line 3"],
        ),
        ("x = open('a')", ["open in mine.py, line 1"]),
        ("read = getattr", ["getattr in mine.py, line 1"]),
        ("x = list(map(getattr, [1], ['real']))", ["getattr in mine.py, line 1"]),
        ("import operator; operator.attrgetter('sys.argv')", ["attrgetter in mine.py, line 1"]),
        ("import typing; typing.get_type_hints(int)", ["get_type_hints in mine.py, line 1"]),
        ("match 1:\n    case object(sys=found): pass", ["sys in mine.py, line 2"]),
        ("from textwrap import dedent; dedent('a')", []),
        ("import re; re.__dict__", ["__dict__ in mine.py, line 1"]),
        ("import numpy as np, numpy.typing; np.array(1)", []),
        ("from numpy.testing import x", ["numpy.testing in mine.py, line 1"]),
        ("from numpy import testing", ["testing in mine.py, line 1"]),
        ("import mlx.nn as nn; nn.Module().load_weights('x')", ["load_weights in mine.py, line 1"]),
        ("import mlx.core as mx; mx.argmax = min", ["mx.argmax replaced in mine.py, line 1"]),
        ("import mlx.core as mx; mx.fast.rope += 1", ["mx.fast.rope replaced in mine.py, line 1"]),
        ("import mlx.core as mx; del mx.eval", ["mx.eval replaced in mine.py, line 1"]),
        ("import mlx.core as mx; setattr(mx, 'eval', 1)", ["setattr(mx, 'eval', 1) replaced in mine.py, line 1"]),
        ("import mlx.core as mx; x = mx.eval; x.y = 1", []),
        (
            "from gemma3n_perf.fusions.kernels.common import source; a = 'x'; source(a)",
            ["source of no constant in mine.py, line 1"],
        ),
        (
            "from gemma3n_perf.fusions.kernels.common import source; source()",
            ["source of no constant in mine.py, line 1"],
        ),
        ("from gemma3n_perf.fusions.kernels.common import source; source('product'); source('none')", []),
    ],
)
def test_what_no_digest_can_hold_is_told(
    line: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is imported by a name that is made up as it runs could be anything, and so could what knows who runs it;
    evaluating arrays is none of it."""
    (tmp_path / "mine.py").write_text(f"{line}\nFUSION = 1\n")
    monkeypatch.setattr(fusions, "__path__", [str(tmp_path)])
    assert registry.unseen("mine") == found
    monkeypatch.undo()
    assert {name: registry.unseen(name) for name in registry.names() if registry.unseen(name)} == {}
