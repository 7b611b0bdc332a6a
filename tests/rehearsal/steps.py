"""The ``run:`` steps of a workflow, carried out here unchanged: what GitHub would fill in is filled in, and no more.

Opinion: a rehearsal of a copy proves the copy. So the text comes from the workflow file itself.
"""

import importlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import MalformedRecordError, NotMeasuredError, UsageError

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job: its script and the variables it sets, as written."""

    name: str
    script: str
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended, and all it said."""

    code: int
    said: str


def read_steps(workflow: Path, job: str) -> Mapping[str, Step]:
    """Return the steps of a job that are scripts, by name. Raises MalformedRecordError for a workflow without it."""
    yaml: Any = importlib.import_module("yaml")
    try:
        steps = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"][job]["steps"]
        found = [Step(one["name"], one["run"], dict(one.get("env", {}))) for one in steps if "run" in one]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise MalformedRecordError(f"{workflow.name} has no job {job} of named steps: {error!r}") from error
    return {step.name: step for step in found}


def carry_out(
    step: Step, folder: Path, known: Mapping[str, str], variables: Mapping[str, str], timeout_s: float = _TIMEOUT_S
) -> Ended:
    """Run a step in ``folder`` as a runner does. ``known`` are the expressions GitHub would evaluate.

    ``variables`` is the whole environment besides the step's own. Raises UsageError for an expression not in ``known``,
    NotMeasuredError for a step that does not end.
    """
    env = {name: filled(str(value), known) for name, value in step.env.items()}
    try:
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step.script, known)],
            cwd=folder,
            env={**variables, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasuredError(
            f"the step {step.name} did not end within {timeout_s:.0f} s",
            expected="a machine that is fit to measure, where it measures",
            remedy="gemma3n-perf doctor says what keeps this one busy",
        ) from error
    return Ended(done.returncode, done.stdout.decode(errors="replace"))


def filled(text: str, known: Mapping[str, str]) -> str:
    """Return ``text`` with each ``${{ }}`` replaced; of ``a || b`` the first that is known and not empty."""

    def value(match: re.Match[str]) -> str:
        names = [name.strip() for name in match[1].split("||")]
        for name in names:
            if known.get(name):
                return known[name]
        if any(name in known for name in names):
            return ""
        raise UsageError(f"the workflow asks for {match[1]}, which the rehearsal does not play")

    return _EXPRESSION.sub(value, text)
