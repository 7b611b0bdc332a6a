import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import COPIED, Builder, ReadyArm, in_one_process, require_commit
from gemma3n_perf.duel.environments import Environments
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.hardware.shell import Done
from tests.fakes import COMMIT, STACK

OTHER = "f" * 40
HERE = {"mlx": "mlx==0.32.4", "mlx-vlm": "mlx-vlm==0.7.10"}


def builder(tmp_path: Path, *, dirty: bool = False, layout: str = "duel") -> Builder:
    """Return a builder over a fake git, which knows ``main`` as this commit and ``old`` as another, and a fake uv."""

    def run(argv: Sequence[str], timeout_s: float) -> Done:
        if "rev-parse" in argv:
            known = {"main": COMMIT, "old": OTHER}
            if argv[-1] == "HEAD":
                return Done(1, "", "")
            commit = known.get(argv[-1].removesuffix("^{commit}"))
            return Done(0, commit, "") if commit else Done(1, "", "")
        if "add" in argv and layout:
            _touch(Path(argv[-2]) / "perf" / "gemma3n_perf" / layout / "worker.py")
        if argv[1] == "venv":
            python = Path(argv[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        return Done(0, "", "")

    stack = replace(STACK, dirty=dirty)
    _touch(tmp_path / "here" / "perf" / "gemma3n_perf" / "duel" / "worker.py")
    return Builder(
        tmp_path / "here" / "perf", stack, Worktrees(tmp_path / "here", tmp_path / "cache", run),
        Environments(tmp_path / "cache", run, HERE, uv="uv"), python="python-of-here",
    )  # fmt: skip


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def pair(made: Builder, baseline: str, candidate: str, same: bool | None = False) -> tuple[ReadyArm, ...]:
    """Build two arms."""
    return made.build(parse(baseline), [parse(candidate)], same=same)


def test_here_runs_this_python_over_this_package(tmp_path: Path) -> None:
    """With its own worker, and variables set before the start."""
    _, arm = pair(builder(tmp_path), "here", "here+env:MLX_MAX_OPS_PER_BUFFER=100")
    package = tmp_path / "here" / "perf"
    assert arm.argv == ("python-of-here", "-P", str(package / "gemma3n_perf" / "duel" / "worker.py"))
    assert arm.environ["PYTHONPATH"] == str(package)
    assert arm.environ["MLX_MAX_OPS_PER_BUFFER"] == "100"


def test_a_commit_runs_its_own_package_and_worker(tmp_path: Path) -> None:
    """From its worktree, with the packages of here."""
    arm, _ = pair(builder(tmp_path), "ref:old", "here")
    package = tmp_path / "cache" / "worktrees" / OTHER / "perf"
    assert arm.environ["PYTHONPATH"] == str(package)
    assert arm.argv == ("python-of-here", "-P", str(package / "gemma3n_perf" / "duel" / "worker.py"))


def test_a_commit_from_before_the_rooms_runs_its_worker_where_it_kept_it(tmp_path: Path) -> None:
    """Old commits stay arms."""
    arm, _ = pair(builder(tmp_path, layout="measure"), "ref:old", "here")
    package = tmp_path / "cache" / "worktrees" / OTHER / "perf"
    assert arm.environ["PYTHONPATH"] == str(package)
    assert arm.argv[-1] == str(package / "gemma3n_perf" / "measure" / "worker.py")


def test_a_commit_without_the_suite_is_unavailable(tmp_path: Path) -> None:
    """It cannot decode anything."""
    with pytest.raises(ArmUnavailableError, match="holds no worker"):
        pair(builder(tmp_path, layout=""), "ref:old", "here")


def test_other_versions_run_in_their_own_environment(tmp_path: Path) -> None:
    """Over this package; versions that are here already need none."""
    here, other = pair(builder(tmp_path), "mlx==0.32.4+mlx-vlm==0.7.10", "mlx==0.32.3")
    assert here.argv[0] == "python-of-here"
    assert Path(other.argv[0]).parts[-2:] == ("bin", "python")
    assert "environments" in other.argv[0]
    assert other.environ["PYTHONPATH"] == here.environ["PYTHONPATH"]


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [
        ("here", "here"),
        ("here", "ref:main"),
        ("here", "mlx==0.32.4"),
        ("ref:old", "ref:old+mlx-vlm==0.7.10"),
        ("env:A=1+env:B=2", "env:B=2+env:A=1"),
    ],
)
def test_the_same_arm_twice_is_refused_unless_asked_for(tmp_path: Path, baseline: str, candidate: str) -> None:
    """However it is written: a comparison with itself shows nothing but error."""
    with pytest.raises(UsageError, match="same arm twice") as caught:
        pair(builder(tmp_path), baseline, candidate)
    assert "--aa" in (caught.value.remedy or "")
    assert pair(builder(tmp_path), baseline, candidate, same=True)
    assert pair(builder(tmp_path), baseline, candidate, same=None)


def test_a_plant_makes_an_arm_another(tmp_path: Path) -> None:
    """And carries its slowdown; a speed-up goes to the other side."""
    baseline, candidate = pair(builder(tmp_path), "here", "here+plant:+2%")
    assert (baseline.planted, candidate.planted) == pytest.approx((0.0, 0.02))
    baseline, candidate = pair(builder(tmp_path), "here", "here+plant:-2%")
    assert (baseline.planted, candidate.planted) == pytest.approx((1 / 0.98 - 1, 0.0))


def test_an_aa_duel_of_two_arms_is_refused(tmp_path: Path) -> None:
    """It would call their difference noise."""
    with pytest.raises(UsageError, match="--aa is for one arm twice"):
        pair(builder(tmp_path), "here", "ref:old", same=True)


def test_a_dirty_tree_is_no_commit_and_is_marked(tmp_path: Path) -> None:
    """It differs from the commit it started from, and its result says that it belongs to none."""
    baseline, candidate = pair(builder(tmp_path, dirty=True), "ref:main", "here")
    assert baseline.cautions == ()
    assert "uncommitted changes" in candidate.cautions[0].found


def test_an_unknown_ref_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    """Even where the other arm is sound."""
    with pytest.raises(UsageError, match="no commit of this clone"):
        pair(builder(tmp_path), "mlx==0.32.3", "ref:nowhere")
    assert not (tmp_path / "cache").exists()


def fusions(*, env: bool) -> str:
    """Return the name of a fusion that sets variables, or of one that does not."""
    return next(name for name in registry.names() if bool(registry.get(name).env) is env)


def test_arms_have_processes_of_their_own(tmp_path: Path) -> None:
    """A fusion too: the baseline must not be where its code runs."""
    for candidate in (f"here+fusion:{fusions(env=False)}", f"here+fusion:{fusions(env=True)}", "here+plant:+2%"):
        baseline, other = pair(builder(tmp_path), "here", candidate)
        assert baseline.process != other.process
        assert baseline.fusions == ()


def test_what_mlx_compiles_for_an_unfused_arm_is_out_of_a_fusions_way(tmp_path: Path) -> None:
    """In a folder of the cache; an arm with fusions has the usual one, and so has a process that both share."""
    arms = pair(builder(tmp_path), "here", f"here+fusion:{fusions(env=False)}")
    compiled = str(tmp_path / "cache" / "compiled")
    assert [arm.variables.get("TMPDIR") for arm in arms] == [compiled, None]
    assert Path(compiled).is_dir()
    shared = in_one_process(arms)
    assert {arm.group for arm in shared} == {"shared"}
    assert [arm.variables.get("TMPDIR") for arm in shared] == [None, None]


def test_several_candidates_are_numbered_and_each_has_a_process(tmp_path: Path) -> None:
    """They are named by number and text, and the baseline stays apart."""
    name = fusions(env=False)
    arms = builder(tmp_path).build(parse("here"), [parse(f"here+fusion:{name}"), parse("ref:old")])
    assert [arm.name for arm in arms] == ["baseline", f"0:here+fusion:{name}", "1:ref:old"]
    both = [parse("here"), parse("here+plant:+2%")]
    grouped = builder(tmp_path).build(parse("here"), both, same=None)
    assert len({arm.process for arm in grouped}) == 3
    assert [arm.planted for arm in grouped] == pytest.approx([0.0, 0.0, 0.02])
    with pytest.raises(UsageError, match="below zero"):
        builder(tmp_path).build(parse("here"), [parse("here+plant:-2%"), parse("ref:old")])


def test_packages_found_by_a_path_are_found_by_arms_of_this_environment(tmp_path: Path) -> None:
    """Behind the arm's own suite; an environment that was built has its own packages."""
    made = replace(builder(tmp_path), search="/opt/site")
    here, other = pair(made, "here", "here+mlx==0.32.3")
    assert here.environ["PYTHONPATH"] == f"{tmp_path / 'here' / 'perf'}{os.pathsep}/opt/site"
    assert other.environ["PYTHONPATH"] == str(tmp_path / "here" / "perf")


def test_a_copied_package_is_told_and_is_no_comparator(tmp_path: Path) -> None:
    """What belongs to no commit is measured with a caution, and nothing is compared with it."""
    source = tmp_path / "source"
    _touch(source / "pyproject.toml")
    here, other = pair(builder(tmp_path), "here", f"mlx-vlm@{source}")
    assert [one.code for one in other.cautions] == [COPIED]
    assert str(source) in other.cautions[0].found
    assert require_commit(here) is here
    with pytest.raises(UsageError, match="which is no commit"):
        require_commit(other)
