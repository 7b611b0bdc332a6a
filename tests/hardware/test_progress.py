import io

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


def test_a_long_text_is_cut_to_one_line() -> None:
    """A wrapped line could not be rewritten."""
    out = Terminal()
    Progress(out).note("x" * 500)
    assert len(out.getvalue().strip()) == 100


def test_a_file_sees_nothing() -> None:
    """Logs stay clean."""
    out = io.StringIO()
    progress = Progress(out)
    progress.note("text")
    progress.clear()
    assert out.getvalue() == ""
