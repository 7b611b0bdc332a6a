"""Hostile inputs for every reader of files: ``python -m studies.fuzz --inputs N``, from perf/.

Each input follows from its number alone: a seed, the text of a committed record, is damaged in its bytes or in its
JSON. A reader returns or raises a named error, within seconds; whatever else it does is kept. Evidence gets the digest
of its damaged content, so that what stands behind a right digest is read. It goes on where it was ended.
"""

import argparse
import contextlib
import copy
import json
import lzma
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from gemma3n_perf.ci.plan import Pull, read_classes, read_plan, read_pull
from gemma3n_perf.ci.post import read_comment
from gemma3n_perf.decode.engines.mlxcel import parse
from gemma3n_perf.duel import validation_record
from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.gate.policy import parse_policy
from gemma3n_perf.hardware.lock import read_holder
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.history import upstream
from gemma3n_perf.profile.record import PROFILES
from gemma3n_perf.store import admitted, noise, published, session_file
from gemma3n_perf.store.files import write_over
from studies import carry_out

_HEX = "a" * 40
_EVENT = json.dumps(
    {
        "pull_request": {
            "number": 1,
            "head": {"sha": _HEX, "repo": {"full_name": "a/b"}},
            "base": {"sha": _HEX, "repo": {"full_name": "a/b"}},
            "user": {"login": "x"},
        }
    }
).encode()
_PLAN = json.dumps(
    {
        "state": "measure",
        "reason": "",
        "remedy": "",
        "classes": [{"name": "a", "runner": ["b"], "required": True}],
        "harness": [],
        "pull": asdict(Pull(1, _HEX, _HEX, "a/b", "a/b", "x", None)),
    }
).encode()
RECORD = Path("docs/reliability/fuzz.json")
LIMIT_S = 5.0
_BATCH = 1000
_LONGEST = 20_000
"""Bytes of a seed: longer records are cut to the first of each list."""
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


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of bytes in a file, and a seed: bytes that it takes."""

    name: str
    read: Callable[[Path], object]
    seed: bytes


@dataclass(slots=True)
class Found:
    """What is kept: ``inputs`` tried, how many of them were ``refused`` by a named error, and ``faults`` as lines."""

    inputs: int
    refused: int
    slowest_s: float
    faults: list[str]


def shortened(tree: Any, keep: int = 2) -> Any:
    """Return JSON with the first of each list and object of lists only."""
    if isinstance(tree, dict):
        return {name: shortened(value, keep) for name, value in tree.items()}
    return [shortened(one, keep) for one in tree[:keep]] if isinstance(tree, list) else tree


def readers(root: Path) -> Iterator[Reader]:
    """Yield every reader with a seed out of the committed records below ``root``, the checkout."""
    baselines = root / "baselines"

    def first(pattern: str) -> bytes:
        data = min(baselines.glob(pattern), key=lambda path: path.stat().st_size).read_bytes()
        return data if len(data) < _LONGEST else msgspec.json.encode(shortened(json.loads(data)))

    session = "*/[0-9][0-9][0-9][0-9]_*.json"
    yield Reader("session", lambda path: session_file.decode(path.read_bytes(), source="it"), first(session))
    yield Reader("noise", noise._CODEC.read, first("*/noise.json"))
    yield Reader("published", published._CODEC.read, first("published/*.json"))
    yield Reader("profile", PROFILES.read, first("*/profile.json"))
    yield Reader("admitted", admitted._CODEC.read, first("*/fusions/admitted.json"))
    yield Reader("evidence", evidence.read, first("*/fusions/[!a]*.json"))
    yield Reader("upstream point", upstream.CODEC.read, first("*/history/mlx/*.json"))
    duel = {"duels": shortened(json.loads(first("*/fusions/[!a]*.json")))["workloads"]}
    yield Reader("duel", DUELS.read, msgspec.json.encode({"schema": 1, **duel}))
    power = min(baselines.glob("*/power.jsonl.xz"), key=lambda path: path.stat().st_size)
    lines = lzma.decompress(power.read_bytes()).splitlines(keepends=True)[:3]
    yield Reader("campaign", validation_record.read, lzma.compress(b"".join(lines), check=lzma.CHECK_CRC32))
    policy = (baselines / "policy.toml").read_bytes()
    yield Reader("policy", lambda path: parse_policy(path.read_text(errors="replace")), policy)
    yield Reader("classes", read_classes, policy)
    yield Reader("plan", lambda path: read_plan(path.read_text(errors="replace")), _PLAN)
    yield Reader("event", lambda path: read_pull("pull_request", path), _EVENT)
    yield Reader("comment", read_comment, b"<!-- gemma3n-perf -->\n")
    holder = b'{"pid": 1, "user": "u", "command": "c", "since": 1.5, "started": 1.0}'
    yield Reader("holder of the lock", read_holder, holder)
    report = b"Prompt tokens: 40\nGenerated tokens: 100\nDecode: 1203.20 ms (83.11 tok/s)\n"
    yield Reader("report of an engine", lambda path: parse(path.read_text(errors="replace")), report)


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """Return a seed with one to four damages, in its JSON where it is JSON, or in its bytes."""
    with contextlib.suppress(ValueError):
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
        here[name] = chance.choice(_VALUES)


def attempt(reader: Reader, number: int, folder: Path) -> tuple[bool, float, str]:
    """Give a reader its damaged input of that number: whether refused, seconds, and the fault, "" for none."""
    path = folder / "input.json"
    path.write_bytes(damaged(reader.seed, random.Random(f"{reader.name}/{number}")))
    began, refused, fault = time.perf_counter(), False, ""
    try:
        reader.read(path)
    except PerfError:
        refused = True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = f"{number}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    took = time.perf_counter() - began
    return refused, took, fault or (f"{number}: took {took:.1f} s" if took > LIMIT_S else "")


def main(argv: Sequence[str], out: TextIO) -> int:
    """Try inputs until every reader has had its share of ``--inputs``; 1 where a reader did what it may not."""
    parser = argparse.ArgumentParser(prog="python -m studies.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="in all; default: 1,000,000")
    parser.add_argument("--reader", metavar="NAME", help="only this one, and keep nothing")
    parser.add_argument("--number", type=int, metavar="N", help="with --reader: show what this input does")
    parser.add_argument("--record", type=Path, metavar="FILE", help="default: docs/reliability/fuzz.json")
    args = parser.parse_args(argv)
    root = in_checkout("baselines", None).parent
    path = args.record or root / RECORD
    all_readers = [one for one in readers(root) if args.reader in (None, one.name)]
    with tempfile.TemporaryDirectory() as folder:
        if args.number is not None:
            out.write(f"{attempt(all_readers[0], args.number, Path(folder))}\n")
            all_readers[0].read(Path(folder) / "input.json")
            return 0
        kept = (
            msgspec.json.decode(path.read_bytes(), type=dict[str, Found]) if path.exists() and not args.reader else {}
        )
        share = -(-args.inputs // len(all_readers))
        for reader in all_readers:
            found = kept.setdefault(reader.name, Found(0, 0, 0.0, []))
            while found.inputs < share:
                for number in range(found.inputs, min(share, found.inputs + _BATCH)):
                    refused, took, fault = attempt(reader, number, Path(folder))
                    found.refused += refused
                    found.slowest_s = round(max(found.slowest_s, took), 3)
                    found.faults += [fault][: bool(fault)]
                found.inputs = number + 1
                if not args.reader:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_over(path, msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
            said = f"{found.refused} refused, {found.slowest_s:.2f} s at most, {len(found.faults)} faults"
            out.write(f"{reader.name}: {found.inputs} inputs, {said}\n")
            for fault in found.faults[:5]:
                out.write(f"  {fault}\n")
            out.flush()
    return int(any(one.faults for one in kept.values()))


if __name__ == "__main__":
    sys.exit(carry_out(main))
