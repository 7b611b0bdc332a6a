"""``gemma3n-perf upstream BASE HEAD``: two checkouts of mlx-vlm, mlx or another package, compared for its own gate."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from gemma3n_perf.bench import regression_report
from gemma3n_perf.bench.upstream import UpstreamResult, compare
from gemma3n_perf.cli.duel import add_budget, add_margin, add_outputs_argument, add_workload_arguments, busy_policy
from gemma3n_perf.cli.options import add_json, explain, file_of, printed_anyway, write_json
from gemma3n_perf.duel import report
from gemma3n_perf.duel.packages import project_name
from gemma3n_perf.duel.run import DuelSpec, choose_workloads, machine
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.store.files import require_folder, require_writable, write_over
from gemma3n_perf.workload.workload import defaults

HELP = "compare two revisions of mlx-vlm, mlx or another package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = "Exit codes: 0 no loss, 1 a loss, 3 inconclusive, 4 not measured, 5 invalid. See docs/upstream.md."
    for name, what in (("base", "what the change starts from"), ("head", "the change")):
        text = f"{what}: a checkout or wheel of the package, or with --clone a revision"
        parser.add_argument(name, metavar=name.upper(), help=text)
    parser.add_argument("--clone", metavar="DIR", help="the clone whose revisions BASE and HEAD are")
    parser.add_argument("--package", metavar="NAME", help="the package's name (default: what the checkout says)")
    add_workload_arguments(parser)
    add_budget(parser, "measuring time for each workload, fixed before the start")
    add_margin(parser)
    add_outputs_argument(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the answer as Markdown, for a comment")
    add_json(parser, "the answer")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Compare, write what was asked for, print, and return the exit code. Raises UsageError and what measuring does."""
    for file in (file_of(args.json), args.markdown):
        require_writable(file)
    require_folder(args.baselines)
    sides = _side(args.base, args), _side(args.head, args)
    if sides[0][0] != sides[1][0]:
        raise UsageError(f"{args.base} is {sides[0][0]}, {args.head} is {sides[1][0]}", expected="one package twice")
    package, texts = sides[0][0], tuple(f"here+{name}@{place}" for name, place in sides)
    policy = replace(Policy(), margin=args.margin / 100)
    ids = args.workload or [str(one) for one in defaults(detect().vendor)]
    if args.explain:
        return explain(out, f"{package}, {args.base} (base) against {args.head} (head), on", ids, args.budget)
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        workloads, sources = choose_workloads(ids, args.checkpoint, here)
        spec = DuelSpec(
            texts[0], texts[1:], workloads, args.budget, aa=None, sources=sources,
            outputs_may_differ=args.outputs_may_differ, policy=policy,
        )  # fmt: skip
        found = compare(spec, here)
    text = _text(found, package, args)
    with printed_anyway(text, out):
        if args.markdown:
            write_over(args.markdown, _markdown(found, package, args).encode())
        written = write_json(args.json, regression_report.as_json(found.ruling), out)
    out.write("" if written else text)
    return found.ruling.exit_code


def _side(text: str, args: argparse.Namespace) -> tuple[str, str]:
    """Return the package that one side is of, and the place of an arm."""
    path = Path(os.path.expanduser(text if args.clone is None else args.clone))  # pathlib raises for an unknown user
    if path.is_dir():
        name = args.package or project_name(path)
        if name is None:
            raise UsageError(f"{path} does not say which package it is", expected="a checkout", remedy="--package NAME")
        # Before the machine is waited for.
        return name, str(path) if args.clone is None else f"{path}#{Repository(path).require(text, text)}"
    if args.clone is None and path.is_file() and path.suffix == ".whl":
        try:
            return parse_wheel_filename(path.name)[0], str(path)
        except InvalidWheelFilename as error:
            raise UsageError(f"{path} is no wheel: {error}", expected="a wheel or a checkout") from error
    raise UsageError(
        f"{path} is neither a folder nor a wheel",
        expected="two checkouts, or two revisions of one clone",
        remedy="give paths, or --clone PATH BASE HEAD for revisions",
    )


def _text(found: UpstreamResult, package: str, args: argparse.Namespace) -> str:
    ttfts = {name: one.ttft for name, one in found.rows.items() if one.ttft is not None}
    judged = {name: one.judgement for name, one in found.rows.items()}
    text = report.render(judged, f"{package} at {args.base}", f"{package} at {args.head}", ttfts)
    causes = dict.fromkeys(cause for one in found.rows.values() if one.is_explained for cause in one.causes)
    text += "".join(f"cause: {one}\n" for one in causes)
    rose = [f"{name}: {rise}" for name, one in found.rows.items() if one.is_alarm for rise in one.rises]
    text += "".join(f"rose without a win: {one}\n" for one in rose)
    return f"{text}{found.ruling.closing}\n"


def _markdown(found: UpstreamResult, package: str, args: argparse.Namespace) -> str:
    title = f"### Gemma3n decode: {plain(found.ruling.closing)}"
    subject = f"{plain(package)}: {plain(args.base)} (base) against {plain(args.head)} (head)"
    cautions = [f"Caution: {plain(one.found)}" for one in found.cautions]
    return "\n\n".join([title, subject, *regression_report.markdown(found.ruling), *cautions]) + "\n"
