"""``gemma3n-perf profile``: what it is asked, where it stores, and how it ends; and when pytest collects it."""

import argparse
import io
from pathlib import Path
from typing import Any, TextIO

import pytest

from gemma3n_perf.cli import profile as command
from gemma3n_perf.errors import NotComparableError, UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.profile import record as store
from gemma3n_perf.profile import session
from gemma3n_perf.profile.collecting import is_named
from gemma3n_perf.profile.types import PARTS
from tests import fakes
from tests.decode import fakes as decode_fakes
from tests.duel import duels
from tests.duel.arena import Arena
from tests.profile.made import profile, whole
from tests.profile.test_run import SHORT, tools


def parsed(*options: str) -> argparse.Namespace:
    """Parse options."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(options))


def profiled(here: Any, out: TextIO, *options: str) -> int:
    """Profile the fakes' workload; returns the exit code."""
    args = parsed("--workload", fakes.WORKLOAD, *options)
    return command.profile(args, session.parse_parts(args.parts), here, out)


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a machine that has nano and an empty baselines folder."""
    import dataclasses

    made = duels.machine(Arena(), tmp_path / "baselines")
    return dataclasses.replace(made, root=decode_fakes.nano_root(tmp_path_factory.getbasetemp()))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wire made-up tools and the shortest plan."""
    monkeypatch.setattr(session, "tools", lambda here, workload, sources: tools())
    monkeypatch.setattr(session, "time_plan", lambda vendor, checkpoint, **options: SHORT)


def test_parts_are_named_or_all() -> None:
    """In their own order, whatever order they were named in; an unknown one is refused with the known."""
    assert session.parse_parts(None) == PARTS
    assert session.parse_parts("trace, floor") == ("floor", "trace")
    with pytest.raises(UsageError, match="sorcery") as caught:
        session.parse_parts("split,sorcery")
    assert "histogram" in str(caught.value)
    with pytest.raises(UsageError, match="no part"):
        session.parse_parts(",")


def test_parts_measured_one_at_a_time_make_one_profile(here: Any) -> None:
    """Each call adds to the class's record."""
    out = io.StringIO()
    for part in ("histogram", "trace"):
        assert profiled(here, out, "--parts", part) == 0
    stored = store.read_class(here.baselines, fakes.CHIP.chip_class)
    assert stored is not None
    assert set(stored.workloads[0].taken) == {"histogram", "trace"}
    assert "fusion justified: unknown" in out.getvalue()
    assert "histogram stored" in out.getvalue()


def test_a_part_that_could_not_be_measured_is_exit_code_4(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are stored with its reason beside them."""
    monkeypatch.setattr(session, "tools", lambda here, workload, sources: tools(thread_times=None))
    code = profiled(here, io.StringIO(), "--parts", "histogram,trace")
    stored = store.read_class(here.baselines, fakes.CHIP.chip_class)
    assert code == 4
    assert stored is not None
    assert stored.workloads[0].histogram is not None
    assert [one.part for one in stored.workloads[0].missing] == ["trace"]


def test_a_record_of_another_stack_is_refused_before_measuring(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And --fresh takes its place."""
    other = profile(stack=Stack("3.11.7", "Linux 6.1", "0.33.0", "0.7.10", "cpu"))
    path = store.PROFILES.write(store.profile_path(here.baselines, fakes.CHIP.chip_class), other)
    before = path.read_bytes()
    with pytest.raises(NotComparableError, match=r"mlx \(0\.33\.0"):
        profiled(here, io.StringIO(), "--parts", "histogram")
    assert path.read_bytes() == before
    assert profiled(here, io.StringIO(), "--parts", "histogram", "--fresh") == 0
    stored = store.PROFILES.find(path)
    assert stored is not None
    assert stored.stack == fakes.STACK


def test_a_file_of_its_own_leaves_the_baselines_alone(here: Any, tmp_path: Path) -> None:
    """As for trying things out."""
    path = tmp_path / "mine.json"
    assert profiled(here, io.StringIO(), "--parts", "histogram", "--json", str(path)) == 0
    assert store.PROFILES.find(path) is not None
    assert not (here.baselines / fakes.CHIP.chip_class).exists()


def test_a_knob_that_is_not_understood_is_refused_before_measuring(here: Any) -> None:
    """Nothing is stored."""
    with pytest.raises(UsageError, match="setting"):
        profiled(here, io.StringIO(), "--parts", "sweep", "--knob", "x")
    assert not here.baselines.exists()


def test_pages_are_written_checked_and_kept_current(tmp_path: Path) -> None:
    """Without measuring; a page that nobody generates any more goes."""
    baselines, docs = tmp_path / "baselines", tmp_path / "docs"
    store.PROFILES.write(store.profile_path(baselines, fakes.CHIP.chip_class), profile(whole()))
    (docs / "profiles").mkdir(parents=True)
    (docs / "profiles" / "gone.md").write_text("old")
    out = io.StringIO()
    assert command.page(baselines, docs, True, out) == 5
    assert command.page(baselines, docs, False, out) == 0
    assert command.page(baselines, docs, True, out) == 0
    assert not (docs / "profiles" / "gone.md").exists()
    assert (docs / "profiles" / "cpu-fake-2c.md").is_file()
    with pytest.raises(UsageError, match="--check"):
        command.run(parsed("--check"), out)


@pytest.mark.parametrize(
    ("keyword", "arguments", "collected"),
    [
        ("", ["perf/"], False),
        ("decode", ["perf/"], False),
        ("profile", ["perf/"], True),
        ("", ["perf/bench_profile.py"], True),
        ("", ["perf/bench_profile.py::test_profile"], True),
        ("", ["perf/bench_decode.py"], False),
    ],
)
def test_pytest_collects_it_only_where_it_is_named(keyword: str, arguments: list[str], collected: bool) -> None:
    """An ordinary session stays as long as it was."""
    assert is_named(keyword, arguments) is collected
