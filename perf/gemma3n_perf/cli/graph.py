"""``gemma3n-perf graph CHECKPOINT``: what one decode token asks of MLX, counted exactly, without weights."""

import argparse
from typing import TextIO

import msgspec
from rich.table import Table

from gemma3n_perf.cli.options import add_json, write_json
from gemma3n_perf.decode import graph
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.errors import UsageError
from gemma3n_perf.report.terminal import frame, laid_out, speaks_unicode
from gemma3n_perf.workload import given, load
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import WARM_TOKENS, prompt_length

HELP = "count the operations, types, bytes and host calls of one decode token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=f"a preset ({', '.join(PRESETS)}) or a folder")
    parser.add_argument(
        "--position", type=int, metavar="N", help="tokens of context (default: where the suite's runs start)"
    )
    add_json(parser)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Count and print. A preset needs no weights on disk. Raises UsageError, CorruptCheckpointError."""
    if args.checkpoint not in PRESETS:
        given.locate(args.checkpoint, checkpoints_root())
    config = load.config_of(args.checkpoint, checkpoints_root())
    usual = prompt_length(args.checkpoint, "text") + WARM_TOKENS
    position = usual if args.position is None else args.position
    if not 1 < position <= graph.longest(config):
        raise UsageError(f"position {position} is out of range", expected="2 up to the model's range in tokens")
    found = graph.count(config, position=position)
    if not write_json(args.json, msgspec.json.format(msgspec.json.encode(found)), out):
        _show(found, args.checkpoint, position, out)
    return 0


def _show(found: Graph, name: str, position: int, out: TextIO) -> None:
    out.write(f"{name}: one decode token at position {position}, {found.nodes} graph nodes\n")
    if found.host is not None:
        host = found.host
        out.write(f"host: {host.python_calls} Python calls, {host.mlx_calls} MLX calls (Python {host.python})\n")
    counts = {"calls": found.calls, "operations": found.operations, "dtypes": found.dtypes}
    rows = {(title, "count"): {key: str(number) for key, number in each.items()} for title, each in counts.items()}
    rows["bytes", "GB"] = {part.replace("_", " "): f"{size / 1e9:.4f}" for part, size in found.bytes.items()}
    for (title, unit), cells in rows.items():
        table = Table(title, unit, box=frame(unicode=speaks_unicode(out)), pad_edge=False)
        table.columns[1].justify = "right"
        for row in cells.items():
            table.add_row(*row)
        out.write(laid_out(table, dense=True))
