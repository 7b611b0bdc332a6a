"""All committed records, judged by today's rules from their raw times: the verdicts are those of ``golden/``.

A change of code must leave them as they are. Where a record was measured again, or a rule was changed on purpose, write
them again and look at the difference: python -m tests.test_committed_records
"""

import json
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.duel import validation_record as campaigns
from gemma3n_perf.duel.validation_round import launch_estimates
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.gate.admission import recorded
from gemma3n_perf.history import point_record
from gemma3n_perf.profile.record import PROFILES
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.steps import by_shape, estimate
from gemma3n_perf.store import admitted, noise
from gemma3n_perf.store.published import read_published
from gemma3n_perf.store.session_file import KEY, decode
from tests.fakes import edited

COMMITTED = Path(__file__).parents[1] / "baselines"
GOLDEN = Path(__file__).parent / "golden" / "verdicts.json"
POLICY = Policy()
KINDS = ("admission", "evidence", "campaigns", "history")


def judged_again(kind: str) -> Iterator[tuple[str, Any]]:
    """Yield each record of a kind with what is found in it: verdicts, effects in millionths."""
    match kind:
        case "admission":
            for one in recorded(COMMITTED).ruling.decisions:
                wins = {name: round(effect * 1e6) for name, effect in sorted(one.wins.items())}
                yield one.fusion, [one.admitted, wins, [reason.verdict.value for reason in one.reasons]]
        case "evidence":
            for cell in recorded(COMMITTED).ruling.cells:
                yield f"{cell.chip_class}/{cell.fusion}/{cell.workload}", _entry(cell.verdict, cell.effect)
        case "campaigns":
            for path in sorted(COMMITTED.glob(f"*/{campaigns.NAME}")):
                campaign = campaigns.read(path)
                assert campaign is not None
                for number, duel in enumerate(campaign.duels, start=2):
                    found = judge(launch_estimates(duel.launches), POLICY, budget_s=duel.budget_s, budget_spent=True)
                    yield f"{path.parent.name}/line {number}", _entry(found.verdict, found.effect)
        case _:
            for folder in sorted(path.parent for path in COMMITTED.glob(f"*/{point_record.FOLDER}")):
                points, faults = point_record.read_class(COMMITTED, folder.name)
                assert not faults
                for point in points:
                    launches = by_shape(
                        [estimate(one.anchor_s, one.point_s, steps=(), seconds=one.seconds) for one in point.launches]
                    )
                    found = judge(launches, POLICY, budget_s=point.budget_s, budget_spent=True)
                    yield f"{folder.name}/{point.line}/{point.version}", _entry(found.verdict, found.effect)


def _entry(verdict: Any, effect: float | None) -> list[Any]:
    return [verdict and verdict.value, None if effect is None else round(effect * 1e6)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_committed_record_keeps_its_verdict(kind: str) -> None:
    """Records that are not in the golden file yet belong there; effects may differ in the sixth digit."""
    kept, found = json.loads(GOLDEN.read_text())[kind], dict(judged_again(kind))
    assert found.keys() == kept.keys(), "write the golden file again: python -m tests.test_committed_records"
    wrong = {name: (kept[name], now) for name, now in found.items() if not _same(kept[name], now)}
    assert not wrong


def _same(kept: Any, now: Any) -> bool:
    """Whether two entries are equal, numbers within one millionth."""
    match kept:
        case dict():
            return kept.keys() == now.keys() and all(_same(value, now[name]) for name, value in kept.items())
        case list():
            return len(kept) == len(now) and all(map(_same, kept, now))
        case int() if not isinstance(kept, bool) and isinstance(now, int):
            return abs(kept - now) <= 1
        case _:
            return bool(kept == now)


READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "session": ("*/[0-9]*_*.json", lambda path: decode(path.read_bytes(), source=str(path)), f"machine_info.{KEY}"),
    "measurement": (
        "*/[0-9]*_*.json",
        lambda path: decode(path.read_bytes(), source=str(path)),
        f"benchmarks.1.extra_info.{KEY}.runs.2.conditions",
    ),
    "noise": ("*/noise.json", lambda path: noise.read(path.parents[1], path.parent.name), "duels.1"),
    "admitted": ("*/fusions/admitted.json", lambda path: admitted.read(path.parents[2], path.parents[1].name), ""),
    "evidence": ("*/fusions/*e*p.json", evidence.read, "workloads.0.raw.1"),
    "earlier evidence": ("*/fusions/earlier/*.json.xz", evidence.read, "workloads.0.raw.1"),
    "profile": ("*/profile.json", PROFILES.read, "workloads.0.split"),
    "history": ("*/history/*/*.json*", point_record.read, "launches.0"),
    "published": ("published/*.json", lambda path: read_published(path.parent), "figures.1"),
    "campaign": ("*/power.jsonl.xz", campaigns.read, "stack"),
    "campaign's duel": ("*/power.jsonl.xz", campaigns.read, "launches.0"),
}
"""By what is read: the files, how one is read, and a record inside it."""


@pytest.mark.parametrize("kind", READERS)
def test_every_committed_record_is_read(kind: str) -> None:
    """Records of all releases, with their older names of fields."""
    files, read, _ = READERS[kind]
    paths = list(COMMITTED.glob(files))
    assert paths
    for path in paths:
        assert read(path) is not None


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", READERS)
def test_a_field_that_nobody_knows_is_refused_by_its_place(tmp_path: Path, kind: str, inside: bool) -> None:
    """At the top of a record and deep inside: what is not understood is not passed over."""
    files, read, place = READERS[kind]
    if not inside:
        place = place if kind in ("session", "measurement") else ""
    # Most points of a history have launches; one that was not measured has none.
    paths = sorted(COMMITTED.glob(files))
    path = max(paths, key=lambda one: one.stat().st_size) if kind == "history" else paths[0]
    copy = tmp_path / path.relative_to(COMMITTED)
    copy.parent.mkdir(parents=True)
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    lines = data.splitlines() if kind.startswith("campaign") else [data]
    at = 1 if kind == "campaign's duel" else 0
    named = f"{place}.invented".lstrip(".")
    lines[at] = edited(lines[at], named, 1)
    copy.write_bytes(b"\n".join(lines))
    with pytest.raises(MalformedRecordError) as caught:
        read(copy)
    dotted = re.sub(r"\.(\d+)", r"[\1]", f"$.{named}")
    assert f"{dotted}: no such field is known" in caught.value.found
    assert str(copy) in caught.value.found
    assert caught.value.expected
    assert caught.value.remedy


def test_they_take_no_more_than_five_megabytes() -> None:
    """Every clone brings them along."""
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) < 5e6


def dump(tree: dict[str, dict[str, Any]]) -> str:
    """Return the golden file's text: one record a line."""
    kinds = []
    for kind, found in tree.items():
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items())
        kinds.append(f"{json.dumps(kind)}: {{\n{lines}")
    return "{\n" + "\n},\n".join(kinds) + "\n}\n}\n"


if __name__ == "__main__":
    GOLDEN.write_text(dump({kind: dict(judged_again(kind)) for kind in KINDS}))
