"""Every block of the pages is what it says: commands are run, settings read, Python executed, output marked as such."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import gemma3n_perf
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.store.accepted import read_accepted

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(ROOT.glob("docs/*.md"))
LANGUAGES = {"sh", "text", "toml", "python", "ini", "yaml"}
MOST_NOT_RUN = 5
REASON = r"^(?:<!-- not run here: (?P<reason>[^\n]+) -->\n)?"
BLOCK = re.compile(REASON + r" *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S)
ENDINGS = (
    # What measures says what it would measure; what writes writes elsewhere; pytest says what it would run.
    (r"gemma3n-perf history commits", "--explain --from HEAD"),
    (r"gemma3n-perf (duel|bisect|calibrate|validate|profile|history upstream)\b", "--explain"),
    (r"gemma3n-perf fusion new", "--into {scratch}"),
    (r"gemma3n-perf fusion page", "--docs {scratch}/docs"),
    (r"gemma3n-perf (history findings|baseline page)", "--docs {scratch}/docs"),
    (r"gemma3n-perf forge", "--into {scratch}"),
    (r"pytest |python -m pytest ", "--collect-only -q -p no:cacheprovider"),
    (r"python -m studies", "--help"),
)
DRY = re.compile(r"make (setup|test|lint|rehearse|site|lock)\b")
"""Targets that take minutes or change the environment: make itself says what it would run."""
CODES = {"gemma3n-perf gate": {0, 1, 3, 4, 5}, "gemma3n-perf doctor": {0, 4}}
"""Answers that depend on the tree and the machine; usage errors and faults are none of them."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its command lines, joined where they go on, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [found for line in lines if (found := re.sub(r"\s+#.*|^#.*", "", line).strip())]


def blocks(pages: list[Path] = PAGES) -> Iterator[Block]:
    """Yield all blocks of pages."""
    for page in pages:
        text = page.read_text()
        for one in BLOCK.finditer(text):
            yield Block(page, text[: one.start()].count("\n") + 1, one["language"], one["text"], one["reason"])


ALL = list(blocks())
RUN = [one for one in ALL if one.language == "sh" and one.reason is None]


def test_every_block_is_accounted_for() -> None:
    """Each has a language, none escapes the pattern above, and few are not run."""
    assert [str(one) for one in ALL if one.language not in LANGUAGES] == []
    fences = sum(len(re.findall(r"^ *```", page.read_text(), re.M)) for page in PAGES)
    assert fences == 2 * len(ALL)
    assert len([one for one in ALL if one.reason is not None]) <= MOST_NOT_RUN
    commands = re.compile(r"^(\$ |make |pytest |gemma3n-perf |asv |sudo |git |pip )", re.M)
    assert [str(one) for one in ALL if one.language != "sh" and commands.search(one.text)] == []
    assert len(RUN) >= 8


def prepared(command: str, scratch: Path) -> str:
    """Return a command as it is run here: short, and writing nothing into the checkout."""
    if DRY.search(command):
        return command.replace("make ", "make --dry-run ", 1)
    if command.startswith("make perf"):
        given = re.search(r'ARGS="([^"]*)"', command)
        return f'make --old-file=setup perf ARGS="{given[1] if given else ""} --collect-only -q -p no:cacheprovider"'
    for pattern, ending in ENDINGS:
        if re.search(pattern, command):
            command = command.replace("report.xml", str(scratch / "report.xml")).replace(" --explain", "")
            return f"{command} {ending.format(scratch=shlex.quote(str(scratch)))}"
    return command


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_command_block_runs(block: Block, tmp_path: Path) -> None:
    """Each line of it, as a user would type it in a checkout after make setup."""
    for name in ("docs", "perf/gemma3n_perf/fusions", "tests/fusions"):
        (tmp_path / name).mkdir(parents=True)
    installed = str(Path(sys.executable).parent)
    environ = dict(os.environ) | {"PATH": os.pathsep.join([installed, os.environ["PATH"]]), "COLUMNS": "100"}
    environ |= {"XDG_DATA_HOME": str(tmp_path / "data")}
    before = {path.name for path in ROOT.iterdir()}
    for command in block.commands:
        argv = prepared(command, tmp_path).replace(".venv/bin/", f"{installed}/")
        # Without its plugin: other projects' files name the benches of an installed package.
        argv = argv.replace("-p gemma3n_perf.pytest_plugin.plugin --pyargs gemma3n_perf.pytest_plugin", "perf/")
        done = subprocess.run(argv, shell=True, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
        right = next((codes for start, codes in CODES.items() if start in command), {0})
        assert done.returncode in right, f"{argv}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
    assert {path.name for path in ROOT.iterdir()} == before


@pytest.mark.parametrize("block", [one for one in ALL if one.language == "toml"], ids=str)
def test_a_block_of_settings_is_read_by_what_reads_them(block: Block, tmp_path: Path) -> None:
    """A policy by the gate's reader, with a required class where it names none; an accepted loss by its own."""
    tree = tomllib.loads(block.text)
    if "effect" in tree:
        path = tmp_path / "accepted" / "some.toml"
        path.parent.mkdir()
        path.write_text(block.text)
        assert len(read_accepted(tmp_path)) == 1
        return
    names = dict.fromkeys([*tree.get("classes", {}), *tree.get("regression", {}).get("required", ())])
    text = block.text
    for name in names:
        if name not in tree.get("classes", {}):
            text += f'\n[classes.{name}]\nworkloads = ["nano/text/pp40-tg64"]\n'
    if "gate" not in tree:
        text += f'\n[gate]\nrequired = ["{next(iter(names))}"]\n'
    (tmp_path / "policy.toml").write_text(text)
    assert set(names) <= set(read_policy(tmp_path / "policy.toml").classes)


@pytest.mark.parametrize("block", [one for one in ALL if one.language == "python"], ids=str)
def test_a_block_of_python_is_executed(block: Block, nano_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nano in place of the checkpoint that a reader has."""
    import mlx_vlm

    monkeypatch.setattr(mlx_vlm, "load", lambda path: (share(nano_model), None))
    monkeypatch.setattr("warnings.warn", lambda *args, **kwargs: None)
    exec(compile(block.text, str(block), "exec"), {"gemma3n_perf": gemma3n_perf})


def test_workflows_on_pages_parse() -> None:
    """Each has a trigger and jobs."""
    found = [yaml.safe_load(one.text) for one in ALL if one.language == "yaml"]
    assert all({"jobs"} < tree.keys() for tree in found)


def test_readme_says_first_what_it_is() -> None:
    """In its first 40 lines: a table of verdicts, and what has not been run on a Mac."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert re.search(r"tok/s.*\n.*TPOT.*verdict\n.*─", first)
    assert "Not run on a Mac" in first
    assert first.count(" loss") >= 3
