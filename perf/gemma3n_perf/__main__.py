"""The command line: names a command, runs it, turns a named error into its exit code. No logic lives here."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from gemma3n_perf.cli.output import OutputError, tolerant
from gemma3n_perf.errors import PerfError, UsageError

COMMANDS = (
    "chip",
    "forge",
    "graph",
    "workloads",
    "baseline",
    "duel",
    "calibrate",
    "bisect",
    "validate",
    "profile",
    "fusion",
    "history",
    "site",
    "gate",
    "doctor",
    "ci",
)
RENAMED = {
    ("power",): "gemma3n-perf validate; its page: python -m studies.validation_page, from perf/ of a checkout",
    ("overhead",): "python -m studies.overhead, from perf/ of a checkout",
    ("history", "generate"): "python -m studies.synthetic_history, from perf/ of a checkout",
    ("ci", "rehearse"): "make rehearse, in a checkout",
}
"""What commands of earlier releases are called now."""
INTERRUPTED = 130


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of all commands; with ``only``, of that one, so that no other's imports are paid for."""
    top = argparse.ArgumentParser(
        prog="gemma3n-perf",
        description="Did this change make Gemma3n decode faster, slower or neither, on this chip?",
        epilog="Measure and compare: pytest perf/ --benchmark-compare. Exit codes: 0 pass, 1 regression, 2 usage, "
        "3 inconclusive, 4 not measured, 5 invalid.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [only] if only in COMMANDS else COMMANDS:
        module = importlib.import_module(f"gemma3n_perf.cli.{name}")
        sub = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def run(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command line and return its exit code; a named error becomes text on ``err``, never a traceback."""
    for old, new in RENAMED.items():
        if tuple(argv[: len(old)]) == old:
            print(f"gemma3n-perf {' '.join(old)} is no longer a command; now: {new}", file=err)
            return UsageError.exit_code
    args = parser(argv[0] if argv else None).parse_args(argv)
    try:
        code: int = args.run(args, out)
    except PerfError as error:
        print(f"gemma3n-perf {args.command}: {error}", file=err)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"gemma3n-perf {args.command}: interrupted; nothing half-written was kept", file=err)
        return INTERRUPTED
    return code


def main() -> None:
    """Entry point of ``gemma3n-perf``."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stdout, sys.stderr = tolerant(sys.stdout), tolerant(sys.stderr, silent=True)
    try:
        code = run(sys.argv[1:], sys.stdout, sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:  # while the commands were still being imported
        code = INTERRUPTED
    except OutputError as error:
        print(f"gemma3n-perf: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
