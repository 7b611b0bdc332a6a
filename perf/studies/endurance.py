"""Duels of this program against itself, back to back in one process, for an hour or so.

``python -m studies.endurance RECORD --time 3600``, from perf/. After each duel: what this process takes in memory and
handles, what it left running, how large the cache folder is, and what the duel said of two arms that are the same. The
record grows by a duel at a time; a later call goes on as another part of it. It is right where nothing grows, nothing
drifts and nothing is called faster or slower.
"""

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TextIO

import matplotlib as mpl
import msgspec
import psutil
from matplotlib.figure import Figure
from scipy.special import stdtrit

from gemma3n_perf.duel.run import DuelSpec, Here, duel, machine
from gemma3n_perf.errors import NotComparableError, UsageError
from gemma3n_perf.hardware.machine import BusyPolicy
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.report import plots
from gemma3n_perf.report.markdown import table
from gemma3n_perf.stats.verdicts import Verdict, finite
from gemma3n_perf.store.codec import Codec
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, cache_folder
from gemma3n_perf.workload.workload import Workload, defaults
from studies import carry_out

NAME = "endurance.json"
SCHEMA = 1
BUDGET_S = 20.0
LEAST = 4
"""Duels of a part that tell whether something grows."""
Result = tuple[str, float | None, float | None, float | None, int]
MEMORY_GROWS, MEMORY_BYTES, CACHE_BYTES, HANDLES = 1.05, 16 << 20, 1 << 20, 2
ALLOWED = (
    f"{100 * (MEMORY_GROWS - 1):.0f} % and {MEMORY_BYTES >> 20} MiB of memory, {HANDLES} open files, "
    f"{CACHE_BYTES >> 20} MiB of the cache folder"
)
"""How much of each may have grown from the first to the last quarter of a part, in words."""


class Round(msgspec.Struct, frozen=True):
    """One duel, and what there was after it.

    ``memory`` is this process's resident bytes, ``handles`` its open files, ``left`` how many of its processes still
    run beside the one that workers are forked from, ``cache`` bytes of the cache folder, ``temporary`` entries of the
    folder for temporary files that are this suite's. Effects are fractions; None where nothing was measured.
    """

    part: int
    date: str
    commit: str | None
    wall_s: float
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    launches: int
    memory: int
    handles: int
    left: int
    cache: int
    temporary: int


class Endurance(msgspec.Struct, frozen=True):
    """All duels on one machine."""

    schema: int
    chip: Chip
    stack: Stack
    workload: str
    budget_s: float
    rounds: tuple[Round, ...] = ()

    @property
    def parts(self) -> list[list[Round]]:
        """The duels of each call, in turn."""
        return [list(rounds) for _, rounds in groupby(self.rounds, key=lambda one: one.part)]


ENDURANCE = Codec(Endurance, SCHEMA, "what python -m studies.endurance writes", "restore it, or begin again")


def folder_bytes(folder: Path) -> int:
    """Return what the files of a folder take."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def observe(result_of: Callable[[], Result], part: int, commit: str | None) -> Round:
    """Carry out one duel, which gives verdict, effect, its interval and the number of launches, and look around."""
    date, began = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), time.monotonic()
    verdict, effect, low, high, launches = result_of()
    me = psutil.Process()
    server = [one for one in me.children() if "forkserver.py" in " ".join(_command(one))]
    left = [one for one in me.children(recursive=True) if one not in server and one.status() != psutil.STATUS_ZOMBIE]
    return Round(
        part,
        date,
        commit,
        round(time.monotonic() - began, 1),
        verdict,
        effect,
        finite(low),
        finite(high),
        launches,
        me.memory_info().rss,
        me.num_fds(),
        len(left),
        folder_bytes(cache_folder()),
        sum(1 for _ in Path(tempfile.gettempdir()).glob("gemma3n*")),
    )


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def endure(record: Endurance, here: Here, path: Path, seconds: float, note: Callable[[str], None]) -> Endurance:
    """Carry out duels for so many seconds, keep each, and return the record. Raises what a duel raises."""
    spec = DuelSpec("here", ("here",), (record.workload,), record.budget_s, aa=True)

    def compared() -> Result:
        (one,) = duel(spec, here).of(0).values()
        found = one.judgement
        return found.verdict.value, found.effect, found.low, found.high, len(one.state.launches)

    part, began = max((one.part for one in record.rounds), default=0) + 1, time.monotonic()
    while time.monotonic() - began < seconds:
        found = observe(compared, part, here.stack.commit)
        record = msgspec.structs.replace(record, rounds=(*record.rounds, found))
        path.parent.mkdir(parents=True, exist_ok=True)
        ENDURANCE.write(path, record)
        shown = "-" if found.effect is None else f"{100 * found.effect:+.2f} %"
        note(
            f"[{time.monotonic() - began:.0f} s] {found.verdict} {shown}, {found.memory / 2**20:.0f} MiB, "
            f"{found.handles} handles, cache {found.cache / 2**20:.1f} MiB"
        )
    return record


def faults(record: Endurance) -> Iterator[str]:
    """Yield what grew, drifted or was wrongly called, as sentences."""
    for number, rounds in enumerate(record.parts, start=1):
        # A first duel builds and forges; what it fills stays full.
        settled = rounds[1:]
        if len(settled) >= LEAST:
            quarter = max(1, len(settled) // 4)
            first, last = settled[:quarter], settled[-quarter:]
            yield from (f"part {number}: {said}" for said in _growth(first, last))
        if left := max(one.left for one in rounds):
            yield f"part {number}: {left} processes were left after a duel"
    for one in record.rounds:
        if one.verdict in (Verdict.WIN, Verdict.LOSS):
            yield f"{one.date}: {one.verdict} of two arms that are the same"
    low, _, high = drift(record)
    if low > 0 or high < 0:
        yield f"effects of all duels drift: {100 * low:+.2f} to {100 * high:+.2f} %"


def _growth(first: Sequence[Round], last: Sequence[Round]) -> Iterator[str]:
    def medians(value: Callable[[Round], int]) -> tuple[float, float]:
        return statistics.median(map(value, first)), statistics.median(map(value, last))

    before, after = medians(lambda one: one.memory)
    if after > MEMORY_GROWS * before + MEMORY_BYTES:
        yield f"memory grew from {before / 2**20:.0f} to {after / 2**20:.0f} MiB"
    before, after = medians(lambda one: one.cache)
    if after > before + CACHE_BYTES:
        yield f"the cache folder grew from {before / 2**20:.1f} to {after / 2**20:.1f} MiB"
    before, after = medians(lambda one: one.handles)
    if after > before + HANDLES:
        yield f"open files grew from {before:.0f} to {after:.0f}"
    before, after = medians(lambda one: one.temporary)
    if after > before + HANDLES:
        yield f"temporary folders grew from {before:.0f} to {after:.0f}"


def drift(record: Endurance) -> tuple[float, float, float]:
    """Return the mean effect of all duels between the ends of its 99.9 % interval, as fractions."""
    effects = [one.effect for one in record.rounds if one.effect is not None]
    if len(effects) < LEAST:
        return -1.0, 0.0, 1.0
    mean, half = statistics.fmean(effects), statistics.stdev(effects) / len(effects) ** 0.5
    half *= float(stdtrit(len(effects) - 1, 0.9995))
    return mean - half, mean, mean + half


def summary(record: Endurance) -> str:
    """Return a table of the parts, as Markdown."""
    rows = []
    for number, rounds in enumerate(record.parts, start=1):
        verdicts = {one.verdict: sum(each.verdict == one.verdict for each in rounds) for one in rounds}
        rows.append(
            (
                str(number),
                rounds[0].date[:10],
                f"{len(rounds)}",
                f"{sum(one.wall_s for one in rounds) / 60:.0f} min",
                ", ".join(f"{name} x{count}" for name, count in sorted(verdicts.items())),
                _from_to([one.memory / 2**20 for one in rounds], "MiB"),
                _from_to([one.handles for one in rounds], ""),
                _from_to([one.cache / 2**20 for one in rounds], "MiB"),
            )
        )
    header = ("part", "date", "duels", "time", "verdicts", "memory", "open files", "cache")
    return table(header, rows, left=("date", "verdicts"))


def _from_to(values: Sequence[float], unit: str) -> str:
    return f"{min(values):.0f} to {max(values):.0f} {unit}".strip()


def plot(record: Endurance) -> bytes:
    """Draw effects (%), memory (MiB), open files and the cache folder (MiB) over hours of duels, as SVG."""
    hours, at = [], 0.0
    for one in record.rounds:
        at += one.wall_s / 3600
        hours.append(at)
    pictures = (
        ("memory, MiB", [one.memory / 2**20 for one in record.rounds]),
        ("open files", [float(one.handles) for one in record.rounds]),
        ("cache folder, MiB", [one.cache / 2**20 for one in record.rounds]),
    )
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(9, 5.4))
        figure.subplots_adjust(left=0.08, right=0.98, top=0.88, bottom=0.1, hspace=0.5, wspace=0.22)
        axes = figure.add_subplot(2, 2, 1)
        shown = [(hour, one) for hour, one in zip(hours, record.rounds, strict=True) if one.effect is not None]
        axes.axhline(0, color=plots.INK, linewidth=0.8)
        for hour, one in shown:
            if one.low is not None and one.high is not None:
                axes.plot([hour, hour], [100 * one.low, 100 * one.high], color=plots.ACCENTS[3], linewidth=0.6)
        axes.plot(
            [hour for hour, _ in shown], [100 * (one.effect or 0.0) for _, one in shown], ".", color=plots.ACCENTS[0]
        )
        axes.set_title("A/A effect, %", fontsize=9, color=plots.INK)
        axes.tick_params(labelsize=8)
        for number, (title, values) in enumerate(pictures, start=2):
            axes = figure.add_subplot(2, 2, number)
            axes.plot(hours, values, color=plots.ACCENTS[number - 1])
            axes.set_ylim(0, 1.2 * max(values, default=1.0) or 1.0)
            axes.set_title(title, fontsize=9, color=plots.INK)
            axes.tick_params(labelsize=8)
        figure.text(0.02, 0.95, f"{record.chip.chip_class}: duels back to back, by hours of them", fontsize=12)
    return plots.svg(figure)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Carry out duels, print the table; 1 where something grew, drifted or was called what it is not."""
    parser = argparse.ArgumentParser(prog="python -m studies.endurance", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("record", type=Path, metavar="RECORD", help=f"usually baselines/<class>/{NAME}")
    parser.add_argument("--time", type=float, default=3600.0, metavar="SECONDS", help="0 prints what there is")
    parser.add_argument("--workload", metavar="ID", help="default: the chip's first")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="of each duel")
    parser.add_argument("--allow-busy", action="store_true", help="measure on a machine that others use")
    args = parser.parse_args(argv)
    if args.time < 0 or args.budget <= 0:
        raise UsageError(f"--time {args.time:g} --budget {args.budget:g}", expected="seconds, 0 or more, and above 0")
    record = ENDURANCE.find(args.record)
    if args.time or record is None:
        with machine(None, sys.stderr, BusyPolicy(allowed=args.allow_busy)) as here:
            workload = Workload.parse(args.workload) if args.workload else defaults(here.chip.vendor)[0]
            record = record or Endurance(SCHEMA, here.chip, here.stack, str(workload), args.budget)
            now = (here.chip.chip_class, args.workload or record.workload)
            if now != (record.chip.chip_class, record.workload):
                raise NotComparableError(
                    f"{args.record} is of {record.workload} on {record.chip.chip_class}",
                    expected=" on ".join(reversed(now)),
                    remedy="name another record",
                )
            if workload.checkpoint in PRESETS:
                ensure_forged(PRESETS[workload.checkpoint], here.root, here.tools.note)
            record = endure(record, here, args.record, args.time, lambda text: print(text, file=out, flush=True))
    print(summary(record), file=out)
    found = list(faults(record))
    print(*(f"wrong: {one}" for one in found), sep="\n", file=out)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(carry_out(main))
