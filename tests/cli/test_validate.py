import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as cli
from gemma3n_perf.duel import record as duel_store
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel.validation_round import is_open
from gemma3n_perf.stats.policy import Policy
from studies import validation_page
from tests.duel.arena import Arena, noisy
from tests.duel.duels import machine
from tests.fakes import CHIP, WORKLOAD


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the folders to type, on a machine whose duels take place in an arena."""

    @contextmanager
    def opened(*given: object) -> Iterator[dueling.Here]:
        yield machine(Arena(noisy(block_sd=0.004)), tmp_path / "baselines")

    monkeypatch.setattr("gemma3n_perf.cli.validate.machine", opened)
    monkeypatch.setattr("gemma3n_perf.cli.validate.choose_workloads", lambda *args: ((WORKLOAD,), {}))
    return ["validate", "--baselines", str(tmp_path / "baselines")]


def run(*argv: str) -> tuple[int, str, str]:
    """Type a command line."""
    out, err = io.StringIO(), io.StringIO()
    return cli.run(argv, out, err), out.getvalue(), err.getvalue()


def page(folder: Path) -> str:
    """Write the page from the records, as ``python -m studies.validation_page`` does, and return it."""
    argv = ["--baselines", str(folder / "baselines"), "--docs", str(folder / "docs")]
    assert validation_page.main(argv, io.StringIO()) == 0
    return (folder / "docs" / "trust.md").read_text()


def test_time_ends_a_campaign_with_what_it_has(typed: list[str], tmp_path: Path) -> None:
    """The round under way ends with the fewest launches of each duel, is kept, and no other begins."""
    code, out, _ = run(*typed, "--effects", "0", "2", "--rounds", "5", "--time", "9")
    assert code == 0
    assert "1 rounds" in out
    record = store.read(store.power_path(tmp_path / "baselines", CHIP.chip_class))
    assert record is not None
    assert [len(duel.launches) for duel in record.duels] == [Policy().min_launches] * 2
    code, out, _ = run(*typed, "--effects", "5", "--rounds", "2", "--time", "100000")
    assert "3 rounds" in out


def test_rounds_add_to_the_record_and_are_judged_again(typed: list[str], tmp_path: Path) -> None:
    """One line a duel; a second run goes on where the first ended; nothing need be measured to judge again."""
    code, out, _ = run(*typed, "--effects", "0", "5")
    assert code == 0
    assert "round 1, planted +5 % of time: loss" in out
    code, out, _ = run(*typed, "--effects", "0", "-5", "--rounds", "2")
    assert "round 3, planted -5 % of time: win" in out
    record = store.read(store.power_path(tmp_path / "baselines", CHIP.chip_class))
    assert record is not None
    assert [duel.round for duel in record.duels] == [1, 1, 2, 2, 3, 3]
    assert page(tmp_path).startswith("# Trust")
    assert "6 duels of" in page(tmp_path)
    code, again, _ = run(*typed, "--again")
    assert code == 0
    assert f"{CHIP.chip_class}, here, truth +5.26 %: 2 duels judged again: 2 win" in again


def test_an_interrupted_round_is_kept_and_goes_on(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its fewest launches on; the command that goes on is printed, and ends what the first one began."""
    usual = noisy(block_sd=0.02)

    def interrupted(name: str, launch: int) -> float:
        if launch == 7:
            raise KeyboardInterrupt
        return usual(name, launch)

    @contextmanager
    def opened(*given: object) -> Iterator[dueling.Here]:
        yield machine(Arena(interrupted), tmp_path / "baselines")

    with monkeypatch.context() as patched:
        patched.setattr("gemma3n_perf.cli.validate.machine", opened)
        code, out, err = run(*typed, "--effects", "0", "0")
    assert code == 130
    assert "interrupted" in err
    assert "round 1 is kept, 4 launches; go on with: gemma3n-perf validate --resume" in out
    path = store.power_path(tmp_path / "baselines", CHIP.chip_class)
    begun = store.read(path)
    assert begun is not None
    assert [len(duel.launches) for duel in begun.duels] == [4, 4]
    code, out, _ = run(*typed, "--resume")
    assert code == 0
    ended = store.read(path)
    assert ended is not None
    assert [duel.launches[:4] for duel in ended.duels] == [duel.launches for duel in begun.duels]
    assert not any(is_open(duel, Policy()) for duel in ended.duels)
    code, _, err = run(*typed, "--resume")
    assert code == 2
    assert "no duel of round 1" in err
    assert store.read(path) == ended


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds 0"),
        (["--resume"], "holds no round"),
        (["--resume", "--effects", "2"], "--resume with --effects"),
        (["--resume", "--rejudge"], "--resume with --workload, --add or --rejudge"),
        (["--effects", "-80"], "--effects -80"),
        (["--workload", WORKLOAD, "--workload", "nano/text/pp140-tg64"], "2 workloads"),
        (["--again"], "no power.jsonl.xz"),
        (["--margin", "0.1"], "below the minimum effect"),
        (["--arm", "ref:main"], "the arm ref:main"),
        (["--arm", "fusion:"], "'fusion:' is not understood"),
        (["--arm", "here+plant:+2%"], "--arm here+plant:+2%"),
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
    path.write_bytes(lzma.decompress(path.read_bytes()).replace(WORKLOAD.encode(), b"nano/text/pp1-tg2", 1))
    before = path.read_bytes()
    monkeypatch.setattr("gemma3n_perf.duel.validation_round.go_on", lambda *a, **k: pytest.fail("it measured"))
    code, _, err = run(*typed, "--effects", "5")
    assert code == 5
    assert "holds duels of workload nano/text/pp1-tg2" in err
    assert path.read_bytes() == before


def fought(
    tmp_path: Path,
    *,
    baseline: str = "here",
    candidate: str = "here",
    workloads: tuple[str, ...] = (WORKLOAD,),
    seed: int = 3,
) -> Path:
    """Fight a duel of this tree against itself in an arena, and return its record's file."""
    here = machine(Arena(noisy(block_sd=0.004), seed=seed), tmp_path / "elsewhere")
    spec = dueling.DuelSpec(baseline, (candidate,), workloads, 60.0, aa=candidate == baseline)
    path = tmp_path / f"duel{seed}.json"
    duel_store.DUELS.write(path, dueling.record_of(dueling.duel(spec, here), here.chip))
    return path


def test_duels_that_were_fought_alone_are_added(typed: list[str], tmp_path: Path) -> None:
    """With the truth that was planted, as rounds of their own, and onto the page; the same one is not added twice."""
    files = [fought(tmp_path), fought(tmp_path, candidate="here+plant:+5%", seed=2)]
    code, out, _ = run(*typed, "--add", *map(str, files))
    assert code == 0
    assert "round 1, planted +0 % of time: no-change" in out
    assert "round 2, planted +5 % of time: loss" in out
    path = store.power_path(tmp_path / "baselines", CHIP.chip_class)
    kept = store.read(path)
    assert kept is not None
    assert [one.truth for one in kept.duels] == [0.0, pytest.approx(1 / 1.05 - 1)]
    alone = duel_store.DUELS.read(files[1])
    assert kept.duels[1].effect == alone.effect
    assert kept.duels[1].measured_s == pytest.approx(alone.measured_s)
    assert kept.duels[1].launches[0].candidate_s == pytest.approx(alone.duels[0].raw[0].tpot_s("candidate"), abs=1e-7)
    assert "2 duels of" in page(tmp_path)
    code, _, err = run(*typed, "--add", str(files[1]))
    assert code == 2
    assert "already holds" in err
    assert store.read(path) == kept


def test_duels_of_fused_arms_are_kept_apart(typed: list[str], tmp_path: Path) -> None:
    """Each arm has its part of the page, and only those of this tree as it is leave their arm unsaid in the record."""
    fused = "here+fusion:stacked-altup"
    files = [fought(tmp_path), fought(tmp_path, baseline=fused, candidate=f"{fused}+plant:+5%", seed=2)]
    code, out, _ = run(*typed, "--add", *map(str, files))
    assert code == 0
    assert "round 2, planted +5 % of time: loss" in out
    path = store.power_path(tmp_path / "baselines", CHIP.chip_class)
    kept = store.read(path)
    assert kept is not None
    assert [one.arm for one in kept.duels] == ["here", "fusion:stacked-altup"]
    assert lzma.decompress(path.read_bytes()).count(b'"arm"') == 1
    made = page(tmp_path)
    assert made.count("1 duel of") == 2
    assert f"## {CHIP.chip_class}, fusion:stacked-altup" in made


def test_both_arms_of_a_round_are_what_was_asked_for(typed: list[str], tmp_path: Path) -> None:
    """The record says what they were."""
    assert run(*typed, "--arm", "here+env:MLX_MAX_OPS_PER_BUFFER=9", "--effects", "5")[0] == 0
    record = store.read(store.power_path(tmp_path / "baselines", CHIP.chip_class))
    assert record is not None
    assert [one.arm for one in record.duels] == ["env:MLX_MAX_OPS_PER_BUFFER=9"]
    assert "--arm env:MLX_MAX_OPS_PER_BUFFER=9`" in page(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"candidate": "env:MLX_MAX_OPS_PER_BUFFER=9"}, "here against env:MLX_MAX_OPS_PER_BUFFER=9"),
        ({"workloads": (WORKLOAD, "nano/text/pp140-tg64")}, "2 workloads"),
        ({"baseline": "ref:main", "candidate": "ref:main"}, "the arm ref:main"),
    ],
)
def test_duels_of_unknown_truth_are_not_added(
    typed: list[str], tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    """What they are is said, and what could be added."""
    code, _, err = run(*typed, "--add", str(fought(tmp_path, **other)))
    assert code == 2
    assert said in err
    assert not store.power_path(tmp_path / "baselines", CHIP.chip_class).exists()


def test_what_is_no_duel_is_not_added(typed: list[str], tmp_path: Path) -> None:
    """A file that is not there, and one that says something else."""
    (tmp_path / "other.json").write_text('{"schema": 1}')
    for name in ("other.json", "nowhere.json"):
        code, _, err = run(*typed, "--add", str(tmp_path / name))
        assert code == 5
        assert name in err
