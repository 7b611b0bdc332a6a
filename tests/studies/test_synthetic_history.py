import io
from pathlib import Path

import pytest

from gemma3n_perf.errors import UsageError
from studies.synthetic_history import main


def test_an_invented_history_is_marked(tmp_path: Path) -> None:
    """In every machine's name, and never in a folder that exists."""
    out = io.StringIO()
    argv = [str(tmp_path / "h"), "--commits", "3", "--classes", "2", "--workloads", "1"]
    assert main(argv, out) == 0
    assert "invented: 6 result files" in out.getvalue()
    folders = [one.name for one in (tmp_path / "h" / "results").iterdir() if one.is_dir()]
    assert sorted(folders) == ["synthetic-1", "synthetic-2"]
    with pytest.raises(UsageError, match="exists"):
        main(argv, out)
