"""The page of reliability: cheats and what the tests demand of each; what was recorded of faults and hostile inputs, of
hours of duels, of other versions, and of mutants.

``python -m studies.reliability_page``, from perf/ of a checkout.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.report import pages
from gemma3n_perf.report.markdown import escape, table
from studies import carry_out, endurance, faults, fuzz, mutation_record, versions
from studies.endurance import ENDURANCE, Endurance
from studies.faults_record import FAULTS, MOMENTS, NAME, Faults, Trial

PAGE = PurePosixPath("reliability.md")
PLOTS = PurePosixPath("plots")
FOLDER = "reliability"
_TEMPLATE = Path(__file__).with_name("reliability_page.md")
_REMEDY = "python -m studies.reliability_page, from perf/"


@dataclass(frozen=True, slots=True)
class ClassFaults:
    """What the page says of the faults of one chip class."""

    chip_class: str
    said: str
    table: str
    wrong: tuple[str, ...]
    missed: tuple[str, ...]


def cheat_rows(root: Path) -> list[tuple[str, str, str]]:
    """Return name, what it does, and what the tests demand, of each cheat of a checkout's tests."""
    sys.path.insert(0, str(root))
    try:
        tests: Any = importlib.import_module("tests.duel.test_cheats")
    finally:
        sys.path.remove(str(root))
    rows = []
    for name in tests.LISTED:
        said = ast.get_docstring(ast.parse((tests.CHEATS / f"zz_{name}.py").read_text(encoding="utf-8"))) or ""
        reason = tests.INVALID.get(f"zz-{name}")
        honest = f"no win; invalid, or an effect whose lower end is below {100 * tests.HONEST:g} %"
        if name in tests.TWINS:
            honest = "never invalid, and never a win"
        elif name == tests.DEARER:
            honest = f"a win by less than that of compiled-step, by {100 * tests.PUT_OFF:g} % or more"
        rows.append((name, said.partition("\n")[0], f"invalid: {' or '.join(reason.split('|'))}" if reason else honest))
    return rows


def of_class(record: Faults) -> ClassFaults:
    """Return what the page says of a record."""
    tried, dates = record.tried, sorted(one.date[:10] for one in record.trials)
    commits = list(dict.fromkeys((one.commit or "unversioned")[:12] for one in tried))
    wrong = sum(bool(one.wrong) for one in tried)
    moments = len({one.moment for one in tried})
    said = (
        f"{len(tried)} trials of {len({one.fault for one in tried})} faults at {moments} moments, "
        f"{wrong or 'none'} of them wrong; {dates[0] if dates else '-'} to {dates[-1] if dates else '-'}, "
        f"commit {', '.join(commits) or '-'}, mlx {record.stack.mlx}, mlx-vlm {record.stack.mlx_vlm}. "
        f"The command: `{record.command}`."
    )
    known = {fault.name: fault for family in faults.catalog().values() for fault in family}
    names = [*known, *dict.fromkeys(one.fault for one in tried if one.fault not in known)]
    rows = []
    for name in names:
        own = [one for one in tried if one.fault == name]
        if own:
            _, count, codes, verdicts, slowest, bad, _ = faults.counts(own)
            rows.append((name, known[name].what if name in known else "", count, codes, verdicts, slowest, bad))
    header = ("fault", "what happens", "trials", "exit codes", "verdicts", "slowest end", "wrong")
    return ClassFaults(
        record.chip.chip_class, said, table(header, rows, left=("fault", "what happens", "exit codes", "verdicts")),
        tuple(f"{_place(one)}: {escape('; '.join(one.wrong))}" for one in tried if one.wrong),
        tuple(f"{_place(one)}: {escape(one.missed)}" for one in record.trials if one.missed),
    )  # fmt: skip


def _place(trial: Trial) -> str:
    return f"{trial.fault}, {MOMENTS[trial.moment].partition(':')[0]}"


def _fuzz_table(found: dict[str, fuzz.Found]) -> str:
    every = fuzz.Found()
    for one in found.values():
        every.merge(one)
    guided = any(one.edges for one in found.values())
    rows = []
    for name, one in {**found, "**all**": every}.items():
        edges = (f"{one.edges[0]:,} to {one.edges[1]:,}" if one.edges and one is not every else "-",)
        most = f"{one.slowest_s:.2f} s", f"{one.largest_mib} MiB"
        rows.append((name, f"{one.inputs:,}", f"{one.refused:,}", *most, *edges[: int(guided)], str(len(one.faults))))
    header = ("reader", "inputs", "refused by name", "slowest", "memory", *("edges reached",)[: int(guided)], "faults")
    return table(header, rows, left=("reader",))


def _mutants(record: mutation_record.Mutation | None, argued: Mapping[mutation_record.Key, str]) -> dict[str, Any]:
    if record is None:
        return {}
    found = mutation_record.score(record.mutants, argued)
    listed = [f"{escape(str(one))}" for one in found.survivors]
    equivalent = [f"{escape(str(one))}: {escape(argued[one.key])}" for one in found.equivalent]
    said = f"seed {record.seed}; {', '.join(f'{n} of {group}' for group, n in record.population.items())} in all"
    return {
        "said": said,
        "table": mutation_record.rows(record.mutants, argued),
        "survivors": listed,
        "equivalent": equivalent,
    }


def build(
    root: Path, records: Iterable[Faults], lasting: Iterable[Endurance], folder: Path
) -> dict[PurePosixPath, bytes]:
    """Return the page and its plots by path below the docs folder.

    It is made of the cheats of the checkout at ``root``, records of faults and of hours of duels, and what ``folder``
    holds. Raises MalformedRecordError.
    """
    found = sorted((of_class(one) for one in records), key=lambda one: one.chip_class)
    hours = sorted(lasting, key=lambda one: one.chip.chip_class)
    plots = {PLOTS / f"endurance-{one.chip.chip_class}.svg": endurance.plot(one) for one in hours}
    blind, guided = (fuzz.kept(folder / path.name) for path in (fuzz.RECORD, fuzz.GUIDED))
    tested = versions.VERSIONS.find(folder / versions.NAME)
    rows = cheat_rows(root)
    catalog = faults.chosen((), ())
    text = pages.template(_TEMPLATE).render(
        cheats=rows,
        cheat_table=table(("program", "what it does", "demanded"), rows, left=("program", "what it does", "demanded")),
        catalog={"faults": len({fault.name for fault, _ in catalog}), "trials": len(catalog)},
        classes=found,
        blind=blind and _fuzz_table(blind),
        guided=guided and _fuzz_table(guided),
        hostile=f"{sum(one.inputs for found in (blind, guided) for one in found.values()):,}",
        faults=[f"{name}, {escape(one)}" for found in (blind, guided) for name in found for one in found[name].faults],
        limits=f"{fuzz.LIMIT_S:g} s and {fuzz.LIMIT_MIB} MiB",
        hours=[
            (one, endurance.summary(one), endurance.drift(one), list(endurance.faults(one)), plot)
            for one, plot in zip(hours, plots, strict=True)
        ],
        allowed=endurance.ALLOWED,
        versions=tested and (versions.rows(tested), list(versions.faults(tested)), tested.tests),
        mutants=_mutants(
            mutation_record.MUTATION.find(folder / mutation_record.NAME),
            mutation_record.equivalents(folder / mutation_record.EQUIVALENTS),
        ),
    )
    return {PAGE: f"{text.strip()}\n".encode(), **plots}


def main(argv: Sequence[str], out: TextIO) -> int:
    """Write the page, or say whether it is current. Raises MalformedRecordError for a record that cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.reliability_page", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where the page goes (default: docs/ of the checkout)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 5 if the page is not current")
    args = parser.parse_args(argv)
    root, docs = in_checkout("baselines").parent, in_checkout("docs", args.docs)
    baselines = in_checkout("baselines", args.baselines)
    records = [FAULTS.read(path) for path in sorted(baselines.glob(f"*/{NAME}"))]
    lasting = [ENDURANCE.read(path) for path in sorted(baselines.glob(f"*/{endurance.NAME}"))]
    files = {docs / path: data for path, data in build(root, records, lasting, docs / FOLDER).items()}
    present = list((docs / PLOTS).glob("endurance-*.svg"))
    return pages.write(files, present, docs / PAGE, out, check=args.check, remedy=_REMEDY)


if __name__ == "__main__":
    sys.exit(carry_out(main))
