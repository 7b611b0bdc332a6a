import io
import json

import pytest

from gemma3n_perf.gate.change import NOTHING
from gemma3n_perf.gate.facts import Cell, Checked, Decision, Dispatch, EvidenceFacts, Objection, Parity, Ruling
from gemma3n_perf.gate.report import MAX_STEPS, as_json, closing, markdown, write
from gemma3n_perf.stats.verdicts import Verdict

A, B = "a1", "b2"
LONG = "e2b-4bit/text/pp320-tg64"
LOSES = Objection(Verdict.LOSS, "g on a1: it loses", "")
UNSEEN = Objection(Verdict.NOT_MEASURED, "g on a1: there is no evidence", "measure g", A)
WRONG = Objection(Verdict.INVALID, "g on b2: wrong", "mend g", B)
SILENT = Objection(Verdict.NOT_MEASURED, "its machine was silent", "start it", A)
ASIDE = Objection(Verdict.NOT_MEASURED, "no machine took it", "see the plan")


class Terminal(io.StringIO):
    """Knows colours."""

    def isatty(self) -> bool:
        """As a terminal says."""
        return True


def ruling(*reasons: Objection) -> Ruling:
    """``f`` wins on one class, with a workload that was not measured, and is off on another; ``g`` is refused."""
    cells = (
        Cell("f", A, "nano/x", Verdict.WIN, "", effect=0.02, low=0.01, high=0.03, sessions=(0.019, 0.021)),
        Cell("f", A, "nano/y", Verdict.NOT_MEASURED, "", required=False),
        Cell("f", B, "nano/x", None, ""),
        Cell("f", B, "nano/y", None, ""),
        Cell("g", A, LONG, Verdict.NOT_MEASURED, ""),
        Cell("g", A, "nano/y", Verdict.INVALID, ""),
    )
    return Ruling((Decision("f", True), Decision("g", False, reasons or (LOSES,))), cells, 0.001)


@pytest.mark.parametrize(
    ("admitted", "missing", "said"),
    [
        ({"f": True, "h": True}, (), "admitted: f, h"),
        ({"f": True, "g": False}, (), "refused: loss (g); admitted: f"),
        ({"g": False}, (), "refused: loss (g)"),
        ({"f": True}, (SILENT,), "refused: not-measured"),
        ({}, (), NOTHING),
    ],
)
def test_one_line_says_how_it_ended(admitted: dict[str, bool], missing: tuple[Objection, ...], said: str) -> None:
    """Who was refused and why, and who entered; evidence that never came refuses without a name."""
    decisions = [Decision(name, enters, () if enters else (LOSES,)) for name, enters in admitted.items()]
    assert closing(Ruling(tuple(decisions)), missing) == said


def test_a_reason_that_several_share_is_said_once() -> None:
    """With what to do for all of them; where nothing can be done, nothing is said of it."""
    names = ("g", "h")
    silent = [Objection(Verdict.NOT_MEASURED, f"{one} on a1: no evidence", f"pytest --fusion {one}") for one in names]
    out = io.StringIO()
    write(Ruling(tuple(Decision(name, False, (one, LOSES)) for name, one in zip(names, silent, strict=True))), (), out)
    assert out.getvalue().splitlines()[1:5] == [
        "  not-measured: g, h on a1: no evidence",
        "    next: pytest --fusion g --fusion h",
        "  loss: g on a1: it loses",
        "  loss: g on a1: it loses",
    ]


@pytest.mark.parametrize(
    ("found", "result"),
    [(ruling(), "refused"), (Ruling((Decision("f", True),)), "admitted"), (Ruling(), "nothing-to-gate")],
)
def test_programs_are_told_how_it_ended(found: Ruling, result: str) -> None:
    """In one word, beside the exit code."""
    tree = json.loads(as_json(found))
    assert (tree["result"], tree["exit_code"]) == (result, found.exit_code)


def test_tables_of_all_fusions_share_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for a class of which all is said with it, else one below it for each workload; effects to the right."""
    monkeypatch.setenv("COLUMNS", "118")
    out = io.StringIO()
    write(ruling(), (), out)
    text = out.getvalue()
    title, header, _, *lines = text[text.index("f: admitted") : text.index("intervals shown")].splitlines()
    assert title == "f: admitted"
    assert header.split("  ")[0] == " chip class and workload"
    assert [line.split() for line in lines] == [
        [A],
        ["nano/x", "+2.00", "%", "[+1.00,", "+3.00]", "+1.9,", "+2.1", "%", "win"],
        ["nano/y", "(extra)", "-", "-", "not-measured"],
        [B, "-", "-", "off,", "proved"],
        ["g:", "refused"],
        [A],
        [LONG, "-", "-", "not-measured"],
        ["nano/y", "-", "-", "invalid"],
    ]
    (first, second) = (line.index("not-measured") for line in lines if "not-measured" in line)
    assert first == second
    (win,) = (line for line in lines if line.endswith("win"))
    (off,) = (line for line in lines if line.endswith("off, proved"))
    assert off.index("-") == win.index("3.00]") + len("3.00]") - 1
    assert off.startswith(f" {B}")


def test_a_narrow_terminal_folds_the_first_column_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Effects and verdicts stay whole and below each other, and each session's are left out."""
    monkeypatch.setenv("COLUMNS", "56")
    out = io.StringIO()
    write(ruling(), (), out)
    text = out.getvalue()
    table = text[text.index("f: admitted") : text.index("intervals shown")]
    assert "chip class" in table
    assert [table.count(word) for word in ("not-measured", "off, proved", "invalid")] == [2, 1, 1]
    assert "+2.1 %" not in table
    assert "+2.00 % [+1.00, +3.00]" in table
    assert max(map(len, table.splitlines())) <= 56
    verdicts = [line.index(word) for line in table.splitlines() for word in ("not-measured", "win") if word in line]
    assert len(set(verdicts)) == 1


def test_a_terminal_has_verdicts_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each its own, and none of them is told by that alone."""
    monkeypatch.setenv("COLUMNS", "118")
    out = Terminal()
    write(ruling(), (), out)
    for colour, word in (("1;32", "win"), ("1;31", "invalid"), ("33", "not-measured"), ("32", "off, proved")):
        assert f"\x1b[{colour}m{word}" in out.getvalue()


@pytest.mark.parametrize(
    ("parity", "said"),
    [
        (None, "unknown"),
        (Parity(True, True), "ok"),
        (Parity(False, True), "**wrong**"),
        (Parity(True, False), "**wrong**"),
    ],
)
def test_a_class_tells_whether_outputs_are_right(parity: Parity | None, said: str) -> None:
    """Beside its name, once."""
    one = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), parity)
    first, *_ = markdown(ruling(), facts=[EvidenceFacts("f.json", "f", A, versions=("1", "1"), checked=(one,))])
    assert first.startswith("**f: admitted**")
    assert first.count(f"| **{A}** parity {said}, dispatch ok | | |") == 1


def test_what_never_came_is_asked_for_once() -> None:
    """Not also by the fusion that has no evidence for it; what else was found stays."""
    steps = markdown(ruling(UNSEEN, WRONG), missing=(SILENT, ASIDE))[2].splitlines()
    assert [line.partition(". Next: ")[2] for line in steps[2:]] == ["start it", "see the plan", "mend g"]
    assert steps[2].startswith(f"- {A}: not-measured: ")


def test_what_the_table_says_is_counted_and_not_said_again() -> None:
    """A phone has little room."""
    again = Objection(Verdict.LOSS, "g on b2: it loses", "")
    steps = markdown(ruling(LOSES, again))[2].splitlines()
    assert steps[2:] == ["- loss, 2 in the table. Next: keep it off where it loses, or make it faster"]


def test_a_phone_is_spared_most_notes() -> None:
    """The first few are there, in their order."""
    notes = [one for one in markdown(ruling(), [f"n{i}" for i in range(MAX_STEPS + 2)]) if one.startswith("Note: ")]
    assert notes == [f"Note: n{i}" for i in range(MAX_STEPS)]
