"""What a launch costs and how far launches scatter: arms forked from one parent against fresh processes, interleaved.

``python -m studies.starts --launches 40 --json baselines/CHIP-CLASS/starts.json``, from perf/; ``--table FILE`` prints
the table of a record. Every third forked launch has 2 % planted in the candidate, to be seen within its interval.
"""

import argparse
import datetime as dt
import math
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import msgspec
from scipy.stats import t as student_t

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.launch import Launch, measure, warm_up
from gemma3n_perf.duel.run import Here, choose_workloads, job, machine
from gemma3n_perf.duel.startup import prepare, started
from gemma3n_perf.duel.whole_runs import compare_whole_runs
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload.workload import Workload
from studies import carry_out

WAYS = ("fresh", "forked", "forked, 2 % planted")
PLANTED = 0.02
MEASURED_S = 2.9


class Sample(msgspec.Struct, frozen=True):
    """One launch: seconds until all arms were greeted, until they were warm, and in all; log ratios of throughput."""

    way: str
    greeted_s: float
    ready_s: float
    whole_s: float
    log_ratio: float
    whole_log_ratio: float | None


def sample(way: str, arms: tuple[ReadyArm, ...], workload: str, here: Here, variant: int) -> Sample:
    """Carry out one launch."""
    tools = here.tools
    begun = tools.clock()
    generate = Workload.parse(workload).shape.generate
    with started(arms, tools) as running:
        greeted_s = tools.clock() - begun
        ready = prepare(running, job(workload, {}, here.root), ["candidate"], tools, 2 * variant)
        made, pinned = warm_up(ready, tools, generate, None, lambda pair_s: int(MEASURED_S / pair_s))
        ready_s = tools.clock() - begun
        found = measure(ready, made, tools, session=0, start_s=ready_s, pinned=pinned)["candidate"]
        assert isinstance(found, Launch)
        times, _ = compare_whole_runs(ready, job(workload, {}, here.root), generate, 2 * variant + 1, tools)
    whole = times["candidate"].whole_s
    (estimate,) = estimates([found])
    ratio = math.log(whole[0] / whole[1]) if whole else None
    return Sample(way, greeted_s, ready_s, tools.clock() - begun, estimate.log_ratio, ratio)


def table(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield the rows of the table, in Markdown."""
    yield "| way | launches | greeted | ready | in all | mean [95 %] | scatter | whole runs: mean, scatter |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for way in WAYS:
        own = [one for one in samples if one.way == way]
        if len(own) < 2:
            continue
        columns = [statistics.median(getattr(one, name) for one in own) for name in ("greeted_s", "ready_s", "whole_s")]
        ratios = [one.log_ratio for one in own]
        half = student_t.ppf(0.975, len(own) - 1) * statistics.stdev(ratios) / math.sqrt(len(own))
        mean = statistics.fmean(ratios)
        interval = f"{100 * mean:+.2f} % [{100 * (mean - half):+.2f}, {100 * (mean + half):+.2f}]"
        wholes = [one.whole_log_ratio for one in own if one.whole_log_ratio is not None]
        seen = f"{100 * statistics.fmean(wholes):+.2f} %, {100 * statistics.stdev(wholes):.2f} %"
        seconds = " | ".join(f"{column:.2f} s" for column in columns)
        yield f"| {way} | {len(own)} | {seconds} | {interval} | {100 * statistics.stdev(ratios):.2f} % | {seen} |"


def main(argv: Sequence[str], out: TextIO) -> int:
    """Measure and print the table. Raises UsageError, MachineBusyError and what a launch raises."""
    parser = argparse.ArgumentParser(prog="python -m studies.starts", description=__doc__)
    parser.add_argument("--launches", type=int, default=40, metavar="N", help="of each way (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing; print the table of a record")
    args = parser.parse_args(argv)
    if args.table:
        record = msgspec.json.decode(args.table.read_bytes())
        out.writelines(f"{row}\n" for row in table(msgspec.convert(record["launches"], list[Sample])))
        return 0
    if args.launches < 2:
        raise UsageError(f"--launches {args.launches}", expected="2 or more")
    samples: list[Sample] = []
    with machine(None, sys.stderr) as here:
        (workload, *_), _ = choose_workloads([], None, here)
        first, second = here.builder.build(parse("here"), [parse("here")], same=None)
        for number in range(args.launches):
            for way in random.sample(WAYS, len(WAYS)):
                apart = replace(second, parent="another") if way == "fresh" else second
                arms = (first, replace(apart, planted=PLANTED if "planted" in way else 0.0))
                try:
                    samples.append(sample(way, arms, workload, here, number))
                except PerfError as error:
                    out.write(f"{way}: {error.found}\n")
        date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        record = {"schema": 1, "date": date, "chip": here.chip, "stack": here.stack, "launches": samples}
    if args.json:
        write_over(args.json, msgspec.json.format(msgspec.json.encode(record), indent=0) + b"\n")
    out.writelines(f"{row}\n" for row in table(samples))
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
