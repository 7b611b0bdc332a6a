"""The command line: names a command, runs it, turns a named error into its exit code. No logic lives here."""

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.lifetime import ended_by_signals
from gemma3n_perf.hardware.limits import absolute_cache, require_counts, require_memory
from gemma3n_perf.report.output import plain, shown, tolerant, unsaid

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
    "export",
    "gate",
    "upstream",
    "init",
    "doctor",
    "ci",
)
RENAMED = {
    ("power",): "gemma3n-perf validate; its page: python -m studies.validation_page, from perf/ of a checkout",
    ("overhead",): "python -m studies.overhead, from perf/ of a checkout",
    ("chip", "--record"): "python -m studies.record_machine FILE, from perf/ of a checkout",
    ("history", "generate"): "python -m studies.synthetic_history, from perf/ of a checkout",
    ("ci", "rehearse"): "make rehearse, in a checkout",
}
"""What commands of earlier releases are called now."""
INTERRUPTED, SIGNALLED = 130, 128
SHELLS = ("bash", "zsh", "fish")


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of all commands; with ``only``, of that one, so that no other's imports are paid for."""
    top = argparse.ArgumentParser(
        prog="gemma3n-perf",
        description="Did this change make Gemma3n decode faster, slower or neither, on this chip?",
        epilog="Measure and compare: pytest perf/ --benchmark-compare. Exit codes: 0 pass, 1 regression, 2 usage, "
        "3 inconclusive, 4 not measured, 5 invalid, 70 a fault of this program.",
    )
    top.add_argument("--version", action="store_true", help="print the version and commit of this suite")
    top.add_argument("--completion", choices=SHELLS, help="print the completion of this command for a shell")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [only] if only in COMMANDS else COMMANDS:
        module = importlib.import_module(f"gemma3n_perf.cli.{name}")
        sub = commands.add_parser(name, help=module.HELP, description=(module.__doc__ or "").replace("``", ""))
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def run(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command line and return its exit code; a named error becomes text on ``err``, never a traceback."""
    for old, new in RENAMED.items():
        if tuple(argv[: len(old)]) == old:
            print(f"gemma3n-perf {' '.join(old)} is no longer a command; now: {new}", file=err)
            return UsageError.exit_code
    command = "gemma3n-perf"
    try:
        if argv and argv[0] in ("--version", "--completion"):
            return _of_itself(argv, out)
        require_memory()
        require_counts()
        absolute_cache()
        if not argv or (argv[0] not in COMMANDS and not argv[0].startswith("-")):
            raise _no_command(argv)
        args = parser(argv[0] if argv else None).parse_args(argv)
        command = f"gemma3n-perf {args.command}"
        code: int = args.run(args, out)
    except KeyboardInterrupt:
        print(f"{command}: interrupted; nothing half-written was kept", file=err)
        return INTERRUPTED
    except Exception as error:
        found = shown(error, err)
        print(f"{command}: {plain(str(found))}", file=err)
        return found.exit_code
    return code


def _no_command(argv: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(argv[0], COMMANDS, 2) if argv else []
    return UsageError(
        f"there is no command {argv[0]!r}" if argv else "no command is named",
        expected=" or ".join(near) or f"one of {', '.join(COMMANDS)}",
        remedy="gemma3n-perf --help says what each does",
    )


def _of_itself(argv: Sequence[str], out: TextIO) -> int:
    if argv[0] == "--version":
        from gemma3n_perf.hardware.stack import current_stack, installed, suite_checkout

        stack = current_stack(suite_checkout())
        commit = f", commit {stack.commit[:12]}{' with changes' if stack.dirty else ''}" if stack.commit else ""
        print(f"gemma3n-perf {installed('gemma3n-perf') or 'not installed'}{commit}", file=out)
        return 0
    import shtab

    whole = parser()
    if len(argv) != 2 or argv[1] not in SHELLS:
        raise UsageError(" ".join(argv), expected=f"--completion with one of {', '.join(SHELLS)}")
    print(shtab.complete(_with_files(whole, shtab.FILE), argv[1]), file=out)
    return 0


def _with_files(command: argparse.ArgumentParser, files: object) -> argparse.ArgumentParser:
    """Have arguments that are paths completed from the file system."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _with_files(one, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
    return command


def main() -> None:
    """Entry point of ``gemma3n-perf``."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stdout, sys.stderr = tolerant(sys.stdout), tolerant(sys.stderr, returns=True)
    try:
        with ended_by_signals():
            code = run(sys.argv[1:], sys.stdout, sys.stderr)
    except SystemExit as ended:  # argparse, after its help or its complaint, and signals
        code = int(ended.code or 0)
        if code > SIGNALLED:
            name = signal.Signals(code - SIGNALLED).name
            print(f"gemma3n-perf: ended by {name}; nothing half-written was kept", file=sys.stderr)
    if code == INTERRUPTED:  # it ends; another Ctrl-C while it clears away would end it without a code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    fault = unsaid(sys.stdout)
    if fault is not None:
        print(f"gemma3n-perf: {fault}", file=sys.stderr)
    sys.exit(code or (fault.exit_code if fault else 0))


if __name__ == "__main__":
    main()
