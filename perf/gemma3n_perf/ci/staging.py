"""The checkout that judges: the change's fusions and evidence, and of all else what the branch it wants to enter has.

Opinion: a change is not judged by rules that it brings. What it says of itself (fusions, evidence) is looked at; what
looks (harness, policy, noise floors, locks) comes from the base. Importing a fusion runs it, so this guards against
mistakes and careless edits; against malice stand the approval and the missing token.
"""

from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import Run

OWN = (":(exclude)perf/gemma3n_perf/fusions", ":(exclude,glob)baselines/*/fusions/**")
_TIMEOUT_S = 120.0


def stage(candidate: Path, head: str, base: str, run: Run) -> None:
    """Make a checkout of ``head`` into the one that judges it. Raises UsageError where git cannot.

    HEAD stays where it is: evidence must be of that commit.
    """
    at = _git(candidate, run, "rev-parse", "HEAD").strip()
    if at != head:
        raise UsageError(
            f"{candidate.name} is at {at[:12]}", expected=f"the commit that is judged, {head[:12]}",
            remedy="check out that commit, with its history (fetch-depth: 0)",
        )  # fmt: skip
    _git(candidate, run, "restore", f"--source={base}", "--staged", "--worktree", "--", ".", *OWN)


def _git(folder: Path, run: Run, *argv: str) -> str:
    done = run(("git", "-C", str(folder), *argv), _TIMEOUT_S)
    if done.code:
        raise UsageError(
            f"git {argv[0]} failed: {done.last_output}",
            expected="a clone that holds the change and the commit it starts from",
            remedy="fetch both: a shallow clone has no history (fetch-depth: 0)",
        )
    return done.out
