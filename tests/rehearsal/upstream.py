"""A repository of mlx-vlm, made from its source distribution, with branches that change Gemma3n's speed or do not."""

import shutil
import subprocess
import tarfile
from importlib import metadata
from pathlib import Path

from gemma3n_perf.duel.environments import find_uv

MODEL = Path("mlx_vlm", "models", "gemma3n", "language.py")
_FORWARD = "    def __call__(self, x: mx.array):\n"
_SLOWLY = "        for _ in range(40):\n            x = x.reshape(-1).reshape(x.shape) * 1\n"


def repository(folder: Path) -> Path:
    """Return a clone whose branches are ``main``, ``slower`` (every feed-forward does needless work), ``equal``
    (another text of the model's file, the same work) and ``docs`` (nothing that is imported)."""
    root = folder / "mlx-vlm"
    _source(folder, root)
    git(root, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "Nobody"), ("user.email", "nobody@example.org"), ("commit.gpgsign", "false")):
        git(root, "config", name, value)
    _commit(root, "The release")
    text = (root / MODEL).read_text()
    assert _FORWARD in text
    for branch, path, content in (
        ("slower", MODEL, text.replace(_FORWARD, _FORWARD + _SLOWLY, 1)),
        ("equal", MODEL, text + "\n# The same work.\n"),
        ("docs", Path("README.md"), "Nothing that is imported.\n"),
    ):
        git(root, "checkout", "--quiet", "-b", branch, "main")
        (root / path).write_text(content)
        _commit(root, branch)
    git(root, "checkout", "--quiet", "main")
    return root


def git(root: Path, *argv: str) -> str:
    """Run git in a repository."""
    return subprocess.run(["git", "-C", str(root), *argv], check=True, capture_output=True, text=True).stdout.strip()


def _commit(root: Path, subject: str) -> None:
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "-m", subject)


def _source(folder: Path, root: Path) -> None:
    """Unpack the source distribution, or lay a project around the installed files where no index can be reached."""
    release = f"mlx-vlm=={metadata.version('mlx-vlm')}"
    pip = [find_uv(), "tool", "run", "--quiet", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(folder), release], check=False, capture_output=True)
    found = sorted(folder.glob("mlx_vlm-*.tar.gz")) if done.returncode == 0 else []
    if found:
        with tarfile.open(found[0]) as packed:
            packed.extractall(folder, filter="data")
        (folder / found[0].name.removesuffix(".tar.gz")).rename(root)
        return
    files = [one for one in metadata.files("mlx-vlm") or () if one.parts[0] == "mlx_vlm" and one.suffix != ".pyc"]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.locate()), root / file)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "mlx-vlm"\nversion = "{metadata.version("mlx-vlm")}"\n'
        '[tool.setuptools.packages.find]\ninclude = ["mlx_vlm*"]\n'
    )
