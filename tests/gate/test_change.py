"""What a change touches is one thing: the plan measures for it, a machine measures it, and the gate asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3n_perf.ci.measure import names_to_measure
from gemma3n_perf.ci.plan import ChipClass, Pull, State, plan
from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.admission import gate
from gemma3n_perf.gate.change import FUSIONS, Touched, checkout, program_changes, sort_files, touched, touched_names
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, SMALL, Scratch

BOTH = f"{ALTUP}+{GEGLU}"
CLASSES = [ChipClass(BIG, ("gpu",), True)]


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository in which a composition of two fusions is in use on one class."""
    made = Scratch(tmp_path / "repo")
    admitted.write(made.baselines, BIG, (ALTUP, GEGLU))
    made.save("a composition is in use")
    return made


def one_part(scratch: Scratch) -> None:
    """Edit one fusion of the composition."""
    scratch.write(str(FUSIONS / "stacked_altup.py"), "# better")


def admission_alone(scratch: Scratch) -> None:
    """Put the composition into use on another class, and nothing else."""
    admitted.write(scratch.baselines, SMALL, (ALTUP, GEGLU))


def admission_withdrawn(scratch: Scratch) -> None:
    """Take the composition out of use."""
    admitted.path_of(scratch.baselines, BIG).unlink()


def a_shared_module(scratch: Scratch) -> None:
    """Edit what one of them imports."""
    scratch.write(str(FUSIONS / "kernels.py"), "# changed")


def new_evidence(scratch: Scratch) -> None:
    """Bring evidence of the composition."""
    scratch.put(scratch.evidence(BIG, BOTH))


def documentation(scratch: Scratch) -> None:
    """Explain the fusions, beside them."""
    scratch.write(str(FUSIONS / "README.md"), "words")


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (one_part, (ALTUP, GEGLU, BOTH)),
        (admission_alone, (ALTUP, GEGLU, BOTH)),
        (a_shared_module, (ALTUP, GEGLU, BOTH)),
        (new_evidence, (ALTUP, GEGLU, BOTH)),
        (admission_withdrawn, ()),
        (documentation, ()),
    ],
)
def test_what_is_planned_is_measured_and_asked_for(
    scratch: Scratch, edit: Callable[[Scratch], None], names: tuple[str, ...]
) -> None:
    """The same fusions and compositions, whatever a change edits: else the gate would wait for what nobody measures."""
    base = scratch.save("base")
    edit(scratch)
    head = scratch.save("change")
    here = scratch.checkout()
    change = touched(base, here.repository, here.baselines)
    pull = Pull(7, head, base, "us/suite", "us/suite", "colleague")
    if names:
        assert plan(pull, change, CLASSES).state is State.MEASURE
    policy = read_policy(scratch.baselines / POLICY_FILE)
    assert names_to_measure(base, here) == names
    assert gate(here, policy, change).names == names


@pytest.mark.parametrize("name", ["fusions", "fusions/admitted.json", ""])
def test_a_link_in_place_of_records_is_refused(scratch: Scratch, tmp_path: Path, name: str) -> None:
    """What it leads to could admit anything, and lies outside what the gate reads."""
    base = scratch.save("base")
    folder = next(path.parent for path in sorted(scratch.baselines.glob("*/fusions")))
    outside, link = scratch.root / "docs" / "x", folder / name if name else folder
    outside.parent.mkdir(exist_ok=True)
    link.rename(outside) if link.exists() else outside.write_text("{}")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    scratch.save("change")
    here = scratch.checkout()
    with pytest.raises(UsageError, match="is a link"):
        touched(base, here.repository, here.baselines)
    changed = here.repository.changed(base)
    named = {one for one in changed if one.startswith("baselines/") and "/fusions/" in one and one.endswith(".json")}
    assert set(sort_files(changed, scratch.root, scratch.baselines).records) == named


def test_what_was_measured_for_one_part_of_a_composition_is_admitted(scratch: Scratch) -> None:
    """Evidence of all that was to be measured leaves nothing missing: exit 0."""
    base = scratch.save("base")
    one_part(scratch)
    scratch.commit = scratch.save("change")
    for name in names_to_measure(base, scratch.checkout()):
        scratch.put(scratch.evidence(BIG, name), *([scratch.evidence(SMALL, name)] if name != BOTH else []))
    here = scratch.checkout()
    policy = read_policy(scratch.baselines / POLICY_FILE)
    assert gate(here, policy, touched(base, here.repository, here.baselines)).ruling.exit_code == 0


def test_a_fusion_that_is_gone_is_asked_for_and_never_measured(scratch: Scratch) -> None:
    """What is in use and does not exist refuses; no machine can do anything about it."""
    base = scratch.save("base")
    (scratch.root / FUSIONS / "compiled_geglu.py").unlink()
    del scratch.sources.modules[GEGLU]
    here = scratch.checkout()
    policy = read_policy(scratch.baselines / POLICY_FILE)
    assert names_to_measure(base, here) == (ALTUP,)
    found = gate(here, policy, touched(base, here.repository, here.baselines))
    assert found.names == (ALTUP, GEGLU, BOTH)
    assert found.ruling.exit_code == 5


LOCK = "mlx=={} \\\n    --hash=sha256:aa\nruff==0.15 \\\n    --hash=sha256:bb\n"
WORKER = "perf/gemma3n_perf/duel/worker.py"


def test_what_a_change_does_to_the_program_is_told_by_class(scratch: Scratch) -> None:
    """A lock is of one platform; a tool, a page and what no worker imports are none of it."""
    scratch.write("requirements.lock", LOCK.format("0.32.0"))
    scratch.write(WORKER, "import time\n")
    base = scratch.save("base")
    scratch.write("docs/page.md", "two")
    scratch.write("perf/gemma3n_perf/ci/plan.py", "")
    scratch.write("requirements.lock", LOCK.format("0.32.0").replace("0.15", "0.16"))
    scratch.save("nothing of the program")
    classes, repository = ("cpu-x", "nvidia-x"), Repository(scratch.root)
    assert program_changes(base, repository, classes) == {}
    scratch.write("requirements.lock", LOCK.format("0.32.4"))
    scratch.save("bump mlx")
    assert program_changes(base, repository, classes) == {"cpu-x": ("mlx 0.32.0 -> 0.32.4",)}
    scratch.write(WORKER, "import os\n")
    scratch.save("the worker too")
    found = program_changes(base, repository, classes)
    assert found["nvidia-x"] == ("duel/worker.py changed",)
    assert found["cpu-x"] == ("mlx 0.32.0 -> 0.32.4", "duel/worker.py changed")


def test_a_fusion_in_use_is_gated_and_not_compared(scratch: Scratch) -> None:
    """Base against head decodes without fusions, and would see nothing of it."""
    scratch.write(WORKER, "import gemma3n_perf.fusions.registry\n")
    base = scratch.save("base")
    one_part(scratch)
    admission_withdrawn(scratch)
    scratch.save("a fusion")
    assert program_changes(base, Repository(scratch.root), [BIG]) == {}


def test_what_the_base_did_meanwhile_is_not_the_changes(scratch: Scratch) -> None:
    """Head is compared with the commit where it left the base."""
    scratch.write(WORKER, "import time\n")
    scratch.save("base")
    scratch.git("checkout", "--quiet", "-b", "change")
    scratch.write("docs/page.md", "two")
    scratch.save("a page")
    scratch.git("checkout", "--quiet", "main")
    scratch.write(WORKER, "import os\n")
    scratch.save("the base moves on")
    scratch.git("checkout", "--quiet", "change")
    assert program_changes("main", Repository(scratch.root), ["cpu-x"]) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (WORKER, "import (\n"),
        (WORKER, "a\0b"),
        (WORKER, "(" * 5_000 + ")" * 5_000),
        (WORKER, "x = " + "-" * 50_000 + "1"),
        ("pyproject.toml", "project = 1\n"),
        ("pyproject.toml", "x = " + "[" * 50_000 + "]" * 50_000),
        ("baselines/cpu-x/fusions/admitted.json", "[" * 100_000),
    ],
)
def test_a_file_that_does_not_parse_is_a_change(scratch: Scratch, name: str, text: str) -> None:
    """Nobody can say that it is none; whoever wrote it may have meant to break the plan."""
    scratch.write(WORKER, "import time\n")
    base = scratch.save("base")
    scratch.write(name, text)
    scratch.save("broken")
    (found,) = program_changes(base, Repository(scratch.root), ["cpu-x"])["cpu-x"]
    assert f"{Path(name).name} does not parse" in found


def test_the_gate_asks_the_checkout_that_it_is_run_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own baselines or others; what was installed has no history to ask."""
    found = "gemma3n_perf.hardware.stack.suite_checkout"
    monkeypatch.setattr(found, lambda: tmp_path)
    for given, baselines in ((None, tmp_path / "baselines"), (tmp_path / "other", tmp_path / "other")):
        here = checkout(given)
        assert (here.repository.root, here.baselines) == (tmp_path, baselines)
    monkeypatch.setattr(found, lambda: None)
    with pytest.raises(UsageError, match="not run from a git checkout"):
        checkout(tmp_path)


def test_evidence_of_no_class_is_nobodys(scratch: Scratch) -> None:
    """A file that lies too near the top to be in a class's folder."""
    assert touched_names(Touched(records=("fusions/x.json",)), scratch.checkout(), scratch.sources) == ()
