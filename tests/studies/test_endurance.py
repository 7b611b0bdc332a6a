import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemma3n_perf.duel.run import Here
from gemma3n_perf.errors import NotComparableError, UsageError
from studies import endurance
from studies.endurance import ENDURANCE, Endurance, Round
from tests.duel.arena import Arena
from tests.duel.duels import machine
from tests.fakes import CHIP, STACK, WORKLOAD

MIB = 1 << 20
CALM = Round(
    1, "2026-11-27T00:00:00+00:00", "a" * 40, 30.0, "no-change", 0.001, -0.004, 0.006, 3, 300 * MIB, 40, 0, 90 * MIB, 1
)


def record(rounds: Sequence[Round]) -> Endurance:
    """Return a record of duels."""
    return Endurance(1, CHIP, STACK, WORKLOAD, 20.0, tuple(rounds))


def calm(**changes: Sequence[Any]) -> Endurance:
    """Return 13 duels after which nothing grew, but for values that are given for each."""
    effects = [0.002 * (-1) ** number for number in range(13)]
    rounds = [msgspec.structs.replace(CALM, effect=effect) for effect in effects]
    for name, values in changes.items():
        rounds = [msgspec.structs.replace(one, **{name: value}) for one, value in zip(rounds, values, strict=True)]
    return record(rounds)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"memory": [200 * MIB] + [300 * MIB] * 12}, []),
        ({"memory": [(300 + 8 * number) * MIB for number in range(13)]}, ["part 1: memory grew from 316 to 388 MiB"]),
        ({"cache": [(90 + number) * MIB for number in range(13)]}, ["part 1: the cache folder grew from 92.0"]),
        ({"handles": [40 + number for number in range(13)]}, ["part 1: open files grew from 42 to 51"]),
        ({"temporary": [number for number in range(13)]}, ["part 1: temporary folders grew from 2 to 11"]),
        ({"left": [0] * 12 + [2]}, ["part 1: 2 processes were left after a duel"]),
        ({"verdict": ["no-change"] * 12 + ["win"]}, [f"{CALM.date}: win of two arms that are the same"]),
        ({"effect": [0.01 + number / 1e4 for number in range(13)]}, ["effects of all duels drift: +1.01 to +1.11 %"]),
    ],
)
def test_what_grows_drifts_or_is_called_wrongly_is_named(changes: dict[str, Any], said: list[str]) -> None:
    """The first duel aside, which fills what then stays full."""
    found = list(endurance.faults(calm(**changes)))
    assert [one[: len(start)] for one, start in zip(found, said, strict=True)] == said


def test_parts_are_judged_each_by_itself() -> None:
    """Another process has another memory; too few duels tell nothing."""
    parts = [msgspec.structs.replace(one, part=2, memory=900 * MIB) for one in calm().rounds[:3]]
    assert list(endurance.faults(record([*calm().rounds, *parts]))) == []
    assert endurance.drift(record(parts)) == (-1.0, 0.0, 1.0)
    text = endurance.summary(record([*calm().rounds, *parts]))
    assert "| 1 | 2026-11-27 | 13 | 6 min | no-change x13 | 300 to 300 MiB | 40 to 40 | 90 to 90 MiB |" in text
    assert "| 2 | 2026-11-27 | 3 | 2 min |" in text


def test_the_plot_is_the_same_from_the_same_record() -> None:
    """Also where a duel measured nothing."""
    nothing = msgspec.structs.replace(CALM, verdict="not-measured", effect=None, low=None, high=None)
    drawn = endurance.plot(record([*calm().rounds, nothing]))
    assert drawn == endurance.plot(record([*calm().rounds, nothing]))
    for text in (b"memory, MiB", b"open files", b"A/A effect, %"):
        assert text in drawn


def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have duels take place in an arena, where both arms take 20 ms a token."""

    @contextmanager
    def opening(baselines: object, err: object, busy: object) -> Iterator[Here]:
        yield replace(machine(Arena(lambda name, launch: 0.02), tmp_path), root=tmp_path)

    monkeypatch.setattr(endurance, "machine", opening)
    monkeypatch.setattr(endurance, "ensure_forged", lambda *arguments: False)
    monkeypatch.setenv("GEMMA3N_PERF_CACHE", str(tmp_path))


def test_a_call_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As another part; each duel is kept at once, with what there was after it."""
    opened(monkeypatch, tmp_path)
    (tmp_path / "kept").write_bytes(bytes(4096))
    path, out = tmp_path / "class" / "endurance.json", io.StringIO()
    for _ in range(2):
        assert endurance.main([str(path), "--time", "0.001", "--workload", WORKLOAD], out) == 0, out.getvalue()
    found = ENDURANCE.read(path)
    assert [one.part for one in found.rounds] == [1, 2]
    assert {one.verdict for one in found.rounds} <= {"no-change", "inconclusive"}
    assert all(one.cache >= 4096 and one.memory > MIB and one.handles > 2 and not one.left for one in found.rounds)
    assert endurance.main([str(path), "--time", "0"], out) == 0
    assert len(ENDURANCE.read(path).rounds) == 2


def test_another_machines_record_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor is nonsense begun."""
    opened(monkeypatch, tmp_path)
    path = tmp_path / "endurance.json"
    other = replace(CHIP, chip_class="another")
    ENDURANCE.write(path, msgspec.structs.replace(calm(), chip=other))
    with pytest.raises(NotComparableError, match="on another"):
        endurance.main([str(path), "--time", "1"], io.StringIO())
    with pytest.raises(UsageError, match="--time -1"):
        endurance.main([str(path), "--time", "-1"], io.StringIO())
