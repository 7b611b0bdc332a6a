import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.ci.plan import (
    ChipClass,
    Plan,
    Pull,
    State,
    matrix,
    plan,
    read_classes,
    read_plan,
    read_pull,
    write_outputs,
)
from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.gate.change import sort_files

HEAD, OTHER, BASE = "a" * 40, "c" * 40, "b" * 40
OWN = Pull(7, HEAD, BASE, "us/suite", "us/suite", "colleague")
FORK = Pull(7, HEAD, BASE, "them/suite", "us/suite", "stranger")
FUSION = "perf/gemma3n_perf/fusions/stacked_altup.py"
MAC = ChipClass("apple-m1-ultra-64gpu", ("self-hosted", "macOS", "ARM64", "apple-m1-ultra-64gpu"), True)
POLICY = """
[gate]
required = ["apple-m1-ultra-64gpu"]
[classes.apple-m1-ultra-64gpu]
workloads = ["e4b-4bit/text/pp320-tg64"]
runner = ["self-hosted", "macOS", "ARM64", "apple-m1-ultra-64gpu"]
"""


def planned(pull: Pull, *changed: str) -> Plan:
    """Plan for a pull request that changes these files, with one class to measure on."""
    return plan(pull, sort_files(changed, Path("/checkout"), Path("/checkout/baselines")), [MAC])


def payload(**changes: Any) -> dict[str, Any]:
    """Return what GitHub sends of a pull request from a fork, with changes to its own fields."""
    pull = {
        "number": 7,
        "user": {"login": "stranger"},
        "head": {"sha": HEAD, "repo": {"full_name": "them/suite"}},
        "base": {"sha": BASE, "repo": {"full_name": "us/suite"}},
    }
    return {"pull_request": pull | changes}


def written(path: Path, value: object) -> Path:
    """Write JSON."""
    path.write_text(json.dumps(value))
    return path


def dispatched(tmp_path: Path, commit: str, ref: str = "refs/heads/main", number: str = "7") -> Pull:
    """Read a maintainer's dispatch for a commit."""
    tree = {
        "ref": ref,
        "repository": {"default_branch": "main"},
        "inputs": {"pull_request": number, "commit": commit},
    }
    pull = written(tmp_path / "pull.json", payload()["pull_request"])
    return read_pull("workflow_dispatch", written(tmp_path / "event.json", tree), pull)


def policy(tmp_path: Path, text: str) -> Path:
    """Write a policy file."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_a_pull_request_of_a_fork_is_foreign(tmp_path: Path) -> None:
    """Its head is in another repository."""
    found = read_pull("pull_request", written(tmp_path / "e.json", payload()))
    assert found == FORK
    assert found.foreign


def test_a_deleted_fork_is_still_foreign(tmp_path: Path) -> None:
    """GitHub then sends null for its repository."""
    found = read_pull("pull_request", written(tmp_path / "e.json", payload(head={"sha": HEAD, "repo": None})))
    assert found.foreign


@pytest.mark.parametrize("author", ["dependabot[bot]", "renovate[bot]"])
def test_updates_of_dependencies_need_approval_though_the_branch_is_ours(author: str) -> None:
    """The branch is in the repository, the code it brings in is not."""
    found = planned(Pull(7, HEAD, BASE, "us/suite", "us/suite", author), FUSION)
    assert found.state is State.REFUSED
    assert author in found.reason


@pytest.mark.parametrize(
    "event",
    [
        [],
        {"pull_request": {}},
        payload(number="7"),
        payload(head={"sha": "main", "repo": {"full_name": "us/suite"}}),
        payload(base={"sha": BASE, "repo": {"full_name": "us/suite\nstate=measure"}}),
    ],
)
def test_an_event_that_github_does_not_send_is_refused(tmp_path: Path, event: object) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(MalformedRecordError):
        read_pull("pull_request", written(tmp_path / "e.json", event))


def test_other_events_are_not_served(tmp_path: Path) -> None:
    """pull_request_target would run with the base's rights."""
    with pytest.raises(UsageError, match="pull_request_target"):
        read_pull("pull_request_target", written(tmp_path / "e.json", payload()))


def test_a_fork_is_refused_before_a_maintainer_approves_its_commit() -> None:
    """The way on names the pull request and the exact commit."""
    found = planned(FORK, FUSION)
    assert (found.state, found.classes) == (State.REFUSED, ())
    assert "gh workflow run gate.yml -f pull_request=7 -f commit=" + HEAD in found.remedy


def test_an_approved_commit_of_a_fork_is_measured_behind_the_guarded_environment(tmp_path: Path) -> None:
    """The environment with reviewers stands between the plan and the machines."""
    found = planned(dispatched(tmp_path, HEAD), FUSION)
    assert (found.state, found.outputs()["environment"], found.classes) == (State.MEASURE, "measure-fork", (MAC,))


def test_an_approval_does_not_move_on_with_the_pull_request(tmp_path: Path) -> None:
    """A commit pushed after the look was not looked at."""
    found = planned(dispatched(tmp_path, OTHER), FUSION)
    assert found.state is State.REFUSED
    assert OTHER[:12] in found.reason
    assert HEAD[:12] in found.reason


def test_a_fork_passes_once_a_dispatched_run_for_its_commit_did(tmp_path: Path) -> None:
    """Run again, its own check knows that run by pull request and commit; of our own branch nothing is taken over."""
    event, fork = written(tmp_path / "event", payload()), "gate of #{} at {}"
    for name, expected in ((fork.format(7, HEAD), True), (fork.format(7, OTHER), False), (fork.format(8, HEAD), False)):
        found = read_pull("pull_request", event, passed=written(tmp_path / "passed", [name]))
        made = planned(found, FUSION)
        assert (found.passed, made.state) == (expected, State.NOTHING if expected else State.REFUSED)
    passed = written(tmp_path / "passed", [fork.format(7, HEAD)])
    ours = payload(head={"sha": HEAD, "repo": {"full_name": "us/suite"}})
    assert not read_pull("pull_request", written(tmp_path / "event", ours), passed=passed).passed
    with pytest.raises(MalformedRecordError, match="holds no list"):
        read_pull("pull_request", written(tmp_path / "event", payload()), passed=written(tmp_path / "passed", {}))


@pytest.mark.parametrize("commit", ["main", HEAD[:12], "", HEAD.upper(), HEAD + "\n;id"])
def test_an_approval_names_a_whole_commit(tmp_path: Path, commit: str) -> None:
    """A branch or a short id could come to mean another commit."""
    with pytest.raises(UsageError, match="commit"):
        dispatched(tmp_path, commit)


def test_a_dispatch_from_another_branch_is_refused(tmp_path: Path) -> None:
    """Its workflow and its rules would be that branch's."""
    with pytest.raises(UsageError, match="default branch"):
        dispatched(tmp_path, HEAD, ref="refs/heads/mine")


def test_a_dispatch_and_the_api_must_mean_the_same_pull_request(tmp_path: Path) -> None:
    """The number decides where the comment goes."""
    with pytest.raises(MalformedRecordError, match="pull request 7"):
        dispatched(tmp_path, HEAD, number="8")


def test_our_own_branch_is_measured_on_every_class() -> None:
    """No approval is needed of those who may write."""
    found = planned(OWN, "README.md", FUSION)
    assert (found.state, found.outputs()["environment"], found.reason) == (
        State.MEASURE,
        "measure",
        "stacked_altup.py changed",
    )


@pytest.mark.parametrize("pull", [OWN, FORK])
@pytest.mark.parametrize("changed", [[], ["docs/gate.md"], ["perf/gemma3n_perf/fusions/README.md"], ["tests/x.py"]])
def test_a_change_without_fusions_has_nothing_to_gate(pull: Pull, changed: list[str]) -> None:
    """Not even a fork's, which then waits for nobody."""
    assert planned(pull, *changed).state is State.NOTHING


@pytest.mark.parametrize(
    "path", [FUSION, "perf/gemma3n_perf/fusions/kernels/common.py", "baselines/apple-m1/fusions/stacked-altup.json"]
)
def test_sources_of_fusions_and_their_evidence_are_gated(path: str) -> None:
    """Shared kernels too."""
    assert planned(OWN, path).state is State.MEASURE


def test_changes_of_what_measures_are_pointed_out() -> None:
    """A reader must know that the ruler was edited together with the thing it measures."""
    changed = [FUSION, "perf/gemma3n_perf/stats/bounds.py", "baselines/policy.toml", "docs/ci.md"]
    assert planned(OWN, *changed).harness == ("perf/gemma3n_perf/stats/bounds.py", "baselines/policy.toml")


def test_a_plan_survives_the_way_through_a_jobs_outputs(tmp_path: Path) -> None:
    """Every output is one line, and the plan reads back as it was."""
    found = planned(OWN, FUSION, "perf/a\nb.py")
    write_outputs(found, tmp_path / "out")
    lines = (tmp_path / "out").read_text().splitlines()
    outputs = dict(line.split("=", 1) for line in lines)
    assert set(outputs) == {"state", "matrix", "environment", "head", "base", "plan"}
    assert read_plan(outputs["plan"]) == found
    assert json.loads(outputs["matrix"]) == {"include": [{"class": MAC.name, "runner": list(MAC.runner)}]}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": "measure"}'])
def test_no_plan_is_no_plan(text: str) -> None:
    """The planning job may have failed."""
    with pytest.raises(MalformedRecordError, match="left no plan"):
        read_plan(text)


@pytest.mark.parametrize("name", ["head", "base", "author"])
def test_a_plan_of_other_types_is_none(tmp_path: Path, name: str) -> None:
    """Before anything is written of it."""
    write_outputs(planned(OWN, FUSION), tmp_path / "out")
    outputs = dict(line.split("=", 1) for line in (tmp_path / "out").read_text().splitlines())
    tree = json.loads(outputs["plan"])
    tree["pull"][name] = 5
    with pytest.raises(MalformedRecordError, match="left no plan"):
        read_plan(json.dumps(tree))


def test_adding_a_class_to_the_policy_adds_it_to_the_matrix(tmp_path: Path) -> None:
    """Its table is all it takes; it need not be required."""
    added = POLICY + '[classes.apple-m4-10gpu]\nworkloads = ["nano/text/pp40-tg64"]\nrunner = ["self-hosted", "m4"]\n'
    found = read_classes(policy(tmp_path, added))
    assert [one["class"] for one in matrix(found)["include"]] == ["apple-m1-ultra-64gpu", "apple-m4-10gpu"]
    assert [one.required for one in found] == [True, False]


def test_a_class_that_awaits_a_machine_is_in_no_matrix(tmp_path: Path) -> None:
    """A job would wait for its runner until it is cancelled, every night."""
    table = '[classes.apple-m4-10gpu]\nstate = "awaiting"\nworkloads = ["nano/text/pp40-tg64"]\nrunner = ["m4"]\n'
    assert [one.name for one in read_classes(policy(tmp_path, POLICY + table))] == ["apple-m1-ultra-64gpu"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("required", "requried", "requried"),
        ("runner", "runners", "runners"),
        ('required = ["apple-m1-ultra-64gpu"]', 'required = ["apple-m1-ultra-48gpu"]', "apple-m1-ultra-48gpu"),
        ('"self-hosted", ', '"self-hosted ${{ secrets.X }}", ', "no label"),
        ('runner = ["self-hosted", "macOS", "ARM64", "apple-m1-ultra-64gpu"]', "", "no runner"),
        ("[gate]", "[gate", "TOML"),
    ],
)
def test_a_policy_with_a_typo_is_refused_by_its_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Nothing is measured by half a policy."""
    with pytest.raises(UsageError, match=r"policy\.toml") as refused:
        read_classes(policy(tmp_path, POLICY.replace(old, new)))
    assert said in str(refused.value)


def test_the_committed_policy_has_a_runner_for_every_class() -> None:
    """The matrix of this repository's own workflow."""
    found = read_classes(Path(__file__).parents[2] / "baselines" / "policy.toml")
    assert all(one.runner for one in found)
    assert any(one.required for one in found)


CPU = ChipClass("cpu-x", ("cpu",), False)
LOCKS = {"cpu-x": ("mlx 0.32.0 -> 0.32.4", "mlx-cpu 0.32.0 -> 0.32.4")}


def compared(pull: Pull, programs: Mapping[str, tuple[str, ...]], *changed: str) -> Plan:
    """Plan for a pull request that changes these files, and these programs."""
    return plan(pull, sort_files(changed, Path("/checkout"), Path("/checkout/baselines")), [MAC, CPU], programs)


def test_a_change_of_the_program_is_measured_where_it_changes() -> None:
    """A lock of one platform queues no other; the package is named at once."""
    found = compared(OWN, LOCKS, "requirements.lock")
    assert (found.state, found.classes, found.programs) == (State.MEASURE, (CPU,), ("cpu-x",))
    assert found.reason.startswith("mlx 0.32.0 -> 0.32.4; mlx-cpu")
    assert read_plan(found.outputs()["plan"]) == found


def test_one_run_does_fusions_and_programs() -> None:
    """A fusion is measured everywhere, and base against head where the program changes."""
    found = compared(OWN, LOCKS, FUSION, "requirements.lock")
    assert (found.classes, found.programs) == ((MAC, CPU), ("cpu-x",))
    assert found.reason == "stacked_altup.py changed; mlx 0.32.0 -> 0.32.4; mlx-cpu 0.32.0 -> 0.32.4"


def test_the_same_program_is_measured_nowhere() -> None:
    """Whatever else changed."""
    found = compared(OWN, {}, "perf/gemma3n_perf/ci/plan.py", "docs/ci.md")
    assert (found.state, found.reason) == (State.NOTHING, "the same program, and no fusion among 2 changed files")


@pytest.mark.parametrize("pull", [FORK, Pull(7, HEAD, BASE, "us/suite", "us/suite", "dependabot[bot]")])
def test_a_lock_from_outside_waits_for_approval(pull: Pull) -> None:
    """What it would install has been read by nobody."""
    found = compared(pull, LOCKS, "requirements.lock")
    assert (found.state, found.classes) == (State.REFUSED, ())
    assert "gh workflow run" in found.remedy


def test_a_plan_of_an_older_release_names_no_programs() -> None:
    """It is read by the branch that it wants to enter."""
    tree = json.loads(planned(OWN, FUSION).outputs()["plan"])
    del tree["programs"]
    assert read_plan(json.dumps(tree)).programs == ()


def test_a_class_that_must_compare_has_a_runner(tmp_path: Path) -> None:
    """Or a change of the program would pass without its answer."""
    text = f'[regression]\nrequired = ["cpu-x"]\n{POLICY}[classes.cpu-x]\nworkloads = ["nano/text/pp40-tg64"]\n'
    with pytest.raises(UsageError, match="class cpu-x is required, and has no runner to measure it"):
        read_classes(policy(tmp_path, text))
