"""The program that decides decode speed, as it is installed: what a process that has decoded is really made of.

Named parts as in ``parts``: the contents of every file that was imported and every library that was mapped, the
variables that MLX and what it stands on read, start-up hooks, the checkpoint. To be called in a worker.
"""

import csv
import ctypes
import os
import platform
import re
import site
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gemma3n_perf.duel.hashes import Hashes
from gemma3n_perf.duel.parts import digest, labelled
from gemma3n_perf.duel.program import DATA, SUITE, is_data

_LIBRARY = re.compile(r"\.(so|dylib)(\.|$)")
_OF_MLX = re.compile(
    "CUBLAS|CUDA_|CUDNN_|DYLD_|GLIBC_TUNABLES|GOTO_|LD_|MALLOC|METAL_|MKL_|MLX_|MTL_|NVIDIA_|OMP_|OPENBLAS_|PYTHON"
)
"""Variables of MLX, and of what it stands on: Metal, CUDA, BLAS, the loader, the allocator, Python."""

_NOT_READ = re.compile(r"PYTHONPATH|PYTHONSAFEPATH|.*_(TOKEN|KEY|SECRET|PASSWORD)")
"""Left out: Python's path, which shows in what is imported, and secrets, which make nothing faster."""

_CUSTOMIZE = ("sitecustomize", "usercustomize")


@dataclass(frozen=True, slots=True)
class Process:
    """What a process consists of.

    ``mapped``        libraries in its memory, and its interpreter
    ``search``        where it finds modules
    ``hook_folders``  where Python looks for .pth files
    ``suite``         the folder of this package
    ``standard``      the folder of the standard library
    """

    modules: Mapping[str, ModuleType]
    mapped: tuple[str, ...]
    search: tuple[str, ...]
    environ: Mapping[str, str]
    hook_folders: tuple[str, ...]
    suite: Path
    standard: Path


def this_process() -> Process:
    """Return this process, as it is now."""
    hook_folders = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    executable = os.path.realpath(sys.executable)
    return Process(
        modules=dict(sys.modules),
        mapped=(executable, *_mapped()),
        search=tuple(sys.path),
        environ=dict(os.environ),
        hook_folders=tuple(hook_folders),
        suite=Path(__file__).resolve().parents[1],
        standard=Path(os.__file__).resolve().parent,
    )


def installed(process: Process, checkpoints: Mapping[str, str], cache: Path) -> dict[str, str]:
    """Return the parts of the program that ``process`` runs. ``checkpoints`` are digests by name.

    ``cache`` is the user's cache folder of the suite, where digests of large files are remembered.
    """
    hashes = Hashes(cache / "hashes.json")
    found = _Files(process, cache)
    parts = {f"checkpoint {name}": value for name, value in checkpoints.items()}
    parts["python"] = labelled(platform.python_version(), sys.version)
    parts |= {f"hook {name}": value for name, value in _hooks(process)}
    for name in _CUSTOMIZE:
        if path := getattr(process.modules.get(name), "__file__", None):
            parts[f"hook {name}"] = hashes.of(Path(path))
    mlx: list[Path] = []
    for owner, version, name, path in found.named():
        if version:
            parts[f"package {owner}"] = labelled(version)
        parts[f"file {owner} {name}" if owner else f"source {name}"] = hashes.of(path)
        if owner.partition("-")[0] == "mlx":
            mlx.append(path)
    for name in _read(process.environ, mlx, hashes):
        parts[f"variable {name}"] = labelled(process.environ[name])
    hashes.save()
    return dict(sorted(parts.items()))


class _Files:
    """Sorts the files of a process by what they belong to."""

    def __init__(self, process: Process, cache: Path) -> None:
        self._process = process
        folders = dict.fromkeys(os.path.abspath(one) for one in process.search if os.path.isdir(one))
        self._sites = {one: os.path.realpath(one) for one in folders if any(Path(one).glob("*.dist-info"))}
        self._folders = sorted(set(folders) - set(self._sites), key=len, reverse=True)
        self._made = tuple(os.path.realpath(one) for one in (tempfile.gettempdir(), cache))

    def named(self) -> Iterator[tuple[str, str, str, Path]]:
        """Yield owner ("" for the suite), its version, the name within it, and the path."""
        in_sites: dict[str, dict[str, Path]] = {one: {} for one in self._sites}
        for path, real in self._paths():
            if name := _below(real, self._process.suite):
                yield "", "", name, Path(path)
            elif place := self._site(path):
                in_sites[place[0]][place[1]] = Path(path)
            elif name := _below(real, self._process.standard) or self._interpreter(path):
                yield "python", "", name, Path(path)
            elif name := next((name for one in self._folders if (name := _below(path, one))), ""):
                yield "elsewhere", "", name, Path(path)
            elif not any(_below(real, one) for one in self._made):
                yield "system", "", path, Path(path)  # what MLX compiles while it runs is left out
        for one, files in in_sites.items():
            owners = _owners(Path(one), files.keys())
            for name, path_ in files.items():
                yield (*owners.get(name, ("unowned", "")), name, path_)

    def _site(self, path: str) -> tuple[str, str] | None:
        for one, real in self._sites.items():
            for folder in (one, real):
                if name := _below(path, folder):
                    return one, name
        return None

    def _interpreter(self, path: str) -> str:
        name = os.path.basename(path)
        return name if path in self._process.mapped and name.startswith(("python", "libpython")) else ""

    def _paths(self) -> Iterator[tuple[str, str]]:
        """Yield every file once, with its real path: of modules, of libraries, and what lies beside these for them."""
        modules = {name: getattr(one, "__file__", None) for name, one in self._process.modules.items()}
        paths = [os.path.abspath(path) for name, path in modules.items() if path and name not in _CUSTOMIZE]
        paths += self._process.mapped[:1]
        libraries = [path for path in self._process.mapped if _LIBRARY.search(os.path.basename(path))]
        paths += libraries
        for folder in {os.path.dirname(path) for path in libraries if self._site(path)}:
            paths += map(str, Path(folder).glob("*.metallib"))
        if any(name.startswith(f"{SUITE}.{DATA}") for name in modules):
            paths += [str(one) for one in (self._process.suite / DATA).rglob("*") if is_data(one.name)]
        seen: set[str] = set()
        for path in paths:
            if (real := os.path.realpath(path)) not in seen and os.path.isfile(real):
                seen.add(real)
                yield path, real


def _below(path: str, folder: str | Path) -> str:
    """Return the path from a folder to a file in it, and nothing for one that is elsewhere."""
    prefix = f"{folder}".rstrip("/") + "/"
    return path.removeprefix(prefix) if path.startswith(prefix) else ""


def _owners(folder: Path, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return package and version of each file below a site folder, from the records of what was installed."""
    needed, found = set(names), dict[str, tuple[str, str]]()
    for record in folder.glob("*.dist-info/RECORD"):
        package, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        owner = re.sub(r"[-_.]+", "-", package).lower(), version
        with record.open(newline="", encoding="utf-8", errors="replace") as lines:
            found |= {row[0]: owner for row in csv.reader(lines) if row and row[0] in needed}
    return found


def _hooks(process: Process) -> Iterator[tuple[str, str]]:
    """Yield .pth files that run code when Python starts. Lines that only name folders show in what is imported."""
    for path in sorted(path for folder in process.hook_folders for path in Path(folder).glob("*.pth")):
        lines = path.read_text(errors="replace").splitlines()
        if code := [line for line in lines if line.startswith(("import ", "import\t"))]:
            yield path.name, digest("\n".join(code))


def _read(environ: Mapping[str, str], files: Iterable[Path], hashes: Hashes) -> list[str]:
    """Return those variables that are set and that MLX, its models in Python or what it stands on may read."""
    known: set[str] = set()
    for path in files:
        if _LIBRARY.search(path.name):
            known.update(hashes.names(path))
        elif path.suffix == ".py":
            known.update(re.findall(r"[\"']([A-Z][A-Z0-9_]+)[\"']", path.read_text(errors="replace")))
    return [
        name for name in sorted(environ) if (name in known or _OF_MLX.match(name)) and not _NOT_READ.fullmatch(name)
    ]


def _mapped() -> list[str]:
    """Return the files of the libraries in this process's memory."""
    if sys.platform == "darwin":
        dyld = ctypes.CDLL(None)
        dyld._dyld_get_image_name.restype = ctypes.c_char_p
        names = (dyld._dyld_get_image_name(one) for one in range(dyld._dyld_image_count()))
        return sorted({os.fsdecode(name) for name in names if name})
    with suppress(OSError):
        fields = (line.split(maxsplit=5) for line in os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines())
        return sorted({one[5] for one in fields if len(one) == 6 and one[5].startswith("/")})
    return []
