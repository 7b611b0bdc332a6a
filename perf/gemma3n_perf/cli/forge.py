"""``gemma3n-perf forge PRESET``: write a checkpoint with seeded weights into the user's cache folder."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import filelock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gemma3n_perf.errors import MachineBusyError
from gemma3n_perf.workload import cache, forge
from gemma3n_perf.workload.presets import PRESETS, Preset, preset

HELP = "forge a checkpoint: seeded weights in the released architecture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("preset", metavar="PRESET", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--root", type=Path, help="folder to forge into (default: the user's cache folder)")
    parser.add_argument("--force", action="store_true", help="forge again even if it is there")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Forge and print where. Raises UsageError, DiskFullError, MachineBusyError."""
    chosen = preset(args.preset)
    root = args.root or cache.checkpoints_root()
    begin = time.monotonic()
    there = forge.is_forged(chosen, root) and not args.force
    path = forge_locked(chosen, root, force=args.force)
    size = f"{forge.size(chosen) / 1e9:.2f} GB"
    how = "already there" if there else f"forged in {time.monotonic() - begin:.1f} s"
    print(f"{chosen.name}: {path} ({size}, {how})", file=out)
    return 0


def forge_locked(chosen: Preset, root: Path, *, force: bool = False) -> Path:
    """Forge under a lock, so that two processes that want the same checkpoint do not both write it."""
    forge.make_root(root)
    lock = filelock.FileLock(root / f".{chosen.directory}.lock", timeout=600)
    try:
        with lock:
            if forge.is_forged(chosen, root) and not force:
                return root / chosen.directory
            return _with_progress(chosen, lambda progress: forge.forge(chosen, root, force=force, progress=progress))
    except filelock.Timeout as error:
        raise MachineBusyError(
            f"another process has been forging {chosen.name} for 10 minutes",
            expected="one forge at a time",
            remedy=f"wait for it, or remove {lock.lock_file} if that process is gone",
        ) from error


def _with_progress(chosen: Preset, work: Callable[[forge.Progress], Path]) -> Path:
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        return work(lambda written: None)
    columns = (TextColumn("forging {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(chosen.name, total=forge.size(chosen))
        return work(lambda written: progress.update(task, advance=written))
