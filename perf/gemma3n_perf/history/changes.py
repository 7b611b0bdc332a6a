"""What changed, in a line each: commits against their anchor, releases against today's, steps; why a release failed."""

import re
from collections.abc import Iterator, Sequence

from gemma3n_perf.history.point_record import Point
from gemma3n_perf.history.series import Series
from gemma3n_perf.history.upstream import Anchored, Lines
from gemma3n_perf.report import units

_LACKS = re.compile(r"'([\w.]+)'.* has no attribute '(\w+)'")
_ADDRESS, _FOLDER = re.compile(r"https?://[^\s)\]`,]+"), re.compile(r"(?<![\w.:/])(?:/[\w.+~-]+){2,}")
_UNLOADABLE = re.compile(r"mlx-vlm cannot load ([\w.-]+): Missing \d+ parameters")


def changes(
    chip_class: str, anchored: Anchored, upstream: Lines, listed: Sequence[Series]
) -> Iterator[tuple[str, str, str]]:
    """Yield what changed on a class: of what, in words, and the kind of it (loss, win or empty)."""
    for (name, workload), points in anchored.items():
        measured = [one for one, _ in points.values() if one.effect is not None]
        if name == chip_class and measured:
            newest = measured[-1]
            phrases = {"win": "faster than", "loss": "slower than", "no-change": "as fast as"}
            said = phrases.get(newest.verdict, "not told apart from")
            effect = units.effect(newest.effect, newest.low, newest.high, 1)
            anchor = (newest.anchor.commit or "")[:7]
            text = f"{newest.version[:7]} is {said} {anchor}, {effect}; {len(measured)} commits"
            yield f"commits, {workload}", text, newest.verdict
    for (line, _), placed in sorted(upstream.get(chip_class, {}).items()):
        yield _upstream_change(line, [point for point, _ in placed])
    for one in listed:
        for step in one.steps if one.chip_class == chip_class else ():
            kind = "loss" if step.change.slower else "win"
            change = units.percent(step.change.effect, 1, sign=True)
            if step.standing != "refuted":
                yield f"{step.standing} step, {one.workload}", f"{change} at {step.after[:7]}", kind


def _upstream_change(line: str, points: Sequence[Point]) -> tuple[str, str, str]:
    """Say which releases were faster or slower than today's; a faster one of old is a regression that is open."""
    newest = max(points, key=lambda one: one.date).anchor
    today = newest.mlx if line == "mlx" else newest.mlx_vlm or "-"
    older = [one for one in points if one.effect is not None and one.version != today]
    decided = [one for one in older if one.verdict in ("win", "loss")]
    if not decided:
        return f"{line} {today}", f"none of {len(older)} older releases was shown to differ from it", ""
    phrases = {"win": "faster", "loss": "slower"}
    latest = decided[-2:][::-1]
    listed = [f"{one.version} was {units.percent(abs(one.effect or 0.0), 1)} {phrases[one.verdict]}" for one in latest]
    kind = "loss" if decided[-1].verdict == "win" else "win"
    return f"{line} {today}", f"{len(decided)} of {len(older)} older releases differ: {', '.join(listed)}", kind


def without_places(text: str) -> str:
    """Return an error's text without what is only true of one machine: folders, and addresses of an index."""
    return _FOLDER.sub(lambda match: match[0].rsplit("/", 1)[1], _ADDRESS.sub("(an address)", text))


def failure_text(point: Point) -> str:
    """Say in one line why a release has no value, and whose fault that is; the record has the worker's own words.

    A traceback that ends in this suite's own files is a failure of this suite, not of the release.
    """
    text = (point.failure or "").removeprefix(f"{point.line}=={point.version}: ")
    first, _, trace = text.partition("; its last words:")
    if match := _LACKS.search(first):
        ours = "gemma3n_perf" in trace.rpartition("File ")[2]
        other = "mlx-vlm" if point.line == "mlx" else "mlx"
        who = "our own harness" if ours else f"today's {other}" if "mlx_vlm" in trace or "mlx_lm" in trace else "decode"
        return f"the release has no {match[2]}, which {who} needs"
    if match := _UNLOADABLE.search(first):
        return f"mlx-vlm of this release cannot load {match[1]}, our own checkpoint of that time"
    return first.split("\n", 1)[0]
