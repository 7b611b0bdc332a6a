"""What a change touches is one thing: the plan measures for it, a machine measures it, and the gate asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3n_perf.ci.measure import names_to_measure
from gemma3n_perf.ci.plan import ChipClass, Pull, State, plan
from gemma3n_perf.gate.admission import gate
from gemma3n_perf.gate.change import FUSIONS, touched
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
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
