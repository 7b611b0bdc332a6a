import io
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemma3n_perf.errors import UsageError
from studies import versions
from studies.versions import ENVIRONMENTS, VERSIONS, Environment, Tried, Versions

HEAD = ("py3.11-oldest", "3.11", "2026-11-27T00:00:00+00:00", "a" * 40)
FOUND = {"mlx": "0.32.2", "mlx-vlm": "0.7.0", "pytest": "9.0.0"}
ROOT = Path(__file__).parents[2]


def test_the_oldest_and_the_newest_on_the_oldest_python_and_the_newest_on_each() -> None:
    """Those that pyproject.toml admits."""
    assert [one.name for one in ENVIRONMENTS] == ["py3.11-oldest", "py3.11-newest", "py3.12-newest", "py3.13-newest"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"Python :: {python}" in text for python in versions.PYTHONS)


def test_the_oldest_are_those_that_the_project_declares(tmp_path: Path) -> None:
    """Without a lower bound there is no oldest."""
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["mlx>=0.32.2", "mlx-vlm>=0.7,<1", "pytest>=9.0", "numpy>=2"]\n')
    assert versions.oldest(project) == ["mlx==0.32.2", "mlx-vlm==0.7", "pytest==9.0"]
    assert len(versions.oldest(ROOT / "pyproject.toml")) == 3
    project.write_text('[project]\ndependencies = ["mlx<1", "mlx-vlm>=0.7", "pytest>=9.0"]\n')
    with pytest.raises(UsageError, match="no oldest mlx is said"):
        versions.oldest(project)


def test_every_test_that_is_named_is_there() -> None:
    """A folder that moved would be missed in silence."""
    assert [name for name in versions.TESTS if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("code", "said", "counts", "failures"),
    [
        (0, "3 passed, 2 skipped in 4.5s", (3, 0, 2), ()),
        (1, "FAILED tests/a.py::b - x\n1 failed, 3 passed in 4.5s", (3, 1, 0), ("tests/a.py::b",)),
        (
            1,
            "ERROR tests/a.py\nFAILED tests/c.py::d\n1 failed, 2 errors, 1 passed in 4s",
            (1, 3, 0),
            ("tests/a.py", "tests/c.py::d"),
        ),
        (0, "2 skipped in 1s", (0, 1, 2), ("pytest ended with exit code 0",)),
        (4, "ImportError while loading conftest", (0, 1, 0), ("pytest ended with exit code 4",)),
        (-11, "", (0, 1, 0), ("pytest ended with exit code -11",)),
        (3, "INTERNALERROR\n5 passed in 1s", (5, 1, 0), ("pytest ended with exit code 3",)),
    ],
)
def test_how_pytest_ended_is_counted(code: int, said: str, counts: tuple[int, int, int], failures: Any) -> None:
    """Where it did not end by its tests, or ran none, it failed."""
    found = versions.judged(HEAD, FOUND, code, said, 61.0)
    assert (found.passed, found.failed, found.skipped) == counts
    assert found.failures == failures


def calls(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[tuple[str, ...]]:
    """Have what is run succeed, but for a command that holds ``failing``; returns all that is run."""
    made: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...], **options: Any) -> SimpleNamespace:
        made.append(tuple(map(str, argv)))
        bad = bool(failing) and failing in made[-1]
        out = '{"mlx": "1", "mlx-vlm": "2", "pytest": "3"}' if "-c" in argv else "7 passed in 1s"
        return SimpleNamespace(returncode=int(bad), stdout=out, stderr="error: not to\n be had" if bad else "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(versions, "Repository", lambda root: SimpleNamespace(commit=lambda: "a" * 40))
    return made


def test_an_environment_is_made_anew_and_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The oldest with what pins them."""
    made = calls(monkeypatch)
    found = versions.test(Environment("3.11", oldest=True), ROOT, ["tests/decode"], tmp_path)
    assert (found.passed, found.failed, found.versions["mlx-vlm"]) == (7, 0, "2")
    assert made[0][1:] == ("venv", "--quiet", "--no-project", "--python", "3.11", str(tmp_path / "py3.11-oldest"))
    assert [one for one in made[1] if "==" in one] == versions.oldest(ROOT / "pyproject.toml")
    assert made[3][-1] == "tests/decode"
    assert (tmp_path / "py3.11-oldest.log").read_text() == "7 passed in 1s"
    calls(monkeypatch)
    versions.test(Environment("3.13"), ROOT, ["tests/decode"], tmp_path)


@pytest.mark.parametrize(("failing", "said"), [("venv", "no Python 3.13"), ("install", "its packages cannot be")])
def test_what_cannot_be_had_is_said_and_counts_as_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str, said: str
) -> None:
    """Exit 4 where there is nothing else."""
    calls(monkeypatch, failing)
    out = io.StringIO()
    assert versions.main([str(tmp_path / "v.json"), "--only", "py3.13-newest"], out) == 4
    assert f"py3.13-newest was not tested: {said}" in out.getvalue()
    assert "error: not to be had" in out.getvalue()
    (one,) = VERSIONS.read(tmp_path / "v.json").tested
    assert (one.passed, one.failed, one.missing != "") == (0, 0, True)


def test_a_record_keeps_the_last_run_of_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """1 where a test failed; other tests are another record."""
    path, out = tmp_path / "v.json", io.StringIO()
    calls(monkeypatch)
    logs = tmp_path / "logs"
    assert versions.main([str(path), "--only", "py3.11-newest", "--logs", str(logs)], out) == 0
    assert [one.name for one in logs.iterdir()] == ["py3.11-newest.log"]
    failed = Tried("py3.11-oldest", "3.11", HEAD[2], None, FOUND, 9, 2, failures=("tests/a.py::b",))
    monkeypatch.setattr(versions, "test", lambda environment, *others: failed)
    assert versions.main([str(path), "--only", "py3.11-oldest"], out) == 1
    assert "py3.11-oldest: 2 failed: tests/a.py::b" in out.getvalue()
    record = VERSIONS.read(path)
    assert [one.name for one in record.tested] == ["py3.11-newest", "py3.11-oldest"]
    assert "| py3.11-oldest | 0.32.2 | 0.7.0 | 9.0.0 | 9 | 2 | 0 | 2026-11-27 | 0 min |" in versions.rows(record)
    versions.main([str(path), "--only", "py3.11-oldest", "--tests", "tests/stats"], out)
    assert VERSIONS.read(path) == Versions(1, ("tests/stats",), (failed,))
