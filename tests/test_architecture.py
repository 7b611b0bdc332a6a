"""The order of the rooms, computed from the source: imports go downwards only, and nowhere in a circle."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "perf" / "gemma3n_perf"
NAME = PACKAGE.name
ROOMS = (
    "errors", "hardware", "workload", "decode", "stats", "store", "report", "fusions", "duel", "gate", "bench",
    "profile", "history", "pytest_plugin", "ci", "cli",
)  # fmt: skip
"""Lower first."""
BESIDE = {"__init__", "__main__", "errors"}
MOST_LINES = 300
TRUSTED = ("plan", "answer", "post", "stage", "matrix")
"""CI steps that judge what a change brings, and run where nothing is installed."""


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Yield the modules of this package that a module imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        match node:
            case ast.Import():
                dotted = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0, module=str(module)):
                dotted = [
                    f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module for alias in node.names
                ]
            case ast.ImportFrom():
                dotted = ["relative"]
            case _:
                continue
        yield from ((one, node.lineno) for one in dotted if one.split(".")[0] in (NAME, "studies", "tests", "relative"))


def room(name: str) -> str:
    """Return the room of a module."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_imports_go_downwards() -> None:
    """From a room to itself or to a lower one; the entry point and the package's own name may reach any."""
    wrong = [
        f"{MODULES[name].relative_to(PACKAGE.parent)}:{line}: {room(name)} imports {target}, which is not below it"
        for name in MODULES
        if room(name) not in ("__init__", "__main__")
        for target, line in imports(name)
        if target.split(".")[0] != NAME
        or room(target) not in ROOMS
        or ROOMS.index(room(target)) > ROOMS.index(room(name))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count: a cycle that waits is a cycle."""
    arrows = {name: {target for target, _ in imports(name)} - {name} for name in MODULES}
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_rooms_are_all_there_is() -> None:
    """Every module is in a room, but for the errors and the entry points."""
    flat = {path.stem for path in PACKAGE.glob("*.py")}
    assert flat <= BESIDE
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(ROOMS)


def test_modules_can_be_read_in_one_sitting() -> None:
    """None is longer than a few screens."""
    long = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_statistics_read_and_write_nothing() -> None:
    """The judge and its arithmetic know no files, processes or clocks."""
    io = {"pathlib", "os", "subprocess", "time", "io", "shutil", "tempfile"}
    for path in (PACKAGE / "stats").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not io & {name.split(".")[0] for name in names}, f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", TRUSTED)
def test_trusted_steps_need_python_alone(step: str) -> None:
    """``python -S -P`` has no site-packages: what judges a change imports nothing that a change could bring."""
    command = (sys.executable, "-S", "-P", "-m", f"{NAME}.ci", step, "--help")
    done = subprocess.run(command, cwd=PACKAGE.parent, env={"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_page_of_the_architecture_is_true() -> None:
    """Its rooms are the rooms, in their order; each module on its two ways exists, and neither way is long."""
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)/?` \|", page, re.MULTILINE)) == ROOMS
    _, sample, evidence = page.split("\n## ")
    for way, most in ((sample, 10), (evidence, 12)):
        hops = re.findall(r"^\d+\. `([\w/.]+)`", way, re.MULTILINE)
        assert len(hops) <= most
        assert [hop for hop in hops if not (PACKAGE / hop).is_file()] == []
