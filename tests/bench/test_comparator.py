import re
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.bench.comparator import Comparator, baseline_arm, choose, comparators
from gemma3n_perf.errors import ArmUnavailableError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.hardware.git import Repository
from tests.fakes import STACK
from tests.hardware.test_stack import git


def commit(root: Path, text: str) -> str:
    """Commit a file with this text and return the commit's id."""
    (root / "perf").mkdir(exist_ok=True)
    (root / "perf" / "file.py").write_text(f"{text}\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", text)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a repository with two commits on main."""
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "first")
    commit(tmp_path, "second")
    return tmp_path


def ids(root: Path, *refs: str) -> list[str]:
    """Return the arms of these commits."""
    return [f"ref:{git(root, 'rev-parse', ref)}" for ref in refs]


def arms(root: Path, **options: object) -> list[str]:
    """Return the arms that a tree may be compared with, the best first."""
    return [one.arm for one in comparators(Repository(root), STACK, options.get("baseline"), options.get("release"))]  # type: ignore[arg-type]


def test_changes_on_the_default_branch_are_compared_with_head(root: Path) -> None:
    """Of a tracked file, or a new one of the program; a note beside it changes nothing."""
    (root / "notes.txt").write_text("x")
    assert arms(root) == ids(root, "HEAD^")
    (root / "perf" / "new.py").write_text("x")
    assert arms(root) == ids(root, "HEAD")
    (root / "perf" / "new.py").unlink()
    (root / "perf" / "file.py").write_text("changed\n")
    assert arms(root) == ids(root, "HEAD")


def test_another_branch_is_compared_with_where_it_left(root: Path) -> None:
    """With changes or without; what the default branch did since then is not this branch's."""
    git(root, "checkout", "-q", "-b", "mine")
    fork = ids(root, "HEAD")
    commit(root, "mine")
    git(root, "checkout", "-q", "main")
    commit(root, "theirs")
    git(root, "checkout", "-q", "mine")
    assert arms(root, baseline=STACK) == fork
    (root / "perf" / "file.py").write_text("changed\n")
    assert arms(root) == fork


def test_a_new_branch_without_commits_is_the_default_branch(root: Path) -> None:
    """Compared with its own commit it could only be the same."""
    git(root, "checkout", "-q", "-b", "mine")
    assert arms(root) == ids(root, "HEAD^")


def test_the_remote_names_the_default_branch(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Work on main that is not pushed is still on the default branch; a detached commit of it is too."""
    git(root, "branch", "-q", "-m", "trunk")
    clone = tmp_path_factory.mktemp("clone") / "it"
    git(root, "clone", "-q", str(root), str(clone))
    commit(clone, "mine")
    assert arms(clone) == ids(clone, "HEAD^")
    git(clone, "checkout", "-q", "-b", "other")
    assert arms(clone) == ids(clone, "origin/trunk")
    git(clone, "checkout", "-q", "--detach", "origin/trunk")
    assert arms(clone) == ids(clone, "HEAD^")


def test_a_clean_default_branch_has_baseline_then_release_then_parent(root: Path) -> None:
    """In this order; the stack of the baseline is rebuilt with it. A tag of this very commit is no earlier release."""
    git(root, "tag", "v1", "HEAD^")
    commit(root, "third")
    git(root, "tag", "v2")
    first = ids(root, "HEAD^^")
    then = replace(STACK, commit=first[0].removeprefix("ref:"), mlx="0.32.3")
    assert arms(root, baseline=then, release="0.2.0") == [
        f"{first[0]}+mlx==0.32.3", *ids(root, "v1", "HEAD^"), "installed"
    ]  # fmt: skip


def test_without_git_the_installed_release_is_left(tmp_path: Path) -> None:
    """Or nothing at all."""
    assert [one.arm for one in comparators(None, STACK, STACK, "0.2.0")] == ["installed"]
    assert arms(tmp_path) == []


def test_git_that_cannot_answer_is_the_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not "no earlier commit"; an installed release is taken in its place, and says so."""
    monkeypatch.setenv("PATH", str(root))
    reason = r"not ref:HEAD \(this checkout's history\): git cannot be run: .* \(next: install git"
    with pytest.raises(NotMeasuredError, match=reason.removeprefix("not ")) as caught:
        choose(comparators(Repository(root), STACK, None), lambda one: one)
    assert caught.value.exit_code == 4
    chosen, _ = choose(comparators(Repository(root), STACK, None, "0.2.0"), lambda one: one)
    assert chosen.comparator.arm == "installed"
    assert re.search(reason, str(chosen))


def test_a_shallow_clone_says_how_to_deepen_it(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its parent commit is not there."""
    clone = tmp_path_factory.mktemp("clone") / "it"
    git(root, "clone", "-q", "--depth", "1", f"file://{root}", str(clone))
    found = comparators(Repository(clone), STACK, None)
    with pytest.raises(NotMeasuredError, match="too shallow; git fetch --unshallow --tags"):
        choose(found, lambda one: one)


def test_what_cannot_be_had_is_named_and_the_next_is_taken() -> None:
    """One line says what is compared with, what it stands in for, and how to choose."""
    found = (
        Comparator("ref:" + 40 * "1", "the baseline", "a dirty tree"),
        Comparator("ref:v1", "a tag"),
        Comparator("ref:v0", "b"),
    )

    def build(one: Comparator) -> str:
        if one.arm == "ref:v1":
            raise ArmUnavailableError("mlx 0.32.3 cannot be had offline", remedy="go online")
        return one.arm

    chosen, built = choose(found, build)
    assert built == "ref:v0"
    assert str(chosen) == (
        "ref:v0 (b); not ref:111111111111 (the baseline): a dirty tree; "
        "not ref:v1 (a tag): mlx 0.32.3 cannot be had offline (next: go online); choose another with --against ARM"
    )


@pytest.mark.parametrize("error", [ArmUnavailableError("offline"), UsageError("no such commit")])
def test_an_arm_that_was_named_is_never_replaced(error: PerfError) -> None:
    """What it lacks is raised as it is."""

    def build(one: Comparator) -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        choose((Comparator("ref:v1", "a tag"),), build, "ref:nowhere")
    assert caught.value is error


@pytest.mark.parametrize(
    ("then", "arm"),
    [
        ({}, "ref:" + str(STACK.commit)),
        ({"mlx": "0.32.3"}, f"ref:{STACK.commit}+mlx==0.32.3"),
        ({"mlx_vlm": "0.7.9"}, f"ref:{STACK.commit}+mlx-vlm==0.7.9"),
        ({"knobs": {"MLX_A": "1"}}, f"ref:{STACK.commit}+env:MLX_A=1"),
    ],
)
def test_the_baselines_stack_is_rebuilt(then: dict[str, object], arm: str) -> None:
    """Commit, versions and knobs."""
    assert baseline_arm(replace(STACK, **then), STACK) == arm  # type: ignore[arg-type]


def test_what_cannot_be_rebuilt_is_refused() -> None:
    """Uncommitted changes, and a knob that is set here alone."""
    with pytest.raises(ArmUnavailableError, match="uncommitted changes"):
        baseline_arm(replace(STACK, dirty=True), STACK)
    with pytest.raises(ArmUnavailableError, match="MLX_B is set here"):
        baseline_arm(STACK, replace(STACK, knobs={"MLX_B": "1"}))
