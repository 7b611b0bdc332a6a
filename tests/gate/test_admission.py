import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.admission import AdmissionResult, admit, gate
from gemma3n_perf.gate.change import FUSIONS, sort_files, touched
from gemma3n_perf.gate.facts import Dispatch
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.hardware.git import Repository, changed_files_text
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.stats.verdicts import Judgement, invalid
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, ONE, SMALL, TWO, Scratch, edited

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository of two fusions."""
    return Scratch(tmp_path / "repo")


@pytest.fixture
def repository(scratch: Scratch) -> Repository:
    """Return it as the gate asks it."""
    return Repository(scratch.root, run_command)


def ruled(scratch: Scratch, *evidence: Path, base: str | None = None) -> AdmissionResult:
    """Rule on a scratch repository."""
    here = scratch.checkout()
    policy = read_policy(scratch.baselines / POLICY_FILE)
    change = touched(base, here.repository, here.baselines) if base else None
    return gate(here, policy, change, evidence)


@pytest.mark.parametrize(("said", "code"), [(invalid("it slowed the baseline"), 5), (None, 4)])
def test_what_broke_off_in_its_first_launch_is_what_it_was_called(
    scratch: Scratch, said: Judgement | None, code: int
) -> None:
    """That too few launches have a whole run is the reason where there is no other."""
    record = scratch.evidence(SMALL)
    (one,) = record.workloads
    one = replace(one, raw=tuple(replace(launch, whole_s=None) for launch in one.raw))
    one = replace(one, judgement=said, raw=one.raw[:1], per_session=()) if said else one
    (path,) = scratch.put(replace(record, workloads=(one,)))
    found = ruled(scratch, path)
    assert found.ruling.exit_code == code
    reasons = [why.found for one in found.ruling.decisions for why in one.reasons]
    assert any("whole run to bear" in why for why in reasons) is (said is None)


def test_changes_are_committed_changed_and_new_files(scratch: Scratch, repository: Repository) -> None:
    """From where HEAD left the base, whatever the base did since; odd names are names."""
    scratch.git("checkout", "--quiet", "-b", "change")
    scratch.write("docs/zwei Wörter.md", "new")
    scratch.save("a page")
    scratch.write("docs/page.md", "changed")
    scratch.write("docs/untracked.md", "new")
    scratch.git("checkout", "--quiet", "main", "--", ".")
    scratch.write("docs/page.md", "changed")
    assert set(repository.changed("main")) == {"docs/zwei Wörter.md", "docs/page.md", "docs/untracked.md"}


def test_what_the_base_did_since_is_no_change(scratch: Scratch, repository: Repository) -> None:
    """A branch answers for itself."""
    scratch.git("checkout", "--quiet", "-b", "change")
    scratch.git("checkout", "--quiet", "main")
    scratch.write(str(FUSIONS / "kernels.py"), "# the base's own")
    scratch.save("on main")
    scratch.git("checkout", "--quiet", "change")
    assert repository.changed("main") == ()


def test_a_moved_file_is_two_changes(scratch: Scratch, repository: Repository) -> None:
    """A module that was renamed is gone and new."""
    scratch.git("mv", str(FUSIONS / "kernels.py"), str(FUSIONS / "blocks.py"))
    scratch.save("renamed")
    assert set(repository.changed(scratch.commit)) == {str(FUSIONS / "kernels.py"), str(FUSIONS / "blocks.py")}


def test_a_base_without_common_history_is_named(scratch: Scratch, repository: Repository) -> None:
    """As in a shallow clone; an option in its place is no commit."""
    scratch.git("checkout", "--quiet", "--orphan", "other")
    scratch.save("alone")
    with pytest.raises(UsageError, match="shares no history"):
        repository.changed("main")
    for base in ("no-such", "--output=x", ""):
        with pytest.raises(UsageError, match="is no commit of this clone"):
            repository.changed(base)


def test_outside_git_nothing_is_guessed(tmp_path: Path) -> None:
    """A folder that is no checkout has no answer."""
    outside = Repository(tmp_path, run_command)
    with pytest.raises(UsageError):
        outside.changed("main")
    assert not outside.is_ancestor("1" * 40)


def test_history_holds_ancestors_alone(scratch: Scratch, repository: Repository) -> None:
    """Not a sibling, not a child."""
    scratch.git("checkout", "--quiet", "-b", "side")
    side = scratch.save("side")
    scratch.git("checkout", "--quiet", "main")
    here = scratch.save("main")
    assert repository.is_ancestor(here)
    assert repository.is_ancestor(scratch.commit)
    assert not repository.is_ancestor(side)


def test_files_outside_the_checkout_have_not_changed(scratch: Scratch, repository: Repository, tmp_path: Path) -> None:
    """Git cannot tell of them, and their digest does."""
    kernels = scratch.write(str(FUSIONS / "kernels.py"), "# changed")
    scratch.save("kernels")
    assert repository.changed_since(scratch.commit, [tmp_path / "x.py"]) == ()
    assert repository.changed_since(scratch.commit, [kernels, tmp_path / "x.py"]) == (str(FUSIONS / "kernels.py"),)


def test_changed_files_in_words() -> None:
    """A few by name, the rest by number."""
    assert changed_files_text(["a/b.py"]) == "b.py"
    assert changed_files_text([f"{name}.py" for name in "abcde"]) == "a.py, b.py, c.py and 2 more"


def test_modules_in_folders_of_the_fusions_count(scratch: Scratch) -> None:
    """A kernel two folders down is still a source of those that import it."""
    scratch.sources.modules[GEGLU] = ("compiled_geglu.py", "deep/kernels/inner.py")
    scratch.write(str(FUSIONS / "deep/kernels/inner.py"), "# one")
    kept = scratch.save("a kernel")
    scratch.write(str(FUSIONS / "deep/kernels/inner.py"), "# two")
    assert ruled(scratch, base=kept).names == (GEGLU,)


def test_a_module_that_no_fusion_uses_touches_none(scratch: Scratch) -> None:
    """The registry itself is not a source of any; nothing is refused for it."""
    scratch.write(str(FUSIONS / "registry.py"), "# changed")
    result = ruled(scratch, base="main")
    assert (result.ruling.decisions, result.ruling.exit_code) == ((), 0)


def test_a_removed_fusion_is_noted(scratch: Scratch) -> None:
    """There is nothing left to measure."""
    (scratch.root / FUSIONS / "compiled_geglu.py").unlink()
    del scratch.sources.modules[GEGLU]
    result = ruled(scratch, base="main")
    assert result.ruling.exit_code == 0
    assert any("compiled_geglu.py is no longer there" in note for note in result.notes)


def test_evidence_of_a_fusion_that_is_not_there_is_invalid(scratch: Scratch) -> None:
    """It is asked for by the evidence alone."""
    scratch.put(scratch.evidence(BIG, GEGLU))
    del scratch.sources.modules[GEGLU]
    result = ruled(scratch, base="main")
    assert (result.names, result.ruling.exit_code) == ((GEGLU,), 5)


def test_measuring_again_is_noted(scratch: Scratch) -> None:
    """Whoever measures until it passes is seen."""
    scratch.put(replace(scratch.evidence(BIG), attempts=2), scratch.evidence(SMALL))
    (note,) = ruled(scratch).notes
    assert note.startswith(f"{ALTUP} on {BIG}: attempt 2 of these sources")


def test_evidence_without_a_date_is_invalid(scratch: Scratch) -> None:
    """Nobody can tell its age."""
    scratch.put(scratch.evidence(BIG, change=lambda record: replace(record, date="one day")), scratch.evidence(SMALL))
    found = ruled(scratch).ruling
    assert found.exit_code == 5
    assert "has no date" in found.decisions[0].reasons[0].found


def test_evidence_is_called_stale_once(scratch: Scratch) -> None:
    """By its digest where that tells, else by the commit."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    scratch.write(str(FUSIONS / "kernels.py"), "# faster")
    scratch.save("a kernel")
    since = f"kernels.py changed since {scratch.commit[:12]}, at which it was measured"
    edited = f"stale: the fusion's sources are no longer those that were measured; {since}"
    assert [cell.reason for cell in ruled(scratch).ruling.cells] == [edited] * 3
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    assert [cell.reason for cell in ruled(scratch).ruling.cells] == [f"stale: {since}"] * 3


def test_a_changed_policy_is_noted(scratch: Scratch) -> None:
    """A reviewer should see who moved the goal."""
    policy = scratch.baselines / "policy.toml"
    policy.write_text(policy.read_text().replace("0.005", "0.004"))
    result = ruled(scratch, base="main")
    assert result.notes == ("this change also edits the gate's policy",)


def test_an_admission_edited_by_hand_is_judged(scratch: Scratch) -> None:
    """What it claims needs evidence like anything else."""
    admitted.write(scratch.baselines, BIG, (ALTUP, GEGLU))
    result = ruled(scratch, base="main")
    assert result.ruling.exit_code == 4
    assert result.names == (ALTUP, GEGLU, f"{ALTUP}+{GEGLU}")


def test_removed_evidence_is_missed(scratch: Scratch) -> None:
    """Else an inconvenient record could be taken away; with its fusion it may go, and so may an unused composition."""
    path = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[1]
    both = scratch.put(scratch.evidence(BIG, f"{ALTUP}+{GEGLU}"))[0]
    kept = scratch.save("evidence")
    both.unlink()
    assert ruled(scratch, base=kept).ruling.exit_code == 0
    path.unlink()
    assert ruled(scratch, base=kept).ruling.exit_code == 4
    for name in ("stacked_altup.py", "kernels.py"):
        (scratch.root / FUSIONS / name).unlink()
    (scratch.baselines / BIG / "fusions" / f"{ALTUP}.json").unlink()
    del scratch.sources.modules[ALTUP]
    assert ruled(scratch, base=kept).ruling.exit_code == 0


def test_other_files_of_the_baselines_are_no_evidence(scratch: Scratch) -> None:
    """Sessions, noise and profiles lie beside it."""
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    for name in ("0001_0123456789ab.json", "profile.json"):
        scratch.write(f"baselines/{BIG}/{name}", "{}")
    assert ruled(scratch).ruling.exit_code == 0


def test_a_folder_of_files_alone_is_searched(scratch: Scratch, tmp_path: Path) -> None:
    """As CI's artifacts come."""
    for number, path in enumerate(scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))):
        target = tmp_path / str(number) / path.name
        target.parent.mkdir()
        path.rename(target)
    assert ruled(scratch, tmp_path / "0", tmp_path / "1").ruling.exit_code == 0


def test_nothing_is_written_where_nothing_was_admitted(scratch: Scratch) -> None:
    """And a refused fusion leaves the admission as it was."""
    path = scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))[0]
    edited(path, lambda tree: tree.update(verdict="loss"))
    result = ruled(scratch)
    assert admit(result, scratch.baselines) == ()
    assert not (path.parent / "admitted.json").exists()


def test_what_is_in_use_where_it_does_not_win_is_moved_to_where_it_does(scratch: Scratch) -> None:
    """It is off on one class, and in use there: that refuses it, until the gate has written what was shown."""
    scratch.put(scratch.evidence(BIG), scratch.off(SMALL))
    admitted.write(scratch.baselines, SMALL, (ALTUP,))
    result = ruled(scratch)
    assert result.ruling.exit_code == 4
    assert not result.ruling.decisions[0].admitted
    said = f"{ALTUP} is in use on {SMALL}, by its admitted.json, and was not shown to win there"
    assert [one.found for one in result.ruling.decisions[0].reasons] == [said]
    admit(result, scratch.baselines)
    assert admitted.read_all(scratch.baselines) == {BIG: ALTUP}
    assert ruled(scratch).ruling.exit_code == 0


@pytest.mark.parametrize(
    ("used", "effects", "kept"),
    [
        (GEGLU, (0.05, 0.05), {BIG: GEGLU, SMALL: ALTUP}),
        (ALTUP, (-0.05, -0.05), {}),
        (ALTUP, (0.05,), {BIG: ALTUP}),
    ],
)
def test_what_is_in_use_is_replaced_and_withdrawn_by_evidence_alone(
    scratch: Scratch, used: str, effects: tuple[float, ...], kept: dict[str, str]
) -> None:
    """What was not judged stays beside what wins; what loses goes; what is merely unsure of its win stays."""
    scratch.put(scratch.evidence(BIG, ALTUP, {ONE: effects, TWO: effects}), scratch.evidence(SMALL))
    admitted.write(scratch.baselines, BIG, (used,))
    admit(ruled(scratch), scratch.baselines)
    assert admitted.read_all(scratch.baselines) == kept


OTHER = "1" * 40
ELSEWHERE = {arm: {"commit": OTHER} for arm in ARMS}


@pytest.mark.parametrize(
    ("commit", "arms", "code", "said"),
    [
        (None, {"candidate": {"mlx": "0.33.0"}}, 5, "its arms differ in mlx: 0.32.4, 0.33.0"),
        (
            None,
            {"candidate": {"knobs": {"MLX_X": "1"}}},
            5,
            "knobs that it does not declare: baseline none; candidate {'MLX_X': '1'}",
        ),
        (None, ELSEWHERE, 5, "its arms ran at 111111111111, and it states "),
        (OTHER, ELSEWHERE, 4, "measured at 111111111111, which is not part of this"),
    ],
)
def test_evidence_of_another_program_does_not_count(
    scratch: Scratch, commit: str | None, arms: Mapping[str, dict[str, Any]], code: int, said: str
) -> None:
    """Arms differ in the fusion alone, and both are of the commit that it states, in this history."""

    def change(record: Evidence) -> Evidence:
        stacks = {name: replace(one, **arms.get(name, {})) for name, one in record.stacks.items()}
        return replace(record, commit=commit or record.commit, stacks=stacks)

    scratch.put(scratch.evidence(BIG, change=change), scratch.evidence(SMALL))
    found = ruled(scratch).ruling
    assert found.exit_code == code
    assert said in found.decisions[0].reasons[0].found


def test_arms_may_differ_in_the_knobs_that_a_fusion_declares(scratch: Scratch) -> None:
    """It is made of them."""
    knobs = {"MLX_MAX_OPS_PER_BUFFER": "9"}

    def change(record: Evidence) -> Evidence:
        return replace(record, stacks=record.stacks | {"candidate": replace(record.stacks["candidate"], knobs=knobs)})

    same = Dispatch((9, 9), knobs=knobs, same=True)
    scratch.put(scratch.evidence(BIG, change=change, dispatch=same), scratch.evidence(SMALL))
    assert ruled(scratch).ruling.exit_code == 0


def test_docs_alone_load_neither_mlx_nor_statistics(scratch: Scratch) -> None:
    """In a process of its own, from the command's own module."""
    scratch.write("docs/page.md", "two")
    script = (
        "import argparse, datetime as dt, sys; from pathlib import Path\n"
        "from gemma3n_perf.cli import gate\n"
        "from gemma3n_perf.gate.change import Checkout\n"
        "from gemma3n_perf.hardware.git import Repository; from gemma3n_perf.hardware.shell import run_command\n"
        "root = Path(sys.argv[1]); ask = lambda: sys.exit('the fusions were imported')\n"
        "gate.checkout = lambda baselines: Checkout(\n"
        "    Repository(root, run_command), root / 'baselines', ask, dt.date(2026, 7, 1))\n"
        "parser = argparse.ArgumentParser(); gate.add_arguments(parser)\n"
        "code = gate.run(parser.parse_args(['--base', 'main']), sys.stdout)\n"
        "heavy = ('mlx', 'mlx_vlm', 'numpy', 'scipy', 'matplotlib')\n"
        "print(code, sorted(name for name in sys.modules if name in heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(scratch.root)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["nothing to gate: this change touches no fusion", "0 []"], done.stderr


def test_the_committed_policy_is_one() -> None:
    """It reads, and every class it requires is asked for workloads and has a runner."""
    policy = read_policy(CHECKOUT / "baselines" / POLICY_FILE)
    assert policy.required
    assert not set(policy.required) & set(policy.awaiting)
    assert all("self-hosted" in policy.classes[name].runner for name in policy.required)


def test_a_change_of_the_judge_and_a_fusion_is_invalid(scratch: Scratch) -> None:
    """With a tolerance of 1e9 any output is right: evidence that was checked by it is none."""
    rules = str(FUSIONS / "parity_rules.py")
    scratch.write(rules, "FACTOR = 16.0")
    base = scratch.save("base")
    scratch.write(str(FUSIONS / "stacked_altup.py"), "# faster")
    scratch.commit = scratch.save("a fusion")
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    here, policy = scratch.checkout(), read_policy(scratch.baselines / POLICY_FILE)
    assert gate(here, policy, touched(base, here.repository, here.baselines)).ruling.exit_code == 0
    scratch.write(rules, "FACTOR = 1e9")
    scratch.save("and the judge")
    result = gate(here, policy, touched(base, here.repository, here.baselines))
    assert result.ruling.exit_code == 5
    assert "edits what judges fusions (parity_rules.py)" in result.ruling.decisions[0].reasons[0].found
    assert admit(result, scratch.baselines) == ()


def test_a_change_of_the_judge_alone_touches_no_fusion_and_is_told(scratch: Scratch) -> None:
    """A reviewer reads it: it is part of what measures or judges."""
    rules = str(FUSIONS / "parity_rules.py")
    found = sort_files([rules], scratch.root, scratch.baselines)
    assert (found.files, found.judges) == ((), (rules,))


def test_sources_of_fusions_lie_among_them(scratch: Scratch) -> None:
    """Python and CUDA; what lies elsewhere is none, and neither is what is for reading."""
    kernel = str(FUSIONS / "deep" / "dot.cu")
    changed = [kernel, str(FUSIONS / "README.md"), "perf/gemma3n_perf/cli/gate.py"]
    assert sort_files(changed, scratch.root, scratch.baselines).files == (kernel,)


def test_classes_that_await_a_machine_are_named_and_not_waited_for(scratch: Scratch) -> None:
    """What is required alone decides."""
    path = scratch.baselines / POLICY_FILE
    path.write_text(path.read_text() + '[classes.apple-m9]\nstate = "awaiting"\nworkloads = ["nano/text/pp40-tg64"]\n')
    scratch.put(scratch.evidence(BIG), scratch.evidence(SMALL))
    result = gate(scratch.checkout(), read_policy(path))
    assert result.ruling.exit_code == 0
    assert "no machine yet, and not waited for: apple-m9" in result.notes
