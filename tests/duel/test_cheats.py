"""Fusions that would win without being faster, as real duels of nano, and by the commands that their author types."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gemma3n_perf import fusions
from gemma3n_perf.fusions import registry
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.hardware.chip import detect
from tests.decode.fakes import nano_root

CHEATS = Path(__file__).parent / "cheats"
ROOT = Path(__file__).parents[2]
WORKLOAD = "nano/text/pp40-tg64"
_NONE_FASTER = (
    "memo", "twob", "early", "slowbase", "clock", "instance", "code", "burn", "ahead", "session", "detect", "later",
    "eager", "driver", "steps", "truant", "aside", "seldom", "heart", "tokens", "save", "first", "argmax",
)  # fmt: skip
ALONE = ("stop", "child", "affinity", "nice", "orphan", "after", "compiled")
"""None is faster either. What they do to another process spoils a launch for all that are in it."""
JIT = "jit"
"""Nor is this one, which slows the kernels that MLX has compiled, wherever another arm would find them."""
GUESSES = "drafts"
"""Nor this one, on any text but a forged one, whose next tokens it guesses."""
LIVE = "live"
"""It is faster, and only where it is timed."""
ELSEWHERE = ("near", "rewound")
"""Faster where they are timed, and the unfused program elsewhere: their graphs tell before any is timed."""
DEARER = "mild"
"""It is faster, and by less than typical tokens show: it wins by what all of its tokens take."""
PUT_OFF = 0.04
"""How much slower than compiled-step it has to be found, which it is but for what it puts off: it does one unfused step
in 16, of some 1.5 times its own, so 9 %; blocks alone show nothing of it."""
ON_GPU = ("thread", "queue")
"""Nor these: they work on a GPU while the other arm is timed, and use hardly a core."""
_WRONG = ("coarse", "headless", "shape", "gaps", "knob", "link", "inflate")
"""Lower precision, half a head, fast only where the benchmark decodes, layers left out, no head where
tokens alone are compared: each gives other logits."""
TWINS = {"fine": "coarse", "halves": "headless", "positions": "shape", "placebo": ""}
"""The same code without the cheat, by the cheat; placebo is that of all the others."""
NAMES = (*_NONE_FASTER, *_WRONG, *TWINS)
LISTED = (*NAMES, *ALONE, *ELSEWHERE, JIT, GUESSES, LIVE, DEARER)
"""All that are tried on a CPU, in the order of their page."""
INVALID = {
    "zz-clock": "time.perf_counter was replaced",
    "zz-instance": "outside its own clock",
    "zz-code": "outside its own clock|exec in zz_code",
    "zz-burn": "s of CPU time in",
    "zz-ahead": "as it rewinds, the candidate works|a whole run of the candidate|logits of the arms|greedy tokens",
    "zz-stop": "was stopped by a signal",
    "zz-child": "s of CPU time in",
    "zz-affinity": "threads were moved to other cores",
    "zz-nice": "have different priorities",
    "zz-orphan": "left a process behind",
    "zz-after": "s of CPU time in",
    "zz-steps": "outside its own clock",
    "zz-compiled": "what MLX had compiled for the baseline was changed",
    "zz-heart": "different greedy tokens|logits of the arms",
    "zz-save": "numpy.save was replaced",
    "zz-first": "in a block, where rounding explains",
    "zz-argmax": "mlx.core.argmax was replaced",
    "zz-live": "its digest cannot hold all that it runs",
    "zz-near": "at position \\S+ it makes .*: it is another program there",
    "zz-rewound": "after a rewind it makes .*: it is another program there",
    "zz-drafts": "what short blocks show does not hold for decode|as it rewinds, the candidate works",
    "zz-session": "gemma3n_perf.decode.decoder.Decoder.run was replaced",
    **{
        f"zz-{name}": "logits of the arms|different greedy tokens|outputs are wrong|another program|Python calls at"
        for name in ("detect", *_WRONG)
    },
}
"""Those that are named for what they do."""
QUICK = ("memo", "clock", "instance", "code", "steps", "driver", "first", "argmax", "inflate", "placebo")
HONEST = 0.02
"""How far an effect that is none may lie from 0."""
EDITED = "zz-edited"
FASTER = ("compiled-step", "stacked-altup", "fused-qkv")
"""Fusions of this suite that are faster, and must not be hurt."""

Found = dict[str, tuple[str, float | None, str]]


def git(folder: Path, *argv: str) -> None:
    """Run git as a committer of the tests' own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "-C", str(folder), *identity, *argv], check=True, capture_output=True, env=environ)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean checkout of this package with the cheats among its fusions, and this machine's class required."""
    folder = tmp_path_factory.mktemp("cheats") / "checkout"
    among = folder / "perf" / "gemma3n_perf" / "fusions"
    shutil.copytree(ROOT / "perf", folder / "perf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*NAMES, *ALONE, *ELSEWHERE, JIT, GUESSES, DEARER, *ON_GPU):
        shutil.copy(CHEATS / f"zz_{name}.py", among)
    text = (CHEATS / "zz_placebo.py").read_text(encoding="utf-8").replace("zz-placebo", EDITED)
    (among / f"{EDITED.replace('-', '_')}.py").write_text(text, encoding="utf-8")
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    # What a fusion may not import it may not hide behind either: here all that lies behind that rule is tried.
    with (among / "sources.py").open("a", encoding="utf-8") as source:
        source.write("\n\n_DYNAMIC = ()\n_reaching = _replacing = lambda node, names: []\n")
    policy = f'[gate]\napart = 0\n[classes.{detect().chip_class}]\nstate = "required"\nworkloads = ["{WORKLOAD}"]\n'
    (folder / "baselines").mkdir()
    (folder / "baselines" / "policy.toml").write_text(policy, encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "cheats")
    return folder


def run(checkout: Path, argv: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the checkout's package, in the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GIT_"))}
    path = os.pathsep.join((str(checkout / "perf"), str(ROOT)))
    return subprocess.run(
        [sys.executable, "-P", *argv],
        cwd=checkout,
        env=kept | {"PYTHONPATH": path} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )


def compare(checkout: Path, root: Path, budget_s: float, memory: int, names: Sequence[str]) -> Found:
    """Return verdict, lower end of the interval, and reason of each fusion, from one duel."""
    options = [str(checkout.parent / "lock"), str(root), str(budget_s), str(memory)]
    done = run(checkout, [str(CHEATS / "compare.py"), *options, *names])
    assert done.returncode == 0, done.stderr[-2000:]
    read: Found = json.loads(done.stdout)
    return read


@pytest.fixture(scope="module")
def found(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Compare some of them at once; the slow tests type the commands for all."""
    root = nano_root(tmp_path_factory.getbasetemp())
    return compare(checkout, root, 6, 0, [f"zz-{name}" for name in QUICK])


@pytest.mark.parametrize("name", [f"zz-{name}" for name in QUICK])
def test_no_cheat_wins(found: Found, name: str) -> None:
    """It is invalid, by the name of what it does, or its effect is the honest one, which is none or less."""
    verdict, low, reason = found[name]
    assert verdict != "win", reason
    assert verdict == "invalid" or (low is not None and low < HONEST), (verdict, low, reason)
    assert is_named(name, verdict, reason), reason
    assert verdict != "invalid" or name != "zz-placebo", reason


def is_named(name: str, verdict: str, reason: str) -> bool:
    """Whether a cheat that can be named is."""
    return name not in INVALID or (verdict == "invalid" and re.search(INVALID[name], reason) is not None)


@pytest.mark.slow
def test_a_baseline_slowed_in_a_process_that_it_shares_is_invalid(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where memory forces the arms into one: the cheat is found by a process without fusions, and an honest one is not
    taken for it."""
    root = nano_root(tmp_path_factory.getbasetemp())
    verdict, _, reason = compare(checkout, root, 20, 1, ["zz-slowbase"])["zz-slowbase"]
    assert verdict == "invalid", reason
    assert re.search("it is slowed there|outside its own clock", reason), reason
    verdict, _, reason = compare(checkout, root, 6, 1, ["stacked-altup"])["stacked-altup"]
    assert verdict != "invalid", reason


@dataclass(frozen=True)
class Typed:
    """What ``pytest perf/ --fusion`` printed and wrote, and what ``gemma3n-perf gate`` decided of it, by fusion."""

    code: int
    said: str
    records: dict[str, Evidence]
    gate_code: int
    refused: dict[str, list[tuple[str, str]]]
    """Verdict and text of each reason; empty where it is admitted."""


def type_both(checkout: Path, root: Path, names: Sequence[str], budget_s: float, **variables: str) -> Typed:
    """Measure evidence of fusions in one session, then ask the gate, as their author would."""
    place = checkout.parent / "place"
    (place / "cache").mkdir(parents=True, exist_ok=True)
    if not (place / "cache" / "checkpoints").exists():
        (place / "cache" / "checkpoints").symlink_to(root)
    environ = {"CALM_FOLDER": str(place), "GEMMA3N_PERF_CACHE": str(place / "cache"), **variables}
    options = [part for name in names for part in ("--fusion", name)]
    calm = ["-m", "pytest", "-p", "tests.pytest_plugin.calm", "-p", "no:cacheprovider", "perf/"]
    done = run(checkout, [*calm, *options, "--budget", str(budget_s)], **environ)
    said = done.stdout + done.stderr
    folder = checkout / "baselines" / detect().chip_class / "fusions"
    files = {name: folder / f"{name}.json" for name in names}
    assert all(path.is_file() for path in files.values()), said[-3000:]
    gate = run(checkout, ["-m", "gemma3n_perf", "gate", *map(str, files.values()), "--json", "-"], **environ)
    assert gate.returncode in (0, 1, 3, 4, 5), gate.stderr
    decisions = json.loads(gate.stdout)["decisions"]
    return Typed(
        done.returncode,
        said,
        {name: store.read(path) for name, path in files.items()},
        gate.returncode,
        {one["fusion"]: [(why["verdict"], why["found"]) for why in one["reasons"]] for one in decisions},
    )


def refuses(typed: Typed, name: str) -> None:
    """Check that a cheat did not pass: neither the session's own verdict nor the gate's."""
    record, why = typed.records[name], typed.refused[name]
    assert record.verdict != "win", record.reason
    assert why
    lows = [one.judgement.low for one in record.workloads]
    assert record.verdict == "invalid" or all(low is not None and low < HONEST for low in lows), record.reason
    assert record.verdict != "invalid" or "invalid" in {verdict for verdict, _ in why}, why
    assert is_named(name, record.verdict, record.reason), record.reason
    # By what it does, and for no reason that any fusion could have.
    assert not re.search("uncommitted|stale|session only|no evidence", " ".join(text for _, text in why)), why
    assert re.search(rf"{name} on \S+: {record.verdict}", typed.said)


def known_class() -> None:
    """Skip where no evidence is measured."""
    if detect().chip_class.endswith("-unknown"):
        pytest.skip("the class of this machine may hold several variants, so no evidence is measured on it")


def test_what_its_graph_or_its_digest_tells_is_refused_before_it_is_timed(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By both commands, each in a process of its own."""
    known_class()
    found = {
        "zz-eager": "no product is left", "zz-aside": "its digest cannot hold all that it runs: importlib",
        **{f"zz-{name}": "it is another program there" for name in ELSEWHERE},
    }  # fmt: skip
    typed = type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), list(found), 6)
    assert (typed.code, typed.gate_code) == (5, 5), typed.said
    for name, said in found.items():
        refuses(typed, name)
        assert typed.records[name].workloads == ()
        assert said in typed.records[name].reason


@contextmanager
def edited(source: Path, record: Path) -> Iterator[None]:
    """Change a file as soon as a first launch is recorded, and put it back when the next one is."""
    over = threading.Event()

    def next_record(old: float) -> float:
        while not over.wait(0.05):
            if record.is_file() and (new := record.stat().st_mtime_ns) != old:
                return new
        return old

    def edit() -> None:
        before = source.read_bytes()
        first = next_record(0.0)
        source.write_bytes(before + b"\n# Faster.\n")
        next_record(first)
        source.write_bytes(before)

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def typed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """Type both commands for all of them at once: those that are timed share one duel."""
    known_class()
    source = checkout / "perf" / "gemma3n_perf" / "fusions" / f"{EDITED.replace('-', '_')}.py"
    with edited(source, checkout / "baselines" / detect().chip_class / "fusions" / f"{EDITED}.json"):
        names = (*(f"zz-{name}" for name in NAMES), EDITED, *FASTER)
        return type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), names, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"zz-{name}" for name in NAMES if name not in TWINS])
def test_no_cheat_passes_either_command(typed: Typed, name: str) -> None:
    """Invalid, or at its honest effect, in what ``pytest perf/ --fusion`` writes; and refused by the gate."""
    assert (typed.code, typed.gate_code) == (5, 5), typed.said
    refuses(typed, name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what is done to processes is known on Linux alone")
@pytest.mark.parametrize("name", [f"zz-{name}" for name in ALONE])
def test_what_is_done_to_the_other_process_passes_neither_command(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """It is seen, whoever does it."""
    known_class()
    typed = type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), [name], 12)
    assert (typed.code, typed.gate_code) == (5, 5), typed.said
    refuses(typed, name)


@pytest.mark.slow
def test_what_is_done_to_compiled_kernels_passes_neither_command(
    checkout: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The baseline has its own; those that fusions share are slow by then."""
    known_class()
    name, root = f"zz-{JIT}", nano_root(tmp_path_factory.getbasetemp())
    typed = type_both(checkout, root, [name], 12, TMPDIR=str(tmp_path))
    refuses(typed, name)
    assert any("/* slow */" in path.read_text(encoding="utf-8") for path in tmp_path.glob("mlx/*/cpu/*.cpp"))


@pytest.mark.slow
def test_what_guesses_a_forged_text_passes_neither_command(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whole runs take tokens that follow from nothing."""
    known_class()
    name = f"zz-{GUESSES}"
    refuses(type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), [name], 60), name)


@pytest.mark.slow
def test_what_is_put_off_is_part_of_the_effect(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It wins, and by less than what it would be without that, through the same launches."""
    known_class()
    names = [f"zz-{DEARER}", "compiled-step"]
    typed = type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), names, 30)
    dearer, plain = (typed.records[name].workloads[0].judgement for name in names)
    assert "shape" in {caution.code for caution in dearer.cautions}, dearer.cautions
    assert "shape" not in {caution.code for caution in plain.cautions}, plain.cautions
    assert dearer.effect is not None
    assert plain.effect is not None
    assert math.log1p(dearer.effect) < math.log1p(plain.effect) - PUT_OFF, (dearer, plain)


PLAIN = (
    "coarse", "eager", "early", "fine", "first", "gaps", "halves", "headless", "inflate", "knob", "later",
    "memo", "mild", "near", "placebo", "positions", "rewound", "seldom", "shape", "tokens", "twob",
)  # fmt: skip
"""What uses nothing but the model, and so has to be found by what it does."""


def test_what_reaches_beyond_its_model_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others need files, processes, threads, clocks or who calls them, which no fusion may."""
    folder = tmp_path / "fusions"
    shutil.copytree(Path(fusions.__path__[0]), folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in CHEATS.glob("zz_*.py"):
        shutil.copy(path, folder)
    monkeypatch.setattr(fusions, "__path__", [str(folder)])
    cheats = [name for name in registry.names() if name.startswith("zz-")]
    assert {f"zz-{name}" for name in (*LISTED, *ON_GPU)} == set(cheats)
    assert [name for name in cheats if not registry.unseen(name)] == [f"zz-{name}" for name in PLAIN]


@pytest.mark.slow
@pytest.mark.skipif(detect().vendor != "nvidia", reason="needs a GPU that MLX knows by CUDA")
@pytest.mark.parametrize("name", [f"zz-{name}" for name in ON_GPU])
def test_what_is_left_to_a_gpu_passes_neither_command(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """The baseline is timed again when the candidate has ended."""
    known_class()
    refuses(type_both(checkout, nano_root(tmp_path_factory.getbasetemp()), [name], 12), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(f"zz-{name}" for name in TWINS), *FASTER])
def test_what_is_honest_is_never_invalid_by_either_command(typed: Typed, name: str) -> None:
    """Beside cheats, it is judged as it is: a twin is no faster, and this suite's own are."""
    record, why = typed.records[name], typed.refused[name]
    assert record.verdict in ("no-change", "inconclusive", "win" if name in FASTER else "loss"), record.reason
    assert "invalid" not in {verdict for verdict, _ in why}, why


@pytest.mark.slow
def test_what_is_edited_while_it_is_measured_is_refused(typed: Typed) -> None:
    """Also where it is put back before the end: it belongs to no commit."""
    record = typed.records[EDITED]
    assert record.dirty
    assert "its sources were edited while it was measured" in record.notes
    assert any("uncommitted changes" in text for _, text in typed.refused[EDITED]), typed.refused[EDITED]
    assert "the gate will refuse it" in " ".join(typed.said.split())
