from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.ci.comment import rendered, unmeasured, unplanned
from gemma3n_perf.ci.plan import Plan, Pull, State
from gemma3n_perf.ci.post import AUTHOR, MARKER, ask_github, post, read_comment
from gemma3n_perf.errors import InvalidError, NotMeasuredError, UsageError
from gemma3n_perf.gate.admission import AdmissionResult
from gemma3n_perf.gate.facts import Cell, Checked, Decision, Dispatch, EvidenceFacts, Objection, Parity, Ruling
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.stats.verdicts import Verdict
from tests.rehearsal.github import Comments

PULL = Pull(7, "a" * 40, "b" * 40, "us/suite", "us/suite", "colleague")
PLAN = Plan(State.MEASURE, PULL, "stacked_altup.py changed")
MAC, GPU = "apple-m1-ultra-64gpu", "nvidia-h200"
WORKLOAD = "e4b-4bit/text/pp320-tg64"
HOSTILE = "<img src=x> @maintainer [here](https://evil.example) `c` | **b** www.evil.example <!-- x --> #1 _it_\n# big"


def cell(chip_class: str, verdict: Verdict | None, effect: float | None = None, workload: str = WORKLOAD) -> Cell:
    """Return a line of the gate's table."""
    low, high = (None, None) if effect is None else (effect - 0.005, effect + 0.005)
    return Cell("stacked-altup", chip_class, workload, verdict, "", effect=effect, low=low, high=high)


def result(
    *cells: Cell, reasons: Sequence[Objection] = (), notes: tuple[str, ...] = (), facts: Sequence[EvidenceFacts] = ()
) -> AdmissionResult:
    """Return what the gate hands on."""
    ruling = Ruling((Decision("stacked-altup", not reasons, tuple(reasons)),), cells)
    return AdmissionResult(ruling, ("stacked-altup",), notes, ruling, tuple(facts))


def evidence(chip_class: str, *checked: Checked, off: bool = False) -> EvidenceFacts:
    """Return what was read of a record of one class."""
    return EvidenceFacts("x.json", "stacked-altup", chip_class, off=off, versions=("1", "1"), checked=checked)


def test_an_admission_says_so_first_then_shows_every_class() -> None:
    """Verdict, table with effect and interval, parity and dispatch, links: all a phone shows."""
    right = Checked("e4b-4bit", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(True, True))
    read = [evidence(MAC, right), evidence(GPU, Checked("e4b-4bit", Dispatch((9, 9))), off=True)]
    text = rendered(
        result(cell(MAC, Verdict.WIN, 0.0214), cell(GPU, None), facts=read),
        PLAN,
        links={"run": "https://github.com/us/suite/actions/runs/1"},
    )
    assert text.splitlines() == [
        MARKER,
        "### admitted: stacked-altup",
        "",
        "**stacked-altup: admitted**",
        "",
        "| workload | effect [95 %] | verdict |",
        "| :--- | ---: | :--- |",
        f"| **{MAC}** parity ok, dispatch ok | | |",
        f"| {WORKLOAD} | +2.14 % [+1.64, +2.64] | **win** |",
        f"| **{GPU}** parity unknown, dispatch ok | | |",
        f"| {WORKLOAD} | - | off, proved |",
        "",
        f"commit {'a' * 12} · [run](https://github.com/us/suite/actions/runs/1)",
    ]


def test_a_loss_is_refused_with_what_to_do() -> None:
    """The table says where; the step says what."""
    reason = Objection(Verdict.LOSS, f"on {MAC}: the whole interval is below", "", MAC)
    text = rendered(result(cell(MAC, Verdict.LOSS, -0.03), reasons=[reason]), PLAN)
    assert "### refused: loss (stacked-altup)" in text
    assert "- loss, 1 in the table. Next: keep it off where it loses, or make it faster" in text


def test_a_missing_class_is_told_once_with_its_cause() -> None:
    """The job knows why; that the gate found no evidence is then no news."""
    reasons = [
        Objection(Verdict.NOT_MEASURED, f"x on {GPU}: there is no evidence of this class", "measure", GPU),
        Objection(Verdict.NOT_MEASURED, f"x on {MAC}: stale", "measure again", MAC),
    ]
    missing = [Objection(Verdict.NOT_MEASURED, "its job was cancelled", "run it again", GPU)]
    text = rendered(result(cell(GPU, Verdict.NOT_MEASURED), reasons=reasons), PLAN, missing)
    assert f"- {GPU}: not-measured: its job was cancelled. Next: run it again" in text
    assert "there is no evidence" not in text
    assert "stale" in text


def test_an_untrusted_artifact_refuses_even_what_the_gate_admits() -> None:
    """The headline is of both."""
    missing = [Objection(Verdict.INVALID, "two artifacts", "look")]
    text = rendered(result(cell(MAC, Verdict.WIN, 0.02)), PLAN, missing)
    assert "### refused: invalid" in text


def test_what_an_author_wrote_does_nothing() -> None:
    """No tag, mention, link, picture, table cell or heading comes of it, wherever it stands."""
    reason = Objection(Verdict.INVALID, HOSTILE, HOSTILE, HOSTILE)
    bad = cell(HOSTILE, Verdict.INVALID, workload=HOSTILE)
    missing = [Objection(Verdict.INVALID, HOSTILE, HOSTILE)]
    plan = Plan(State.MEASURE, PULL, HOSTILE, HOSTILE, harness=(HOSTILE,))
    for text in (
        rendered(result(bad, reasons=[reason], notes=(HOSTILE,)), plan, missing),
        unmeasured(Plan(State.REFUSED, PULL, HOSTILE, HOSTILE), {}).text,
        unplanned(UsageError(HOSTILE), 2).text,
    ):
        body = text.removeprefix(MARKER)
        assert not set("<>@`") & set(body)
        assert "](" not in body
        assert "://" not in body
        assert "www." not in body
        assert "\n# " not in body
        assert "#1" not in body.replace("&#1", "")


def test_ordinary_words_stay_readable() -> None:
    """Names, percentages and a command to copy are as they were."""
    text = "gh workflow run gate.yml -f pull_request=7: e4b-4bit/text/pp320-tg64, +2.00 % (two sessions)"
    assert plain(text) == text


def test_a_comment_stays_short_whatever_it_has_to_tell() -> None:
    """A hundred workloads and reasons are a phone's screen or three, not a book."""
    reasons = [Objection(Verdict.INVALID, f"reason {n} " + "x" * 5000, "y" * 5000, MAC) for n in range(100)]
    text = rendered(result(*(cell(MAC, Verdict.INVALID) for _ in range(100)), reasons=reasons), PLAN)
    assert len(text) < 12_000
    assert "and 92 more, in the run" in text


def test_an_edited_harness_is_pointed_out() -> None:
    """Who reads the verdict must know that the ruler was edited too."""
    plan = Plan(State.MEASURE, PULL, "x", harness=("perf/gemma3n_perf/stats/bounds.py", "Makefile", "a", "b"))
    text = rendered(result(cell(MAC, Verdict.WIN, 0.02)), plan)
    assert "also edits what measures or judges (perf/gemma3n_perf/stats/bounds.py, Makefile, a and 1 more)" in text


def test_the_comment_is_written_once_and_then_changed_in_place(tmp_path: Path) -> None:
    """Over a real connection, to a server that answers as GitHub does."""
    comments = Comments()
    path = tmp_path / "comment.md"
    with comments.served() as url:
        for number, expected in ((1, "created"), (2, "updated"), (3, "updated")):
            path.write_text(f"{MARKER}\nanswer {number}\n")
            assert post(read_comment(path), "us/suite", 7, partial(ask_github, url, "none")) == expected
    assert comments.bodies == {1: f"{MARKER}\nanswer 3\n"}


def test_a_strangers_comment_with_our_marker_is_left_alone() -> None:
    """On the second page as well as on the first."""
    stranger = {"id": 1, "body": MARKER, "user": {"login": "stranger"}}
    pages = [[stranger] * 100, [stranger, {"id": 205, "body": f"{MARKER}\nold", "user": {"login": AUTHOR}}]]
    requests: list[tuple[str, str]] = []

    def ask(method: str, path: str, body: Any) -> Any:
        requests.append((method, path))
        return pages[int(path[-1]) - 1] if method == "GET" else {}

    assert post(f"{MARKER}\nnew", "us/suite", 7, ask) == "updated"
    assert requests[-1] == ("PATCH", "/repos/us/suite/issues/comments/205")


@pytest.mark.parametrize("data", [b"", b"hello", MARKER.encode() + b"\xff", MARKER.encode() + b"x" * 70_000])
def test_what_is_no_comment_of_ours_is_not_posted(tmp_path: Path, data: bytes) -> None:
    """The artifact could be anything."""
    (tmp_path / "comment.md").write_bytes(data)
    with pytest.raises(InvalidError):
        read_comment(tmp_path / "comment.md")


def test_a_repository_that_is_no_name_is_refused() -> None:
    """It becomes part of a path."""
    with pytest.raises(UsageError):
        post(MARKER, "us/suite/../../user", 7, lambda method, path, body: [])


def test_github_that_does_not_answer_is_told_without_the_token(tmp_path: Path) -> None:
    """The verdict stands in the summary all the same."""
    with pytest.raises(NotMeasuredError) as refused:
        ask_github("http://127.0.0.1:9", "secret-token", "GET", "/repos/us/suite/issues/7/comments", None)
    assert "secret-token" not in str(refused.value)
    assert "summary" in str(refused.value)
