import io
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma3n_perf.hardware.shell import run_command
from studies import planted_line


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the committed worker and nothing else."""
    root = tmp_path / "checkout"
    (root / planted_line.WORKER).parent.mkdir(parents=True)
    source = Path(__file__).parents[2] / planted_line.WORKER
    (root / planted_line.WORKER).write_text(source.read_text())
    git = ("git", "-C", str(root), "-c", "user.name=s", "-c", "user.email=s@localhost")
    run_command(("git", "init", "--quiet", str(root)), 60.0)
    run_command((*git, "add", "--all"), 60.0)
    run_command((*git, "commit", "--quiet", "-m", "c"), 60.0)
    monkeypatch.setattr(planted_line, "in_checkout", lambda name: root / name)
    return root


def test_each_commit_plants_what_it_should(checkout: Path) -> None:
    """Into this suite's own worker, which still parses: 1/0.92 from the third on, and 1/0.97 more from the fifth."""
    made = planted_line.line(checkout)
    assert list(made) == list("ABCDEF")
    for letter, factor in (("B", "1.0"), ("C", repr(1 / 0.92)), ("F", repr(1 / 0.92 / 0.97))):
        show = ("git", "-C", str(checkout), "show", f"{made[letter]}:{planted_line.WORKER}")
        text = run_command(show, 60.0).out
        compile(text, planted_line.WORKER, "exec")
        assert f"(1 + request.planted) * {factor} - 1" in text


@pytest.mark.parametrize(("third", "named", "code"), [(-8.4, True, 0), (-10.0, True, 1), (-8.0, False, 1)])
def test_both_must_be_named_near_enough(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, third: float, named: bool, code: int
) -> None:
    """Within 1.5 points each, and no other."""
    real = subprocess.run
    made: dict[str, str] = {}
    whole = planted_line.line
    monkeypatch.setattr(planted_line, "line", lambda clone: made.update(whole(clone)) or made)

    def run(argv: list[str], **options: object) -> object:
        if "bisect" not in argv:
            return real(argv, **options)  # type: ignore[call-overload]
        text = f"ref:{made['C'][:12]} changed it: {third:+.2f} % [-9.0, -7.0] against ref:x, 73 % of the whole\n"
        text += (
            f"ref:{made['E'][:12]} changed it: -2.90 % [-3.5, -2.2] against ref:x, 27 % of the whole\n" if named else ""
        )
        return SimpleNamespace(stdout=text)

    monkeypatch.setattr(subprocess, "run", run)
    out = io.StringIO()
    assert planted_line.main([], out) == code
    assert ("not named" in out.getvalue()) is not named
