"""Faults of settings: variables that hold nonsense, a stricter Python, git that is not there, clocks that jump."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from studies.faults_fault import Fault
from studies.faults_place import Place
from studies.faults_record import PLANTED
from studies.faults_victim import Victim

MOMENTS = ("before", "starting", "measuring", "between")
_NOBODY = 65_534
_DAY_S = 86_400
_CLOCK = """
import pathlib
import time

_real, _by = time.time, pathlib.Path(__file__).with_name("by")
time.time = lambda: _real() + float(_by.read_text() or 0)
"""
VARIABLES = {
    "max-ops-nonsense": "MLX_MAX_OPS_PER_BUFFER=nonsense",
    "max-ops-negative": "MLX_MAX_OPS_PER_BUFFER=-1",
    "max-mb-nonsense": "MLX_MAX_MB_PER_BUFFER=nonsense",
    "bfs-width-nonsense": "MLX_BFS_MAX_WIDTH=nonsense",
    "bfs-depth-huge": "MLX_BFS_MAX_DEPTH=9999999999999999999999999999999999999999",
    "compile-off": "MLX_DISABLE_COMPILE=1",
    "fast-synch-nonsense": "MLX_METAL_FAST_SYNCH=nonsense",
    "cuda-devices-nonsense": "CUDA_VISIBLE_DEVICES=nonsense",
    "omp-nonsense": "OMP_NUM_THREADS=nonsense",
    "blas-threads-nonsense": "OPENBLAS_NUM_THREADS=-7",
    "tokenizers-nonsense": "TOKENIZERS_PARALLELISM=nonsense",
    "locale-c": "LC_ALL=C LANG=C",
    "locale-nonsense": "LC_ALL=xx_XX.nonsense",
    "locale-posix-bytes": "LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    "ascii-streams": "PYTHONIOENCODING=ascii:strict",
    "python-warnings": "PYTHONWARNINGS=error",
    "python-optimized": "PYTHONOPTIMIZE=2",
    "python-development": "PYTHONDEVMODE=1",
    "python-malloc": "PYTHONMALLOC=debug",
    "python-unbuffered": "PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
    "malloc-perturbed": "MALLOC_PERTURB_=165 MALLOC_ARENA_MAX=1",
    "preload-missing": "LD_PRELOAD=/nonexistent/library.so",
    "terminal-nonsense": "TERM=nonsense COLUMNS=nonsense LINES=-3",
    "terminal-narrow": "TERM=dumb COLUMNS=1",
    "timezone-nonsense": "TZ=Nonsense/Nowhere",
    "home-unset": "HOME",
    "home-empty": "HOME=",
    "home-device": "HOME=/dev/null",
    "tmpdir-nonsense": "TMPDIR=/nonexistent/tmp",
    "tmpdir-device": "TMPDIR=/dev/null",
    "tmpdir-long": f"TMPDIR=/{'x' * 5000}",
    "cache-device": "GEMMA3N_PERF_CACHE=/dev/null",
    "cache-relative": "GEMMA3N_PERF_CACHE=here",
    "cache-empty": "GEMMA3N_PERF_CACHE=",
    "holder-nonsense": "GEMMA3N_PERF_MEASURED_BY='nonsense ²'",
    "xdg-nonsense": "GEMMA3N_PERF_CACHE XDG_CACHE_HOME=/dev/null/x XDG_DATA_HOME=/dev/null/y",
    "hub-nonsense": "HF_HOME=/dev/null HF_ENDPOINT=nonsense",
    "path-unset": "PATH",
    "path-empty": "PATH=",
    "python-path-missing": "PYTHONPATH=/nonexistent/python",
}
"""By the name of the fault; a name alone is unset."""


def faults() -> Iterator[Fault]:
    """Yield them all."""
    for name, text in VARIABLES.items():
        what = " ".join(one[:50] if "=" in one else f"{one} unset" for one in shlex.split(text))
        yield Fault(name, what, _variables(text), cold=name.startswith("path-"))
    yield from _git()
    yield from _clocks()


def _variables(text: str) -> Callable[[Victim], None]:
    def strike(victim: Victim) -> None:
        for one in shlex.split(text):
            name, given, value = one.partition("=")
            old = victim.environ.pop(name, "")
            if given:
                victim.environ |= {name: os.pathsep.join((value, old)) if name == "PYTHONPATH" else value}

    return strike


def _script(name: str, text: str) -> Callable[[Victim], None]:
    """Put a script before everything on the PATH; an empty one takes what has its name off it."""

    def strike(victim: Victim) -> None:
        folder = victim.place.root / "bin"
        folder.mkdir(exist_ok=True)
        if text:
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
            victim.environ["PATH"] = os.pathsep.join((str(folder), victim.environ["PATH"]))
            return
        for one in (path for place in victim.environ["PATH"].split(os.pathsep) for path in Path(place).glob("*")):
            if one.name != name and not (folder / one.name).is_symlink():  # it may point to nothing
                (folder / one.name).symlink_to(one)
        victim.environ["PATH"] = str(folder)

    return strike


def _git() -> Iterator[Fault]:
    def of_commit(victim: Victim) -> None:
        victim.argv[victim.argv.index("here")] = "ref:HEAD"

    def of_parent(victim: Victim) -> None:
        victim.argv[victim.argv.index("here")] = "ref:HEAD~1"
        assert PLANTED in victim.argv

    def shallow(victim: Victim) -> None:
        place = victim.place
        shutil.rmtree(place.checkout)
        source = f"file://{place.template}"
        subprocess.run(("git", "clone", "-q", "--depth", "1", source, str(place.checkout)), check=True)

    def git(change: Callable[[Path, Place], object]) -> Callable[[Victim], object]:
        return lambda victim: change(victim.place.checkout / ".git", victim.place)

    def foreign(folder: Path, place: Place) -> None:
        for path in (place.checkout, folder):
            os.chown(path, _NOBODY, _NOBODY)

    damages: dict[str, tuple[str, Callable[[Path, Place], object]]] = {
        "removed": (".git is removed", lambda folder, place: shutil.rmtree(folder)),
        "head-garbage": (".git/HEAD holds garbage", lambda folder, place: (folder / "HEAD").write_bytes(b"\xff\n")),
        "index-garbage": (".git/index holds garbage", lambda folder, place: (folder / "index").write_bytes(b"\xff")),
        "locked": (".git/index.lock is there", lambda folder, place: (folder / "index.lock").touch()),
        "objects-missing": ("all objects are gone", lambda folder, place: shutil.rmtree(folder / "objects")),
    }
    for name, (what, change) in damages.items():
        yield Fault(f"git-{name}", f"{what}; the baseline is a commit", git(change), MOMENTS, prepare=of_commit)
    yield Fault("git-foreign", "the checkout belongs to somebody else", git(foreign), MOMENTS[:2], prepare=of_commit,
                needs=lambda: "" if not os.getuid() else "root alone can give files away")  # fmt: skip
    what = "the clone is shallow, and the baseline the commit before it"
    yield Fault("git-shallow", what, shallow, prepare=of_parent)
    scripts = {
        "missing": "",
        "fails": "echo fatal: out of order >&2; exit 128",
        "garbage": r"printf '\377\000\nnonsense\n'",
        "killed": "kill -9 $$",
    }
    for name, text in scripts.items():
        strike = _script("git", text)
        yield Fault(f"git-{name}", f"git: {name}; the baseline is a commit", strike, prepare=of_commit)
    variables = _variables("GIT_DIR=/dev/null GIT_WORK_TREE=/nonexistent GIT_INDEX_FILE=/none")
    yield Fault("git-variables", "GIT_DIR and its like name nonsense", variables, prepare=of_commit)
    yield Fault("nvidia-smi-fails", "nvidia-smi fails", _script("nvidia-smi", "exit 9"))
    yield Fault("nvidia-smi-garbage", "nvidia-smi prints garbage", _script("nvidia-smi", r"printf '\377,,[N/A]\n'"))


def _clocks() -> Iterator[Fault]:
    def prepare(victim: Victim) -> None:
        folder = victim.place.root / "clock"
        folder.mkdir()
        (folder / "by").write_text("0")
        (folder / "sitecustomize.py").write_text(_CLOCK)
        victim.environ["PYTHONPATH"] = os.pathsep.join((str(folder), victim.environ["PYTHONPATH"]))

    def jump(by_s: int) -> Callable[[Victim], object]:
        def strike(victim: Victim) -> None:
            new = victim.place.root / "clock" / "new"
            new.write_text(str(by_s))
            new.replace(new.with_name("by"))

        return strike

    for name, by_s in (("forward", _DAY_S), ("back", -_DAY_S)):
        yield Fault(f"clock-{name}", f"Python's clock of the day jumps {name} by a day", jump(by_s), MOMENTS,
                    prepare=prepare)  # fmt: skip
