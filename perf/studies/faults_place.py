"""The folders of one trial: a home with nano in its cache, a clone of the checkout, and where things are written."""

import filecmp
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gemma3n_perf.workload.presets import PRESETS

_PRESET = PRESETS["nano"].directory


@dataclass(frozen=True)
class Place:
    """The folders of one trial, below ``root``. ``template`` is a clone of the checkout, with ``tracked`` files."""

    root: Path
    template: Path
    tracked: tuple[str, ...]

    @property
    def user(self) -> Path:
        """The user's home, the cache in it."""
        return self.root / "home"

    @property
    def cache(self) -> Path:
        """What this suite keeps for itself."""
        return self.user / "cache"

    @property
    def checkpoint(self) -> Path:
        """The folder of nano."""
        return self.cache / "checkpoints" / _PRESET

    @property
    def weights(self) -> Path:
        """Its weights."""
        return next(iter(sorted(self.checkpoint.glob("*.safetensors"))), self.checkpoint / "model.safetensors")

    @property
    def tmp(self) -> Path:
        """What TMPDIR names."""
        return self.root / "tmp"

    @property
    def work(self) -> Path:
        """The working directory."""
        return self.root / "work"

    @property
    def out(self) -> Path:
        """Where the record goes."""
        return self.root / "out"

    @property
    def checkout(self) -> Path:
        """The checkout that the command is run from."""
        return self.root / "checkout"

    def make(self) -> None:
        """Make empty folders."""
        for path in (self.cache, self.tmp, self.work, self.out):
            path.mkdir(parents=True, exist_ok=True)

    def fill(self, checkpoint: Path, kernels: Path | None = None) -> None:
        """Copy the clone, nano and the ``kernels`` that MLX compiled before into them."""
        shutil.copytree(self.template, self.checkout, symlinks=True)
        shutil.copytree(checkpoint, self.checkpoint)
        if kernels and kernels.is_dir():
            shutil.copytree(kernels, self.tmp / kernels.parent.name / kernels.name)

    def touched(self, ignored: tuple[str, ...]) -> tuple[str, ...]:
        """Return the committed files that are not what they were, but for those below ``ignored``."""
        names = [name for name in self.tracked if not any(name.startswith(one) for one in ignored)]
        _, other, missing = filecmp.cmpfiles(self.template, self.checkout, names, shallow=False)
        return tuple(sorted(other + missing))

    def remove(self) -> None:
        """Remove everything, whatever its permissions."""
        for path in chain((self.root,), self.root.glob("*/**")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # before what is in it is looked at
        shutil.rmtree(self.root, ignore_errors=True)
