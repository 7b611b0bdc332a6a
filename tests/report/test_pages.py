from html import escape
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from gemma3n_perf.report.pages import template


def test_blocks_leave_no_lines_and_filters_write_figures(tmp_path: Path) -> None:
    """So a template reads as what it makes."""
    path = tmp_path / "list.txt"
    path.write_text("Of {{ name | text }}:\n  {% for one in values %}\n- {{ one }}\n  {% endfor %}\nend\n")
    assert template(path, text=escape).render(name="a<b", values=[1, 2]) == "Of a&lt;b:\n- 1\n- 2\nend"


def test_a_name_that_a_template_is_not_given_is_an_error(tmp_path: Path) -> None:
    """Rather than a page with a hole in it."""
    path = tmp_path / "page.md"
    path.write_text("{{ figure }}")
    with pytest.raises(UndefinedError, match="figure"):
        template(path).render()


def test_what_a_terminal_obeys_is_written_out(tmp_path: Path) -> None:
    """Names and words of records are anybody's; lines and figures stay as they are."""
    path = tmp_path / "page.md"
    path.write_text("{{ name }}{{ count }}")
    assert template(path).render(name="a\x1b[2J\n\u202eb", count=3) == "a\\u001b[2J\n\\u202eb3"
