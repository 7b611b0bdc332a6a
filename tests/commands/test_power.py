import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gemma3n_perf import __main__ as cli
from gemma3n_perf import dueling
from gemma3n_perf.store import power as store
from tests.duels import machine
from tests.fakes import CHIP, WORKLOAD
from tests.measure.arena import Arena, noisy


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the folders to type, on a machine whose duels take place in an arena."""

    @contextmanager
    def opened(baselines: Path | None, err: object) -> Iterator[dueling.Here]:
        yield machine(Arena(noisy(block_sd=0.004)), tmp_path / "baselines")

    monkeypatch.setattr(dueling, "machine", opened)
    monkeypatch.setattr("gemma3n_perf.commands.power.chosen", lambda args, here: ((WORKLOAD,), {}))
    return ["power", "--baselines", str(tmp_path / "baselines"), "--docs", str(tmp_path / "docs")]


def run(*argv: str) -> tuple[int, str, str]:
    """Type a command line."""
    out, err = io.StringIO(), io.StringIO()
    return cli.run(argv, out, err), out.getvalue(), err.getvalue()


def test_rounds_add_to_the_record_and_the_page_follows(typed: list[str], tmp_path: Path) -> None:
    """One line a duel; a second run goes on where the first ended; the page can be made without measuring."""
    code, out, _ = run(*typed, "--effects", "0", "5")
    assert code == 0
    assert "round 1, planted +5 % of time: loss" in out
    code, out, _ = run(*typed, "--effects", "0", "-5", "--rounds", "2")
    assert "round 3, planted -5 % of time: win" in out
    record = store.read(store.power_path(tmp_path / "baselines", CHIP.chip_class))
    assert record is not None
    assert [duel.round for duel in record.duels] == [1, 1, 2, 2, 3, 3]
    page = (tmp_path / "docs" / "trust.md").read_bytes()
    assert b"6 duels of" in page
    assert run(*typed, "--page")[0] == 0
    assert (tmp_path / "docs" / "trust.md").read_bytes() == page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds 0"),
        (["--effects", "-80"], "--effects -80"),
        (["--workload", WORKLOAD, "--workload", "nano/text/pp140-tg64"], "2 workloads"),
        (["--page"], "no power.jsonl"),
        (["--margin", "0.1"], "below the minimum effect"),
    ],
)
def test_requests_that_cannot_be_carried_out_exit_2(typed: list[str], arguments: list[str], said: str) -> None:
    """And say what would work."""
    code, _, err = run(*typed, *arguments)
    assert code == 2
    assert said in err
    assert "expected" in err


def test_a_campaign_of_another_workload_is_refused_before_anything_is_measured(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is left as it was."""
    assert run(*typed, "--effects", "5")[0] == 0
    path = store.power_path(tmp_path / "baselines", CHIP.chip_class)
    path.write_bytes(path.read_bytes().replace(WORKLOAD.encode(), b"nano/text/pp1-tg2", 1))
    before = path.read_bytes()
    monkeypatch.setattr("gemma3n_perf.powering.round_of_duels", lambda *a, **k: pytest.fail("it measured"))
    code, _, err = run(*typed, "--effects", "5")
    assert code == 5
    assert "holds duels of workload nano/text/pp1-tg2" in err
    assert path.read_bytes() == before
