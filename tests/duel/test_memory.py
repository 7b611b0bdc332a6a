from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel.memory import fit
from gemma3n_perf.errors import OutOfMemoryError
from gemma3n_perf.workload.load import needed_bytes
from tests.decode.fakes import nano_root
from tests.duel.arena import ARMS, arm
from tests.fakes import CHIP

WORKLOAD = "nano/text/pp40-tg64"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forge nano, whose headers are read."""
    return nano_root(tmp_path_factory.getbasetemp())


def test_metal_holds_two_processes_or_one_that_is_shared_or_none(root: Path) -> None:
    """By what it keeps resident, however much memory there is; arms of two packages cannot share a process."""
    needed = needed_bytes("nano", root, with_towers=False)
    mac = replace(CHIP, vendor="apple", memory_bytes=100 * needed)
    other = replace(arm("candidate"), argv=("another python",))

    def placed_in(copies: float, *arms: object) -> tuple[int, int]:
        chip = replace(mac, working_set_bytes=int(copies * 1.3 * needed) + 1)
        placed, processes = fit(tuple(arms), [WORKLOAD], {}, root, chip)  # type: ignore[arg-type]
        return len({one.process for one in placed}), processes

    assert placed_in(2, *ARMS) == placed_in(2, ARMS[0], other) == (2, 2)
    assert placed_in(1.9, *ARMS) == (1, 1)
    with pytest.raises(OutOfMemoryError) as refused:
        placed_in(1.9, ARMS[0], other)
    each = 1.3 * needed / 1e9
    assert f"nano takes {each:.1f} GB in each of two processes" in refused.value.found
    assert "iogpu.wired_limit_mb=" in str(refused.value.remedy)
    with pytest.raises(OutOfMemoryError, match="in a process"):
        placed_in(0.9, *ARMS)


def test_without_metal_files_and_memory_count_and_nothing_is_refused(root: Path) -> None:
    """As before: the system may move memory out that nobody uses."""
    files = sum(one.stat().st_size for one in root.glob("nano*/*.safetensors"))
    for memory, expected in ((int(2.7 * files), (2, 2)), (files, (1, 0)), (None, (2, 1_000))):
        placed, processes = fit(ARMS, [WORKLOAD], {}, root, replace(CHIP, memory_bytes=memory))
        assert (len({one.process for one in placed}), processes) == expected


def test_what_cannot_be_read_is_left_to_loading(tmp_path: Path) -> None:
    """It is named there."""
    chip = replace(CHIP, working_set_bytes=1)
    assert fit(ARMS, ["none/text/pp40-tg64"], {"none": str(tmp_path)}, tmp_path, chip)[1] == 1_000
