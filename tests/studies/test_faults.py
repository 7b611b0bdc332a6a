import io
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gemma3n_perf.errors import MalformedRecordError, NotComparableError, UsageError
from gemma3n_perf.hardware.stack import suite_checkout
from studies import faults, faults_victim
from studies.faults import Bench
from studies.faults_fault import Fault
from studies.faults_place import Place
from studies.faults_record import FAULTS, MOMENTS, Faults, Outcome, Trial, wrongs
from studies.faults_victim import Missed, Victim
from tests.fakes import CHIP, STACK

KNOWN = [one for family in faults.catalog().values() for one in family]
TRACEBACK = 'Traceback (most recent call last):\n  File "x"\n'


def trial(fault: str, moment: str = "before", **others: object) -> Trial:
    """Return a trial that was right, but for what is given."""
    found: dict[str, object] = {"exit_code": 4, "seconds": 9.0, "after_s": 1.5} | others
    return Trial(fault, moment, "2026-11-27T00:00:00+00:00", "a" * 40, **found)  # type: ignore[arg-type]


def record(*trials: Trial) -> Faults:
    """Return a record of them."""
    return Faults(1, CHIP, STACK, "gemma3n-perf duel", trials)


def test_there_are_faults_enough_and_each_has_a_name() -> None:
    """60 or more, 300 trials or more, a name and a description each, and moments that there are."""
    assert len(KNOWN) >= 60
    assert len(faults.chosen((), ())) >= 300
    assert [name for name, count in Counter(one.name for one in KNOWN).items() if count > 1] == []
    assert [name for name, count in Counter(one.what for one in KNOWN).items() if count > 1] == []
    assert all(one.moments and set(one.moments) <= MOMENTS.keys() for one in KNOWN)


def test_what_may_befall_a_compiler_is_tried_before_mlx_has_compiled_anything(tmp_path: Path) -> None:
    """Other trials have its kernels, as on any day but the first."""
    cold = {one.name for one in KNOWN if one.cold}
    assert {"tmp-full", "tmp-removed", "path-unset", "driver-file-size", "workers-memory"} <= cold
    assert len(cold) < len(KNOWN) / 5
    for name in ("template", "nano", "mlx/1.2.3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mlx" / "1.2.3" / "x.so").touch()
    place = Place(tmp_path / "trial", tmp_path / "template", ())
    place.make()
    place.fill(tmp_path / "nano", tmp_path / "mlx" / "1.2.3")
    assert (place.tmp / "mlx" / "1.2.3" / "x.so").is_file()


@pytest.mark.parametrize(
    ("found", "ends", "said"),
    [
        (Outcome(1, "loss  -20 %\n", record="loss"), (), []),
        (Outcome(1, "loss  -20 %\n"), (), []),
        (Outcome(4, err="gemma3n-perf duel: no room left\n"), (), []),
        (Outcome(130, err="interrupted"), (), []),
        (Outcome(-9), (-9,), []),
        (Outcome(-9, partial=("a.partial",)), (-9,), []),
        (Outcome(-9), (), ["it ended by signal 9"]),
        (Outcome(None), (), ["it did not end within 60 s"]),
        (Outcome(70), (), ["exit code 70"]),
        (Outcome(0, "no-change\n", record="no-change"), (), ["exit code 0", "the verdict no-change"]),
        (Outcome(0, "win  +20 %\n"), (), ["exit code 0", "the verdict win"]),
        (Outcome(1), (), ["exit code 1 without a loss"]),
        (Outcome(1, "inconclusive: x\nTTFT: loss: y\n", record="inconclusive"), (), []),
        (Outcome(4, err=TRACEBACK), (), ["a traceback"]),
        (Outcome(4, err="its last output: Traceback (most recent call last): | boom"), (), []),
        (Outcome(4, record=None), (), ["a record that cannot be read"]),
        (Outcome(4, partial=("a.partial",)), (), ["left half-written: a.partial"]),
        (Outcome(4, orphans=("7 worker.py",)), (), ["still running: 7 worker.py"]),
        (Outcome(4, touched=("README.md",)), (), ["changed in the checkout: README.md"]),
    ],
)
def test_what_a_command_may_do(found: Outcome, ends: tuple[int, ...], said: list[str]) -> None:
    """It ends by a designed code, says loss or nothing, and leaves nothing behind."""
    assert list(wrongs(found, 60.0, frozenset(ends))) == said


def test_the_last_line_is_kept() -> None:
    """That of the command itself, wherever progress was shown before it."""
    err = "\r[   3 s] launch 1\r          \rgemma3n-perf duel: boom\n  next: mend it\n"
    assert Outcome(4, "", err).said == "gemma3n-perf duel: boom"
    assert Outcome(1, "loss\nthe end\n", " \r").said == "the end"
    assert Outcome(-9).said == ""


def test_of_its_folder_nothing_is_kept(tmp_path: Path) -> None:
    """A record is committed."""
    fault = Fault("x", "y", lambda victim: None)
    found = faults.judged(
        trial("x"), fault, Outcome(4, err=f"cannot read {tmp_path}/a", orphans=(f"{tmp_path}/w",)), tmp_path
    )
    assert (found.said, found.wrong) == ("cannot read /a", ("still running: /w",))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """Have trials only noted, all of them right but for ``driver-int`` while the record is written."""
    noted: list[tuple[str, str]] = []

    def attempt(bench: Bench, fault: Fault, moment: str) -> Trial:
        noted.append((fault.name, moment))
        wrong = ("a traceback",) if (fault.name, moment) == ("driver-int", "writing") else ()
        return trial(fault.name, moment, wrong=wrong)

    monkeypatch.setattr(Bench, "set_up", classmethod(lambda cls, folder, log: cls(folder, folder, (), "a" * 40)))
    monkeypatch.setattr(Bench, "attempt", attempt)
    monkeypatch.setattr(faults, "holder_elsewhere", lambda: None)
    monkeypatch.setattr(faults, "opened", lambda path: (path, FAULTS.find(path) or record()))
    return noted


def test_it_goes_on_where_it_was_ended(tried: list[tuple[str, str]], tmp_path: Path) -> None:
    """Each trial is in the record before the next; 1 where one was wrong, which is tried again when asked for."""
    path, out = tmp_path / "class" / "faults.json", io.StringIO()
    options = ["--only", "driver-int", "--record", str(path)]
    assert faults.main([*options, "--most", "2"], out) == 0
    assert [one.moment for one in FAULTS.read(path).trials] == ["opening", "starting"]
    assert faults.main(options, out) == 1
    assert [moment for _, moment in tried] == ["opening", "starting", "measuring", "between", "writing"]
    assert "[3/3] driver-int, writing: exit 4 after 1.5 s; WRONG: a traceback" in out.getvalue()
    assert "| all | 1 | 5 | 4 x5 | - | 2 s | 1 | 0 |" in out.getvalue()
    assert faults.main([*options, "--moments", "writing"], out) == 1
    assert len(tried) == 5
    faults.main([*options, "--moments", "writing", "--again"], out)
    assert len(tried) == 6
    assert len(FAULTS.read(path).trials) == 5


def test_what_was_missed_is_tried_again(tried: list[tuple[str, str]], tmp_path: Path) -> None:
    """It counts as nothing."""
    path = tmp_path / "faults.json"
    FAULTS.write(path, record(trial("lock-held", exit_code=None, missed="the moment did not come")))
    assert FAULTS.read(path).tried == ()
    assert faults.main(["--only", "lock-held", "--record", str(path)], io.StringIO()) == 0
    assert tried == [("lock-held", "before")]
    assert len(FAULTS.read(path).tried) == 1


@pytest.mark.parametrize("options", [["--only", "no-such-*"], ["--moments", "later"]])
def test_what_there_is_not_is_refused(options: list[str]) -> None:
    """With what there is."""
    with pytest.raises(UsageError):
        faults.main([*options, "--list"], io.StringIO())


def test_a_record_is_of_one_machine(tmp_path: Path) -> None:
    """Another class's is refused, and so is one that contradicts itself."""
    path = tmp_path / "faults.json"
    FAULTS.write(path, msgspec.structs.replace(record(), chip=replace(CHIP, chip_class="apple-m1")))
    with pytest.raises(NotComparableError, match="is of apple-m1"):
        faults.opened(path)
    for bad in (
        record(trial("a"), trial("a")),
        record(trial("a", "later")),
        record(trial("a", wrong=("x",), missed="y")),
    ):
        with pytest.raises(MalformedRecordError):
            FAULTS.write(path, bad)


SCRIPT = """
import os, subprocess, sys, time
def say(text): sys.stderr.write(text); sys.stderr.flush()
say("launch 1, starting both arms")
{extra}
say("launch 1, measuring")
time.sleep(0.1)
say("launch 2, starting both arms")
open(sys.argv[1] + "/x.partial", "w").close()
time.sleep({seconds})
os.unlink(sys.argv[1] + "/x.partial")
sys.exit(4)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return the folders of a trial, with a checkout of one file."""
    found = Place(tmp_path / "trial", tmp_path / "template", ("a.txt",))
    found.make()
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "a.txt").write_text("a")
    found.checkout.mkdir()
    (found.checkout / "a.txt").write_text("a")
    return found


def command(place: Place, extra: str = "", seconds: float = 30.0) -> Victim:
    """Return a process that says what a duel says of its progress."""
    return Victim(place, [sys.executable, "-c", SCRIPT.format(extra=extra, seconds=seconds), str(place.out)])


def test_a_moment_is_seen_and_held_on_to(place: Place) -> None:
    """The partial file of the record is there, and stays until the fault has happened."""
    victim = command(place, seconds=0.01)
    victim.start()
    try:
        assert victim.reach("between", "x", 20)
        assert victim.reach("writing", "x", 20)
        time.sleep(0.2)
        assert victim.process.poll() is None
        victim.halt(False)
        found = victim.finish(20)
    finally:
        victim.end()
    assert (found.exit_code, found.partial, found.touched, found.orphans) == (4, (), (), ())
    assert "launch 2, starting" in found.err


def test_a_key_and_a_signal_arrive(place: Place) -> None:
    """Ctrl-C is Python's KeyboardInterrupt, with a traceback here; what was half-written is named."""
    victim = command(place)
    victim.start()
    try:
        assert victim.reach("starting", "x", 20)
        assert victim.reach("writing", "x", 20)
        victim.type(b"\x03")
        victim.halt(False)
        found = victim.finish(20)
    finally:
        victim.end()
    assert found.exit_code == -signal.SIGINT
    assert found.partial == ("x.partial",)
    assert "a traceback" in list(wrongs(found, 20))


def test_what_is_left_behind_is_found_and_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlives the command, in a session of its own, and a committed file that was changed."""
    monkeypatch.setattr(faults_victim, "ORPHANS_S", 0.5)
    extra = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)"
    victim = command(place, extra)
    victim.start()
    try:
        assert victim.reach("between", "x", 20)
        (place.checkout / "a.txt").write_text("b")
        os.kill(victim.process.pid, signal.SIGKILL)
        found = victim.finish(20)
        assert len(found.orphans) == 1
        assert victim._alive() == []
    finally:
        victim.end()
    assert found.exit_code == -signal.SIGKILL
    assert found.touched == ("a.txt",)
    assert place.touched(("a",)) == ()


def test_a_command_that_ends_first_is_no_trial(place: Place) -> None:
    """Nor is a process that is not there."""
    victim = Victim(place, [sys.executable, "-c", "pass"])
    with pytest.raises(Missed):
        _ = victim.process
    victim.start()
    try:
        assert not victim.reach("starting", "x", 20)
        with pytest.raises(Missed, match="was not there"):
            victim.find(lambda: victim.workers)
    finally:
        victim.end()


def test_what_does_not_end_is_ended(place: Place) -> None:
    """And has no exit code."""
    victim = command(place)
    victim.start()
    try:
        found = victim.finish(0.5)
    finally:
        victim.end()
    assert found.exit_code is None
    assert victim.process.poll() is not None


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what real trials share."""
    if suite_checkout() is None:
        pytest.skip("an installed release has no checkout to clone")
    return Bench.set_up(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("name", "moment", "code"), [("driver-kill", "starting", -9)])
def test_a_real_fault(bench: Bench, name: str, moment: str, code: int) -> None:
    """Of a real duel: a driver that is killed while it starts its workers."""
    ((fault, _),) = faults.chosen((name,), (moment,))
    found = bench.attempt(fault, moment)
    assert (found.missed, found.wrong, found.exit_code) in [("", (), code), ("somebody else measured", (), None)]
