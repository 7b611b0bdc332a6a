"""Hostile inputs for every reader of files: ``python -m studies.fuzz --inputs N``, from perf/.

Each input follows from its number alone: a seed, the text of a committed record, is damaged in its bytes or in its
JSON. A reader returns or raises a named error, within seconds and some memory; whatever else it does is kept. Evidence
gets the digest of its damaged content, so that what stands behind a right digest is read. It goes on where it was
ended. With ``--guided`` inputs follow what they reach of the readers' code instead (studies/fuzz_guided.py).
"""

import argparse
import contextlib
import copy
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import msgspec

from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.store.files import write_over
from studies import carry_out
from studies.fuzz_readers import Reader, readers

RECORD, GUIDED = Path("docs/reliability/fuzz.json"), Path("docs/reliability/fuzz-guided.json")
LIMIT_S = 5.0
LIMIT_MIB = 512
_BATCH = 500
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**63, -(2**63) - 1, 10**400, 1e200, 1e-320, -0.0, 1e308, "", "\x00", "²", "9" * 4300,
    "x" * 300, "../../etc/passwd", "1.0.0", "nan", [], {}, [[]], {"": None}, "\ud800", "$.a", 0.1,
)  # fmt: skip
_BYTES = (
    b"NaN",
    b"Infinity",
    b"\xff\xfe",
    b"\x00",
    b"{",
    b"}",
    b"[",
    b'"',
    b"9" * 4301,
    b"1e999",
    b"\xc2\xb2",
    b"[" * 99999,
)


@dataclass(slots=True)
class Found:
    """What is kept: ``inputs`` tried, how many of them were ``refused`` by a named error, the ``slowest_s``, the
    ``largest_mib`` that a process grew by, ``faults`` as lines, and edges of the code reached by the seed and in all,
    where inputs were guided by them."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    largest_mib: int = 0
    edges: tuple[int, int] | None = None

    def add(self, refused: bool, took: float, fault: str) -> None:
        """Count one input, by what ``attempt`` returned."""
        self.inputs += 1
        self.refused += refused
        self.slowest_s = round(max(self.slowest_s, took), 3)
        self.faults += [fault][: bool(fault)]

    def merge(self, other: "Found") -> None:
        """Count what another process found."""
        self.inputs, self.refused = self.inputs + other.inputs, self.refused + other.refused
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.largest_mib = max(self.largest_mib, other.largest_mib)
        self.faults = sorted({*self.faults, *other.faults})
        self.edges = max(self.edges or other.edges, other.edges or self.edges, key=lambda one: one or (0, 0))

    def __str__(self) -> str:
        most = f"{self.slowest_s:.2f} s and {self.largest_mib} MiB at most"
        return f"{self.inputs} inputs, {self.refused} refused, {most}, {len(self.faults)} faults"


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """Return a seed with one to four damages, in its JSON where it is JSON, or in its bytes."""
    with contextlib.suppress(ValueError, RecursionError):
        if chance.random() < 0.6:
            tree = json.loads(seed)
            for _ in range(chance.randint(1, 4)):
                _change(tree, chance)
            if isinstance(tree, dict) and "content_digest" in tree:
                with contextlib.suppress(ValueError, TypeError, OverflowError):
                    tree["content_digest"] = evidence.content_digest(msgspec.json.decode(json.dumps(tree)))
            return json.dumps(tree).encode()
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((0, 1, 1, 4, 64, 10_000)))
        piece = chance.choice(
            (chance.randbytes(1), chance.choice(_BYTES), b"", bytes(data[:64]), bytes(data[at:to]) * 2)
        )
        data[at:to] = piece
    return bytes(data)


def _change(tree: Any, chance: random.Random) -> None:
    """Change one value somewhere in JSON, in place."""
    here = tree
    while isinstance(here, dict | list) and here:
        name = chance.choice(list(here) if isinstance(here, dict) else range(len(here)))
        inner = here[name]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.15:
            break
        here = inner
    else:
        return
    kind = chance.randrange(5)
    if kind == 0:
        del here[name]
    elif kind == 1 and isinstance(here, dict):
        here[chance.choice(("schema", "x", name.upper(), ""))] = inner
    elif kind == 2 and isinstance(inner, int | float) and not isinstance(inner, bool):
        here[name] = inner * chance.choice((-1, 2, 10**9, 0))
    elif kind == 3:
        here[name] = [copy.deepcopy(inner)] * chance.choice((1, 2, 1000)) if len(str(inner)) < 100 else [inner]
    else:
        here[name] = copy.deepcopy(chance.choice(_VALUES))  # which a further damage may change


def read(reader: Reader, data: bytes, name: object, path: Path) -> tuple[bool, float, str]:
    """Give a reader one input: whether it was refused, seconds, and the fault, "" for none."""
    path.write_bytes(data)
    began, refused, fault = time.perf_counter(), False, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would stand on the user's terminal, too
            reader.read(path)
    except PerfError:
        refused = True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    took = time.perf_counter() - began
    return refused, took, fault or (f"{name}: took {took:.1f} s" if took > LIMIT_S else "")


def attempt(reader: Reader, number: int, folder: Path) -> tuple[bool, float, str]:
    """Give a reader its damaged input of that number, as ``read`` does."""
    return read(reader, damaged(reader.seed, random.Random(f"{reader.name}/{number}")), number, folder / "input.json")


def peak_mib(anew: bool = False) -> int:
    """Return the most memory that this process has had, since it was begun ``anew``; 0 where there is no Linux."""
    with contextlib.suppress(OSError):
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        if found := re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()):
            return int(found[1]) // 1024
    return 0


_readers = cache(lambda root: {one.name: one for one in readers(root)})


def batch(root: Path, name: str, numbers: range) -> tuple[str, Found]:
    """Give a reader its inputs of some numbers."""
    found, before = Found(), peak_mib(anew=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            found.add(*attempt(_readers(root)[name], number, Path(folder)))
    found.largest_mib = peak_mib() - before
    if found.largest_mib > LIMIT_MIB:
        found.faults.append(f"{numbers[0]} to {numbers[-1]}: took {found.largest_mib} MiB")
    return name, found


def kept(path: Path) -> dict[str, Found]:
    """Return what a record holds, by reader; nothing where there is none."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Found]) if path.is_file() else {}


def keep(path: Path, found: dict[str, Found]) -> None:
    """Write a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_over(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def _in_turn(root: Path, todo: Sequence[tuple[str, range]], jobs: int, deadline: float) -> Iterator[tuple[str, Found]]:
    """Yield what came of each batch, in their order, so that a record has no gaps; none is begun after ``deadline``."""
    with ProcessPoolExecutor(jobs) as pool:
        running = [pool.submit(batch, root, *one) for one in todo]
        try:
            for one in running:
                if not one.cancelled():
                    yield one.result()
                if time.monotonic() >= deadline:
                    for later in running:
                        later.cancel()
        finally:
            pool.shutdown(cancel_futures=True)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Try inputs until every reader has had its share of ``--inputs``; 1 where a reader did what it may not."""
    parser = argparse.ArgumentParser(prog="python -m studies.fuzz", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="in all; default: 1,000,000")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time; default: 1")
    parser.add_argument("--time", type=float, default=float("inf"), metavar="SECONDS", help="begin none after so many")
    parser.add_argument("--guided", type=float, metavar="SECONDS", help="guide inputs of each reader for so long")
    parser.add_argument("--reader", metavar="NAME", help="only this one, and keep nothing")
    parser.add_argument("--number", type=int, metavar="N", help="with --reader: show what this input does")
    parser.add_argument("--record", type=Path, metavar="FILE", help=f"default: {RECORD}, or -guided.json beside it")
    args = parser.parse_args(argv)
    root = in_checkout("baselines", None).parent
    names = [name for name in _readers(root) if args.reader in (None, name)]
    if args.number is not None:
        with tempfile.TemporaryDirectory() as folder:
            out.write(f"{attempt(_readers(root)[names[0]], args.number, Path(folder))}\n")
            _readers(root)[names[0]].read(Path(folder) / "input.json")
        return 0
    path = args.record or root / (RECORD if args.guided is None else GUIDED)
    found = {} if args.reader else kept(path)
    before = {name: found.setdefault(name, Found()).inputs for name in names}
    share = -(-args.inputs // len(names))
    if args.guided is not None:
        from studies import fuzz_guided

        results = fuzz_guided.results(names, args.guided, args.jobs, path.with_suffix(""))
    else:
        starts = sorted((start, name) for name in names for start in range(before[name], share, _BATCH))
        todo = [(name, range(start, min(share, start + _BATCH))) for start, name in starts]
        results = _in_turn(root, todo, args.jobs, time.monotonic() + args.time)
    for name, more in results:
        found[name].merge(more)
        if not args.reader:
            keep(path, found)
    for name in names:
        out.write(f"{name}: {found[name]}\n")
        for fault in found[name].faults[:5]:
            out.write(f"  {fault}\n")
    return int(any(one.faults for one in found.values()))


if __name__ == "__main__":
    sys.exit(carry_out(main))
