"""Hostile inputs that are guided by coverage, by libFuzzer through atheris: what ``studies.fuzz --guided`` runs.

``python -m studies.fuzz_guided READER SECONDS FOLDER FAULTS`` is one reader's process: inputs that reach new code of
this package are kept and damaged further, in their JSON or in their bytes. What may happen, and what is a fault, is as
in studies/fuzz.py; a fault's input is kept below FAULTS, for no number leads to it.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from random import Random

import msgspec

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.stack import in_checkout
from studies.fuzz import LIMIT_MIB, LIMIT_S, Found

_COVERED = re.compile(r"cov: (\d+)")
_LONGEST = 1 << 17


def results(names: Sequence[str], seconds: float, jobs: int, faults: Path) -> Iterator[tuple[str, Found]]:
    """Yield what came of each reader, each in a process of its own. Raises NotMeasuredError where one ends early."""
    if find_spec("atheris") is None:
        raise NotMeasuredError("atheris is not installed", expected="it guides inputs", remedy="pip install atheris")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:

        def run(number: int) -> Found:
            own = Path(folder) / str(number)
            own.mkdir()
            argv = (sys.executable, "-m", "studies.fuzz_guided", names[number], str(seconds), str(own), str(faults))
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
            if not (own / "found.json").is_file():
                said = " ".join(done.stderr.split())[-500:]
                raise NotMeasuredError(f"no inputs were guided for {names[number]}", remedy=said)
            found = msgspec.json.decode((own / "found.json").read_bytes(), type=Found)
            covered = [int(one) for one in _COVERED.findall(done.stderr)]
            found.edges = (covered[0], covered[-1]) if covered else None
            if done.returncode:
                found.faults.append(f"it ended by itself, with {done.returncode}")
            return found

        yield from zip(names, pool.map(run, range(len(names))), strict=True)


def guide(name: str, seconds: float, folder: Path, faults: Path) -> None:
    """Guide inputs of one reader; never returns, for libFuzzer does not."""
    import atheris  # type: ignore[import-untyped]

    for module in [one for one in sys.modules if one.startswith(("gemma3n_perf", "studies"))]:
        del sys.modules[module]
    with atheris.instrument_imports(include=["gemma3n_perf"]):
        from studies import fuzz, fuzz_readers
    reader = next(one for one in fuzz_readers.readers(in_checkout("baselines").parent) if one.name == name)
    found, ends = fuzz.Found(), time.monotonic() + seconds
    corpus, path = folder / "corpus", folder / "input.json"
    corpus.mkdir()
    (corpus / "seed").write_bytes(reader.seed)

    def one_input(data: bytes) -> None:
        digest = sha256(data).hexdigest()[:12]
        refused, took, fault = fuzz.read(reader, data, digest, path)
        if fault:
            faults.mkdir(parents=True, exist_ok=True)
            (faults / digest).write_bytes(data)
        # One line of each kind is enough: libFuzzer finds a fault again and again.
        known = {one.partition(": ")[2] for one in found.faults}
        found.add(refused, took, "" if fault.partition(": ")[2] in known else fault)
        if found.inputs % 500 == 0 or fault or time.monotonic() > ends:
            found.largest_mib = fuzz.peak_mib() - before
            (folder / "found.json").write_bytes(msgspec.json.encode(found))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        return fuzz.damaged(data, chance)[:most] if chance.random() < 0.7 else bytes(atheris.Mutate(data, most))

    options = (f"-max_total_time={int(seconds)}", f"-max_len={_LONGEST}", f"-timeout={int(4 * LIMIT_S)}")
    argv = [sys.argv[0], *options, f"-rss_limit_mb={4 * LIMIT_MIB}", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup(argv, one_input, custom_mutator=mutate)
    before = fuzz.peak_mib(anew=True)
    atheris.Fuzz()


if __name__ == "__main__":
    guide(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
