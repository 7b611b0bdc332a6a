"""Faults of files: disks that are full, folders that are gone or read-only, damaged checkpoints, records and code."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from studies.faults_fault import Fault
from studies.faults_place import Place
from studies.faults_victim import Victim

MOMENTS = ("before", "starting", "measuring", "between", "writing")
LOADED = MOMENTS[:4]
_OWN_MOUNTS = 0x00020000
_MOUNT_SIZE = "size=24m,nr_inodes=200"
_READABLE, _UNREADABLE = 0o555, 0o000
_FAULTY = b"\xff\xfe{not what it was"
Change = Callable[[Place], object]


def faults() -> Iterator[Fault]:
    """Yield them all."""
    yield from _disks()
    yield from _folders()
    yield from _checkpoints()
    yield from _code()


def _on(change: Change) -> Callable[[Victim], object]:
    return lambda victim: change(victim.place)


def _folder(name: str) -> Callable[[Place], Path]:
    return lambda place: getattr(place, name)


@cache
def _no_mounts() -> str:
    """Let mounts of this process be its own, so that none outlives it; says why that cannot be."""
    if sys.platform != "linux" or os.getuid():
        return "root on Linux can make a small disk"
    if ctypes.CDLL(None).unshare(_OWN_MOUNTS):
        return "the system allows no mounts"
    done = subprocess.run(("mount", "--make-rprivate", "/"), capture_output=True, check=False)
    return "" if done.returncode == 0 else "the system allows no mounts"


def _disks() -> Iterator[Fault]:
    def mount(folder: Callable[[Place], Path], victim: Victim) -> None:
        path = str(folder(victim.place))
        subprocess.run(("mount", "-t", "tmpfs", "-o", _MOUNT_SIZE, "tmpfs", path), check=True, capture_output=True)
        victim.undo.append(lambda: subprocess.run(("umount", "--lazy", path), check=False, capture_output=True))

    def fill(folder: Callable[[Place], Path], place: Place) -> None:
        path = folder(place)
        with suppress(OSError), (path / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        with suppress(OSError):
            for number in range(1000):
                (path / f"filler{number}").touch()

    disks = {"tmp": "TMPDIR", "cache": "the cache", "out": "the folder of the record"}
    for name, what in disks.items():
        folder = _folder(name)
        strike, prepare, cold = _on(partial(fill, folder)), partial(mount, folder), name == "tmp"
        disk = partial(Fault, prepare=prepare, needs=_no_mounts, cold=cold)
        yield disk(f"{name}-full", f"the disk of {what} is full", strike, MOMENTS)


def _folders() -> Iterator[Fault]:
    folders = (
        ("tmp", "tmp", "TMPDIR"), ("home", "user", "the home"), ("cache", "cache", "the cache"),
        ("out", "out", "the folder of the record"), ("work", "work", "the working directory"),
    )  # fmt: skip
    for name, own, what in folders:
        folder = _folder(own)

        def remove(place: Place, folder: Callable[[Place], Path] = folder) -> None:
            shutil.rmtree(folder(place))

        def protect(place: Place, folder: Callable[[Place], Path] = folder) -> None:
            for path in (*folder(place).rglob("*"), folder(place)):
                path.chmod(_READABLE if path.is_dir() else 0o444)

        def replace(place: Place, folder: Callable[[Place], Path] = folder) -> None:
            shutil.rmtree(folder(place))
            folder(place).write_bytes(_FAULTY)

        moments = MOMENTS if name != "work" else MOMENTS[1:]  # nothing can be started in a folder that is not there
        cold = name == "tmp"
        yield Fault(f"{name}-removed", f"{what} is removed", _on(remove), moments, cold=cold)
        yield Fault(f"{name}-read-only", f"{what} and all in it is read-only", _on(protect), MOMENTS, cold=cold)
        if name in ("tmp", "cache"):
            yield Fault(f"{name}-is-a-file", f"{what} is a file", _on(replace), MOMENTS, cold=cold)
    yield Fault("record-is-a-folder", "a folder has the record's name", _on(lambda p: (p.out / "record.json").mkdir()),
                MOMENTS)  # fmt: skip
    hashes = _on(lambda place: (place.cache / "hashes.json").write_bytes(_FAULTY))
    yield Fault("hashes-garbage", "the cache of hashes holds garbage", hashes, MOMENTS)

    def unwritable(victim: Victim) -> None:
        victim.umask = 0o777

    yield Fault("umask", "files are made without any permission", unwritable)
    touches = ("baselines",)
    damages: dict[str, Change] = {
        "removed": lambda place: shutil.rmtree(place.checkout / "baselines"),
        "unreadable": lambda place: (place.checkout / "baselines").chmod(_UNREADABLE),
        "noise-garbage": partial(_noise, _FAULTY),
        "noise-huge": partial(_noise, b'{"schema": 1, "floor": 1e200}'),
    }
    for name, damage in damages.items():
        yield Fault(f"baselines-{name}", f"baselines/: {name.replace('-', ' ')}", _on(damage), LOADED, touches=touches)


def _noise(data: bytes, place: Place) -> None:
    """Put this in place of every class's noise floor."""
    for folder in (one for one in (place.checkout / "baselines").iterdir() if one.is_dir()):
        (folder / "noise.json").write_bytes(data)


def _checkpoints() -> Iterator[Fault]:
    def config(place: Place) -> Path:
        return place.checkpoint / "config.json"

    def index(place: Place) -> Path:
        return place.checkpoint / "model.safetensors.index.json"

    def halve(place: Place) -> None:
        os.truncate(place.weights, place.weights.stat().st_size // 2)

    def changed(place: Place, data: bytes) -> bytes:
        whole, middle = bytearray(place.weights.read_bytes()), place.weights.stat().st_size // 2
        whole[middle : middle + len(data)] = data
        return bytes(whole)

    def overwrite(place: Place) -> None:
        with place.weights.open("r+b") as file:
            file.write(changed(place, b"\x11" * 4096))

    def exchange(place: Place) -> None:
        other = place.root / "other"
        other.write_bytes(changed(place, b"\x11" * 4096))
        other.replace(place.weights)

    def not_finite(place: Place) -> None:
        with place.weights.open("r+b") as file:
            file.write(changed(place, b"\xff" * 65_536))

    def header(place: Place) -> None:
        with place.weights.open("r+b") as file:
            file.write(b"\xff" * 64)

    def instead(make: Callable[[Path], object]) -> Change:
        def change(place: Place) -> None:
            path = place.weights
            path.unlink()
            make(path)

        return change

    def no_quantization(place: Place) -> None:
        tree = json.loads(config(place).read_bytes())
        tree["text_config"]["num_hidden_layers"] = 10**6
        config(place).write_text(json.dumps(tree))

    damages: dict[str, tuple[str, Change]] = {
        "removed": ("the checkpoint is removed", lambda place: shutil.rmtree(place.checkpoint)),
        "unreadable": ("the checkpoint cannot be read", lambda place: place.checkpoint.chmod(_UNREADABLE)),
        "config-removed": ("its config.json is removed", lambda place: config(place).unlink()),
        "config-garbage": ("its config.json holds garbage", lambda place: config(place).write_bytes(_FAULTY)),
        "config-huge": ("its config.json says a million layers", no_quantization),
        "index-garbage": ("its index holds garbage", lambda place: index(place).write_bytes(_FAULTY)),
        "weights-removed": ("its weights are removed", lambda place: place.weights.unlink()),
        "weights-cut": ("half of its weights is cut off", halve),
        "weights-empty": ("its weights are empty", lambda place: os.truncate(place.weights, 0)),
        "weights-header": ("the header of its weights holds garbage", header),
        "weights-overwritten": ("some of its weights are overwritten", overwrite),
        "weights-exchanged": ("its weights are exchanged for others", exchange),
        "weights-not-finite": ("some of its weights are no numbers", not_finite),
        "weights-fifo": ("its weights are a pipe that nobody writes to", instead(os.mkfifo)),
        "weights-folder": ("its weights are a folder", instead(os.mkdir)),
        "weights-loop": ("its weights are a link to itself", instead(lambda path: path.symlink_to(path))),
    }
    for name, (what, change) in damages.items():
        yield Fault(f"checkpoint-{name}", what, _on(change), LOADED)


def _code() -> Iterator[Fault]:
    worker, decoder = "perf/gemma3n_perf/duel/worker.py", "perf/gemma3n_perf/decode/decoder.py"

    def append(name: str, text: str) -> Change:
        def change(place: Place) -> None:
            with (place.checkout / name).open("a") as file:
                file.write(text)

        return change

    moments = ("starting", "measuring", "between")
    edits: dict[str, tuple[str, str, Change]] = {
        "source-edited": ("a source is edited", decoder, append(decoder, "\n# edited\n")),
        "source-broken": ("a source no longer parses", decoder, append(decoder, "\n(\n")),
        "worker-removed": ("the worker's script is removed", worker, lambda place: (place.checkout / worker).unlink()),
    }
    for name, (what, file, change) in edits.items():
        yield Fault(name, what, _on(change), moments, touches=(file,))
