"""Checks of fusions that are broken on purpose, on the real model of nano; and one real session over it."""

import datetime as dt
import errno
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.processes import Spawner
from gemma3n_perf.errors import DiskFullError
from gemma3n_perf.fusions import registry
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.checks import KNOB, CheckProcesses, Checks, at_once, broke, fingerprint, outputs
from gemma3n_perf.gate.dispatch import computed
from gemma3n_perf.gate.facts import Checked, Parity
from gemma3n_perf.gate.run import ANY_CLASS, measuring
from gemma3n_perf.gate.session import CheckSpec, Dependencies, gather
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.machine import Machine
from tests.decode import fakes
from tests.fakes import CHIP

NAME = "compiled-geglu"
FULL = "[Compile::eval_cpu] Failed to compile function f: the output is: x.cpp: error: No space left on device"
WORKLOAD = "nano/text/pp4-tg4"
Apply = Callable[[Any], None]


@pytest.mark.parametrize(
    ("before", "after", "complaints"),
    [
        ({"QuantizedMatmul": 7}, {}, 1),
        ({"Matmul": 2, "QuantizedMatmul": 7}, {"Multiply": 1}, 1),
        ({"QuantizedMatmul": 7}, {"QuantizedMatmul": 1}, 0),
        ({"QuantizedMatmul": 7}, {"CustomKernel": 1}, 0),
        ({"Matmul": 7}, {"AddMM": 1}, 0),
        ({"Multiply": 7}, {}, 0),
    ],
)
def test_a_step_without_a_product_was_computed_and_not_built(
    before: dict[str, int], after: dict[str, int], complaints: int
) -> None:
    """A kernel may hold all of them."""
    graphs = [Graph({}, one, {}, sum(one.values())) for one in (before, after)]
    assert len(list(computed(*graphs))) == complaints


def test_a_full_disk_is_no_fusions_fault() -> None:
    """MLX's compiler finds it, and whatever else is raised is the fusion's."""
    assert broke("x", ValueError("a\nb")) == "x raised ValueError: a b"
    assert "could not" not in broke("x", RuntimeError("[Compile::eval_cpu] y"))
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError(FULL)):
        with pytest.raises(DiskFullError, match="no room is left to write"):
            broke("x", error)


def test_as_many_processes_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three for each, which is told before they start."""
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    notes: list[str] = []
    checks = CheckProcesses(replace(CHIP, memory_bytes=10**12), Path(), note=notes.append, argv=("cat",))
    checks([CheckSpec(name, True, WORKLOAD) for name in "abc"])
    assert notes[0] == "graph, outputs and memory: 3 checks, 2 at a time"


def test_as_many_processes_as_the_memory_allows() -> None:
    """16 GB each, and a quarter of an hour."""
    assert [at_once(replace(CHIP, memory_bytes=gb * 10**9), 12) for gb in (16, 31, 32, 99)] == [1, 1, 2, 4]
    assert CheckProcesses(CHIP, Path()).limit_s == 15 * 60


def test_checks_that_wait_are_never_started_once_they_are_given_up(tmp_path: Path) -> None:
    """Whoever asks breaks off after the first of three: the second is killed, and no third begins."""
    started = tmp_path / "started"
    script = 'echo x >> "$0"; test $(wc -l < "$0") -eq 1 || exec sleep 5'

    def note(text: str) -> None:
        if text.endswith("1 of 3"):
            raise ValueError("given up")

    checks = CheckProcesses(CHIP, Path(), note=note, argv=("sh", "-c", script, str(started)))
    with pytest.raises(ValueError, match="given up"):
        checks([CheckSpec(name, True, WORKLOAD) for name in "abc"])
    assert len(started.read_text().split()) in (1, 2)


def test_what_a_fusion_prints_is_no_part_of_the_answer() -> None:
    """Nor what a library does: it goes where faults go."""
    script = """
from gemma3n_perf.gate import checks
from gemma3n_perf.gate.facts import Checked
def told(self, specs):
    print("compiling", flush=True)
    return [Checked("nano")]
checks.Checks.__call__ = told
checks.main()
"""
    processes = CheckProcesses(CHIP, Path(), argv=(sys.executable, "-c", script))
    assert processes([CheckSpec(NAME, True, WORKLOAD)]) == [Checked("nano")]


@pytest.mark.parametrize("kind", [mx.uint8, mx.bfloat16, mx.float32, mx.int64], ids=str)
def test_a_weight_that_changes_is_seen_whatever_its_size(kind: mx.Dtype) -> None:
    """One among a thousand, of one byte or eight."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight = mx.zeros(1000, kind)
    model = SimpleNamespace(language_model=layer)
    before = fingerprint(model)
    assert fingerprint(model) == before
    layer.weight[7] = 1
    assert fingerprint(model) != before


def compare(plain: Any, fused: Any, forged: bool) -> Parity:
    """Decode a few steps with both; stands in for ``fusions.parity``, which takes longer and has tests of its own."""
    largest = 0.0
    one, other = MlxVlmEngine(plain), MlxVlmEngine(fused)
    token = one.begin(5)
    other.begin(5)
    for _ in range(4):
        ours, theirs = one.logits(token), other.logits(token)
        if not bool(mx.isfinite(theirs).all().item()):
            return Parity(False, False, "NaN")
        largest = max(largest, float(mx.abs(ours - theirs).max().item().real))
        token = mx.argmax(ours, axis=-1)
    return Parity(largest < 1e-2, True, f"logits differ by {largest:.3g}", {"largest": largest})


def planted(fusion: Fusion) -> Callable[[str], Fusion]:
    """Return the registry, with one fusion replaced by what a test plants."""
    return lambda name: fusion if name == fusion.name else registry.get(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the forged nano."""
    return fakes.nano_root(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def checks(root: Path) -> Checks:
    """Return checks of nano."""
    return Checks(detect(), root, compare)


def checked(checks: Checks, after: Apply = lambda model: None, **changes: Any) -> Checked:
    """Check a fusion that does ``after`` once the real one has been applied."""
    real = registry.get(NAME)

    def apply(model: Any) -> None:
        real.apply(model)
        after(model)

    planted_checks = replace(checks, fusion=planted(replace(real, **({"apply": apply} | changes))))
    return planted_checks([CheckSpec(NAME, True, WORKLOAD)])[0]


def real(model: Any) -> bool:
    """Whether these are weights, and not the zeros that a graph is counted with."""
    return bool(mx.any(model.language_model.model.layers[0].mlp.down_proj.weight != 0).item())


def test_a_right_fusion_passes(checks: Checks) -> None:
    """Dispatched as declared, the same logits, the weights shared and kept."""
    found = checked(checks)
    assert found.failure is None
    assert found.dispatch is not None
    assert found.dispatch.seen
    assert found.dispatch.nodes[1] < found.dispatch.nodes[0]
    assert found.parity is not None
    assert found.parity.passed, found.parity
    assert found.weights_kept
    assert found.memory_ratio is not None
    assert 0.99 < found.memory_ratio < 1.1


def test_a_fusion_that_does_nothing_is_not_dispatched(checks: Checks) -> None:
    """And nothing further is asked of it."""
    found = checked(checks, apply=lambda model: None)
    assert found.dispatch is not None
    assert not found.dispatch.seen
    assert found.dispatch.changed == {}
    assert found.parity is None


def test_a_fusion_that_raises_is_named_with_its_words(checks: Checks) -> None:
    """As one for another architecture does."""

    def other(model: Any) -> None:
        raise AttributeError("'Gemma3nAttention' object has no attribute 'qkv_proj'")

    found = checked(checks, apply=other)
    assert found.failure == (
        "counting its graph raised AttributeError: 'Gemma3nAttention' object has no attribute 'qkv_proj'"
    )


def test_a_fusion_that_breaks_when_it_runs_is_named(checks: Checks) -> None:
    """The graph could be counted, and no token decoded."""

    def refuses(model: Any) -> None:
        if real(model):
            raise ValueError("real weights do not suit me")

    found = checked(checks, refuses)
    assert found.failure == "applying it and comparing outputs raised ValueError: real weights do not suit me"


def test_nan_is_seen(checks: Checks) -> None:
    """Whatever else is right."""

    def poison(model: Any) -> None:
        layer = model.language_model.model.layers[-1]
        layer.post_per_layer_input_norm.weight = layer.post_per_layer_input_norm.weight * float("nan")

    found = checked(checks, poison)
    assert found.parity is not None
    assert not found.parity.finite
    assert found.weights_kept


def test_a_copy_of_the_weights_shows_in_memory(checks: Checks) -> None:
    """Both models then take twice the memory of one."""

    def copy(model: Any) -> None:
        inside = model.language_model.model
        if real(model):
            for layer in inside.layers:
                for name in ("gate_proj", "up_proj", "down_proj"):
                    part = getattr(layer.mlp, name)
                    part.weight, part.scales = part.weight + 0, part.scales + 0
            inside.embed_tokens.weight = inside.embed_tokens.weight + 0
            inside.embed_tokens_per_layer.weight = inside.embed_tokens_per_layer.weight + 0
            mx.eval(model.language_model.parameters())

    found = checked(checks, copy)
    assert found.failure is None
    assert found.memory_ratio is not None
    assert found.memory_ratio > 1.3


def test_changed_weights_are_seen_and_the_next_check_has_its_own(checks: Checks) -> None:
    """A fusion that writes into the shared arrays spoils the unfused model, too; it is loaded anew."""

    def scribble(model: Any) -> None:
        norm = model.language_model.model.norm
        norm.weight[0] = norm.weight[0] + 1.0

    found = checked(checks, scribble)
    assert found.failure is None
    assert found.weights_kept is False
    assert checked(checks).weights_kept


def test_off_is_checked_by_the_graph_alone(checks: Checks) -> None:
    """Where ``enabled`` says no, what it lets through changes nothing."""
    real = registry.get(NAME)
    off = replace(checks, fusion=planted(replace(real, enabled=lambda chip: False)))
    (found,) = off([CheckSpec(NAME, False, WORKLOAD)])
    assert found.dispatch is not None
    assert (found.dispatch.changed, found.dispatch.complaints) == ({}, ())
    assert found.parity is None


def test_a_knob_is_told_by_its_variables(checks: Checks) -> None:
    """It may leave the graph alone, and has no models to compare."""
    knob: dict[str, Any] = {
        "graph": Declared(same=True),
        "env": {"MLX_MAX_OPS_PER_BUFFER": "9"},
        "apply": lambda model: None,
    }
    found = checked(checks, **knob)
    assert found.dispatch is not None
    assert found.dispatch.seen
    assert found.parity == Parity(True, True, KNOB)


def test_what_calls_itself_a_knob_and_changes_the_model_is_compared(checks: Checks) -> None:
    """Nobody else would look at its outputs: only what leaves a model alone has none of its own."""
    touches: dict[str, Any] = {
        "graph": Declared(same=True),
        "env": {"MLX_MAX_OPS_PER_BUFFER": "9"},
        "apply": lambda model: model.language_model,
    }
    found = checked(checks, **touches)
    assert found.parity is not None
    assert found.parity != Parity(True, True, KNOB)


@pytest.mark.slow
def test_a_real_session_over_nano(root: Path, tmp_path: Path) -> None:
    """Checks, duels in processes of their own and a record that reads back, in one short session."""
    here = dueling.here(tmp_path, Machine.detect(), Spawner())
    here = replace(here, root=root, tools=replace(here.tools, faults_of=_no_faults, rng=random.Random(1)))
    dependencies = Dependencies(
        chip=here.chip, stack=here.stack, sources=registry, check=Checks(here.chip, root, outputs),
        measure=measuring(here, policy=replace(ANY_CLASS, apart=0.0)),
        now=lambda: dt.datetime(2026, 7, 1, tzinfo=dt.UTC),
    )  # fmt: skip
    (record,) = gather((NAME,), (WORKLOAD,), dependencies, budget_s=8.0, sessions=1)
    kept = store.read(store.write(tmp_path, record))
    assert kept.enabled
    assert kept.verdict in ("not-measured", "inconclusive", "no-change", "loss"), kept.reason
    assert len(kept.workloads[0].raw) >= 3
    assert len(kept.workloads[0].per_session) == 1
    assert kept.stacks["baseline"].mlx == kept.stacks["candidate"].mlx
    assert kept.checked[0].parity is not None
    assert kept.checked[0].parity.passed
    assert kept.sources == registry.digest(NAME)


def _no_faults(conditions: Any) -> tuple[Any, ...]:
    """A busy machine fails no test."""
    return ()
