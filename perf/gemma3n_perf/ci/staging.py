"""The checkout that judges: the change's fusions and evidence, and of all else what the branch it wants to enter has.

A change is not judged by rules that it brings. Its fusions and its evidence are judged; what judges
them (harness, policy, noise floors, locks) comes from the base. Importing a fusion runs it, so this guards against
mistakes and careless edits; against malice stand the approval and the missing token.
"""

from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run

OWN = (":(exclude)perf/gemma3n_perf/fusions", ":(exclude,glob)baselines/*/fusions/**")
_TIMEOUT_S = 120.0


def stage(candidate: Path, head: str, base: str, run: Run) -> None:
    """Make a checkout of ``head`` into the one that judges it. Raises UsageError where git cannot.

    HEAD stays where it is: evidence must be of that commit.
    """
    repository = Repository(candidate, run)
    at = _output(repository, "rev-parse", "HEAD").strip()
    if at != head:
        raise UsageError(
            f"{candidate.name} is at {at[:12]}", expected=f"the commit that is judged, {head[:12]}",
            remedy="check out that commit, with its history (fetch-depth: 0)",
        )  # fmt: skip
    _output(repository, "restore", f"--source={base}", "--staged", "--worktree", "--", ".", *OWN)


def _output(repository: Repository, *argv: str) -> str:
    return repository.git(*argv, timeout_s=_TIMEOUT_S).checked(
        UsageError,
        f"git {argv[0]} failed",
        expected="a clone that holds the change and the commit it starts from",
        remedy="fetch both: a shallow clone has no history (fetch-depth: 0)",
    )
