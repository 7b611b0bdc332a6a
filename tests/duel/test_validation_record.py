from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel.validation_record import PowerDuel, PowerHead, PowerLaunch, append, read
from gemma3n_perf.errors import MalformedRecordError, NotComparableError
from tests.fakes import CHIP, STACK, WORKLOAD

HEAD = PowerHead(1, CHIP, WORKLOAD, STACK)
DUEL = PowerDuel(
    "2026-07-01T10:00:00+00:00", "0123", 1, 0.02, 1 / 1.02 - 1, 60.0, "loss", -0.02, -0.03, -0.01,
    (PowerLaunch(4.0, (0.02, 0.021), (0.0205, 0.021)),),
)  # fmt: skip


def test_duels_are_added_behind_those_that_are_there(tmp_path: Path) -> None:
    """One line each, behind the head."""
    path = tmp_path / "power.jsonl"
    append(path, HEAD, [DUEL])
    record = append(path, HEAD, [replace(DUEL, round=2), replace(DUEL, round=3)])
    assert record == read(path)
    assert [one.round for one in record.duels] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 4


def test_a_duel_of_no_bounds_is_kept(tmp_path: Path) -> None:
    """Infinity has no JSON: a bound that is not known is null."""
    path = tmp_path / "power.jsonl"
    append(path, HEAD, [replace(DUEL, low=float("-inf"), high=None)])
    record = read(path)
    assert record is not None
    assert (record.duels[0].low, record.duels[0].high) == (None, None)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (replace(HEAD, chip=replace(CHIP, chip_class="other")), "chip class"),
        (replace(HEAD, workload="nano/text/pp140-tg64"), "workload"),
        (replace(HEAD, stack=replace(STACK, mlx="0.1")), "mlx"),
    ],
)
def test_campaigns_are_not_mixed(tmp_path: Path, head: PowerHead, what: str) -> None:
    """Rates of two machines, workloads or versions are not one rate; nothing is lost by asking."""
    path = tmp_path / "power.jsonl"
    append(path, HEAD, [DUEL])
    before = path.read_bytes()
    with pytest.raises(NotComparableError, match=what):
        append(path, head, [DUEL])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda text: "", "line 1"),
        (lambda text: text[:-40], "line 2"),
        (lambda text: text.replace('"schema":1', '"schema":9'), "schema 9"),
        (lambda text: text.replace("[0.02,0.021]", "[0.02,-1]"), "line 2"),
    ],
)
def test_a_damaged_campaign_is_named_and_not_written_over(tmp_path: Path, damage: object, found: str) -> None:
    """With the line, and left as it is."""
    path = tmp_path / "power.jsonl"
    append(path, HEAD, [DUEL])
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(MalformedRecordError, match=found):
        append(path, HEAD, [DUEL])
    assert path.read_bytes() == before
