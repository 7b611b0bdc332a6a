"""``gemma3n-perf gate EVIDENCE...``: may this fusion enter? A measured win on every required chip class, or no."""

import argparse
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.options import add_json, write_json
from gemma3n_perf.gate.change import NOTHING, checkout, touched
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.store.files import require_writable, write_over

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
    add_json(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the result as Markdown")
    parser.add_argument(
        "--admit", action="store_true", help="write each class's best admitted composition, which fuse(model) applies"
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Rule, print, and write what was asked for; returns the exit code. Raises UsageError, MalformedRecordError."""
    require_writable(args.markdown)
    here = checkout(args.baselines)
    policy = read_policy(args.policy or here.baselines / POLICY_FILE)
    change = None if args.base is None else touched(args.base, here.repository, here.baselines)
    if change is not None and not change.files and not (args.json or args.markdown):
        print(NOTHING, *(f"note: {note}" for note in change.notes), sep="\n", file=out)
        return 0
    # And with these the judge and its libraries, which most changes need not load.
    from gemma3n_perf.gate import admission, report

    if change is not None and not change.files:
        result = admission.AdmissionResult(notes=change.notes)
    else:
        result = admission.gate(here, policy, change, [path.absolute() for path in args.evidence])
    notes = result.notes
    if args.admit:
        notes += admission.admit(result, here.baselines)
    if args.markdown is not None:
        text = [f"**{plain(report.closing(result.ruling))}**", *report.markdown(result.ruling, notes)]
        write_over(args.markdown, ("\n\n".join(text) + "\n").encode())
    if not write_json(args.json, report.as_json(result.ruling, notes), out):
        report.write(result.ruling, notes, out)
    return result.ruling.exit_code
