from collections.abc import Sequence
from pathlib import Path

import pytest

from gemma3n_perf.duel.bisect import bisect
from gemma3n_perf.duel.packages import HOMES
from gemma3n_perf.duel.steps import Steps
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.shell import Done, run_command
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.duel.test_worktrees import git

LISTED = Done(0, "mlx (0.32.4)\nAvailable versions: 0.32.4, 0.32.3, 0.32.2, 0.31.0\n", "")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a scratch repository of nine commits, the last seven of which are slow."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "--quiet", "--initial-branch=main")
    for number in range(9):
        (repo / "speed").write_text("slow" if number >= 2 else "fast")
        (repo / "number").write_text(str(number))
        git(repo, "add", ".")
        git(repo, "commit", "--quiet", "-m", str(number))
        git(repo, "tag", f"v{number}")
    return repo


def steps(repo: Path, tmp_path: Path, listed: Done = LISTED) -> Steps:
    """Return steps of the repository, and a fake listing of releases."""

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        return listed if "index" in argv else run_command(argv, timeout_s)

    return Steps(Worktrees(repo, tmp_path / "cache", run), tmp_path / "cache", run)


def test_commits_between_two_refs_come_in_order(repo: Path, tmp_path: Path) -> None:
    """Both ends included, the other parts kept."""
    found = steps(repo, tmp_path).between("ref:v1+env:A=1", "ref:v4+env:A=1")
    assert found == [f"ref:{git(repo, 'rev-parse', f'v{number}')}+env:A=1" for number in (1, 2, 3, 4)]


def test_releases_between_two_versions_come_in_order(repo: Path, tmp_path: Path) -> None:
    """Oldest first, as the index knows them."""
    assert steps(repo, tmp_path).between("mlx==0.32.2", "mlx==0.32.4") == ["mlx==0.32.2", "mlx==0.32.3", "mlx==0.32.4"]


def test_commits_of_mlx_vlm_come_from_a_clone_that_is_kept(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloned once, then brought up to date; one that cannot be had is named."""
    monkeypatch.setitem(HOMES, "mlx-vlm", str(tmp_path / "nowhere"))
    first, last = (git(repo, "rev-parse", f"v{number}") for number in (1, 3))
    with pytest.raises(ArmUnavailableError, match="cannot be cloned"):
        steps(repo, tmp_path).between(f"mlx-vlm@{first}", f"mlx-vlm@{last}")
    monkeypatch.setitem(HOMES, "mlx-vlm", str(repo))
    for _ in range(2):
        found = steps(repo, tmp_path).between(f"mlx-vlm@{first}", f"mlx-vlm@{last}")
        assert found == [f"mlx-vlm@{git(repo, 'rev-parse', f'v{number}')}" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("good", "bad", "found"),
    [
        ("ref:v4", "ref:v1", "does not come after"),
        ("ref:v1", "ref:v1", "do not differ in one part"),
        ("ref:v1", "mlx==0.32.3", "do not differ in one part"),
        ("ref:v1+mlx==0.32.3", "ref:v2+mlx==0.32.4", "do not differ in one part"),
        ("here+env:A=1", "here+env:A=2", "do not differ in one part"),
        ("mlx==0.32.4", "mlx==0.32.2", "does not come after"),
        ("mlx==0.30.0", "mlx==0.32.2", "no release 0.30.0"),
        ("ref:nowhere", "ref:v2", "no commit of this clone"),
    ],
)
def test_what_is_no_range_is_refused(repo: Path, tmp_path: Path, good: str, bad: str, found: str) -> None:
    """One part differs, and the good end comes first."""
    with pytest.raises(UsageError, match=found):
        steps(repo, tmp_path).between(good, bad)


def test_offline_releases_are_unavailable(repo: Path, tmp_path: Path) -> None:
    """Nothing is measured, and no version is called missing."""
    with pytest.raises(ArmUnavailableError, match="cannot be listed"):
        steps(repo, tmp_path, Done(1, "", "dns error")).between("mlx==0.32.2", "mlx==0.32.4")


def test_a_planted_commit_of_a_scratch_repository_is_found(repo: Path, tmp_path: Path) -> None:
    """Every step is checked out, and what its files say decides."""
    searched = steps(repo, tmp_path)

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        speeds = [
            (searched.worktrees.checkout(arm.removeprefix("ref:")) / "speed").read_text()
            for arm in (baseline, candidate)
        ]
        verdict, effect = (Verdict.LOSS, -0.05) if speeds == ["fast", "slow"] else (Verdict.NO_CHANGE, 0.0)
        return Judgement(verdict, "", effect, effect - 0.005, effect + 0.005)

    found = bisect(searched.between("ref:v0", "ref:main"), compare, budget_s=60)
    (step,) = found.steps
    assert step.suspects == (f"ref:{git(repo, 'rev-parse', 'v2')}",)
    assert step.judgement.effect == -0.05
