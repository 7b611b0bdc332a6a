from gemma3n_perf.report.markdown import escape, table


def test_no_cell_breaks_the_table() -> None:
    """A bar, a line break or a tag in a name stays in its cell."""
    lines = table(("a", "b"), [("x|y\nz", "<b>")]).splitlines()
    assert lines[-1] == "| x\\|y z | &lt;b> |"
    assert "<script>" not in escape("<script>")


def test_columns_are_aligned_right_but_those_named() -> None:
    """Numbers are compared by their last digits."""
    assert table(("a", "b"), [("x", "1")], left=["a"]).splitlines()[1] == "| :--- | ---: |"
