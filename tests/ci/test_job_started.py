import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HOOK = Path(__file__).parents[2] / "perf" / "gemma3n_perf" / "ci" / "job_started.sh"
OURS = "us/suite"


def started(tmp_path: Path, name: str, event: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the hook as a runner does before a job."""
    path = tmp_path / "event.json"
    path.write_text(event if isinstance(event, str) else json.dumps(event))
    known = {"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(path), "GITHUB_REPOSITORY": OURS} | variables
    return subprocess.run(
        ["bash", "-e", str(HOOK)], env={"PATH": os.environ["PATH"]} | known, capture_output=True, text=True, check=False
    )


def pull(repo: str | None = OURS, author: str = "colleague") -> dict[str, Any]:
    """Return a pull request's event."""
    head = {"repo": None if repo is None else {"full_name": repo}}
    return {"pull_request": {"head": head, "user": {"login": author}}}


@pytest.mark.parametrize(
    ("name", "event"),
    [("schedule", {}), ("push", {}), ("workflow_dispatch", {}), ("pull_request", pull())],
)
def test_our_own_jobs_start(tmp_path: Path, name: str, event: object) -> None:
    """Those that only people who may write can start."""
    done = started(tmp_path, name, event)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "event", "said"),
    [
        ("pull_request", pull("them/suite"), "fork"),
        ("pull_request", pull(None), "fork"),
        ("pull_request", pull(author="dependabot[bot]"), "bot"),
        ("pull_request_target", pull("them/suite"), "pull_request_target"),
        ("issue_comment", {}, "issue_comment"),
        ("", {}, "measures nothing"),
        ("pull_request", {}, "cannot be read"),
        ("pull_request", "not json", "cannot be read"),
        ("pull_request", [], "cannot be read"),
    ],
)
def test_strangers_jobs_end_before_their_first_step(tmp_path: Path, name: str, event: object, said: str) -> None:
    """Whatever their own copy of a workflow says: the machine decides."""
    done = started(tmp_path, name, event)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_machine_that_cannot_tell_refuses(tmp_path: Path) -> None:
    """No event, no job."""
    assert started(tmp_path, "push", {}, GITHUB_EVENT_PATH=str(tmp_path / "missing")).returncode == 1
