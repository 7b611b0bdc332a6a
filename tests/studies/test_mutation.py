import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import MalformedRecordError, NotMeasuredError, UsageError
from studies import mutation
from studies.mutation import Copy
from studies.mutation_record import (
    EQUIVALENTS,
    GROUPS,
    KILLED,
    MUTATION,
    PACKAGE,
    SURVIVED,
    TIMEOUT,
    Mutant,
    Mutation,
    equivalents,
    rows,
    score,
)
from studies.mutation_sites import Site, drawn, of_text, sites

ROOT = Path(__file__).parents[2]
TEXT = '''
"""Text stays: 1 + 1."""

@cached
def f(a: int | None, b: float = 0.5) -> int | None:
    """Nor this: a < b."""
    if a < b and not b:
        return -1
    for x in [é for é in a if é]:
        try:
            break
        except ValueError:
            return x is None
    return True
'''
MADE = {
    ("f", "@cached", ""),
    ("f", "0.5", "(1.5)"),
    ("f", "0.5", "(-0.5)"),
    ("f", "a < b", "(a <= b)"),
    ("f", "a < b", "(a > b)"),
    ("f", "a < b and not b", "(a < b or not b)"),
    ("f", "a < b and not b", "(not (a < b and (not b)))"),
    ("f", "not b", "(b)"),
    ("f", "-1", "(1)"),
    ("f", "1", "(2)"),
    ("f", "1", "(0)"),
    ("f", "a", "()"),
    ("f", "é", "(not (é))"),
    ("f", "[é for é in a if é]", "()"),
    ("f", "break", "continue"),
    ("f", "ValueError", "type('MutatedError', (Exception,), {})"),
    ("f", "x is None", "(x is not None)"),
    ("f", "True", "(False)"),
}


def mutant(outcome: str, number: int = 1, group: str = "stats") -> Mutant:
    """Return a mutant that was tried."""
    return Mutant(f"{PACKAGE}/{group}/x.py", number, "f", "a < b", "(a <= b)", outcome, 1.0, "", None, nth=number)


def test_every_small_change_of_meaning_is_made_and_each_can_be_read() -> None:
    """By the places of the text in characters; texts and annotations stay."""
    found = list(of_text(TEXT, "x.py"))
    assert {(one.within, one.before, one.after) for one in found} == MADE
    assert len(found) == len(MADE)
    for one in found:
        assert TEXT[one.start : one.end] == one.before
        compile(one.apply(TEXT), "x.py", "exec")


def test_the_judge_and_the_gate_have_more_than_a_sample() -> None:
    """And each mutant has a name of its own, by which it is found again."""
    every = sites(ROOT, [f"{PACKAGE}/{group}" for group in GROUPS])
    assert len(every) > 2000
    assert len({one.key for one in every}) == len(every)
    assert all(one.before != one.after for one in every)


def test_a_sample_is_the_seeds_and_outlasts_changes_elsewhere() -> None:
    """More of it begin with less of it."""
    every = list(of_text(TEXT, "x.py"))
    first = [one.key for one in drawn(every, 1)]
    assert first != [one.key for one in drawn(every, 2)]
    assert [one.key for one in drawn([replace(one, line=one.line + 9) for one in every[2:]], 1)] == [
        key for key in first if key not in {one.key for one in every[:2]}
    ]


def test_the_score_leaves_out_what_is_argued_and_says_how_much_that_is() -> None:
    """At most a tenth may be; a mutant that hangs is noticed."""
    tried = [mutant(KILLED, n) for n in range(1, 19)] + [mutant(TIMEOUT, 19), mutant(SURVIVED, 20)]
    found = score(tried, {})
    assert (found.tried, found.killed, found.survivors, found.good) == (20, 19, (tried[-1],), True)
    argued = score(tried, {tried[-1].key: "it rounds the same"})
    assert (argued.share, argued.equivalent, argued.survivors) == (1.0, (tried[-1],), ())
    many = [*tried, *(mutant(SURVIVED, n) for n in (21, 22))]
    assert not score(many, {}).good
    assert not score(many, {one.key: "why" for one in many[-3:]}).good
    assert "| stats | 22 | 19 | 3 | 0 | 86.4 % |" in rows(many, {})
    assert "| gate | 0 | 0 | 0 | 0 | - |" in rows(many, {})


def test_arguments_are_read_one_by_one(tmp_path: Path) -> None:
    """Each names one mutant; a file that names none is refused."""
    path = tmp_path / "equivalent-mutants.toml"
    assert equivalents(path) == {}
    path.write_text('[[mutant]]\nfile = "stats/x.py"\nwithin = "f"\nbefore = "a < b"\nafter = "(a <= b)"\nwhy = "so"\n')
    assert equivalents(path) == {mutant(SURVIVED).key: "so"}
    path.write_text('[[mutant]]\nfile = "stats/x.py"\n')
    with pytest.raises(MalformedRecordError, match="within"):
        equivalents(path)


def test_the_committed_arguments_name_mutants_that_there_are() -> None:
    """Else they argue of what is gone."""
    every = {one.key for one in sites(ROOT, [f"{PACKAGE}/{group}" for group in GROUPS])}
    argued = equivalents(ROOT / "docs" / "reliability" / EQUIVALENTS)
    assert [key for key in argued if key not in every] == []
    assert all(len(why) > 20 for why in argued.values())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a small checkout: one module, whose test sees a part of it, as that of another does, which is first."""
    root = tmp_path_factory.mktemp("mutation") / "checkout"
    package, tests = root / PACKAGE / "stats", root / "tests" / "stats"
    for folder in (package, tests):
        folder.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "x.py").write_text("def f(a: int) -> int:\n    if a > 3:\n        return 1\n    return 2\n")
    seen = "from gemma3n_perf.stats.x import f\n\n\ndef test_f() -> None:\n    assert (f(3), f(9)) == (2, 1)\n"
    for name in ("a", "x"):
        (tests / f"test_{name}.py").write_text(seen)
    return Copy(root)


FILES = ("tests/stats/test_a.py", "tests/stats/test_x.py")


def change(copy: Copy, before: str, after: str) -> Site:
    """Return a mutant of the module."""
    path = copy.root / PACKAGE / "stats" / "x.py"
    start = path.read_text().index(before)
    return Site(f"{PACKAGE}/stats/x.py", 2, "f", start, start + len(before), before, after)


@pytest.mark.parametrize(
    ("before", "after", "outcome", "by"),
    [
        ("a > 3", "(a >= 3)", KILLED, "tests/stats/test_x.py::test_f"),
        ("def f", "def g", KILLED, "tests/stats/test_x.py"),
        ("3", "(4)", SURVIVED, ""),
        ("return 2", "while True: pass", TIMEOUT, ""),
    ],
)
def test_real_tests_notice_a_mutant_or_do_not(copy: Copy, before: str, after: str, outcome: str, by: str) -> None:
    """In a process of their own, those of the module first; the text is what it was afterwards."""
    path = copy.root / PACKAGE / "stats" / "x.py"
    text = path.read_text()
    assert copy.attempt(change(copy, before, after), FILES, 6.0)[:2] == (outcome, by)
    assert path.read_text() == text


def test_copies_are_of_one_commit_and_what_the_time_ends_is_not_kept(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant that was being tried is neither killed nor a survivor; twins are tried at a time."""
    monkeypatch.setattr(mutation, "_COPIED", ("perf", "tests"))
    todo = [change(copy, "3", "(4)"), change(copy, "return 2", "while True: pass"), change(copy, "a > 3", "(a < 3)")]
    found = list(mutation.attempts(copy.root, todo, 2, tmp_path, "a" * 40, 8.0))
    assert {(one.before, one.outcome, one.commit) for one in found} == {
        ("3", SURVIVED, "a" * 40),
        ("a > 3", KILLED, "a" * 40),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_where_no_test_runs_nothing_is_measured(copy: Copy, tmp_path: Path) -> None:
    """Nor where they fail as they are."""
    with pytest.raises(NotMeasuredError, match="fail as they are"):
        mutation.usual(copy, "gate")
    (copy.root / "tests" / "gate").mkdir()
    (copy.root / PACKAGE / "gate").mkdir()
    (copy.root / PACKAGE / "gate" / "y.py").write_text("1")
    with pytest.raises(NotMeasuredError, match="no test ran"):
        copy.attempt(Site(f"{PACKAGE}/gate/y.py", 1, "", 0, 1, "1", "2"), ["tests/gate"], 60.0)


def test_what_the_record_holds_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Survivors are, where that is requested, before what is missing; and the record follows the sample."""
    given: list[list[Site]] = []

    def attempts(checkout: Path, todo: list[Site], *_: object) -> list[Mutant]:
        given.append(todo)
        outcome = SURVIVED if len(given) == 1 else KILLED
        return [
            Mutant(one.file, one.line, one.within, one.before, one.after, outcome, 1.0, "", None, nth=one.nth)
            for one in todo
        ]

    monkeypatch.setattr(mutation, "attempts", attempts)
    path, out = tmp_path / "mutation.json", io.StringIO()
    gate = [str(path), "--mutants", "9", "--group", "gate"]
    assert [mutation.main(gate, out), mutation.main(gate, out)] == [1, 1]
    assert len(given) == 1
    assert "survived: " in out.getvalue()
    assert mutation.main([*gate[:3], "--again"], io.StringIO()) == 0
    assert given[1][: len(given[0])] == given[0]
    assert len(given[1]) == 9 > len(given[0])
    assert mutation.main([str(path), "--mutants", "11"], io.StringIO()) == 0
    assert [len(todo) for todo in given[2:]] == [2]
    record = MUTATION.read(path)
    assert [one.outcome for one in record.mutants] == [KILLED] * 11
    assert sum(record.population.values()) > 2000
    with pytest.raises(UsageError, match="of seed 1"):
        mutation.main([str(path), "--seed", "2"], io.StringIO())
    with pytest.raises(UsageError, match="--mutants 0"):
        mutation.main([str(path), "--mutants", "0"], io.StringIO())


def test_a_record_can_be_read_back(tmp_path: Path) -> None:
    """With every text that a mutant may hold."""
    record = Mutation(1, 1, {"stats": 2, "gate": 1}, (mutant(KILLED), mutant(SURVIVED, 2)))
    MUTATION.write(tmp_path / "x.json", record)
    assert MUTATION.read(tmp_path / "x.json") == record
    assert os.listdir(tmp_path) == ["x.json"]
