"""``gemma3n-perf duel BASELINE CANDIDATE``: two arms, paired and interleaved, until something is shown."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli import forge as forge_command
from gemma3n_perf.duel import record as store
from gemma3n_perf.duel import report
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.arms import GRAMMAR
from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.store.files import require_folder, require_writable
from gemma3n_perf.workload import forge
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload, defaults

HELP = "compare two arms: paired, interleaved, with a verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = f"An arm is {GRAMMAR}.".replace("%", "%%")
    parser.add_argument("baseline", metavar="BASELINE", help="the arm to compare with, for instance ref:main")
    parser.add_argument("candidate", metavar="CANDIDATE", help="the arm to judge, for instance here")
    add_workload_arguments(parser)
    add_budget(parser, "measuring time for each workload, fixed before the start")
    parser.add_argument(
        "--sessions",
        type=int,
        default=1,
        metavar="N",
        help="spread the budget over N sessions; a win or loss must then show in each",
    )
    add_margin(parser)
    parser.add_argument("--aa", action="store_true", help="the same arm on both sides, to see what error shows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, raw blocks included")


def add_budget(parser: argparse.ArgumentParser, what: str, default_s: float = Policy().budget_s) -> None:
    """Declare how long may be measured; ``what`` says of what."""
    parser.add_argument(
        "--budget", type=float, default=default_s, metavar="SECONDS", help=f"{what} (default: %(default)g)"
    )


def add_margin(parser: argparse.ArgumentParser) -> None:
    """Declare how near to nothing an effect must be shown to be for no-change."""
    parser.add_argument(
        "--margin",
        type=float,
        default=100 * Policy().margin,
        metavar="PERCENT",
        help="no-change is an interval within this of nothing (default: %(default)g)",
    )


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that duels takes."""
    parser.add_argument(
        "--workload",
        action="append",
        default=[],
        metavar="ID",
        help="workload id; may be repeated (default: the chip's first)",
    )
    parser.add_argument(
        "--checkpoint", metavar="FOLDER_OR_HUB_ID", help="where the workloads' checkpoint is, if it is not a preset"
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Duel and print the verdict; returns its exit code. Raises UsageError, MachineBusyError, ArmUnavailableError."""
    require_writable(args.json)
    require_folder(args.baselines)
    with dueling.machine(args.baselines, sys.stderr) as here:
        workloads, sources = chosen(args, here)
        asked = dueling.Asked(
            args.baseline, args.candidate, workloads, args.budget, args.sessions, aa=args.aa, sources=sources,
            policy=replace(Policy(), margin=args.margin / 100),
        )  # fmt: skip
        return report_on(dueling.duel(asked, here), here, args.json, out)


def chosen(args: argparse.Namespace, here: dueling.Here) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the workload ids and where other checkpoints than presets are, forging presets that are missing."""
    workloads = [Workload.parse(text) for text in args.workload] or [defaults(here.chip.vendor)[0]]
    sources = {loading.locate(args.checkpoint, here.root)[0]: args.checkpoint} if args.checkpoint else {}
    for name in dict.fromkeys(workload.checkpoint for workload in workloads):
        if name in PRESETS:
            if not forge.is_forged(PRESETS[name], here.root):
                forge_command.forge_locked(PRESETS[name], here.root)
        elif name not in sources:
            raise UsageError(
                f"the checkpoint {name} is no preset",
                expected="a preset, or --checkpoint with the folder or hub id that goes by that name",
            )
    return tuple(str(workload) for workload in workloads), sources


def report_on(answer: dueling.Answer, here: dueling.Here, path: Path | None, out: TextIO) -> int:
    """Write the record, print the report and return the exit code."""
    out.write(report.render(answer.judgements, answer.asked.baseline, answer.asked.candidate))
    if path is not None:
        store.write(path, record(answer, here))
    return answer.judgements[report.deciding(answer.judgements)].exit_code


def record(answer: dueling.Answer, here: dueling.Here) -> store.DuelRecord:
    """Lay an answer out for the store."""
    asked, name = answer.asked, report.deciding(answer.judgements)
    judged, sides = answer.judgements[name], answer.fought[name].sides
    if sides is None:
        sides = next((one.sides for one in answer.fought.values() if one.sides), {})
    return store.DuelRecord(
        schema=store.SCHEMA,
        date=answer.date.isoformat(timespec="seconds"),
        chip=here.chip,
        arms={"baseline": asked.baseline, "candidate": asked.candidate},
        stacks={arm: side.stack for arm, side in sides.items()},
        planted={arm.name: arm.planted for arm in answer.arms},
        aa=bool(asked.aa),
        policy=asked.policy,
        budget_s=asked.budget_s,
        sessions=asked.sessions,
        workload=name,
        verdict=judged.verdict.value,
        effect=judged.effect,
        low=_finite(judged.low),
        high=_finite(judged.high),
        measured_s=judged.measured_s,
        launches=judged.launches,
        duels=tuple(
            store.WorkloadDuel(
                workload=one.workload,
                judgement=answer.judgements[one.workload],
                raw=one.launches,
                budget_spent=one.spent,
                checkpoint_digest=one.sides["baseline"].loaded.checkpoint_digest if one.sides else None,
                token_digests={arm: side.token_digest for arm, side in one.sides.items()} if one.sides else None,
                notes=one.notes,
            )
            for one in answer.fought.values()
        ),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) != float("inf") else None
