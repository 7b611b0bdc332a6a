"""What a user can type and what the suite can say: commands, options, verdicts and codes, as committed.

``golden/surface.txt`` holds them. A line that is missing or new is a change that a user can see: it goes into the
changelog, and then into the file.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma3n_perf import __main__ as program
from gemma3n_perf.pytest_plugin.plugin import pytest_addoption
from gemma3n_perf.stats.verdicts import Verdict

PACKAGE = Path(program.__file__).parent
GOLDEN = Path(__file__).parent / "golden" / "surface.txt"
CODED = {"Caution", "Fault", "Check", "Check.of", "BackgroundProcess", "add"}
"""What carries the code of a finding as its first argument."""


class PytestParser:
    """Stands in for pytest's parser: takes down the options that a plugin declares."""

    def __init__(self) -> None:
        self.options: list[str] = []

    def getgroup(self, name: str, description: str = "") -> "PytestParser":
        """All groups are one."""
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        """Take down one option."""
        self.options.append(name)


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's arguments, those of the commands below it included: positions by name, options as typed."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                yield f"{parser.prog} {name}"
                yield from commands(action.choices[name])
        elif not isinstance(action, argparse._HelpAction):
            typed = " ".join(action.option_strings) or f"<{action.dest}>"
            choices = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
            yield f"{parser.prog}: {typed}{choices}"


def trees(package: Path) -> Iterator[ast.Module]:
    """Yield the syntax tree of every module."""
    for path in sorted(package.rglob("*.py")):
        yield ast.parse(path.read_text())


def codes(package: Path) -> set[str]:
    """Return the code of every finding that is constructed; a name stands for the constant it was given."""
    found = set()
    for tree in trees(package):
        constants = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in CODED:
                match node.args[0]:
                    case ast.Constant(value=str(code)):
                        found.add(code)
                    case ast.Name(id=name) if name in constants:
                        found.add(constants[name])
    return found


def surface(parser: argparse.ArgumentParser, options: list[str], verdicts: type[Verdict]) -> set[str]:
    """Return everything but the codes, a line each."""
    lines = {f"{parser.prog}: {parser.epilog}", *commands(parser), *(f"pytest perf/: {option}" for option in options)}
    return lines | {f"verdict {one} exits {one.exit_code}" for one in verdicts}


def test_what_a_user_types_is_as_committed() -> None:
    """Every command, argument and option, those of pytest, and the verdicts with their exit codes."""
    plugin = PytestParser()
    pytest_addoption(plugin)  # type: ignore[arg-type]
    found = surface(program.parser(), plugin.options, Verdict)
    expected = {line for line in GOLDEN.read_text().splitlines() if not line.startswith("code ")}
    assert found == expected


def test_findings_have_the_codes_they_had() -> None:
    """None is new, and each of them still stands somewhere in the source."""
    expected = {line.removeprefix("code ") for line in GOLDEN.read_text().splitlines() if line.startswith("code ")}
    assert codes(PACKAGE) <= expected
    written = {
        node.value
        for tree in trees(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert expected <= written
