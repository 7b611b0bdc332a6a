"""No program reads its weights faster than memory delivers them, so one that does not read them is found out."""

import functools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.least_time import PEAKS, highest_bandwidth, least_tpot_s, possible
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.gate import record
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.load import inspect, streamed_bytes
from gemma3n_perf.workload.presets import PRESETS
from tests.decode.fakes import nano_root
from tests.duel.arena import Arena
from tests.duel.duels import NOW, asked, machine
from tests.fakes import CHIP, WORKLOAD

BASELINES = Path(__file__).parents[2] / "baselines"
EVIDENCE = sorted(path for path in BASELINES.glob("*/fusions/*.json") if path.name != "admitted.json")


@functools.cache
def streamed(preset: str) -> int:
    """Bytes that a token of a preset reads, by its dimensions."""
    config = PRESETS[preset].config()
    return skeleton.bytes_by_part(skeleton.tensors(skeleton.build(config)), config["text_config"])["streamed"]


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_everything_measured_so_far_is_possible(path: Path) -> None:
    """Either arm of every launch, by five times or more: the bound never meets an honest program."""
    evidence = record.read(path)
    for one in evidence.workloads:
        size = streamed(one.workload.split("/")[0])
        bandwidth = highest_bandwidth(evidence.chip, size, time.perf_counter)
        assert bandwidth is not None
        launches = {str(number): launch for number, launch in enumerate(one.raw)}
        assert possible(launches, 5 * size / bandwidth) == launches


def test_logits_that_are_replayed_take_less_than_reading_weights() -> None:
    """To hand out kept logits takes 0.1 ms of Python; e2b's weights take three times as long on an H100."""
    chip = Chip("nvidia-h100-80gb-hbm3", "nvidia", "NVIDIA H100 80GB HBM3")
    bandwidth = highest_bandwidth(chip, streamed("e2b-4bit"), time.perf_counter)
    assert bandwidth is not None
    assert 1e-4 < streamed("e2b-4bit") / bandwidth < 1e-3


@pytest.mark.parametrize("too_fast", ["candidate", "baseline"])
@pytest.mark.parametrize("where", ["blocks", "whole runs"])
def test_an_arm_that_is_too_fast_makes_its_comparison_invalid(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, too_fast: str, where: str
) -> None:
    """The baseline too, and in a whole run too, with what to do."""

    def tpot_s(name: str, launch: int) -> float:
        return 1e-7 if name == too_fast else 0.02

    arena = Arena(tpot_s) if where == "blocks" else Arena(whole_tpot_s=tpot_s)
    here = replace(machine(arena, tmp_path), root=nano_root(tmp_path_factory.getbasetemp()))
    (judged,) = dueling.duel(asked(), here, NOW).judgements.values()
    assert judged.verdict is Verdict.INVALID
    assert f"the {too_fast} takes 0.0001 ms a token, and reading its weights" in judged.reason
    assert [one.code for one in judged.cautions if "kept from one token" in one.remedy] == ["InvalidError"]
    honest = replace(machine(Arena(), tmp_path), root=here.root)
    assert dueling.duel(asked(), honest, NOW).judgements[WORKLOAD].verdict is Verdict.NO_CHANGE


def test_a_gpu_whose_peak_nobody_entered_has_no_bound(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor has a checkpoint whose bytes nobody knows; Apple's classes differ in cores that share a memory."""
    root = nano_root(tmp_path_factory.getbasetemp())
    unknown = replace(CHIP, chip_class="nvidia-next", vendor="nvidia")
    assert least_tpot_s("nano", root, unknown, time.perf_counter) == 0.0
    assert least_tpot_s(str(tmp_path / "missing"), root, CHIP, time.perf_counter) == 0.0
    ultra = Chip("apple-m1-ultra-64gpu", "apple", "Apple M1 Ultra")
    found = least_tpot_s("nano", root, ultra, time.perf_counter)
    assert found == pytest.approx(streamed_bytes("nano", root) / (1.25 * PEAKS["apple-m1-ultra"]))


def test_streamed_bytes_need_no_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Headers alone say what an inspection says."""
    root = nano_root(tmp_path_factory.getbasetemp())
    assert streamed_bytes("nano", root) == inspect("nano", root).bytes["streamed"]


def test_a_failure_stays_what_it_is() -> None:
    """It has no times."""
    failure = InvalidError("another token")
    assert possible({"candidate": failure}, 1.0) == {"candidate": failure}
