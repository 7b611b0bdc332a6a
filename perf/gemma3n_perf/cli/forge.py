"""``gemma3n-perf forge PRESET``: write a checkpoint with seeded weights into the user's cache folder."""

import argparse
import sys
import time
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.options import add_alias
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.workload import forge
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root, preset

HELP = "forge a checkpoint: seeded weights in the released architecture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("preset", metavar="PRESET", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--into", type=Path, metavar="DIR", help="default: the user's cache folder")
    add_alias(parser, "--root", "--into")
    parser.add_argument("--force", action="store_true", help="forge again even if it is there")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Forge and print where. Raises UsageError, DiskFullError, MachineBusyError."""
    chosen, root = preset(args.preset), args.into or checkpoints_root()
    begin, progress = time.monotonic(), Progress(sys.stderr)
    try:
        forged = forge.ensure_forged(chosen, root, progress.note, force=args.force)
    finally:
        progress.clear()
    size = f"{forge.size(chosen) / 1e9:.2f} GB"
    how = f"forged in {time.monotonic() - begin:.1f} s" if forged else "already there"
    print(f"{chosen.name}: {root / chosen.directory} ({size}, {how})", file=out)
    return 0
