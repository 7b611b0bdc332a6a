import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import gate
from gemma3n_perf.gate.change import FUSIONS
from gemma3n_perf.gate.facts import Dispatch, Parity
from gemma3n_perf.gate.record import Evidence, path_of, read
from gemma3n_perf.stats.verdicts import Caution, invalid
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import (
    ALTUP,
    BIG,
    GEGLU,
    NANO,
    ONE,
    SMALL,
    TWO,
    Scratch,
    edited,
    launches,
    reworked,
    workload,
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        """The line that says how it ended."""
        return self.out.partition("\n")[0]

    @property
    def text(self) -> str:
        """All of it, with runs of blanks as one."""
        return " ".join((self.out + self.err).split())


Gate = Callable[..., Outcome]


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository of two fusions."""
    return Scratch(tmp_path / "repo")


@pytest.fixture
def run(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Return a function that types ``gemma3n-perf gate`` in the repository."""
    monkeypatch.setattr(program, "COMMANDS", ("gate",))  # the others bring MLX along, and take a second to load
    monkeypatch.setattr(gate, "checkout", lambda baselines: scratch.checkout())

    def typed(*argv: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        return Outcome(program.run(["gate", *map(str, argv)], out, err), out.getvalue(), err.getvalue())

    return typed


def change(**fields: Any) -> Callable[[Evidence], Evidence]:
    """Return a function that changes fields of a record."""
    return lambda record: replace(record, **fields)


def stacks(arm: str, **fields: Any) -> Callable[[Evidence], Evidence]:
    """Return a function that changes one arm's stack."""
    return lambda record: replace(record, stacks=dict(record.stacks) | {arm: replace(record.stacks[arm], **fields)})


def elsewhere(record: Evidence) -> Evidence:
    """Return the record as measured at a commit of another history."""
    far = {arm: replace(stack, commit="1" * 40) for arm, stack in record.stacks.items()}
    return replace(record, commit="1" * 40, stacks=far)


def busy(record: Evidence) -> Evidence:
    """Return the record as measured with ``--allow-busy``."""
    said = Caution("busy", "measured on a busy machine: load 7.0", "run it again without --allow-busy")
    first, *others = record.workloads
    first = replace(first, judgement=replace(first.judgement, cautions=(said,)))
    return replace(record, workloads=(first, *others))


def test_a_true_win_is_admitted(scratch: Scratch, run: Gate) -> None:
    """On every workload of every required class, in both sessions: exit 0, and the table shows each cell."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    done = run()
    assert done.code == 0, done.out
    assert done.first == f"admitted: {ALTUP}"
    assert done.out.count(" win\n") == 3
    for name in (ONE, TWO, NANO):
        assert name in done.out


def test_a_planted_loss_is_refused(scratch: Scratch, run: Gate) -> None:
    """One workload of one class that loses is enough: exit 1."""
    scratch.put(scratch.evidence(BIG, effects={ONE: (0.05, 0.05), TWO: (-0.05, -0.05)}), scratch.evidence(SMALL))
    done = run()
    assert done.code == 1
    assert done.first == f"refused: loss ({ALTUP})"
    assert f"loss: {ALTUP} on {BIG}, {TWO}: the whole interval" in done.text


def test_no_change_is_no_win(scratch: Scratch, run: Gate) -> None:
    """A fusion that changes nothing is refused: exit 1, by its own name."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (0.0, 0.0)}))
    done = run()
    assert (done.code, done.first) == (1, f"refused: no-change ({ALTUP})")


def test_a_fast_nan_is_invalid(scratch: Scratch, run: Gate) -> None:
    """However fast it is: exit 5."""
    nan = Parity(False, False, "logits are NaN at step 1", {"largest_error": None})
    scratch.put(
        scratch.evidence(BIG, effects={ONE: (0.15, 0.15), TWO: (0.15, 0.15)}, parity=nan), scratch.evidence(SMALL)
    )
    done = run()
    assert (done.code, done.first) == (5, f"refused: invalid ({ALTUP})")
    assert "gives NaN or infinite logits" in done.text
    assert "+15" not in done.out, "a number that counts for nothing is not shown"


def test_wrong_beyond_the_window_edge_is_invalid(scratch: Scratch, run: Gate) -> None:
    """Right in the first steps does not help: exit 5, with the step."""
    wrong = Parity(False, True, "step 130, beyond the sliding window of 128, is off by 3 tolerances")
    scratch.put(scratch.evidence(BIG, parity=wrong), scratch.evidence(SMALL))
    done = run()
    assert done.code == 5
    assert "outputs are wrong: step 130, beyond the sliding window" in done.text


@pytest.mark.parametrize(
    ("dispatch", "said"),
    [
        (Dispatch((900, 900)), "the decode graph is the unfused one's"),
        (Dispatch((900, 890), {"calls.stack": (0, 1)}, ("30 of 60 Multiply remain",)), "30 of 60 Multiply remain"),
    ],
)
def test_a_fallback_that_was_never_dispatched_is_invalid(
    scratch: Scratch, run: Gate, dispatch: Dispatch, said: str
) -> None:
    """A flag that was set and a path not taken, or taken in part: exit 5."""
    scratch.put(scratch.evidence(BIG, dispatch=dispatch), scratch.evidence(SMALL))
    done = run()
    assert (done.code, done.first) == (5, f"refused: invalid ({ALTUP})")
    assert f"was not dispatched as declared: {said}" in done.text


def test_old_evidence_is_stale(scratch: Scratch, run: Gate) -> None:
    """Older than the policy allows: exit 4, with its age."""
    scratch.put(scratch.evidence(BIG, change=change(date="2026-03-01T10:00:00+00:00")), scratch.evidence(SMALL))
    done = run()
    assert (done.code, done.first) == (4, f"refused: not-measured ({ALTUP})")
    assert "stale: measured 122 days ago, and evidence counts for 90" in done.text


def test_evidence_of_other_sources_is_stale(scratch: Scratch, run: Gate) -> None:
    """A changed fusion has to be measured again, and one changed beside it has not."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    scratch.write(str(FUSIONS / "compiled_geglu.py"), "# changed")
    assert run().code == 0
    scratch.write(str(FUSIONS / "kernels.py"), "# changed")
    done = run()
    assert done.code == 4
    assert "stale: the fusion's sources are no longer those that were measured" in done.text
    assert done.text.count("stale") == 2, "once a class"


def test_sources_changed_and_changed_back_are_told(scratch: Scratch, run: Gate) -> None:
    """A record that claims a later commit's digest with an earlier commit does not pass."""
    scratch.write(str(FUSIONS / "kernels.py"), "# changed")
    scratch.save("another kernel")
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    done = run()
    assert done.code == 4
    assert "stale: kernels.py changed since" in done.text


def test_a_missing_class_is_not_measured(scratch: Scratch, run: Gate) -> None:
    """Exit 4, once for the class, with the command to run there."""
    scratch.put(scratch.evidence(SMALL))
    done = run()
    assert (done.code, done.first) == (4, f"refused: not-measured ({ALTUP})")
    assert done.text.count("there is no evidence of this class") == 1
    assert f"pytest perf/ --fusion {ALTUP}, on a machine of class {BIG}" in done.text


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree["workloads"][0]["judgement"].update(effect=0.2),
        lambda tree: tree.update(verdict="loss"),
        lambda tree: tree["workloads"][0]["raw"][0]["pairs"][0]["tpot_ns"].__setitem__(0, 10**9),
        lambda tree: tree["checked"][0].update(memory_ratio=1.0),
    ],
)
def test_a_hand_edited_file_is_invalid(scratch: Scratch, run: Gate, edit: Any) -> None:
    """Whatever was edited: exit 5."""
    edited(scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[0], edit)
    done = run()
    assert (done.code, done.first) == (5, f"refused: invalid ({ALTUP})")
    assert "edited after it was written" in done.text


def test_a_stated_effect_that_its_blocks_do_not_give_is_invalid(scratch: Scratch, run: Gate) -> None:
    """Even where the digest was made to fit."""
    path = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[0]
    reworked(path, lambda tree: tree["workloads"][0]["judgement"].update(effect=0.2))
    done = run()
    assert done.code == 5
    assert "an effect of 0.2 is stated, and its blocks give 0.0" in done.text


def test_a_stated_win_is_judged_again(scratch: Scratch, run: Gate) -> None:
    """A loss whose record says win, with a digest that fits, is a loss."""
    path = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (-0.05, -0.05)}))[1]
    reworked(path, lambda tree: tree["workloads"][0]["judgement"].update(verdict="win", low=0.04, high=0.06))
    assert run().code == 1


def test_layout_is_no_edit(scratch: Scratch, run: Gate) -> None:
    """A file that was only formatted anew is what it was."""
    edited(scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[0], lambda tree: None)
    assert run().code == 0


def test_one_session_is_not_measured(scratch: Scratch, run: Gate) -> None:
    """A win that nobody repeated: exit 4."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (0.05,)}))
    done = run()
    assert (done.code, done.first) == (4, f"refused: not-measured ({ALTUP})")
    assert "measured in 1 session only, and a win must repeat in 2" in done.text


def test_a_win_in_one_session_of_two_is_inconclusive(scratch: Scratch, run: Gate) -> None:
    """All launches together win and the second session alone does not: exit 3."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (0.08, 0.004)}))
    done = run()
    assert (done.code, done.first) == (3, f"refused: inconclusive ({ALTUP})")


def test_sessions_that_contradict_each_other_are_inconclusive(scratch: Scratch, run: Gate) -> None:
    """A win and a loss are no win."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (0.08, -0.02)}))
    assert run().code == 3


@pytest.mark.parametrize(
    ("spoilt", "code", "said"),
    [
        (elsewhere, 4, "measured at 111111111111, which is not part of this history"),
        (lambda record: replace(elsewhere(record), commit=None), 4, "measured at no known commit"),
        (change(dirty=True), 4, "measured with uncommitted changes"),
        (busy, 4, "measured on a busy machine: load 7.0 next: run it again without --allow-busy"),
        (change(enabled=False), 5, "the fusion is off here, and yet the decode graph changes"),
        (change(date="2027-01-01T00:00:00+00:00"), 5, "dated 2027-01-01, which is still to come"),
        (change(date="yesterday"), 5, "has no date"),
        (change(checked=()), 4, "nothing tells whether the fusion is dispatched and right there"),
        (stacks("candidate", mlx="0.33.0"), 5, "its arms differ in mlx: 0.32.4, 0.33.0"),
        (stacks("candidate", knobs={"MLX_MAX_OPS_PER_BUFFER": "9"}), 5, "its arms differ in knobs"),
    ],
)
def test_evidence_that_does_not_belong_is_refused(
    scratch: Scratch, run: Gate, spoilt: Callable[[Evidence], Evidence], code: int, said: str
) -> None:
    """Of another commit, another mlx, without its checks: named, never admitted."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, change=spoilt))
    done = run()
    assert done.code == code
    assert said in done.text
    assert done.first.startswith("refused: ")


@pytest.mark.parametrize(
    ("checks", "code", "said"),
    [
        ({"parity": None}, 4, "parity is missing"),
        ({"dispatch": None}, 4, "nothing tells whether the fusion was dispatched"),
        ({"memory_ratio": 1.9}, 5, "both models take 1.90 times the memory of one, 1.1 at most"),
        ({"memory_ratio": None}, 4, "its memory was not measured"),
        ({"weights_kept": False}, 5, "changes the unfused model's weights"),
        ({"failure": "apply raised ValueError: only bfloat16"}, 5, "apply raised ValueError: only bfloat16"),
    ],
)
def test_a_fusion_that_is_not_sound_is_refused(
    scratch: Scratch, run: Gate, checks: dict[str, Any], code: int, said: str
) -> None:
    """One that raises, changes the weights or leaks memory wins nothing by being fast."""
    scratch.put(scratch.evidence(BIG, **checks), scratch.evidence(SMALL))
    done = run()
    assert done.code == code
    assert said in done.text


def test_another_mlx_on_another_class_is_not_measured(scratch: Scratch, run: Gate) -> None:
    """The older of two records that do not go together is to be measured again."""
    newer = change(date="2026-07-01T10:00:00+00:00")
    records = [scratch.evidence(BIG, change=newer), scratch.evidence(SMALL)]
    records[0] = stacks("baseline", mlx="0.33.0")(stacks("candidate", mlx="0.33.0")(records[0]))
    scratch.put(*records)
    done = run()
    assert done.code == 4
    assert f"{SMALL}: measured with mlx 0.32.4 and mlx-vlm 0.7.10, while the evidence of {BIG}" in done.text


def test_a_missing_workload_is_not_measured(scratch: Scratch, run: Gate) -> None:
    """Evidence of another workload does not stand in for it."""
    scratch.put(scratch.evidence(BIG, effects={ONE: (0.05, 0.05)}), scratch.evidence(SMALL))
    done = run()
    assert done.code == 4
    assert f"{BIG}, {TWO}: the evidence of this class does not hold this workload" in done.text


def test_a_loss_on_a_workload_nobody_asked_for_refuses(scratch: Scratch, run: Gate) -> None:
    """And an undecided one does not."""
    extra = "nano/text/pp140-tg64"
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects={NANO: (0.05, 0.05), extra: (0.006, 0.006)}))
    assert run().code == 0
    scratch.put(scratch.evidence(SMALL, effects={NANO: (0.05, 0.05), extra: (-0.05, -0.05)}))
    done = run()
    assert done.code == 1
    assert f"{SMALL}, {extra}: the whole interval" in done.text


def test_two_different_records_of_one_class_are_invalid(scratch: Scratch, run: Gate, tmp_path: Path) -> None:
    """To choose between them would be to pick the better; the same record twice is one."""
    kept = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    copy = tmp_path / "artifacts" / kept[0].name
    copy.parent.mkdir()
    copy.write_bytes(kept[0].read_bytes())
    assert run(*kept, copy).code == 0
    scratch.put(scratch.evidence(BIG, effects={ONE: (0.06, 0.06), TWO: (0.05, 0.05)}))
    done = run(*kept, copy)
    assert done.code == 5
    assert f"2 different records of {ALTUP} on {BIG}" in done.text


def test_a_file_of_another_class_or_name_is_invalid(scratch: Scratch, run: Gate) -> None:
    """Copied to where it does not belong."""
    path = scratch.put(scratch.evidence(BIG))[0]
    moved = scratch.baselines / SMALL / "fusions" / path.name
    moved.parent.mkdir(parents=True)
    moved.write_bytes(path.read_bytes())
    assert "lies in the folder of fake-cpu-2c and is of fake-gpu" in run(moved).text
    other = path.with_name(f"{GEGLU}.json")
    other.write_bytes(path.read_bytes())
    done = run(other)
    assert done.code == 5
    assert f"is the evidence of {ALTUP}" in done.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "\x00"])
def test_a_file_that_is_no_evidence_is_invalid(scratch: Scratch, run: Gate, text: str) -> None:
    """Named, with the class of its folder, and without a traceback."""
    scratch.put(scratch.evidence(SMALL))
    bad = scratch.write(f"baselines/{BIG}/fusions/{ALTUP}.json", text)
    done = run()
    assert done.code == 5
    assert str(bad) in done.text
    assert bad.read_text() == text


def test_evidence_of_a_fusion_that_is_gone_is_invalid(scratch: Scratch, run: Gate) -> None:
    """Nothing can be admitted that is not there."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    del scratch.sources.modules[ALTUP]
    done = run()
    assert done.code == 5
    assert f"there is no fusion '{ALTUP}'" in done.text


def test_several_refusals_are_all_stated_and_the_most_severe_decides(scratch: Scratch, run: Gate) -> None:
    """Invalid, loss, not-measured and inconclusive, in that order: exit 5; each alone has its own code."""
    scratch.put(
        scratch.evidence(BIG, weights_kept=False),
        scratch.evidence(BIG, GEGLU, effects={ONE: (-0.05, -0.05), TWO: (0.08, 0.004)}),
    )
    done = run()
    assert done.code == 5
    assert done.first == f"refused: invalid, loss, not-measured, inconclusive ({GEGLU}, {ALTUP})"
    scratch.put(scratch.evidence(BIG))
    assert run().code == 1


def test_off_and_proved_does_not_refuse(scratch: Scratch, run: Gate) -> None:
    """Where the fusion is off and leaves the graph alone, a win elsewhere is enough."""
    scratch.put(scratch.evidence(BIG), scratch.off(SMALL))
    done = run()
    assert done.code == 0, done.out
    assert "off, proved" in done.out


def test_off_but_not_alone_is_invalid(scratch: Scratch, run: Gate) -> None:
    """A graph that changes where the fusion is off: exit 5."""
    scratch.put(scratch.evidence(BIG), scratch.off(SMALL, nodes=(900, 899), changed={"operations.Add": (9, 8)}))
    done = run()
    assert done.code == 5
    assert "the fusion is off here, and yet the decode graph changes (operations.Add)" in done.text


def test_off_everywhere_wins_nowhere(scratch: Scratch, run: Gate) -> None:
    """A documented no is no admission."""
    scratch.put(scratch.off(BIG), scratch.off(SMALL))
    done = run()
    assert (done.code, done.first) == (1, f"refused: no-change ({ALTUP})")


def test_docs_alone_have_nothing_to_gate(scratch: Scratch, run: Gate) -> None:
    """Exit 0, and no fusion is imported to find that out."""
    scratch.write("docs/page.md", "two")
    scratch.save("docs")
    scratch.sources.modules.clear()
    done = run("--base", scratch.commit)
    assert done.code == 0
    assert done.out == "nothing to gate: this change touches no fusion\n"


def test_only_what_a_change_touches_is_judged(scratch: Scratch, run: Gate) -> None:
    """Its own module, a module it shares, or its evidence; and never another fusion's."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    kept = scratch.save("evidence")
    scratch.write(str(FUSIONS / "compiled_geglu.py"), "# changed")
    changed = scratch.save("geglu")
    done = run("--base", kept)
    assert (done.code, done.first) == (4, f"refused: not-measured ({GEGLU})")
    scratch.write(str(FUSIONS / "kernels.py"), "# changed")
    done = run("--base", changed)
    assert (done.code, done.first) == (4, f"refused: not-measured ({ALTUP})")
    assert run("--base", scratch.commit).first == f"refused: not-measured ({ALTUP}, {GEGLU})"


def test_a_change_of_evidence_alone_is_judged(scratch: Scratch, run: Gate) -> None:
    """Else a win could be edited into the record on its way."""
    path = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[0]
    kept = scratch.save("evidence")
    edited(path, lambda tree: tree.update(verdict="loss"))
    scratch.save("an improvement")
    assert run("--base", kept).code == 5


def test_uncommitted_changes_count(scratch: Scratch, run: Gate) -> None:
    """A fusion that is not committed yet is touched, too."""
    scratch.write(str(FUSIONS / "stacked_altup.py"), "# changed")
    assert run("--base", "main").first == f"refused: not-measured ({ALTUP})"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--base", "no-such"), "--base no-such is no commit of this clone"),
        (("nowhere.json",), "is neither a file nor a folder"),
        (("x" * 300,), "File name too long"),
        (("--policy", "nowhere.toml"), "nowhere.toml: No such file"),
        ((), "no evidence was found"),
    ],
)
def test_requests_that_cannot_be_carried_out_exit_2(run: Gate, argv: tuple[str, ...], said: str) -> None:
    """With what was expected."""
    done = run(*argv)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_age_days", "max_age_day", "[gate] 'max_age_day' is not known"),
        ("minimum_effect = 0.005", 'minimum_effect = "5 %"', "[gate] minimum_effect = '5 %'"),
        ("sessions = 2", "sessions = 1", "sessions = 1"),
        ("[classes.fake-gpu]", "[classes.fake-gup]", "did you mean 'fake-gup'?"),
        ("[gate]", "[gates]", "'gates' is not known"),
        ("pp320-tg64", "pp320", "is not understood"),
        ("required = [", "required = [[", "it is no TOML"),
    ],
)
def test_a_bad_policy_exits_2_and_says_what_was_meant(
    scratch: Scratch, run: Gate, old: str, new: str, said: str
) -> None:
    """A rule with a typo is no rule that is kept."""
    path = scratch.baselines / "policy.toml"
    path.write_text(path.read_text().replace(old, new))
    done = run()
    assert done.code == 2
    assert "policy.toml" in done.err
    assert said in done.err


def test_markdown_that_cannot_be_written_is_refused_before_anything_is_judged(run: Gate, tmp_path: Path) -> None:
    """A folder, here."""
    done = run("--markdown", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path} is a folder" in done.err


def test_both_files_say_what_the_terminal_says(scratch: Scratch, run: Gate, tmp_path: Path) -> None:
    """Markdown with the verdict first; JSON with verdicts, cells, reasons and the exit code."""
    scratch.put(scratch.evidence(BIG, effects={ONE: (-0.05, -0.05), TWO: (0.05, 0.05)}))
    done = run("--json", tmp_path / "gate.json", "--markdown", tmp_path / "gate.md")
    tree = json.loads((tmp_path / "gate.json").read_text())
    assert (tree["result"], tree["exit_code"], tree["verdicts"]) == ("refused", done.code, ["loss", "not-measured"])
    assert [cell["verdict"] for cell in tree["cells"]] == ["loss", "win", "not-measured"]
    assert tree["decisions"][0]["admitted"] is False
    page = (tmp_path / "gate.md").read_text()
    assert page.startswith(f"**{done.first}**\n")
    assert max(len(line) for line in page.splitlines() if line.startswith("|")) <= 90
    assert f"| **{BIG}** |" in page
    assert f"| {ONE} |" in page
    for said in (done.out, page):
        assert said.count("intervals shown are of 95 %, those that decide of 98 % over all looks") == 1
        assert "sessions are taken to lie 0.1 % apart (session_sd of the policy), assumed" in said
    assert tree["session_sd"] == 0.001


@pytest.mark.parametrize("columns", range(72, 132, 6))
def test_a_verdict_is_never_cut(scratch: Scratch, run: Gate, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """However wide the terminal is."""
    monkeypatch.setenv("COLUMNS", str(columns))
    scratch.put(scratch.evidence(BIG))
    said = run().out
    words = said.split()
    assert words.count("not-measured") == 2  # in the first line, and in the table
    assert words.count("win") == 2
    for name in (BIG, ONE, TWO, " % [+"):
        assert name in said
    assert ("each session" in said) == (columns >= 90)
    table = said[said.index("chip class") : said.index("intervals shown")]
    assert max(map(len, table.splitlines())) <= columns


def test_a_reason_that_fusions_share_is_said_once(scratch: Scratch, run: Gate) -> None:
    """With one command for all of them."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(BIG, GEGLU))
    said = run().out
    assert said.count("there is no evidence of this class") == 1
    assert f"not-measured: {GEGLU}, {ALTUP} on {SMALL}: " in said
    assert f"next: pytest perf/ --fusion {GEGLU} --fusion {ALTUP}, on a machine of class {SMALL}" in said


def test_admission_is_written_only_when_asked_for(scratch: Scratch, run: Gate) -> None:
    """And for every class where something won."""
    scratch.put(scratch.evidence(BIG), scratch.off(SMALL))
    run()
    assert admitted.read(scratch.baselines, BIG) == ()
    done = run("--admit")
    assert done.code == 0
    assert admitted.read(scratch.baselines, BIG) == (ALTUP,)
    assert admitted.read(scratch.baselines, SMALL) == ()
    assert f"{BIG}: {ALTUP} is admitted" in done.text
    kept, record = admitted.find(scratch.baselines, BIG), read(path_of(scratch.baselines, BIG, ALTUP))
    assert kept is not None
    assert kept.grounds is not None
    assert kept.grounds.content_digest == record.content_digest
    assert [(one.workload, one.effect) for one in kept.grounds.workloads] == [
        (one.workload, one.judgement.effect) for one in record.workloads
    ]


def test_the_best_admitted_composition_is_written(scratch: Scratch, run: Gate) -> None:
    """It needs evidence of its own on the class, and parts that are admitted; a refused fusion is not written."""
    both = f"{ALTUP}+{GEGLU}"
    for chip_class in (BIG, SMALL):
        scratch.put(scratch.evidence(chip_class), scratch.evidence(chip_class, GEGLU))
    fast = {ONE: (0.1, 0.1), TWO: (0.1, 0.1)}
    scratch.put(scratch.evidence(BIG, both, effects=fast))
    assert run("--admit").code == 0
    assert admitted.read(scratch.baselines, BIG) == (ALTUP, GEGLU)
    assert admitted.read(scratch.baselines, SMALL) in ((ALTUP,), (GEGLU,))
    (scratch.baselines / SMALL / "fusions" / f"{GEGLU}.json").unlink()
    done = run()
    assert done.code == 4
    assert f"{both}: its part {GEGLU} was not admitted" in done.text


def test_what_was_not_compared_is_not_replaced(scratch: Scratch, run: Gate) -> None:
    """A better composition stays where only one of its parts was put to the gate."""
    admitted.write(scratch.baselines, BIG, (ALTUP, GEGLU))
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    done = run("--admit")
    assert admitted.read(scratch.baselines, BIG) == (ALTUP, GEGLU)
    assert f"{ALTUP}+{GEGLU} stays" in done.text


BOTH = f"{ALTUP}+{GEGLU}"


def in_use(scratch: Scratch, run: Gate) -> str:
    """Admit both fusions together on one class, commit, and return the commit."""
    for chip_class in (BIG, SMALL):
        scratch.put(scratch.evidence(chip_class), scratch.evidence(chip_class, GEGLU))
    scratch.put(scratch.evidence(BIG, BOTH, effects={ONE: (0.1, 0.1), TWO: (0.1, 0.1)}))
    assert run("--admit").code == 0
    assert admitted.read(scratch.baselines, BIG) == (ALTUP, GEGLU)
    return scratch.save("admitted")


def test_a_composition_in_use_is_judged_with_its_parts(scratch: Scratch, run: Gate) -> None:
    """Its sources changed: what ``fuse`` applies is no longer what was measured, whatever the part does alone."""
    base = in_use(scratch, run)
    scratch.write(str(FUSIONS / "stacked_altup.py"), "# better")
    scratch.commit = scratch.save("change")
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    done = run("--base", base)
    assert done.code == 4
    assert f"{BOTH} on {BIG}: stale" in done.text


def test_what_is_in_use_where_it_was_not_shown_to_win_is_refused(scratch: Scratch, run: Gate) -> None:
    """On a class that nobody measured, a file that says so would be all it takes."""
    base = in_use(scratch, run)
    admitted.write(scratch.baselines, "fake-gpu-2", (ALTUP, GEGLU))
    for argv in (("--base", base), ()):
        done = run(*argv)
        assert done.code == 4
        assert f"{BOTH} is in use on fake-gpu-2" in done.text
    assert "fake-gpu-2: " + BOTH + " is withdrawn" in run("--base", base, "--admit").text
    assert admitted.read_all(scratch.baselines) == {BIG: BOTH, SMALL: admitted.read_all(scratch.baselines)[SMALL]}
    assert run().code == 0


@pytest.mark.parametrize("gone", [False, True])
def test_an_admission_of_what_does_not_exist_is_refused(scratch: Scratch, run: Gate, gone: bool) -> None:
    """``fuse`` could only fail there: a name nobody knows, or a fusion that was taken away."""
    base = in_use(scratch, run)
    if gone:
        (scratch.root / FUSIONS / "compiled_geglu.py").unlink()
        del scratch.sources.modules[GEGLU]
    else:
        admitted.write(scratch.baselines, BIG, ("nope",))
    done = run("--base", base)
    name = GEGLU if gone else "nope"
    assert done.code == 5
    assert f"there is no fusion {name}" in done.text
    run("--base", base, "--admit")
    assert name not in admitted.read_all(scratch.baselines).get(BIG, "")


def test_what_loses_is_withdrawn(scratch: Scratch, run: Gate) -> None:
    """``fuse`` would go on applying it; what is refused for want of evidence stays, and both are said."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    assert run("--admit").code == 0
    path = scratch.put(scratch.evidence(BIG, effects={ONE: (-0.05, -0.05), TWO: (-0.05, -0.05)}))[0]
    done = run("--admit")
    assert done.code == 1
    assert f"{BIG}: {ALTUP} is withdrawn" in done.text
    assert admitted.read(scratch.baselines, BIG) == ()
    admitted.write(scratch.baselines, BIG, (ALTUP,))
    path.unlink()
    done = run("--admit")
    assert done.code == 4
    assert f"{BIG}: {ALTUP} stays in use, though it was refused" in done.text


def test_evidence_is_seen_however_its_folder_is_spelt(scratch: Scratch, run: Gate, monkeypatch: Any) -> None:
    """A path through another folder or a link is the same folder."""
    paths = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    base = scratch.save("evidence")
    paths[0].write_text("{")
    (scratch.root.parent / "link").symlink_to(scratch.root)
    for spelling in (scratch.root / "docs" / ".." / "baselines", scratch.root.parent / "link" / "baselines"):
        here = replace(scratch.checkout(), baselines=spelling)
        monkeypatch.setattr(gate, "checkout", lambda baselines, here=here: here)
        assert run("--base", base).code == 5


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"a":' * 100_000])
def test_a_file_of_brackets_is_no_evidence(scratch: Scratch, run: Gate, data: bytes) -> None:
    """Deeper than a parser goes."""
    path = scratch.put(scratch.evidence(BIG))[0]
    path.write_bytes(data)
    assert run(path).code == 5


def test_evidence_without_workloads_of_a_class_beside_the_policy_is_not_measured(scratch: Scratch, run: Gate) -> None:
    """It holds nothing to judge, and is no win."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    other = replace(scratch.evidence(BIG).chip, chip_class="fake-gpu-3")
    scratch.put(scratch.evidence(BIG, change=change(chip=other, workloads=())))
    done = run()
    assert done.code == 4
    assert "holds no workload" in done.text


@pytest.mark.parametrize(
    ("field", "value"), [("commit", "HEAD"), ("commit", "a\0"), ("chip_class", "a\0b"), ("chip_class", "../x")]
)
def test_names_that_cannot_be_are_malformed(scratch: Scratch, run: Gate, field: str, value: str) -> None:
    """A commit is a whole hash, a class a folder's name."""
    path = scratch.put(scratch.evidence(BIG))[0]

    def edit(tree: dict[str, Any]) -> None:
        (tree if field == "commit" else tree["chip"])[field] = value

    reworked(path, edit)
    done = run(path)
    assert done.code == 5
    assert f"{field} is {value!r}" in done.text


def test_one_winning_session_of_two_is_not_enough(scratch: Scratch, run: Gate) -> None:
    """All launches together win, and so does the first session; the second, noisier, does not by itself."""

    def uneven(record: Evidence) -> Evidence:
        steady, noisy = launches((0.05,), per_session=5, seed=1), launches((0.05, 0.05), per_session=3, seed=2, sd=0.05)
        raw = (*steady, *(one for one in noisy if one.session == 1))
        return replace(record, workloads=(workload(NANO, raw=raw),))

    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, change=uneven))
    done = run()
    assert done.code == 3
    assert "all sessions together win, only in session 1 of 2" in done.text


def test_an_extra_workload_that_is_invalid_refuses(scratch: Scratch, run: Gate) -> None:
    """As one that loses does, or seems to."""
    extra = "nano/text/pp140-tg64"

    def spoil(record: Evidence) -> Evidence:
        last = record.workloads[-1]
        bad = replace(last, judgement=invalid("tokens differ from step 3 on"), raw=())
        return replace(record, workloads=(*record.workloads[:-1], bad))

    effects = {NANO: (0.05, 0.05), extra: (0.05, 0.05)}
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, effects=effects, change=spoil))
    assert run().code == 5
    scratch.put(scratch.evidence(SMALL, effects=effects | {extra: (-0.007, -0.007)}))
    done = run()
    assert done.code == 3
    assert extra in done.text


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (stacks("candidate", driver="580.1"), "differ in driver"),
        (lambda record: replace(elsewhere(record), commit=record.commit), "ran at"),
    ],
)
def test_arms_that_share_too_little_are_refused(
    scratch: Scratch, run: Gate, spoilt: Callable[[Evidence], Evidence], said: str
) -> None:
    """What differs beside the fusion could be what won."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL, change=spoilt))
    done = run()
    assert done.code == 5, done.out
    assert said in done.text


def test_an_effect_a_tenth_of_a_point_off_is_invalid(scratch: Scratch, run: Gate) -> None:
    """Blocks give what they give."""
    paths = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    reworked(paths[1], lambda tree: tree["workloads"][0]["judgement"].update(
        effect=tree["workloads"][0]["judgement"]["effect"] + 0.001))  # fmt: skip
    done = run()
    assert done.code == 5
    assert "is stated, and its blocks give" in done.text
