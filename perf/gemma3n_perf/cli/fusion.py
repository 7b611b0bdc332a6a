"""``gemma3n-perf fusion list|show|new|page``: which there are, what one does, how to start another, what all did."""

import argparse
from pathlib import Path
from typing import TextIO

from rich.table import Table

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.stack import in_checkout, suite_checkout
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.report.terminal import frame, laid_out, speaks_unicode

HELP = "list the fusions, show one, start a new one, or write the page of what was measured"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every fusion, and whether it is on and admitted here")
    listing.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    shown = actions.add_parser("show", help="one fusion, or a composition a+b, in full")
    shown.add_argument("name", metavar="NAME")
    new = actions.add_parser("new", help="write a fusion that changes nothing yet, and its test")
    new.add_argument("name", metavar="NAME", help="lower-case words joined by hyphens")
    new.add_argument("--into", type=Path, metavar="DIR", help="the checkout to write into (default: this one)")
    page = actions.add_parser("page", help="write the page of what was measured of every fusion")
    page.add_argument("--check", action="store_true", help="write nothing; exit 5 if the page is not current")
    page.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    page.add_argument("--docs", type=Path, metavar="DIR", help="default: docs/ of the checkout")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print or write. Raises UsageError for an unknown or taken name, MalformedRecordError for a broken admission."""
    from gemma3n_perf.fusions import registry, scaffold  # imports every fusion, and MLX with them

    if args.action == "page":
        return _page(args, [registry.get(name) for name in registry.names()], out)
    if args.action == "new":
        root = args.into or suite_checkout()
        if root is None:
            raise UsageError("this package was installed, not cloned", remedy="say where: --into FOLDER")
        module, test = scaffold.write(args.name, root, registry.names())
        print(f"wrote {module}\n      {test}", file=out)
        print(f"Its first test fails until the graph changes as declared: pytest {test.relative_to(root)}", file=out)
        print("docs/fusions.md says how to go on.", file=out)
    elif args.action == "show":
        _show(registry.get(args.name), registry.digest(args.name), registry.files(args.name), out)
    else:
        chip = _chip()
        baselines = in_checkout("baselines", args.baselines)
        admitted = registry.admitted(chip, baselines) if chip else None
        _list([registry.get(name) for name in registry.names()], chip, admitted.name if admitted else "", out)
    return 0


def _page(args: argparse.Namespace, fusions: list[Fusion], out: TextIO) -> int:
    from gemma3n_perf.gate import evidence_page
    from gemma3n_perf.gate.admission import recorded
    from gemma3n_perf.report import pages

    docs, found = in_checkout("docs", args.docs), recorded(in_checkout("baselines", args.baselines))
    files = {docs / path: data for path, data in evidence_page.build(fusions, found).items()}
    remedy = "gemma3n-perf fusion page, then commit what it wrote"
    return pages.write(files, [], docs / evidence_page.PAGE, out, check=args.check, remedy=remedy)


def _chip() -> Chip | None:
    try:
        return detect()
    except NotMeasuredError:
        return None


def _list(found: list[Fusion], chip: Chip | None, admitted: str, out: TextIO) -> None:
    table = Table("fusion", "here", "what it does", box=frame(unicode=speaks_unicode(out)), pad_edge=False)
    for fusion in found:
        state = "?" if chip is None else "on" if fusion.enabled(chip) else "off"
        table.add_row(fusion.name, "admitted" if fusion.name in admitted.split("+") else state, fusion.summary)
    out.write(laid_out(table, dense=True))
    if "+" in admitted:
        out.write(f"admitted here: {admitted}\n")
    out.write("Several are joined by +, applied in that order: gemma3n-perf fusion show a+b\n")


def _show(fusion: Fusion, digest: str, files: tuple[Path, ...], out: TextIO) -> None:
    declared = fusion.graph
    graph = "nothing: a knob" if declared.same else "; ".join(
        f"{word} {', '.join(names)}" for word, names in (("fewer", declared.fewer), ("more", declared.more)) if names
    )  # fmt: skip
    rows = {
        "fusion": fusion.name,
        "does": fusion.summary,
        "replaces": ", ".join(fusion.replaces) or "nothing",
        "graph": graph,
        "on": fusion.where,
        "sources": digest[:16],
    }
    if fusion.env:
        rows["needs set"] = " ".join(f"{key}={value}" for key, value in fusion.env.items())
    for key, value in rows.items():
        print(f"{key:<10} {value}", file=out)
    for file in files:
        print(f"{'file':<10} {file.name}", file=out)
