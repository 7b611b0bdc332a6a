import argparse
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf import __main__ as cli
from gemma3n_perf.bench.recording import Recorder
from gemma3n_perf.cli import baseline
from gemma3n_perf.cli.baseline import save
from gemma3n_perf.errors import NoBaselineError, NotMeasuredError, UsageError
from gemma3n_perf.store.session_file import save_session
from tests import interrupts
from tests.fakes import CHIP, STACK, WORKLOAD, document, write_session

CLASS = CHIP.chip_class


def gemma3n_perf_baseline(*arguments: str) -> tuple[int, str]:
    """Run one baseline command line; returns exit code and output."""
    parser = argparse.ArgumentParser()
    baseline.add_arguments(parser)
    out = io.StringIO()
    return baseline.run(parser.parse_args(arguments), out), out.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A baselines folder with five sessions of one class."""
    for number in range(1, 6):
        write_session(tmp_path / "baselines" / CLASS, number)
    return tmp_path / "baselines"


def test_list_names_class_sessions_commit_and_workloads(root: Path) -> None:
    """The listing has what a person needs to pick a class, and the same as JSON."""
    code, text = gemma3n_perf_baseline("list", "--root", str(root))
    assert code == 0
    assert text.startswith(f"{CLASS}: 5 sessions, recorded 2026-07-03\n  commit 0123456789ab; mlx 0.32.4 (cpu)")
    assert f"  {WORKLOAD}\n" in text
    (found,) = json.loads(gemma3n_perf_baseline("list", "--json", "--root", str(root))[1])
    assert (found["chip_class"], found["sessions"], found["workloads"]) == (CLASS, 5, [WORKLOAD])


def test_list_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    """An empty repository is an answer with a next step."""
    assert "baseline save" in gemma3n_perf_baseline("list", "--root", str(tmp_path))[1]
    assert json.loads(gemma3n_perf_baseline("list", "--json", "--root", str(tmp_path))[1]) == []


def test_show_gives_throughput_with_spread(root: Path) -> None:
    """One class is shown with throughput, spread, memory and its session files."""
    _, text = gemma3n_perf_baseline("show", CLASS, "--root", str(root))
    assert "100.0 tok/s, 100.0 to 100.0 over 5 sessions; spread between sessions 0.00 %, within 1.00 %" in text
    assert "0005_0123456789ab.json" in text
    shown = json.loads(gemma3n_perf_baseline("show", CLASS, "--json", "--root", str(root))[1])
    assert shown["workloads"][0]["tokps"] == pytest.approx(100)
    assert [one["session"] for one in shown["files"]] == ["s1", "s2", "s3", "s4", "s5"]


def test_show_of_unknown_class_is_not_measured(root: Path) -> None:
    """A class without records is exit 4, naming those there are."""
    with pytest.raises(NoBaselineError, match=CLASS) as caught:
        gemma3n_perf_baseline("show", "apple-m4-10gpu", "--root", str(root))
    assert caught.value.exit_code == 4


def test_promote_prints_the_new_files(root: Path, tmp_path: Path) -> None:
    """Promotion names what it wrote and how large the baseline is now."""
    files = [str(write_session(tmp_path / "local" / CLASS, number, f"n{number}")) for number in (1, 2)]
    code, text = gemma3n_perf_baseline("promote", *files, "--root", str(root))
    assert code == 0
    assert str(root / CLASS / "0007_0123456789ab.json") in text
    assert "is now 7 sessions" in text


def test_promote_of_too_few_says_that_the_reference_stays(root: Path, tmp_path: Path) -> None:
    """A single session of another commit is kept, and is no baseline yet."""
    other = replace(STACK, commit="c" * 40)
    path = write_session(tmp_path / "local" / CLASS, 9, stack=other)
    code, said = gemma3n_perf_baseline("promote", str(path), "--root", str(root), "--min-sessions", "1")
    assert code == 0
    assert "1 session of 5 that a baseline needs" in said
    assert f"stays commit {(STACK.commit or '')[:12]}" in said


def test_promote_honours_min_sessions(tmp_path: Path) -> None:
    """Fewer sessions than the default are promoted only where asked for."""
    file = str(write_session(tmp_path / "local" / CLASS, 1))
    with pytest.raises(UsageError, match="1 session would"):
        gemma3n_perf_baseline("promote", file, "--root", str(tmp_path / "b"))
    assert gemma3n_perf_baseline("promote", file, "--root", str(tmp_path / "b"), "--min-sessions", "1")[0] == 0


def test_a_page_of_nothing_takes_no_page_away(tmp_path: Path) -> None:
    """A folder that is misspelt holds no baseline, and what is in docs/ was made of others."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "baselines.md").write_text("precious")
    with pytest.raises(UsageError, match="baslines is no folder"):
        gemma3n_perf_baseline("page", "--root", str(tmp_path / "baslines"), "--docs", str(docs))
    assert (docs / "baselines.md").read_text() == "precious"


def test_page_is_written_and_checked(root: Path, tmp_path: Path) -> None:
    """A fresh page passes its check; a new record, an edit or a stray plot fails it."""
    arguments = ("page", "--root", str(root), "--docs", str(tmp_path / "docs"))
    assert gemma3n_perf_baseline(*arguments, "--check")[0] == 5
    assert not (tmp_path / "docs").exists()
    assert gemma3n_perf_baseline(*arguments)[0] == 0
    assert gemma3n_perf_baseline(*arguments, "--check") == (0, "")
    stray = tmp_path / "docs" / "plots" / "baselines-gone.svg"
    stray.write_text("<svg/>")
    code, text = gemma3n_perf_baseline(*arguments, "--check")
    assert (code, "baselines-gone.svg" in text) == (5, True)
    assert gemma3n_perf_baseline(*arguments)[0] == 0
    assert not stray.exists()
    write_session(root / CLASS, 6)
    assert gemma3n_perf_baseline(*arguments, "--check")[0] == 5


class FakePytest:
    """Stores one session a call, as the plugin does; ``codes`` are the exit codes, by call."""

    def __init__(self, data: Path, codes: Sequence[int] = (), before: Callable[[int], None] | None = None) -> None:
        self.data, self.codes, self.before = data, list(codes), before
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> int:
        """Run one session."""
        self.commands.append(list(command))
        index = len(self.commands)
        if self.before:
            self.before(index)
        code = self.codes[index - 1] if index <= len(self.codes) else 0
        if code == 0:
            save_session(document(f"run{index}", stack=STACK), self.data)
        return code


def test_save_runs_sessions_and_prints_how_to_promote(tmp_path: Path) -> None:
    """Each session is one pytest run with the options given; the end names the new files, not the old."""
    save_session(document("old"), tmp_path)
    fake, out = FakePytest(tmp_path), io.StringIO()
    assert save(3, ["--checkpoint", "nano"], out, Recorder(fake, Path("perf"), tmp_path)) == 0
    assert fake.commands == [["perf", "--checkpoint", "nano"]] * 3
    text = out.getvalue()
    assert "session 3 of 3" in text
    promote = text[text.index("gemma3n-perf baseline promote") :].replace("\\\n", "").split()
    folder = tmp_path / "sessions" / CLASS
    assert promote[3:] == [str(folder / f"000{number}_0123456789ab.json") for number in (2, 3, 4)]
    assert gemma3n_perf_baseline(*promote[2:], "--root", str(tmp_path / "b"), "--min-sessions", "3")[0] == 0


def test_save_stops_at_a_failed_session_and_keeps_the_others(tmp_path: Path) -> None:
    """A session that fails ends the recording with exit 4; what was stored is listed."""
    fake, out = FakePytest(tmp_path, codes=[0, 3]), io.StringIO()
    with pytest.raises(NotMeasuredError, match="session 2 of 5 ended with exit code 3"):
        save(5, [], out, Recorder(fake, Path("perf"), tmp_path))
    assert len(fake.commands) == 2
    assert "1 session stored" in out.getvalue()


def test_save_notices_a_session_that_stored_nothing(tmp_path: Path) -> None:
    """A run that passes but measures nothing is not a session."""
    with pytest.raises(NotMeasuredError, match="stored nothing"):
        save(1, [], io.StringIO(), Recorder(lambda _: 0, Path("perf"), tmp_path))


def test_interrupted_save_lists_what_is_stored(tmp_path: Path) -> None:
    """Ctrl-C during the third session loses neither of the first two."""

    def interrupt(index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        save(5, [], out, Recorder(FakePytest(tmp_path, before=interrupt), Path("perf"), tmp_path))
    assert "2 sessions stored" in out.getvalue()
    assert "0002_0123456789ab.json" in out.getvalue()


@pytest.mark.parametrize(
    ("sessions", "options"), [(0, []), (5, ["--plant-slowdown", "10%"]), (5, ["--plant-slowdown=1%"])]
)
def test_save_refuses_what_cannot_be_saved(tmp_path: Path, sessions: int, options: list[str]) -> None:
    """No session and a planted slowdown are refused before anything runs."""
    fake = FakePytest(tmp_path)
    with pytest.raises(UsageError):
        save(sessions, options, io.StringIO(), Recorder(fake, Path("perf"), tmp_path))
    assert fake.commands == []


def test_save_lists_each_class_apart(tmp_path: Path) -> None:
    """Sessions of two chip classes are never offered as one baseline."""
    count = iter(range(2))

    def alternate(_: Sequence[str]) -> int:
        number = next(count)
        save_session(document(f"x{number}", chip=replace(CHIP, chip_class=f"cpu-fake-{number}c")), tmp_path)
        return 0

    out = io.StringIO()
    save(2, [], out, Recorder(alternate, Path("perf"), tmp_path))
    assert out.getvalue().count("gemma3n-perf baseline promote") == 2


SAVING = """
import sys
from functools import partial
from pathlib import Path
from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import baseline
folder = Path(sys.argv[1])
baseline.Recorder = partial(baseline.Recorder, perf=folder / "test_long.py", data=folder / "data")
sys.argv[1:] = ["baseline", "save", "--", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null"]
program.main()
"""
SESSION = """
import os, time
from pathlib import Path
def test_long():
    try:
        Path(__file__).with_name("running").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        Path(__file__).with_name("cleaned").touch()
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)],
    ids=lambda one: one.name if isinstance(one, signal.Signals) else "",
)
def test_save_takes_its_session_along(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """However it is ended. Where it can, the session closes what it has open, and what was stored is listed."""
    (tmp_path / "test_long.py").write_text(SESSION)
    save_session(document("old"), tmp_path / "data")
    command = [sys.executable, "-c", SAVING, str(tmp_path)]
    saving = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=interrupts.heard
    )
    running = tmp_path / "running"
    assert interrupts.until(lambda: running.exists() and running.read_text() != "", 20)
    # A terminal sends Ctrl-C to all of its foreground.
    (os.killpg if number == signal.SIGINT else os.kill)(saving.pid, number)
    out, _ = saving.communicate(timeout=5)  # the session has its standard output
    assert saving.returncode == code
    assert interrupts.until(lambda: interrupts.ended(int(running.read_text())), 5)
    caught = number != signal.SIGKILL
    assert (tmp_path / "cleaned").exists() == caught
    assert ("0 sessions stored" in out) == caught


@pytest.mark.parametrize("option", ["--sessions", "--first"])
@pytest.mark.parametrize("value", ["0", "1001", "two", "9" * 5000])
def test_a_number_of_sessions_that_nobody_records_is_refused(option: str, value: str) -> None:
    """With its bounds, and before anything is run."""
    out, err = io.StringIO(), io.StringIO()
    assert cli.run(["baseline", "save", option, value], out, err) == 2
    assert "1 or more, 1000 at most" in err.getvalue()
    assert out.getvalue() == ""
