"""The study of the main command: what counts as right, and that a record is gone on with."""

import io
from pathlib import Path

import msgspec
import pytest

from gemma3n_perf.bench.table import Report, Row, render
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.stats.verdicts import Verdict
from studies import main_command
from studies.main_command import Run


def _run(case: str, exit_code: int, *verdicts: str) -> Run:
    return Run(case, "2026-11-26T00:00:00+00:00", None, 60.0, exit_code, dict(enumerate(verdicts)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "right", "wrong"),
    [
        (_run("planted-25", 1, "loss", "loss", "inconclusive"), True, False),
        (_run("planted-25", 3, "inconclusive", "inconclusive"), False, False),
        (_run("planted-5", 1, "loss", "no-change"), True, True),
        (_run("planted-5", 1, "loss", "win"), False, True),
        (_run("unchanged", 0, "no-change", "no-change"), True, False),
        (_run("unchanged", 3, "no-change", "inconclusive"), False, False),
        (_run("unchanged", 1, "no-change", "loss"), False, True),
        (_run("unchanged", 4), False, False),
        (_run("faster-2", 0, "win"), True, False),
        (_run("faster-2", 0, "no-change"), False, True),
        (_run("slower-2", 3, "inconclusive"), False, False),
        (_run("same", 0, "no-change"), True, False),
    ],
)
def test_a_run_is_right_wrong_or_neither(run: Run, right: bool, wrong: bool) -> None:
    """A slowdown is found by exit 1, unchanged code by no-change on every workload; the opposite claim is wrong."""
    assert (run.is_right, run.is_wrong) == (right, wrong)


def test_verdicts_are_read_from_the_table_that_the_command_prints() -> None:
    """As many rows as workloads, whatever the width of the numbers."""
    rows = (
        Row("nano/text/pp40-tg64", tokps=109.0, change=-0.0012, change_interval=(-0.4, 0.2), verdict=Verdict.NO_CHANGE),
        Row("nano/image/pp296-tg64", verdict=Verdict.NOT_MEASURED, note="nano/image/pp296-tg64 has no baseline"),
    )
    text = render(Report("a heading", rows), width=160)
    assert dict(main_command._ROW.findall(text)) == {
        "nano/text/pp40-tg64": "no-change",
        "nano/image/pp296-tg64": "not-measured",
    }


def test_a_complete_record_is_only_shown(tmp_path: Path) -> None:
    """Runs that a record holds are not repeated; a file that is none is refused."""
    path = tmp_path / "main-command.json"
    series = main_command._read(path)
    runs = (_run("planted-25", 1, "loss"), _run("planted-25", 0, "no-change"))
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(series, runs=runs)))
    out = io.StringIO()
    assert main_command.main([str(path), "--planted-25", "2"], out) == 0
    assert "| planted-25 | 2 | 1 [1%, 99%] | 1 | 0 x1, 1 x1 | 60 s, 60 s |" in out.getvalue()
    path.write_text("{}")
    with pytest.raises(MalformedRecordError):
        main_command.main([str(path)], out)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "baselines").glob("*/main-command.json")))
def test_the_tables_in_the_docs_are_those_of_the_records(path: Path) -> None:
    """Row for row, and every record is shown."""
    text = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    assert "\n".join(main_command.table(main_command._read(path))) in text
