import io
import time

import pytest

from gemma3n_perf.hardware.progress import Progress


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """Return whether it is one."""
        return True


def test_a_terminal_sees_one_line_rewritten() -> None:
    """A shorter text wipes the longer one before it, and clearing leaves nothing."""
    out = Terminal()
    progress = Progress(out)
    progress.note("a long text about what is being done")
    progress.note("short")
    lines = out.getvalue().split("\r")
    assert "\n" not in out.getvalue()
    assert lines[1].endswith("] a long text about what is being done")
    assert len(lines[2]) == len(lines[1])
    assert lines[2].rstrip().endswith("] short")
    progress.clear()
    assert out.getvalue().split("\r")[3].strip() == ""
    assert out.getvalue().endswith("\r")


@pytest.mark.parametrize(("columns", "width"), [("60", 59), ("300", 100)])
def test_a_long_text_is_cut_to_one_line(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    """A wrapped line could not be rewritten."""
    monkeypatch.setenv("COLUMNS", columns)
    out = Terminal()
    Progress(out).note("x" * 500)
    assert len(out.getvalue().strip()) == width


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of a short command, of a long one about one a launch, whole and without a control character."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(out)
    for launch in range(5):
        progress.note(f"launch {launch}, starting {'x' * 200}")
        now[0] += 3
        progress.note(f"launch {launch}, measuring")
        now[0] += 3
        progress.clear()
    lines = out.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"[{6 * n:4.0f} s] launch {n}" for n in range(1, 5)]
    assert all(line.endswith("x" * 200) for line in lines)
    assert not set("\r\x1b") & set(out.getvalue())


def test_a_stream_that_is_gone_costs_nothing() -> None:
    """A measurement does not end because nobody reads how it goes."""
    out = Terminal()
    progress = Progress(out)
    out.close()
    progress.note("text")
    progress.say("text")
    progress.clear()
