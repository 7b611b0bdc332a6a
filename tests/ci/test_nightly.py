"""Main against the last release and last night's: which commits, which records, and the one issue."""

import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench.regression import REGRESSIONS, Regression
from gemma3n_perf.ci import cli, nightly
from gemma3n_perf.ci.post import AUTHOR, ISSUE, TITLE, post_issue, read_comment
from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.gate.change import Checkout
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.types import Chip
from tests.bench.regressions import record
from tests.gate.evidence_files import BIG, NANO, ONE, POLICY, SMALL, TWO, Scratch

WORKER = "perf/gemma3n_perf/duel/worker.py"
TEXT = f"{ISSUE}\nDecode is slower"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository with a release, a night after it, and today."""
    made = Scratch(tmp_path / "repo")
    made.write(WORKER, "import time\n")
    made.save("release")
    made.git("tag", "v1")
    made.write(WORKER, "import os\n")
    made.save("last night")
    made.write("docs/page.md", "today")
    made.save("today")
    return made


def test_main_meets_the_last_release_and_last_night(scratch: Scratch) -> None:
    """On the night of a release, the one before it."""
    git = Repository(scratch.root)
    found = nightly.bases(git, scratch.git("rev-parse", "HEAD^"))
    assert [(one.name, one.commit) for one in found] == [
        ("release", git.commit("v1")), ("last-night", git.commit("HEAD^")),
    ]  # fmt: skip
    scratch.git("tag", "v2")
    assert nightly.bases(git, None)[0].title == "the last release, v1"


@pytest.mark.parametrize("last", [None, "", "f" * 40])
def test_without_a_night_before_only_the_release_is_left(scratch: Scratch, last: str | None) -> None:
    """A commit that main no longer holds is none."""
    assert [one.name for one in nightly.bases(Repository(scratch.root), last)] == ["release"]


def measured(scratch: Scratch, out: Path, effects: Mapping[str, float]) -> str:
    """Measure on both classes what differs; returns last night's commit."""
    last, compared = scratch.git("rev-parse", "HEAD^"), []
    head = scratch.git("rev-parse", "HEAD")

    def compare(name: str, base: str) -> Regression:
        compared.append(base)
        workloads = (ONE, TWO) if name == BIG else (NANO,)
        return record(name, base, head, dict.fromkeys(workloads, effects[name]))

    for name in (BIG, SMALL):
        nightly.measure(name, last, scratch.checkout(), out, partial(compare, name))
    # Since last night only a page changed.
    assert set(compared) == {scratch.git("rev-parse", "v1")}
    return last


def test_a_loss_is_reported_with_its_class(scratch: Scratch, tmp_path: Path) -> None:
    """Against the release a loss, against last night the same program."""
    last = measured(scratch, tmp_path / "out", {BIG: 0.0, SMALL: -0.05})
    policy = read_policy(scratch.baselines / POLICY_FILE)
    text, lost = nightly.report(tmp_path / "out", [BIG, SMALL], last, policy, scratch.checkout())
    assert lost
    assert text.startswith(f"{ISSUE}\nDecode is slower, at ")
    assert "### Against the last release, v1: refused: loss" in text
    assert "### Against last night" in text
    assert "no regression: the same program" in text
    assert f"| {NANO} | -5." in text


def test_a_night_without_loss_says_so_and_what_is_missing(scratch: Scratch, tmp_path: Path) -> None:
    """A machine without a record is no loss."""
    last = measured(scratch, tmp_path / "out", {BIG: 0.0, SMALL: 0.05})
    (tmp_path / "out" / "nightly" / BIG / "release.json").unlink()
    (tmp_path / "out" / "nightly" / SMALL / "release.json").write_text("{")
    policy = read_policy(scratch.baselines / POLICY_FILE)
    text, lost = nightly.report(tmp_path / "out", [BIG, SMALL], last, policy, scratch.checkout())
    assert lost is None
    assert "No loss tonight, but not all is known" in text
    assert "its machine left no record tonight" in text
    assert "not JSON" in text


def test_a_loss_that_a_maintainer_accepted_opens_nothing(scratch: Scratch, tmp_path: Path) -> None:
    """It is shown."""
    last = measured(scratch, tmp_path / "out", {BIG: 0.0, SMALL: -0.05})
    change = scratch.git("rev-parse", "HEAD^")
    scratch.write(
        "baselines/accepted/sampler.toml",
        f'commit = "{change}"\nworkload = "{NANO}"\neffect = "-8 %"\nwhy = "a sampler that users asked for"\n',
    )
    policy = read_policy(scratch.baselines / POLICY_FILE)
    text, lost = nightly.report(tmp_path / "out", [BIG, SMALL], last, policy, scratch.checkout())
    assert lost is False
    assert "No loss tonight, at" in text
    assert "a sampler that users asked for" in text


def test_the_history_goes_on_from_night_to_night(tmp_path: Path) -> None:
    """What earlier nights measured is there again, what is committed stays, and all of it is sent."""
    data, baselines, out = tmp_path / "data", tmp_path / "baselines", tmp_path / "out"
    there = baselines / SMALL / "history" / "own"
    there.mkdir(parents=True)
    (there / "a.json").write_text("committed")
    nightly.keep_history(SMALL, baselines, out, data)
    (there / "a.json").write_text("committed anew")
    (data / "history" / SMALL / "own" / "b.json").write_text("last night")
    (data / "history" / SMALL / "own" / "a.json.xz").write_text("another form of what is committed")
    nightly.bring_history(SMALL, baselines, data)
    assert {path.name: path.read_text() for path in there.iterdir()} == {
        "a.json": "committed anew",
        "b.json": "last night",
    }
    nightly.keep_history(SMALL, baselines, out, data)
    assert (out / "baselines" / SMALL / "history" / "own" / "b.json").read_text() == "last night"


class Issues:
    """GitHub's issues, as its API serves them."""

    def __init__(self, *bodies: tuple[str, str]) -> None:
        self.all = [
            {"number": number, "body": body, "user": {"login": who}}
            for number, (who, body) in enumerate(bodies, start=1)
        ]
        self.sent: list[tuple[str, str, Any]] = []

    def ask(self, method: str, path: str, body: Mapping[str, str] | None) -> Any:
        """Answer a request."""
        if method == "GET":
            return self.all if path.endswith("page=1") else []
        self.sent.append((method, path, body))
        return {}


def test_a_loss_opens_one_issue_and_keeps_it_up_to_date() -> None:
    """Changed in place while it lasts, closed once it is over, and never anybody else's."""
    new = Issues(("somebody", TEXT))
    assert post_issue(TEXT, "us/suite", new.ask, lost=True) == "opened"
    assert new.sent == [("POST", "/repos/us/suite/issues", {"title": TITLE, "body": TEXT})]
    for lost, state, said in ((True, "open", "updated"), (None, "open", "updated"), (False, "closed", "closed")):
        known = Issues((AUTHOR, "another"), (AUTHOR, TEXT))
        assert post_issue(TEXT, "us/suite", known.ask, lost=lost) == said
        assert known.sent == [("PATCH", "/repos/us/suite/issues/2", {"body": TEXT, "state": state})]


def test_a_night_without_loss_opens_nothing() -> None:
    """Nobody wants an issue that says all is well."""
    issues = Issues()
    assert post_issue(TEXT, "us/suite", issues.ask, lost=False) == "nothing to say"
    assert post_issue(TEXT, "us/suite", issues.ask, lost=None) == "nothing to say"
    assert issues.sent == []
    with pytest.raises(UsageError):
        post_issue(TEXT, "us/suite/../x", issues.ask, lost=True)


def test_only_the_report_becomes_the_issue(tmp_path: Path) -> None:
    """A comment is none."""
    path = tmp_path / "issue.md"
    path.write_text(TEXT)
    assert read_comment(path, ISSUE) == TEXT
    path.write_text("<!-- gemma3n-perf gate -->")
    with pytest.raises(InvalidError):
        read_comment(path, ISSUE)


def test_records_are_those_of_a_pull_request(scratch: Scratch, tmp_path: Path) -> None:
    """One kind of record, which can be judged again."""
    measured(scratch, tmp_path / "out", {BIG: 0.0, SMALL: 0.0})
    path = tmp_path / "out" / "nightly" / SMALL / "release.json"
    assert REGRESSIONS.read(path).duel is not None
    assert json.loads(path.read_bytes())["chip_class"] == SMALL


def test_the_steps_of_the_night_hand_on_what_they_find(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report writes the issue and says whether anything lost; issue sends it."""
    last = measured(scratch, tmp_path / "out", {BIG: 0.0, SMALL: -0.05})
    monkeypatch.setattr(cli, "checkout", scratch.checkout)
    issue, outputs = tmp_path / "issue.md", tmp_path / "outputs"
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace(f'workloads = ["{NANO}"]', f'workloads = ["{NANO}"]\nrunner = ["cpu"]'))
    argv = ["report", "--last", last, "--records", str(tmp_path / "out"), "--policy", str(policy)]
    out, err = io.StringIO(), io.StringIO()
    assert cli.main([*argv, "--issue", str(issue), "--outputs", str(outputs)], out, err) == 0, err.getvalue()
    assert outputs.read_text() == "lost=true\n"
    assert issue.read_text() == out.getvalue()
    api = Issues()
    monkeypatch.setattr(cli, "ask_github", lambda url, token, *request: api.ask(*request))
    assert cli.main(["issue", str(issue), "--repo", "us/suite", "--lost", "true"], io.StringIO(), err) == 0
    assert api.sent[0][2]["title"] == TITLE


def test_the_night_compares_on_this_machine_what_differs(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release, whose worker is another; not last night's, whose program is the same."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(cli, "checkout", scratch.checkout)
    monkeypatch.setattr("gemma3n_perf.hardware.chip.detect", lambda: Chip(SMALL, "fake", "Fake"))
    head = scratch.git("rev-parse", "HEAD")

    def compare(base: str, here: Checkout) -> Regression:
        assert here.repository.root == scratch.root
        return record(SMALL, base, head, {NANO: 0.0})

    monkeypatch.setattr("gemma3n_perf.ci.measure.base_against_head", compare)
    out = io.StringIO()
    argv = ["night", "--last", scratch.git("rev-parse", "HEAD^"), "--out", str(tmp_path / "out")]
    assert cli.main(argv, out, io.StringIO()) == 0
    assert out.getvalue().split() == [str(tmp_path / "out" / "nightly" / SMALL / "release.json")]
