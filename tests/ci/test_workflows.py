import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.__main__ import parser
from gemma3n_perf.errors import MalformedRecordError, NotMeasuredError, UsageError
from tests.rehearsal.steps import Step, carry_out, filled, read_steps

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # v\d+\.\d+\.\d+$")
SELF_HOSTED = "${{ matrix.runner }}"


def tool(name: str) -> str:
    """Return a tool of this environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not installed: make setup"
    return found


def loaded(path: Path) -> dict[Any, Any]:
    """Read a workflow."""
    yaml: Any = importlib.import_module("yaml")
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    """Return the jobs of a workflow."""
    found: dict[str, dict[str, Any]] = loaded(path)["jobs"]
    return found


def scripts(path: Path) -> list[str]:
    """Return all scripts of a workflow."""
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def test_there_are_the_four_workflows() -> None:
    """The tests, the gate, the night, and what other repositories call."""
    assert [path.stem for path in WORKFLOWS] == ["gate", "nightly", "tests", "upstream"]


def test_actionlint_finds_nothing() -> None:
    """Syntax, expressions, contexts, and shellcheck over the scripts."""
    argv = [tool("actionlint"), "-no-color", "-shellcheck", tool("shellcheck"), *map(str, WORKFLOWS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")


def test_zizmor_finds_nothing() -> None:
    """Injection, permissions, credentials, pins, caches: with no finding ignored."""
    argv = [tool("zizmor"), "--offline", "--no-progress", "--color", "never", "--format", "plain", *map(str, WORKFLOWS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, "No findings" in done.stdout + done.stderr) == (0, True), done.stdout
    assert not list(ROOT.glob(".github/zizmor.y*ml"))
    assert "zizmor: ignore" not in "".join(path.read_text() for path in WORKFLOWS)


def test_the_linters_would_find_something(tmp_path: Path) -> None:
    """A workflow with an injection and an unpinned action fails both: the checks above are awake."""
    path = tmp_path / ".github" / "workflows" / "bad.yml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "on: pull_request_target\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n"
        "      - uses: actions/checkout@v4\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    for argv in ([tool("actionlint"), "-shellcheck="], [tool("zizmor"), "--offline", "--no-progress"]):
        assert subprocess.run([*argv, str(path)], capture_output=True, check=False).returncode != 0


@each
def test_every_action_is_pinned_to_a_commit_with_its_version(path: Path) -> None:
    """A tag can be moved."""
    used = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []
    # One version of each action everywhere.
    pins = {(match["action"], match["commit"]) for line in used if (match := PINNED.fullmatch(line))}
    assert len(pins) == len({action for action, _ in pins})


@each
def test_permissions_are_none_at_the_top_and_least_in_each_job(path: Path) -> None:
    """Only the jobs that comment and keep the issue may write there, only the one that publishes to Pages."""
    assert loaded(path)["permissions"] == {}
    writing = {
        (name, scope)
        for name, job in jobs(path).items()
        for scope, access in job["permissions"].items()
        if access == "write"
    }
    allowed = {
        "gate": {("comment", "pull-requests")},
        "nightly": {("publish", "pages"), ("publish", "id-token"), ("issue", "issues")},
        "tests": set(),
        "upstream": set(),
    }
    assert writing == allowed[path.stem]


@each
def test_no_checkout_leaves_a_token_behind_and_no_secret_is_used(path: Path) -> None:
    """The code that is checked out may be anybody's."""
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "secrets." not in path.read_text()


@each
def test_no_script_holds_an_expression(path: Path) -> None:
    """Values come through the environment, where they are data."""
    assert [script for script in scripts(path) if "${{" in script] == []


@each
def test_every_job_ends_some_time(path: Path) -> None:
    """A measuring machine that hangs must not hang for six hours."""
    assert all(0 < job["timeout-minutes"] <= 240 for job in jobs(path).values())


@each
def test_every_script_is_a_command_that_exists_here(path: Path) -> None:
    """Each call of ours parses with this checkout's own parser; the rest is make, this repository's scripts, and gh."""
    for script in scripts(path):
        for line in script.replace("\\\n", " ").splitlines():
            ours = re.search(r"(?:gemma3n-perf|-m gemma3n_perf\.ci) (?P<rest>.*?)\)?$", line)
            if ours:
                argv = re.sub(r'"\$\w+"', "1", ours["rest"]).replace('"', "").split()
                parser().parse_args(argv if "gemma3n-perf " in line else ["ci", *argv])
            else:
                first = line.split()[0]
                assert first in ("cat", "cp", "gh", "make", "mkdir", "printf") or (ROOT / first).is_file(), line


def test_only_measuring_jobs_run_on_our_machines_one_at_a_time_for_each() -> None:
    """With an environment to guard them, and a queue across workflows that loses nobody."""
    for path in (one for one in WORKFLOWS if one.stem != "upstream"):  # that one measures on its caller's machine
        for name, job in jobs(path).items():
            if name != "measure":
                assert "self-hosted" not in str(job["runs-on"])
                assert job["runs-on"] != SELF_HOSTED
                continue
            assert job["runs-on"] == SELF_HOSTED
            assert job["environment"]
            assert job["concurrency"] == {"group": "machine-${{ matrix.class }}", "queue": "max"}
            assert job["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("name", "job"), [("gate", "measure"), ("nightly", "measure"), ("upstream", "compare")])
def test_nothing_that_an_earlier_job_cached_is_used(name: str, job: str, tmp_path: Path) -> None:
    """Packages, environments, checkpoints and kernels are had anew, in folders nobody could have prepared."""
    path, first = ROOT / f".github/workflows/{name}.yml", "Start with empty caches"
    steps = read_steps(path, job)
    assert next(iter(steps)) == first
    made = []
    for number in range(2):
        told = tmp_path / f"env{number}"
        variables = {"RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(told), "PATH": os.environ["PATH"]}
        assert carry_out(steps[first], tmp_path, {}, variables).code == 0
        folders = dict(line.split("=", 1) for line in told.read_text().splitlines())
        assert folders.keys() == {"GEMMA3N_PERF_CACHE", "UV_CACHE_DIR"}
        made += [Path(one) for one in folders.values()]
    assert all(one.parent == tmp_path and not list(one.iterdir()) for one in made)
    assert len(set(made)) == 4


def test_the_night_runs_what_pull_requests_do_not() -> None:
    """The slow tests, the rehearsal and other versions, each by the same command as here."""
    job = jobs(ROOT / ".github/workflows/nightly.yml")["slow"]
    assert [(one["target"], one["arguments"]) for one in job["strategy"]["matrix"]["include"]] == [
        ("test", "-m slow"),
        ("rehearse", ""),
        ("versions", "versions.json"),
    ]
    assert [step["run"] for step in job["steps"] if "run" in step] == ['make "$TARGET" ARGS="$ARGS"']


def test_the_job_that_may_write_runs_nothing_of_the_change() -> None:
    """It checks out the base alone and installs nothing."""
    job = jobs(ROOT / ".github/workflows/gate.yml")["comment"]
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["ref"] for step in checkouts] == ["${{ github.event.pull_request.base.sha || github.sha }}"]
    assert [step["run"].split()[:4] for step in job["steps"] if "run" in step] == [
        ["python3", "-P", "-m", "gemma3n_perf.ci"]
    ]


def test_a_dispatched_run_has_the_name_by_which_the_plan_knows_it() -> None:
    """Pull request and commit are in it, as ``ci.plan`` reads them."""
    name = loaded(ROOT / ".github/workflows/gate.yml")["run-name"]
    number, commit = "github.event.pull_request.number || inputs.pull_request", "format(' at {0}', inputs.commit)"
    assert name == f"gate of #${{{{ {number} }}}}${{{{ inputs.commit && {commit} }}}}"


def test_nothing_runs_with_the_rights_of_the_base_at_a_strangers_call() -> None:
    """Neither of the two triggers that would."""
    for path in WORKFLOWS:
        triggers = loaded(path)[True]  # YAML 1.1 reads the key `on` so
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)


def test_the_steps_without_an_environment_need_nothing_but_python() -> None:
    """Planning, short answers and posting import with every other package out of reach."""
    block = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in (*sys.stdlib_module_names, 'gemma3n_perf'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "from gemma3n_perf.ci.cli import main\n"
        "sys.exit(main(sys.argv[1:], sys.stdout, sys.stderr))\n"
    )
    argv = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'perf')!r})\n{block}"]
    argv += ["matrix", "--policy", str(ROOT / "baselines/policy.toml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"include"' in done.stdout


def test_a_step_runs_as_on_a_runner(tmp_path: Path) -> None:
    """Its own environment is filled in, a failing command ends it, and nothing else leaks in."""
    path = tmp_path / "workflow.yml"
    path.write_text(
        "jobs:\n  one:\n    steps:\n      - uses: x\n      - name: say\n        env:\n"
        '          TEXT: ${{ needs.plan.outputs.a || inputs.b }}\n        run: |\n          echo "$TEXT${HOME:-}"\n'
        "          false\n          echo never\n"
    )
    steps = read_steps(path, "one")
    ended = carry_out(steps["say"], tmp_path, {"inputs.b": "$(id)"}, {"PATH": "/usr/bin:/bin"})
    assert (ended.code, ended.said) == (1, "$(id)\n")
    with pytest.raises(MalformedRecordError, match="no job two"):
        read_steps(path, "two")
    with pytest.raises(UsageError, match=r"github\.actor"):
        filled("${{ github.actor }}", {})


def test_a_step_that_does_not_end_is_named(tmp_path: Path) -> None:
    """As on a busy machine, which waits to be fit."""
    with pytest.raises(NotMeasuredError, match="the step wait did not end within 0 s"):
        carry_out(Step("wait", "exec sleep 30", {}), tmp_path, {}, {"PATH": "/usr/bin:/bin"}, timeout_s=0.2)
