"""``gemma3n-perf ci``, or ``python3 -m gemma3n_perf.ci`` where nothing is installed: the steps of the workflows.

Planning, short answers and posting need only Python itself.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from gemma3n_perf.ci import comment
from gemma3n_perf.ci.plan import Plan, State, matrix, plan, read_classes, read_plan, read_pull, stage, write_outputs
from gemma3n_perf.ci.post import ISSUE, ask_github, post, post_issue, read_comment
from gemma3n_perf.errors import BadConditionsError, MalformedRecordError, PerfError, UsageError
from gemma3n_perf.gate.change import checkout, program_changes, touched
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.report.output import plain, shown

HELP = "the steps of the workflows: plan, measure, stage, answer, post, matrix, night, report, issue"
_LINK = re.compile(r"(?P<name>[a-z][a-z ]{0,30})=(?P<url>https?://[A-Za-z0-9._~:/%-]{1,400})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the steps and their options."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    one = steps.add_parser("matrix", help="print the policy's chip classes as a matrix for GitHub")
    _file(one, "--policy")
    one = steps.add_parser("plan", help="say what a pull request is in for")
    one.add_argument("--event-name", required=True, metavar="NAME")
    _file(one, "--event", "the webhook's payload")
    one.add_argument("--pull", type=Path, metavar="FILE", help="the API's answer for the pull request, when dispatched")
    one.add_argument("--passed", type=Path, metavar="FILE", help="names of dispatched runs that passed, as JSON")
    _file(one, "--candidate", "a clone at the pull request's commit", "DIR")
    _file(one, "--policy", "of the branch it wants to enter")
    one.add_argument("--outputs", type=Path, metavar="FILE", help="append the outputs of a job")
    one = steps.add_parser("measure", help="compare base and head on this machine, and measure every touched fusion")
    for name, metavar in (("--chip-class", "CLASS"), ("--commit", "COMMIT"), ("--base", "REF"), ("--run-id", "ID")):
        one.add_argument(name, required=True, metavar=metavar)
    one.add_argument("--attempt", type=int, required=True, metavar="N")
    one.add_argument("--wait", type=float, default=900.0, metavar="SECONDS", help="for a fit machine (%(default)s)")
    one.add_argument("--budget", metavar="SECONDS", help="for each duel of a fusion: pytest's option")
    _file(one, "--out", "where to put the evidence", "DIR")
    one = steps.add_parser("stage", help="make a checkout of a change into the one that judges it")
    _file(one, "--candidate", "a clone at the change's commit", "DIR")
    one.add_argument("--plan", required=True, metavar="TEXT", help="what the planning job found")
    one = steps.add_parser("answer", help="gather evidence, put it to the gate, write the comment")
    one.add_argument("--plan", required=True, metavar="TEXT", help="what the planning job found; empty if it failed")
    one.add_argument("--artifacts", type=Path, metavar="DIR", help="the archives of the measuring jobs")
    one.add_argument("--jobs", type=Path, metavar="FILE", help="the jobs of the run, as the API tells them")
    one.add_argument("--policy", type=Path, metavar="FILE", help="of the branch the change wants to enter")
    one.add_argument("--run-id", default="", metavar="ID")
    one.add_argument("--out", type=Path, metavar="DIR", help="where evidence and the gate's answer go")
    _file(one, "--comment", "write the comment here")
    one.add_argument("--summary", type=Path, metavar="FILE", help="append the comment to the job's summary")
    one.add_argument("--link", action="append", default=[], metavar="NAME=URL")
    one = steps.add_parser("post", help="write the comment, or change it in place; the token is GITHUB_TOKEN's")
    _file(one, "comment", "the comment's text")
    one.add_argument("--repo", required=True, metavar="OWNER/NAME")
    one.add_argument("--number", type=int, required=True, metavar="N")
    one.add_argument("--api", default="https://api.github.com", metavar="URL")
    one = steps.add_parser("records", help="copy what this machine has recorded into one folder")
    _file(one, "--out", "to be sent as an artifact", "DIR")
    one = steps.add_parser("night", help="compare main with the last release and with last night's, on this machine")
    one.add_argument("--last", default="", metavar="COMMIT", help="that last night's run was of; empty without one")
    _file(one, "--out", "where to put the comparisons", "DIR")
    one = steps.add_parser("report", help="judge the nightly comparisons of all machines, and write the issue")
    one.add_argument("--last", default="", metavar="COMMIT", help="that last night's run was of; empty without one")
    _file(one, "--records", "what the machines sent", "DIR")
    _file(one, "--policy")
    _file(one, "--issue", "write the issue here")
    one.add_argument("--outputs", type=Path, metavar="FILE", help="append the outputs of a job")
    one = steps.add_parser("issue", help="open the issue of nightly losses, change it in place, or close it")
    _file(one, "issue", "the issue's text")
    one.add_argument("--repo", required=True, metavar="OWNER/NAME")
    one.add_argument(
        "--lost", required=True, metavar="TRUE_OR_FALSE", help="whether anything lost, as report says it; unknown, too"
    )
    one.add_argument("--api", default="https://api.github.com", metavar="URL")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Carry out one step and return its exit code. Raises what the step raises."""
    match args.step:
        case "matrix":
            out.write(json.dumps(matrix(read_classes(args.policy))) + "\n")
            return 0
        case "plan":
            return _plan(args, out)
        case "measure":
            return _measure(args, out)
        case "stage":
            pull = read_plan(args.plan).pull
            stage(Repository(args.candidate), pull.head, pull.base)
            return 0
        case "answer":
            return _comment(args, out)
        case "night":
            return _night(args, out)
        case "report":
            return _report(args, out)
        case "issue" | "post":
            ask = partial(ask_github, args.api, os.environ.get("GITHUB_TOKEN", ""))
            if args.step == "post":
                done = post(read_comment(args.comment), args.repo, args.number, ask)
            else:
                done = post_issue(
                    read_comment(args.issue, ISSUE), args.repo, ask, lost={"true": True, "false": False}.get(args.lost)
                )
            out.write(f"{done}\n")
            return 0
        case _:
            from gemma3n_perf.ci import nightly
            from gemma3n_perf.ci.measure import pack
            from gemma3n_perf.hardware.chip import detect

            chip_class, baselines = detect().chip_class, checkout().baselines
            for path in pack(chip_class, baselines, args.out):
                out.write(f"{path}\n")
            nightly.keep_history(chip_class, baselines, args.out)
            return 0


def main(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run ``python3 -m gemma3n_perf.ci`` and return its exit code; an error becomes text."""
    parser = argparse.ArgumentParser(prog="gemma3n-perf ci", description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args, out)
    except Exception as error:
        found = shown(error, err)
        print(f"gemma3n-perf ci {args.step}: {plain(str(found))}", file=err)
        return found.exit_code


def _file(parser: argparse.ArgumentParser, name: str, text: str | None = None, metavar: str = "FILE") -> None:
    required = {"required": True} if name.startswith("-") else {}
    parser.add_argument(name, type=Path, metavar=metavar, help=text, **required)  # type: ignore[arg-type]


def _plan(args: argparse.Namespace, out: TextIO) -> int:
    pull = read_pull(args.event_name, args.event, args.pull, args.passed)
    change = touched(pull.base, Repository(args.candidate), args.candidate / "baselines")
    classes = read_classes(args.policy)
    programs = program_changes(pull.base, Repository(args.candidate), [one.name for one in classes])
    found = plan(pull, change, classes, programs)
    if args.outputs is not None:
        write_outputs(found, args.outputs)
    # One line each: a file's name may hold a line break, and what follows one can be a command to GitHub's runner.
    out.write(plain(" ".join(f"{found.state}: {found.reason}".split())) + "\n")
    if found.remedy:
        out.write(f"  next: {plain(' '.join(found.remedy.split()))}\n")
    return 0


def _measure(args: argparse.Namespace, out: TextIO) -> int:
    from gemma3n_perf.ci.artifacts import Manifest
    from gemma3n_perf.ci.measure import base_against_head, measure, names_to_measure, require_class
    from gemma3n_perf.hardware.chip import detect
    from gemma3n_perf.hardware.fitness import Doctor, Needs, consult
    from gemma3n_perf.workload.presets import checkpoints_root

    here, chip_class = checkout(), detect().chip_class
    require_class(chip_class, args.chip_class)
    if consult(Doctor.here(checkpoints_root(), Needs()), args.wait, False, out):
        raise BadConditionsError(
            f"{chip_class}: not fit to measure after {args.wait:.0f} s of waiting",
            expected="a machine that gemma3n-perf doctor finds fit",
            remedy="see above what it found",
        )
    names = names_to_measure(args.base, here)
    changes = program_changes(args.base, here.repository, [chip_class]).get(chip_class, ())
    out.write(f"to measure: {', '.join([*(['base against head'] if changes else []), *names]) or 'nothing'}\n")
    budget = ("--budget", args.budget) if args.budget else ()

    def pytest(name: str) -> int:
        out.flush()
        argv = (sys.executable, "-m", "pytest", "perf/", "--fusion", name, *budget)
        return subprocess.run(argv, cwd=here.repository.root, check=False).returncode

    request = Manifest(1, args.chip_class, args.commit, args.run_id, args.attempt, names, bool(changes))
    compare = partial(base_against_head, here.repository.fork(args.base), here)
    sent = measure(request, chip_class, here.baselines, args.out, pytest, lambda text: print(text, file=out), compare)
    out.writelines(f"{path.name}\n" for path in sent)
    return 0


def _night(args: argparse.Namespace, out: TextIO) -> int:
    from gemma3n_perf.ci import nightly
    from gemma3n_perf.ci.measure import base_against_head
    from gemma3n_perf.hardware.chip import detect

    here, chip_class = checkout(), detect().chip_class
    nightly.bring_history(chip_class, here.baselines)
    compare = partial(base_against_head, here=here)
    for path in nightly.measure(chip_class, args.last or None, here, args.out, compare):
        out.write(f"{path}\n")
    return 0


def _report(args: argparse.Namespace, out: TextIO) -> int:
    from gemma3n_perf.ci import nightly

    classes = [one.name for one in read_classes(args.policy)]
    text, lost = nightly.report(args.records, classes, args.last or None, read_policy(args.policy), checkout())
    args.issue.write_text(text, encoding="utf-8")
    if args.outputs is not None:
        with args.outputs.open("a", encoding="utf-8") as file:
            file.write(f"lost={'unknown' if lost is None else str(lost).lower()}\n")
    out.write(text)
    return 0


def _comment(args: argparse.Namespace, out: TextIO) -> int:
    try:
        found = _judged(args, read_plan(args.plan))
    except PerfError as error:
        # A pull request is told why nothing came of it, whatever went wrong.
        found = comment.unplanned(error, 4 if isinstance(error, MalformedRecordError) else error.exit_code)
    args.comment.write_text(found.text, encoding="utf-8")
    if args.summary is not None:
        with args.summary.open("a", encoding="utf-8") as file:
            file.write(found.text)
    out.write(found.text)
    return found.exit_code


def _judged(args: argparse.Namespace, made: Plan) -> comment.Comment:
    links = dict(_link(text) for text in args.link)
    if made.state is not State.MEASURE:
        return comment.unmeasured(made, links)
    for name in ("artifacts", "jobs", "policy", "out"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing", expected="what the measuring jobs left")
    return comment.judged(
        made,
        links,
        checkout(),
        sys.stderr,
        artifacts=args.artifacts,
        jobs=args.jobs,
        policy=args.policy.absolute(),
        run_id=args.run_id,
        out=args.out.absolute(),
    )


def _link(text: str) -> tuple[str, str]:
    match = _LINK.fullmatch(text)
    if match is None:
        raise UsageError(f"--link {text[:80]!r}", expected="name=https://...")
    return match["name"], match["url"]
