"""The readers of files that hostile inputs are given to, each with a seed: bytes that it takes."""

import json
import lzma
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.ci.artifacts import read_jobs
from gemma3n_perf.ci.plan import Pull, read_classes, read_plan, read_pull
from gemma3n_perf.ci.post import MARKER, read_comment
from gemma3n_perf.decode.engines.mlxcel import parse
from gemma3n_perf.duel import validation_record
from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.gate.policy import parse_policy
from gemma3n_perf.hardware.lock import read_holder
from gemma3n_perf.history import point_record
from gemma3n_perf.history.asv_files import RESULTS_VERSION, TIME, VERSION, read_result
from gemma3n_perf.profile.record import PROFILES
from gemma3n_perf.store import accepted, admitted, noise, published, session_file
from gemma3n_perf.workload import safetensors_header

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
_RESULT = json.dumps(
    {
        "version": RESULTS_VERSION,
        "commit_hash": _HEX,
        "date": 1_700_000_000_000,
        "params": {"machine": "machine", "cpu": None},
        "result_columns": ["result", "params", "version", "started_at", "stats_ci_99_a", "stats_ci_99_b", "samples"],
        "results": {TIME: [[0.01], [["'nano'"]], VERSION, 1_700_000_000_000, [0.009], [0.011], [[0.01, 0.01]]]},
    }
).encode()
_LONGEST = 20_000
"""Bytes of a seed: longer records are cut to the first of each list."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of bytes in a file, and a seed: bytes that it takes."""

    name: str
    read: Callable[[Path], object]
    seed: bytes


def shortened(tree: Any, keep: int = 2) -> Any:
    """Return JSON with the first of each list and object of lists only."""
    if isinstance(tree, dict):
        return {name: shortened(value, keep) for name, value in tree.items()}
    return [shortened(one, keep) for one in tree[:keep]] if isinstance(tree, list) else tree


def _duel(tree: dict[str, Any]) -> bytes:
    """Return a duel's record, made of evidence."""
    fields = ("workload", "judgement", "raw")
    duels = [{name: one[name] for name in fields} | {"budget_spent": one["spent"]} for one in tree["workloads"]]
    judged = {name: duels[0]["judgement"][name] for name in ("verdict", "effect", "low", "high")}
    arms = {"baseline": "here", "candidate": "here+fusion:x"}
    own = {"sessions": 2, "measured_s": 1.5, "launches": 9, "workload": duels[0]["workload"], "duels": duels}
    made = {"schema": 1, "arms": arms, "planted": dict.fromkeys(arms, 0.0), "aa": False, "policy": {}, "budget_s": 60.0}
    return json.dumps(made | own | judged | {name: tree[name] for name in ("date", "chip", "stacks")}).encode()


def _asv(path: Path) -> object:
    """Read a result of asv, in a folder of its machine."""
    folder = path.parent / "machine"
    folder.mkdir(exist_ok=True)
    return read_result(path.rename(folder / path.name))


def readers(root: Path) -> Iterator[Reader]:
    """Yield every reader with a seed out of the committed records below ``root``, the checkout."""
    baselines = root / "baselines"

    def first(pattern: str) -> bytes:
        path = min(baselines.glob(pattern), key=lambda path: path.stat().st_size)
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        return data if len(data) < _LONGEST else msgspec.json.encode(shortened(json.loads(data)))

    session = "*/[0-9][0-9][0-9][0-9]_*.json"
    yield Reader("session", lambda path: session_file.decode(path.read_bytes(), source="it"), first(session))
    yield Reader("noise", noise._CODEC.read, first("*/noise.json"))
    yield Reader("published", published._CODEC.read, first("published/*.json"))
    yield Reader("profile", PROFILES.read, first("*/profile.json"))
    yield Reader("admitted", admitted._CODEC.read, first("*/fusions/admitted.json"))
    off = first("*/fusions/[!a]*.json")
    yield Reader("evidence, off", evidence.read, off)
    paths = [path for path in baselines.glob("*/fusions/[!a]*.json") if path.stat().st_size > len(off) + _LONGEST]
    measured = min(paths, key=lambda path: path.stat().st_size).read_bytes()
    yield Reader("evidence", evidence.read, measured)
    yield Reader("upstream point", point_record.read, first("*/history/mlx/*.json*"))
    yield Reader("duel", DUELS.read, _duel(json.loads(measured)))
    power = min(baselines.glob("*/power.jsonl.xz"), key=lambda path: path.stat().st_size)
    lines = lzma.decompress(power.read_bytes()).splitlines(keepends=True)[:3]
    yield Reader("campaign", validation_record.read, lzma.compress(b"".join(lines), check=lzma.CHECK_CRC32))
    policy = (baselines / "policy.toml").read_bytes()
    yield Reader("policy", lambda path: parse_policy(path.read_text(errors="replace")), policy)
    yield Reader("classes", read_classes, policy)
    yield Reader("plan", lambda path: read_plan(path.read_text(errors="replace")), _PLAN)
    yield Reader("event", lambda path: read_pull("pull_request", path), _EVENT)
    yield Reader("comment", read_comment, f"{MARKER}\nno change\n".encode())
    holder = b'{"pid": 1, "user": "u", "command": "c", "since": 1.5, "started": 1.0}'
    yield Reader("holder of the lock", read_holder, holder)
    yield Reader("result of asv", _asv, _RESULT)
    jobs = b'{"jobs": [{"name": "a", "conclusion": "success", "run_attempt": 1}]}\n{"jobs": []}\n'
    yield Reader("jobs of a run", read_jobs, jobs)
    loss = b'commit = "0123456789ab"\nworkload = "nano/text/pp40-tg64"\neffect = "-3 %"\nwhy = "it is right now"\n'
    yield Reader("accepted loss", accepted._read, loss)
    head = b'{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "mlx"}}'
    yield Reader("header of weights", safetensors_header.read, struct.pack("<Q", len(head)) + head + bytes(24))
    report = b"Prompt tokens: 40\nGenerated tokens: 100\nDecode: 1203.20 ms (83.11 tok/s)\n"
    yield Reader("report of an engine", lambda path: parse(path.read_text(errors="replace")), report)
