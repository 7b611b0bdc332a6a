from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from gemma3n_perf.errors import NonFiniteError
from gemma3n_perf.fusions import registry
from gemma3n_perf.gate.run import ANY_CLASS, arm, measuring
from gemma3n_perf.gate.session import Duels
from gemma3n_perf.stats.verdicts import Verdict
from tests.decode import fakes
from tests.duel.arena import Arena
from tests.duel.duels import machine
from tests.fakes import WORKLOAD


def test_a_composition_is_an_arm_of_its_parts() -> None:
    """As a user would type it."""
    assert arm("a+b") == "here+fusion:a+fusion:b"


def test_fusions_are_judged_over_all_sessions_and_in_each(tmp_path: Path) -> None:
    """A win in one session only is seen in the sessions' own judgements."""
    name = next(one for one in registry.names() if not registry.get(one).env)
    arena = Arena()
    # Workers are started once a launch; the second session begins after its rest.
    arena.tpot_s = lambda arm, launch: 0.02 if arm == "baseline" or 7.0 in arena.slept else 0.016
    kept: list[Duels] = []
    measure = measuring(machine(arena, tmp_path), policy=replace(ANY_CLASS, apart=7.0))
    duels = measure([name], [WORKLOAD], 2, 24.0, kept.append)
    found = duels[name, WORKLOAD]
    # After every launch, as far as it has come.
    assert [len(one[name, WORKLOAD].measured.raw) for one in kept] == list(range(1, len(found.measured.raw) + 1))
    assert [one.verdict for one in found.measured.per_session] == [Verdict.WIN, Verdict.NO_CHANGE]
    assert found.measured.judgement.verdict is not Verdict.WIN
    assert {launch.session for launch in found.measured.raw} == {0, 1}
    assert 7.0 in arena.slept
    assert sorted(found.stacks) == ["baseline", "candidate"]


def test_more_than_sixteen_fusions_are_measured_in_several_duels(tmp_path: Path) -> None:
    """Each holds the weights and waits for all the others: the seventeenth begins a duel of its own."""
    singles = [one for one in registry.names() if not registry.get(one).env]
    names = [*singles, *map("+".join, combinations(singles, 2))][:17]
    arena = Arena()
    found = measuring(machine(arena, tmp_path))(names, [WORKLOAD], 1, 20.0, lambda duels: None)
    assert [name for name, _ in found] == names
    first = {f"{number}:{arm(name)}" for number, name in enumerate(names[:16])}
    assert {name for _, name in arena.blocks} == {"baseline", "candidate", *first}


def test_a_fusion_that_cannot_be_measured_is_a_judgement(tmp_path: Path) -> None:
    """The others keep their duels."""
    one, other = [name for name in registry.names() if not registry.get(name).env][:2]
    arena = Arena(raises={(f"0:{arm(one)}", "prepare"): NonFiniteError("NaN")})
    found = measuring(machine(arena, tmp_path))([one, other], [WORKLOAD], 1, 20.0, lambda duels: None)
    assert found[one, WORKLOAD].measured.judgement.verdict is Verdict.INVALID
    assert found[one, WORKLOAD].measured.raw == ()
    assert found[other, WORKLOAD].measured.judgement.verdict is Verdict.NO_CHANGE
    with pytest.raises(KeyError):
        found["none", WORKLOAD]


@pytest.mark.parametrize("forged", [True, False])
def test_other_tokens_are_invalid_where_forged_weights_make_them_equal(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, forged: bool
) -> None:
    """With weights of another origin a near tie may fall either way: a caution."""
    (name,) = [name for name in registry.names() if not registry.get(name).env][:1]
    folder = fakes.nano_copy(tmp_path_factory.getbasetemp(), tmp_path / "copy")
    if not forged:
        fakes.edit_config(folder, lambda config: config.pop("gemma3n_perf"))
    arena, workload = Arena(tokens={"candidate": "tokens:2"}), "copy/text/pp40-tg64"
    measure = measuring(machine(arena, tmp_path), {"copy": str(folder)})
    found = measure([name], [workload, WORKLOAD], 1, 20.0, lambda duels: None)
    assert found[name, WORKLOAD].measured.judgement.verdict is Verdict.INVALID
    judged = found[name, workload].measured.judgement
    assert (judged.verdict is Verdict.INVALID) == forged
    assert ("outputs-differ" in {caution.code for caution in found[name, workload].cautions}) != forged
