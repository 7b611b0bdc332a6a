"""``gemma3n-perf gate EVIDENCE...``: may this fusion enter? A measured win on every required chip class, or no."""

import argparse
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate import policy_file as gate_policy_file
from gemma3n_perf.gate.change import NOTHING, Checkout, Touched, touched
from gemma3n_perf.gate.git import Repository
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import suite_checkout
from gemma3n_perf.store.files import write_over

if TYPE_CHECKING:
    from gemma3n_perf.gate.evidence import Sources

HELP = "admit or refuse fusions by their evidence from every required chip class"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Exit codes: 0 admitted, or nothing to gate; 5 invalid; 1 loss or no change; 4 not measured: a class is "
        "missing, stale, of another commit or of one session; 3 inconclusive; 2 usage. The first of these that applies."
    )
    parser.add_argument(
        "evidence", nargs="*", type=Path, metavar="EVIDENCE", help="files or folders (default: all of baselines/)"
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="default: policy.toml of the baselines")
    parser.add_argument(
        "--base",
        metavar="REF",
        help="judge the fusions that differ from where HEAD left this commit, and no others",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answer as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the answer as Markdown")
    parser.add_argument(
        "--admit", action="store_true", help="write each class's best admitted composition, which fuse(model) applies"
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Rule, print, and write what was asked for; returns the exit code. Raises UsageError, MalformedRecordError."""
    here = checkout(args.baselines)
    policy = gate_policy_file.read(args.policy or here.baselines / gate_policy_file.NAME)
    touches = Touched() if args.base is None else touched(args.base, here)
    if args.base is not None and touches.nothing and not (args.json or args.markdown):
        print(NOTHING, *(f"note: {note}" for note in touches.notes), sep="\n", file=out)
        return 0
    return _ruled(args, here, policy, touches, out)


def _ruled(args: argparse.Namespace, here: Checkout, policy: GatePolicy, touches: Touched, out: TextIO) -> int:
    from gemma3n_perf.gate import (
        admission as gating,  # and with it the judge and its libraries, which most changes need not load
    )
    from gemma3n_perf.gate import report

    answer = gating.AdmissionResult(None, notes=touches.notes)
    if args.base is None or not touches.nothing:
        asked = gating.AdmissionRequest(tuple(path.absolute() for path in args.evidence), args.base)
        answer = gating.gate(asked, here, policy, touches)
    notes = answer.notes
    if args.admit:
        notes += gating.admit(answer, here.baselines)
    if args.json is not None:
        write_over(args.json, report.as_json(answer.ruling, notes))
    if args.markdown is not None:
        write_over(args.markdown, report.markdown(answer.ruling, notes).encode())
    report.write(answer.ruling, notes, out)
    return answer.exit_code


def checkout(baselines: Path | None) -> Checkout:
    """Return the checkout that this package is run from. Raises UsageError where it was installed."""
    root = suite_checkout()
    if root is None:
        raise UsageError(
            "this package is not run from a git checkout, which the gate asks what changed",
            expected="a clone of the repository",
            remedy="make setup in a clone, then .venv/bin/gemma3n-perf gate",
        )
    folder = (baselines or root / "baselines").absolute()
    return Checkout(Repository(root, run_command), folder, _registered, dt.datetime.now(dt.UTC).date())


def _registered() -> "Sources":
    from gemma3n_perf.fusions.registered import Registered

    return Registered()
