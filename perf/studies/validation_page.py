"""The page of validation: how often this suite's verdicts, and other tools' rules, were right about planted truths."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

import matplotlib as mpl
from matplotlib.figure import Figure

from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel.validation_record import HERE, PowerHead, PowerRecord
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.report import plots
from gemma3n_perf.report.markdown import table
from gemma3n_perf.store.files import write_over
from studies import carry_out, equal_time, validation
from studies.equal_time import Row
from studies.validation import Group, Rate, Resampled, Trial

PAGE = PurePosixPath("trust.md")
PLOTS = PurePosixPath("plots")
RESAMPLED = 10_000
_SEED = 20_260_101
_BUDGETS_S = (60.0, 120.0, 180.0)
_TRUTHS = (0.0, 0.005, -0.005, 0.01, -0.01, 0.02, -0.02, 0.05, -0.05)
_MOST_ROUNDS = 12
_INTRO = Path(__file__).with_name("validation_page.md")


@dataclass(frozen=True, slots=True)
class Campaign:
    """The duels of one arm against itself on one chip class, as trials."""

    head: PowerHead
    trials: tuple[Trial, ...]

    @property
    def arm(self) -> str:
        """What both arms were made of."""
        return self.trials[0].duel.arm

    @property
    def title(self) -> str:
        """The chip class, and the arm where it is not this tree as it is."""
        return self.head.chip.chip_class + ("" if self.arm == HERE else f", {self.arm}")


def campaigns(record: PowerRecord) -> list[Campaign]:
    """Return a record's duels by arm: what two arms scatter by is not one spread."""
    found: dict[str, list[Trial]] = {}
    for duel in record.duels:
        found.setdefault(duel.arm, []).append(Trial.of(duel))
    return [Campaign(record.head, tuple(trials)) for trials in found.values()]


def build(campaigns: Sequence[Campaign]) -> dict[PurePosixPath, bytes]:
    """Return the page and its plots, by path below the docs folder."""
    files: dict[PurePosixPath, bytes] = {}
    drawn = {one.title: _resampling(one.trials) for one in campaigns}
    parts = [_INTRO.read_text(encoding="utf-8"), _short(drawn)]
    for one in campaigns:
        rows, plot = equal_time.compared(one.trials), None
        if rows[0].wrong_at_0.of:
            plot = PLOTS / f"trust-{re.sub(r'[^a-z0-9.-]+', '-', one.title.lower())}.svg"
            files[plot] = _detection(f"{one.title}: called faster or slower, rightly, by size of the effect", rows)
        parts.append(_section(one, rows, plot, drawn[one.title]))
    files[PAGE] = "\n".join(parts).encode()
    return files


def _resampling(trials: Sequence[Trial]) -> list[Resampled]:
    """Every truth at every budget; none where there are too few launches to draw from."""
    if not validation.enough(trials):
        return []
    cases = [(truth, budget_s) for budget_s in _BUDGETS_S for truth in _TRUTHS]
    return [
        validation.resample(trials, truth, budget_s=budget_s, duels=RESAMPLED, seed=_SEED + number)
        for number, (truth, budget_s) in enumerate(cases)
    ]


def _short(drawn: Mapping[str, Sequence[Resampled]]) -> str:
    """The worst of all budgets and directions, one line a class."""
    header = ("chip class", "false change at 0 or 0.5 %", "false no-change at 1 %", "2 % shown", "5 % shown")
    rows = []
    for title, found in drawn.items():
        if not found:
            continue

        def worst(size: float, share: Callable[[Resampled], float], found: Sequence[Resampled] = found) -> float:
            return max(share(one) for one in found if abs(one.truth) == size)

        false = max(worst(size, lambda one: one.win.share + one.loss.share) for size in (0.0, 0.005))
        missed = [worst(size, lambda one: 1 - (one.win if one.truth > 0 else one.loss).share) for size in (0.02, 0.05)]
        same = worst(0.01, lambda one: one.no_change.share)
        rows.append((title, _share(false), _share(same), *(_share(1 - one) for one in missed)))
    return table(header, rows, left=("chip class",)) + "\n"


def _section(one: Campaign, rows: Sequence[Row], plot: PurePosixPath | None, drawn: Sequence[Resampled]) -> str:
    head, trials, duels = one.head, one.trials, [each.duel for each in one.trials]
    dates = sorted(duel.date[:10] for duel in duels)
    scatter, shown = validation.spread(trials)
    minutes = sum(duel.measured_s for duel in duels) / 60
    rounds = len({duel.round for duel in duels})
    alike = validation.correlation(trials)
    option = "" if one.arm == HERE else f" --arm {one.arm}"
    lines = [
        f"## {one.title}",
        f"{_count(len(trials), 'duel')} of `{head.workload}` in {_count(rounds, 'round')}, worth "
        f"{validation.worth(trials, alike):.0f} independent ones (errors of one round correlate by {alike:.2f}), "
        f"{_count(round(minutes), 'minute')} of measuring, "
        f"{dates[0]} to {dates[-1]}, mlx {head.stack.mlx}, mlx-vlm {head.stack.mlx_vlm}. {_which(trials)} scatter "
        f"about the truth by {100 * scatter:.2f} % (their own blocks show {100 * shown:.2f} %).",
        "### Verdicts of this suite",
        _verdicts(validation.groups(trials)),
    ]
    if plot is not None:
        lines += ["### Every rule, in its own protocol, at equal wall time"]
        lines += [f"![Share of right calls by size of the effect, a picture for each rule]({plot})", _rules(rows)]
    lines += _steps(trials) + _rounds(trials)
    if drawn:
        lines += [f"### {RESAMPLED:,} duels resampled for each row", _resampled(drawn)]
    lines.append(
        f"To repeat: `gemma3n-perf validate --workload {head.workload}{option}`, which adds a round to "
        f"`baselines/{head.chip.chip_class}/{store.NAME}`; `--add FILE` adds a single duel that `duel --json` wrote."
    )
    return "\n\n".join(lines) + "\n"


def _which(trials: Sequence[Trial]) -> str:
    read, every = len(validation.drawn_from(trials)), sum(len(one.launches) for one in trials)
    if read == every:
        return "Launches"
    return f"The {read} launches whose steps were recorded (of {every}; the others were read another way)"


def _steps(trials: Sequence[Trial]) -> list[str]:
    count, errors = validation.step_errors(trials)
    if not count:
        return []
    rows = [(name, f"{100 * error:.2f} %") for name, error in errors.items()]
    return [
        "### Ways to read the steps of a launch",
        f"Of {_count(count, 'launch', 'launches')} of this class the steps were recorded. Here is by how much a "
        "launch's number scatters about the truth (root mean square), read by this suite and in other ways "
        "([method](method.md)):",
        table(("estimator", "scatter"), rows, left=("estimator",)),
    ]


def _rounds(trials: Sequence[Trial]) -> list[str]:
    found = validation.slower(trials)
    if not 1 < len(found) <= _MOST_ROUNDS:
        return []
    rows = [
        (str(number), str(launches), _effect(typical), f"{100 * scatter:.2f} %", _effect(whole))
        for number, (launches, typical, scatter, whole) in sorted(found.items())
    ]
    return [
        "### The candidates' processes beside the baseline's",
        "How much longer a step of theirs took, beside what was planted, by round: its typical time, that between "
        "launches, and its whole time.",
        table(("round", "launches", "typical", "scatter", "whole"), rows),
    ]


def _count(number: int, what: str, plural: str = "") -> str:
    return f"{number} {what if number == 1 else plural or what + 's'}"


def _verdicts(groups: Sequence[Group]) -> str:
    header = ("true effect", "budget", "duels / rounds", "right", "wrong", "win, loss, no-change, open",
              "holds the truth", "+-", "median s")  # fmt: skip
    rows = [
        (
            _effect(group.truth), f"{group.budget_s:.0f} s", f"{sum(group.verdicts.values())} / {group.rounds}",
            _rate(group.right), _rate(group.wrong),
            ", ".join(str(group.verdicts.get(name, 0)) for name in ("win", "loss", "no-change", "inconclusive")),
            _rate(group.covered), "-" if group.half_width is None else _share(group.half_width),
            f"{group.median_s:.0f}",
        )
        for group in groups
    ]  # fmt: skip
    return table(header, rows)


def _rules(rows: Sequence[Row]) -> str:
    sizes = sorted(rows[0].right)
    header = ("rule", "A/A: wrong", *(f"{100 * size:.0f} %: right, wrong" for size in sizes))
    cells = [
        (
            f"**{row.rule}**" if row.rule == validation.OURS else row.rule,
            _rate(row.wrong_at_0),
            *(f"{100 * row.right[size].share:.0f} %, {100 * row.wrong[size].share:.0f} %" for size in sizes),
        )
        for row in rows
    ]
    return table(header, cells, left=("rule",))


def _resampled(found: Sequence[Resampled]) -> str:
    header = ("true effect", "budget", "win", "loss", "no-change", "inconclusive", "holds the truth", "+-", "mean s")
    rows = [
        (
            _effect(one.truth), f"{one.budget_s:.0f} s", _share(one.win.share), _share(one.loss.share),
            _share(one.no_change.share), _share(1 - (one.win.count + one.loss.count + one.no_change.count) / one.duels),
            _share(one.covered.share), _share(one.half_width), f"{one.mean_s:.0f}",
        )
        for one in found
    ]  # fmt: skip
    return table(header, rows)


def _detection(title: str, rows: Sequence[Row]) -> bytes:
    """Draw the share of right calls (%) by size of the effect (%), a picture for each rule; at 0 wrong ones."""
    columns = 4
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(9, 1.0 + 2.1 * -(-len(rows) // columns)))
        figure.subplots_adjust(left=0.07, right=0.98, top=0.82, bottom=0.12, hspace=0.55, wspace=0.2)
        for number, row in enumerate(rows):
            axes = figure.add_subplot(-(-len(rows) // columns), columns, number + 1)
            sizes = sorted(row.right)
            right = [100 * row.right[size].share for size in sizes]
            colour = plots.ACCENTS[0] if number == 0 else plots.ACCENTS[3]
            axes.plot([100 * size for size in sizes], right, "o-", color=colour)
            axes.plot([0], [100 * row.wrong_at_0.share], "x", color=plots.ACCENTS[1], markersize=8)
            axes.set_ylim(-6, 106)
            axes.set_xlim(-0.8, 10.8)
            axes.set_title(row.rule, fontsize=9, color=plots.INK)
            axes.tick_params(labelsize=8)
        figure.text(0.02, 0.95, title, fontsize=12, va="center")
        figure.text(0.5, 0.01, "size of the effect, %; a cross at 0: wrong calls, %", fontsize=9, ha="center")
    return plots.svg(figure)


def _effect(truth: float) -> str:
    return "0 (A/A)" if truth == 0 else f"{100 * truth:+.2f} %"


def _rate(rate: Rate) -> str:
    if not rate.of:
        return "-"
    low, high = rate.interval
    return f"{rate.count}/{rate.of} [{100 * low:.0f}, {100 * high:.0f}] %"


def _share(share: float) -> str:
    return f"{100 * share:.2f} %"


def main(argv: Sequence[str], out: TextIO) -> int:
    """Write the page from the committed records. Raises UsageError where there is none."""
    parser = argparse.ArgumentParser(prog="python -m studies.validation_page", description=__doc__)
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where the page goes (default: docs/ of the checkout)")
    args = parser.parse_args(argv)
    baselines, docs = in_checkout("baselines", args.baselines), in_checkout("docs", args.docs)
    records = [store.read(path) for path in sorted(baselines.glob(f"*/{store.NAME}"))]
    found = [one for record in records if record is not None for one in campaigns(record)]
    if not found:
        raise UsageError(f"no {store.NAME} below {baselines}", expected="rounds", remedy="gemma3n-perf validate")
    for path, data in build(found).items():
        write_over(docs / path, data)
    out.write(f"{docs / PAGE}: written from {sum(len(one.trials) for one in found)} duels\n")
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
