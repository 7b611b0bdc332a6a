"""``gemma3n-perf init``: make this machine one that measures: its class in the policy, and that class's first baseline.

In a fresh fork, run it on the first machine with --park, which has the classes of other farms await a machine; on
further machines without. What it writes lies under baselines/, and is yours to commit.
"""

import argparse
from pathlib import Path
from typing import TextIO

from gemma3n_perf.bench.recording import Recorder
from gemma3n_perf.cli.options import add_sessions
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.gate import farm
from gemma3n_perf.gate.policy import AWAITING, POLICY_FILE, STATES, GatePolicy
from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.report import describe
from gemma3n_perf.store.baselines import MIN_SESSIONS, Baselines
from gemma3n_perf.store.files import contents, write_over

HELP = "make this machine one that measures: its class in the policy, and a first baseline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--state", choices=STATES, help="of this class; default: required where no other class is")
    parser.add_argument("--park", action="store_true", help="all other classes have no machine here: they await one")
    add_sessions(parser)
    parser.add_argument("--no-baseline", action="store_true", help="write the policy alone, and measure nothing")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Write the class and record its first baseline. Raises what ``carry_out`` does."""
    root = suite_checkout()
    if root is None:
        raise UsageError(
            "this package is not run from a git checkout, where policy and baselines are kept",
            expected="a clone of your fork",
            remedy="make setup in it, then .venv/bin/gemma3n-perf init",
        )
    recorder = None if args.no_baseline else Recorder()
    return carry_out(
        detect(), current_stack(root), root / "baselines", out, recorder,
        state=args.state, park=args.park, sessions=args.sessions,
    )  # fmt: skip


def carry_out(
    chip: Chip,
    stack: Stack,
    baselines: Path,
    out: TextIO,
    recorder: Recorder | None,
    *,
    state: str | None = None,
    park: bool = False,
    sessions: int = MIN_SESSIONS,
) -> int:
    """Give ``chip`` its table in the policy, and its class a baseline, and say what is left to do.

    Without a ``recorder`` nothing is measured. The policy is written first: what measuring raises leaves it as it is.

    Raises NotComparableError for a class that may hold several variants, UsageError for a policy that cannot be edited,
    for uncommitted changes and for too few sessions, NotMeasuredError where a session stored nothing for this class.
    """
    require_known(chip)
    name, path = chip.chip_class, baselines / POLICY_FILE
    try:
        text = contents(path).decode() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", expected="a policy in TOML, which is UTF-8") from error
    try:
        made, policy = farm.with_machine(text, chip, state, park=park)
    except UsageError as error:
        raise UsageError(f"{path}: {error.found}", expected=error.expected, remedy=error.remedy) from error
    if made != text:
        write_over(path, made.encode())
    _tell(policy, name, changed=made != text, path=path, out=out)
    if policy.classes[name].state == AWAITING:
        return 0
    stored = Baselines(baselines)
    if stored.has(name):
        out.write(f"baseline: {describe.sessions(len(stored.require(name).sessions))}, kept\n")
    elif recorder is None:
        out.write(f"no baseline yet; record one: gemma3n-perf init, or baseline save --sessions {MIN_SESSIONS}\n")
    else:
        _record(stored, name, stack, recorder, sessions, out)
    out.write("\nnext, as docs/runners.md has it:\n")
    out.writelines(f"  {one}\n" for one in farm.first_steps(policy, name, path))
    return 0


def _tell(policy: GatePolicy, name: str, *, changed: bool, path: Path, out: TextIO) -> None:
    own = policy.classes[name]
    out.write(f"{path}: {'written' if changed else 'as it should be'}\n")
    out.write(f"{name}: {own.state}; {', '.join(own.workloads)}; runner {', '.join(own.runner)}\n")
    others = {one: each.state for one, each in policy.classes.items() if one != name}
    waited = [one for one, said in others.items() if said != AWAITING]
    if waited:
        out.write(f"others: {', '.join(waited)}; if they have no machine here: gemma3n-perf init --park\n")
    if policy.awaiting:
        out.write(f"awaiting a machine, and not waited for: {', '.join(policy.awaiting)}\n")


def _record(stored: Baselines, name: str, stack: Stack, recorder: Recorder, sessions: int, out: TextIO) -> None:
    """Record sessions in fresh processes, and make those of this class its baseline."""
    if stack.commit is None or stack.dirty is not False:
        raise UsageError(
            "uncommitted changes outside baselines/ and docs/, or no commit",
            expected="a clean commit, which the baseline is of",
            remedy="commit or stash them, then run gemma3n-perf init again; or pass --no-baseline",
        )
    before = recorder.stored()
    for number in recorder.record(sessions, ()):
        out.write(f"session {number} of {sessions}\n")
        out.flush()
    files = sorted(path for path in recorder.stored() - before if path.parent.name == name)
    if not files:
        raise NotMeasuredError(
            f"no session of {name} was stored",
            expected="sessions of this machine's class",
            remedy="see what the sessions above say",
        )
    for path in stored.promote(files, min_sessions=min(sessions, MIN_SESSIONS)):
        out.write(f"{path}\n")
    out.write(f"{name} has a baseline of {describe.sessions(len(files))}\n")
