"""One name for one thing: every option of every command, held to one table."""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.duel import run as duel_run
from gemma3n_perf.pytest_plugin.plugin import pytest_addoption

SHARED = {
    "--again": "DAYS", "--allow-busy": None, "--base": "REF", "--baselines": "DIR", "--budget": "SECONDS",
    "--check": None, "--checkpoint": "CHECKPOINT", "--clone": "DIR", "--docs": "DIR", "--explain": None, "--from":
    "FIRST", "--into": "DIR", "--json": "FILE|-", "--local": None, "--margin": "PERCENT", "--markdown": "FILE",
    "--out": "DIR", "--outputs-may-differ": None, "--page": None, "--points": "N", "--policy": "FILE", "--repo":
    "DIR", "--results": "DIR", "--sessions": "N", "--time": "SECONDS", "--wait": "SECONDS", "--workload": "ID",
}  # fmt: skip
"""What options of several commands are called and take; None is a switch."""
ONE_COMMANDS_OWN = {
    "--aa", "--add", "--admit", "--against", "--against-fusion", "--against-python", "--anchor", "--arm",
    "--completion", "--disk", "--duels", "--effects", "--file", "--first", "--force", "--format", "--fresh",
    "--fusion", "--knob", "--line", "--measure-anyway", "--memory", "--metal-capture", "--min-sessions",
    "--modality", "--no-baseline", "--package", "--park", "--parts", "--plant-slowdown", "--position", "--quick",
    "--recorded", "--rejudge", "--resume", "--rounds", "--runs", "--set", "--shape", "--state", "--version",
    "--versions",
}  # fmt: skip
"""Options that one command alone has: a second command that wants one moves it to the table above."""
ALIASES = {"--root", "--output", "--time-budget", "--again", "--no-confirm"}
"""Names of earlier releases, which no help shows."""
CI = {
    "--api", "--artifacts", "--attempt", "--candidate", "--chip-class", "--comment", "--commit", "--event",
    "--event-name", "--issue", "--jobs", "--last", "--link", "--lost", "--number", "--outputs", "--passed", "--plan",
    "--pull", "--records", "--repo", "--run-id", "--summary",
}  # fmt: skip
"""What only the workflows type."""


class PytestGroup:
    """Takes down what the plugin declares."""

    def __init__(self) -> None:
        self.options: list[tuple[str, str | None, bool]] = []

    def getgroup(self, name: str, description: str = "") -> "PytestGroup":
        """All groups are one."""
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        """Take down one option."""
        switch = settings.get("action") == "store_true"
        taken = None if switch else settings.get("metavar")
        self.options.append((name, taken, settings.get("help") is argparse.SUPPRESS))


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str | None, bool]]:
    """Yield command, option, what it takes (None for a switch), and whether help hides it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from options(one)
        elif not isinstance(action, argparse._HelpAction):
            metavar = None if action.nargs == 0 else str(action.metavar)
            for name in action.option_strings:
                yield parser.prog, name, metavar, action.help is argparse.SUPPRESS


def every_option() -> list[tuple[str, str, str | None, bool]]:
    """Return the options of all commands and of ``pytest perf/``."""
    group = PytestGroup()
    pytest_addoption(group)  # type: ignore[arg-type]
    return [*options(program.parser()), *(("pytest perf/", *one) for one in group.options)]


def test_an_option_has_one_name_and_takes_one_thing() -> None:
    """In every command, and none is missing from the table."""
    owners: dict[str, set[str]] = {}
    for command, name, metavar, hidden in every_option():
        if hidden:
            assert name in ALIASES, f"{command} hides {name}"
        elif command.startswith("gemma3n-perf ci ") and name in CI:
            continue
        elif name in SHARED:
            assert metavar == SHARED[name], f"{command} {name} takes {metavar}"
        else:
            owners.setdefault(name, set()).add(command)
    assert {name: found for name, found in owners.items() if name not in ONE_COMMANDS_OWN or len(found) > 1} == {}


def test_a_command_that_measures_takes_the_same_options() -> None:
    """How long, where records are, what to do on a busy machine, and what it would do."""
    for command in ("duel", "bisect", "calibrate", "validate", "profile"):
        found = {name for _, name, _, _ in options(program.parser(command)) if name.startswith("--")}
        assert {"--budget", "--baselines", "--wait", "--allow-busy", "--explain", "--workload"} <= found, command
    found = {name for command, name, _, _ in every_option() if command == "pytest perf/"}
    assert {"--budget", "--baselines", "--wait", "--allow-busy", "--explain", "--shape"} <= found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("baseline", "list", "--root", "X"), ("baseline", "list", "--baselines", "X")),
        (("forge", "nano", "--root", "X"), ("forge", "nano", "--into", "X")),
        (("site", "--output", "X"), ("site", "--out", "X")),
        (("validate", "--again"), ("validate", "--rejudge")),
        (("graph", "nano", "--json"), ("graph", "nano", "--json", "-")),
    ],
)
def test_names_of_earlier_releases_work(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """They say the same."""
    parser = program.parser()
    assert vars(parser.parse_args(old)) == vars(parser.parse_args(new))


def run(*argv: str) -> tuple[int, str, str]:
    """Run a command line."""
    out, err = io.StringIO(), io.StringIO()
    return program.run(argv, out, err), out.getvalue(), err.getvalue()


def test_json_goes_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    """Beside the text, or in its place."""
    code, text, _ = run("graph", "nano", "--json", str(tmp_path / "graph.json"))
    assert (code, "nano: one decode token" in text) == (0, True)
    kept = json.loads((tmp_path / "graph.json").read_text())
    for alone in ((), ("-",)):
        code, text, _ = run("graph", "nano", "--json", *alone)
        assert (code, json.loads(text)["calls"]) == (0, kept["calls"])


@pytest.mark.parametrize("record", ['{"content_digest": "a"}', '{"machine_info": {}}'])
def test_json_is_never_written_over_a_record(tmp_path: Path, record: str) -> None:
    """The option takes the word that follows it, which was meant to be read."""
    path = tmp_path / "cuda-step.json"
    path.write_text(record)
    err = io.StringIO()
    assert program.run(["gate", "--json", str(path)], io.StringIO(), err) == 2
    assert "holds a record" in err.getvalue()
    assert f"--json - {path}" in " ".join(err.getvalue().split())
    assert path.read_text() == record


def test_help_shows_no_markup() -> None:
    """Of any command."""

    def shown(parser: argparse.ArgumentParser) -> Iterator[str]:
        yield parser.format_help()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for one in action.choices.values():
                    yield from shown(one)

    pages = list(shown(program.parser()))
    assert len(pages) > 30
    assert [page for page in pages if "``" in page or "%%" in page or "SUPPRESS" in page] == []


def test_version_and_completion() -> None:
    """Each is a line or a script, and nothing is measured."""
    code, text, _ = run("--version")
    assert (code, text.startswith("gemma3n-perf ")) == (0, True)
    for shell in program.SHELLS:
        code, text, _ = run("--completion", shell)
        assert code == 0
        assert "outputs-may-differ" in text
        assert "time-budget" not in text
    assert run("--completion", "sh")[0] == run("--completion")[0] == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("duel", "ref:main", "here", "--budget", "20"), "at most 20 s of measuring (1 x 1 x 20 s)"),
        (("calibrate", "--duels", "3"), "at most 90 s of measuring (1 x 3 x 30 s)"),
        (("validate", "--rounds", "2", "--effects", "0", "2"), "at most 240 s of measuring (1 x 4 x 60 s)"),
        (("profile", "--parts", "floor"), "a profile (floor) of"),
    ],
)
def test_explain_says_what_would_be_measured(argv: tuple[str, ...], said: str) -> None:
    """And how long it may take, without opening the machine."""
    code, text, err = run(*argv, "--explain", "--workload", "nano/text/pp40-tg64")
    assert (code, err) == (0, "")
    assert said in text
    assert "  nano/text/pp40-tg64\n" in text
    assert text.endswith("nothing was measured (--explain)\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("duel", "here", "mlx==0..3"), "arm 'mlx==0..3'"),
        (("duel", "hree", "here"), "arm 'hree'"),
        (("duel", "here", "mlx==x"), "arm 'mlx==x'"),
        (("duel", "ref:no-such-commit", "here"), "ref:no-such-commit is no commit"),
        (("duel", "here", "nunpy==1.0"), "nunpy is no package of this environment"),
        (("duel", "here", "here", "--workload", "nano/text/pp40"), "workload 'nano/text/pp40'"),
        (("calibrate", "--workload", "nano"), "workload 'nano'"),
        (("bisect", "ref:no-such-commit", "here"), "do not differ in one part"),
    ],
)
def test_a_typo_is_said_before_the_machine_is_watched(
    argv: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, naming what is wrong."""
    monkeypatch.setattr(duel_run, "open_machine", lambda *_: pytest.fail("the machine was opened"))
    code, _, err = run(*argv)
    assert code == 2
    assert said in err
