"""gemma3n-perf baseline: record, promote, list and show the stored measurements of chip classes."""

import argparse
import json
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import msgspec

from gemma3n_perf.bench.recording import Recorder
from gemma3n_perf.cli.options import MOST_SESSIONS, add_alias, add_json, add_sessions, count, write_json
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.report import describe, units
from gemma3n_perf.store.baselines import MIN_SESSIONS, PUBLISHED, Baselines
from gemma3n_perf.store.files import require_folder
from gemma3n_perf.store.published import read_published
from gemma3n_perf.store.types import Baseline, WorkloadSummary, summarise

HELP = "record, promote, list and show the baselines of chip classes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    saving = actions.add_parser("save", help="record sessions on this machine, each in a fresh process")
    add_sessions(saving)
    saving.add_argument(
        "--first", type=count("--first", most=MOST_SESSIONS), metavar="M",
        help="so many instead, where this chip class has no baseline yet",
    )  # fmt: skip
    saving.add_argument("pytest_options", nargs="*", metavar="OPTION", help="options for pytest, after --")
    promoting = actions.add_parser("promote", help="copy recorded sessions into the repository, all or none")
    promoting.add_argument("files", nargs="+", type=Path, metavar="FILE")
    promoting.add_argument(
        "--min-sessions", type=count("--min-sessions", most=MOST_SESSIONS), default=MIN_SESSIONS, metavar="N",
        help="refuse fewer (default %(default)s)",
    )  # fmt: skip
    listing = actions.add_parser("list", help="list the chip classes that have a baseline")
    showing = actions.add_parser("show", help="show the baseline of one chip class")
    showing.add_argument("chip_class", nargs="?", metavar="CLASS", help="default: this machine's")
    page = actions.add_parser("page", help="write the page of all baselines")
    page.add_argument("--check", action="store_true", help="write nothing; exit 5 if the page is not current")
    page.add_argument("--docs", type=Path, metavar="DIR", help="default: docs/ of the checkout")
    for action in (promoting, listing, showing, page):
        action.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
        add_alias(action, "--root", "--baselines")
    for action in (listing, showing):
        add_json(action)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Carry out one action. Raises the errors of ``Baselines`` and of ``Recorder.record``."""
    if args.action == "save":
        new = args.first is not None and not Baselines(in_checkout("baselines")).has(detect().chip_class)
        return save(args.first if new else args.sessions, args.pytest_options, out, Recorder())
    folder = in_checkout("baselines", args.baselines)
    if args.action != "promote":  # which makes it
        require_folder(args.baselines)
    match args.action:
        case "promote":
            return _promote(Baselines(folder), args, out)
        case "list":
            return _list(Baselines(folder), args.json, out)
        case "show":
            return _show(Baselines(folder).require(args.chip_class or detect().chip_class), args.json, out)
        case _:
            return _page(folder, in_checkout("docs", args.docs), args.check, out)


def save(sessions: int, options: Sequence[str], out: TextIO, recorder: Recorder) -> int:
    """Record sessions and print the command that promotes what was stored, after a failure, Ctrl-C and a signal too."""
    before, numbers = recorder.stored(), recorder.record(sessions, options)
    try:
        for number in numbers:
            out.write(f"session {number} of {sessions}\n")
            out.flush()
    finally:
        files = sorted(recorder.stored() - before)
        out.write(f"\n{describe.sessions(len(files))} stored\n")
        for chip_class, paths in groupby(files, lambda path: path.parent.name):
            listed = " \\\n".join(f"  {shlex.quote(str(path))}" for path in paths)
            out.write(f"to make them the baseline of {chip_class}:\ngemma3n-perf baseline promote \\\n{listed}\n")
    return 0


def _promote(baselines: Baselines, args: argparse.Namespace, out: TextIO) -> int:
    paths = baselines.promote(args.files, min_sessions=args.min_sessions)
    for path in paths:
        out.write(f"{path}\n")
    chip_class = paths[0].parent.name
    reference = baselines.require(chip_class)
    if paths[0].name not in reference.files:
        last = baselines.history(chip_class)[-1]
        out.write(
            f"{describe.sessions(len(last.sessions))} of {MIN_SESSIONS} that a baseline needs; until then that of "
            f"{chip_class} stays commit {(reference.stack.commit or 'unknown')[:12]}\n"
        )
        return 0
    count = len(reference.sessions)
    out.write(f"the baseline of {chip_class} is now {describe.sessions(count)}; commit the new files\n")
    return 0


def _list(baselines: Baselines, path: Path | None, out: TextIO) -> int:
    found = baselines.list()
    if write_json(path, _dumped([_facts(one) for one in found]), out):
        return 0
    for one in found:
        out.write(f"{one.chip.chip_class}: {describe.sessions(len(one.sessions))}, recorded {describe.dates(one)}\n")
        out.write(f"  commit {describe.commit(one.stack)}; {describe.stack(one.stack)}\n")
        for workload in one.workloads:
            out.write(f"  {workload}\n")
    if not found:
        out.write(f"no baseline in {baselines.root}; record one: gemma3n-perf baseline save\n")
    return 0


def _show(baseline: Baseline, path: Path | None, out: TextIO) -> int:
    summaries = [summarise(baseline, workload) for workload in baseline.workloads]
    files = [{"file": name, "session": one.id} for name, one in zip(baseline.files, baseline.sessions, strict=True)]
    workloads = [msgspec.to_builtins(one) for one in summaries]
    if write_json(path, _dumped(_facts(baseline) | {"files": files, "workloads": workloads}), out):
        return 0
    out.write(f"{describe.chip(baseline.chip)}\n{describe.stack(baseline.stack)}\n")
    out.write(f"commit {describe.commit(baseline.stack)}, recorded {describe.dates(baseline)}\n")
    for one in summaries:
        out.write(f"\n{one.workload}\n  {_throughput(one)}\n")
        out.write(f"  TPOT {units.seconds(one.tpot_s)}, TTFT {units.seconds(one.ttft_s)}, ")
        out.write(f"peak {units.size(one.peak_memory_bytes)}, KV {units.size(one.kv_bytes)}\n")
    out.write("\nsessions\n")
    for name, session in zip(baseline.files, baseline.sessions, strict=True):
        out.write(f"  {name}  {session.recorded[:19]}  {session.id}\n")
    return 0


def _throughput(one: WorkloadSummary) -> str:
    low, high = (units.tokps(value) for value in (min(one.sessions_tokps), max(one.sessions_tokps)))
    text = f"{units.tokps(one.tokps)} tok/s, {low} to {high} over {describe.sessions(len(one.sessions_tokps))}"
    return f"{text}; spread between sessions {units.percent(one.spread, 2)}, within {units.percent(one.within, 2)}"


def _page(folder: Path, docs: Path, check: bool, out: TextIO) -> int:
    # matplotlib takes most of a second to import, and only this action draws.
    from gemma3n_perf.bench import baselines_page
    from gemma3n_perf.report import pages

    found = Baselines(folder).list()
    if not found:
        raise UsageError(f"no baseline below {folder}", expected="a folder of baselines", remedy="pass --baselines DIR")
    files = baselines_page.build(found, read_published(folder / PUBLISHED))
    pages_and_plots = {docs / path: data for path, data in files.items()}
    plots = (docs / baselines_page.PLOTS).glob("baselines-*.svg")
    remedy = "gemma3n-perf baseline page, then commit what it wrote"
    return pages.write(pages_and_plots, plots, docs / baselines_page.PAGE, out, check=check, remedy=remedy)


def _facts(one: Baseline) -> dict[str, Any]:
    return {
        "chip_class": one.chip.chip_class,
        "chip": msgspec.to_builtins(one.chip),
        "stack": msgspec.to_builtins(one.stack),
        "recorded": describe.dates(one),
        "sessions": len(one.sessions),
        "workloads": list(one.workloads),
    }


def _dumped(value: object) -> bytes:
    return f"{json.dumps(value, indent=2)}\n".encode()
