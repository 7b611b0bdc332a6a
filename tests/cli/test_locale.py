"""A terminal without UTF-8: what is read and written does not depend on it, and what it cannot spell is replaced."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
METADATA = {"direct_url.json", "WHEEL"}
"""Files of distributions, which importlib.metadata reads as UTF-8."""


def test_no_file_is_read_or_written_in_the_locales_encoding() -> None:
    """Every text file of the package names its encoding, or replaces what it cannot decode."""
    found = []
    for path in sorted((ROOT / "perf" / "gemma3n_perf").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = {one.arg for one in node.keywords} & {"encoding", "errors"}
                distribution = any(isinstance(one, ast.Constant) and one.value in METADATA for one in node.args)
                if node.func.attr in ("read_text", "write_text") and not named and not distribution:
                    found.append((path.name, ast.unparse(node)))
    # Evidence is bound to the bytes of this file, and what it reads is ASCII.
    assert [name for name, _ in found] == ["common.py"], found
    kernels = sorted((ROOT / "perf" / "gemma3n_perf" / "fusions" / "kernels" / "cuda").glob("*.cu"))
    assert kernels
    assert all(path.read_bytes().isascii() for path in kernels)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("chip",), "chip class"),
        (("fusion", "list"), "stacked-altup"),
        (("baseline", "list"), "sessions, recorded"),
        (("workloads",), "nano/text/pp40-tg64"),
        (("graph", "caf\udce9"), "caf"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
def test_a_terminal_of_ascii_is_no_error(command: tuple[str, ...], said: str) -> None:
    """Names that are no UTF-8 included."""
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", "gemma3n_perf", *command], cwd=ROOT,
        env=os.environ | ASCII | {"PYTHONPATH": str(ROOT / "perf")}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    out = done.stdout + done.stderr
    assert done.returncode == (2 if command[0] == "graph" else 0), out
    assert said.encode() in out
    assert b"Traceback" not in out
