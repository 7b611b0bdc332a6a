"""Device time: CUPTI's records joined, its process and what takes its place, a CPU's thread times."""

import ctypes
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Done, run_command
from gemma3n_perf.profile import cupti, trace
from gemma3n_perf.profile.cupti import CONCURRENT_KERNEL, MEMCPY, Activity, Recorded, TraceRequest, busy
from gemma3n_perf.profile.types import Trace
from tests.decode.fakes import FakeClock
from tests.profile.made import about

REQUEST = TraceRequest("nano/text/pp40-tg64", "nano", "/nowhere", 6, 8)


def activity(start: int, end: int, kind: int = CONCURRENT_KERNEL) -> Activity:
    """Return an activity, microseconds from a start of the clock."""
    return Activity(kind, 1_000_000 + 1_000 * start, 1_000_000 + 1_000 * end)


def test_overlapping_activities_count_once() -> None:
    """Two kernels at a time are not two times busy, and a gap is not busy."""
    found = busy([activity(20, 30), activity(0, 10), activity(5, 12), activity(25, 27, MEMCPY)])
    assert found[:2] == pytest.approx((22e-6, 30e-6))
    assert found[2] == 3


@pytest.mark.parametrize(
    "records", [[], [Activity(CONCURRENT_KERNEL, 5, 4)], [Activity(CONCURRENT_KERNEL, 0, 9)],
                [Activity(CONCURRENT_KERNEL, 1, 1 << 60)]],
)  # fmt: skip
def test_records_that_no_gpu_made_are_refused(records: list[Activity]) -> None:
    """Another layout of the record would read as nonsense, and nonsense must not become a figure."""
    with pytest.raises(NotMeasuredError, match="CUPTI"):
        busy(records)


def test_the_library_is_looked_for_in_nvidias_packages_first(tmp_path: Path) -> None:
    """Newest first; nothing where there is none."""
    for name in ("nvidia/cu13/lib/libcupti.so.13", "nvidia/cuda_cupti/lib/libcupti.so.12"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [Path(path).name for path in cupti.packaged([str(tmp_path)])] == ["libcupti.so.13", "libcupti.so.12"]
    assert cupti.packaged([str(tmp_path / "empty")]) == []


def test_a_worker_without_cupti_says_so_and_does_not_crash() -> None:
    """The real worker in a process of its own, on a machine that may have no GPU: its answer is words or numbers."""
    folder = Path(cupti.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from gemma3n_perf.profile.cupti import main; main()"
    done = run_command((sys.executable, "-P", "-c", code, msgspec.json.encode(REQUEST).decode()), 60.0)
    found = msgspec.json.decode(done.out.splitlines()[-1].encode(), type=Recorded)
    assert found.error is not None
    assert "CUPTI" in found.error or "forged" in found.error


class Shell:
    """Answers with what it is given."""

    def __init__(self, done: Done) -> None:
        self.done = done

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Done:
        """Check the request that is handed over."""
        assert msgspec.json.decode(argv[-1].encode(), type=TraceRequest) == REQUEST
        return self.done


def test_a_workers_records_become_seconds_per_token() -> None:
    """Six blocks of eight tokens; what libraries printed before the answer is not read."""
    made = Recorded((0.040,) * 6, (0.048,) * 6, (16_000,) * 6)
    found = trace.by_cupti(REQUEST, Shell(Done(0, "warning: x\n" + msgspec.json.encode(made).decode() + "\n", "")))
    assert found.source == trace.CUPTI
    assert found.busy_s is not None
    assert found.span_s is not None
    assert (found.busy_s.value, found.span_s.value, found.kernels) == pytest.approx((0.005, 0.006, 2_000.0))


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (Done(-11, "", "Segmentation fault"), "Segmentation fault"),
        (Done(0, "nothing", ""), "ended with 0"),
        (Done(0, '{"busy_s": 3}', ""), "answered with"),
        (Done(0, '{"error": "CUPTI cannot flush: error 35"}', ""), "error 35"),
    ],
)
def test_a_worker_that_fails_is_a_reason(done: Done, said: str) -> None:
    """It may crash, be killed or be refused by the driver: each is told, none is a traceback."""
    with pytest.raises(NotMeasuredError, match=said):
        trace.by_cupti(REQUEST, Shell(done))


def test_nvml_takes_the_place_of_cupti_and_says_why() -> None:
    """The next counter is told what the last one said; busy share times time per token is the device's time."""
    clock = FakeClock()

    def run() -> float:
        clock.passes(0.2)
        return 0.02

    def refused(why: str) -> Trace:
        raise NotMeasuredError("no CUPTI library")

    found = trace.best([refused, lambda why: trace.by_nvml(run, lambda: 25.0, clock, why)])
    assert found.source == trace.NVML
    assert found.busy_s is not None
    assert found.busy_s.value == pytest.approx(0.005)
    assert "no CUPTI library" in (found.note or "")


def test_without_a_counter_every_reason_is_given() -> None:
    """The part is then not measured, with all that was tried."""

    def refused(why: str) -> Trace:
        raise NotMeasuredError(f"first said {why!r}")

    def gone(why: str) -> Trace:
        raise OSError("no driver")

    with pytest.raises(NotMeasuredError, match="first said ''; no driver"):
        trace.best([refused, gone])
    with pytest.raises(NotMeasuredError, match="no counter"):
        trace.best([])


def test_a_cpus_device_is_the_busiest_thread_besides_the_hosts() -> None:
    """The host's own thread may compute more; it is not the device."""
    times = {1: 0.0, 2: 0.0, 3: 0.0}

    def run() -> float:
        for thread, seconds in ((1, 0.9), (2, 0.4), (3, 0.01)):
            times[thread] += seconds
        return 0.05

    found = trace.by_threads(run, 8, lambda: dict(times), own=1)
    assert found.busy_s is not None
    assert found.busy_s.value == pytest.approx(0.05)
    with pytest.raises(NotMeasuredError, match="no thread"):
        trace.by_threads(lambda: 0.05, 8, lambda: {1: 5.0, 2: 0.0}, own=1)


def test_gaps_are_what_busy_leaves_of_a_token() -> None:
    """A device as busy as the token takes has none, never less."""
    idle = trace.gaps(Trace("x", about(0.005)), about(0.020))
    assert idle is not None
    assert idle.value == pytest.approx(0.75)
    assert idle.low < 0.75 < idle.high
    none = trace.gaps(Trace("x", about(0.03)), about(0.020))
    assert none is not None
    assert none.value == 0.0
    assert trace.gaps(Trace("Metal capture", None), about(0.02)) is None


class Library:
    """Stands in for libcupti: fills the buffer that it is given with ``records``, or refuses every call."""

    def __init__(self, records: Sequence[Activity], code: int = 0) -> None:
        self.records, self.code = records, code
        self.cuptiActivityGetNextRecord = self.Next()
        self.cuptiActivityRegisterCallbacks = self.register
        self.cuptiActivityEnable = lambda kind: code
        self.cuptiActivityFlushAll = self.flush

    class Next:
        """Hands out one record of 64 bytes after the other."""

        argtypes: Any = None

        def __init__(self) -> None:
            self.at = 0

        def __call__(self, buffer: int, valid: int, record: Any) -> int:
            """Point ``record`` at the next one."""
            if self.at >= valid:
                return 1
            ctypes.cast(record, ctypes.POINTER(ctypes.c_void_p))[0] = buffer + self.at
            self.at += 64
            return 0

    def register(self, requested: Any, completed: Any) -> int:
        """Keep them."""
        self.callbacks = requested, completed
        return self.code

    def flush(self, flag: int) -> int:
        """Ask for a buffer, fill it and hand it back."""
        buffer, size, most = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
        self.callbacks[0](ctypes.byref(buffer), ctypes.byref(size), ctypes.byref(most))
        data = b"".join(struct.pack("<I12xQQ32x", *one) for one in self.records)
        assert len(data) <= size.value
        ctypes.memmove(buffer.value or 0, data, len(data))
        self.callbacks[1](None, 0, buffer.value, size.value, len(data))
        return self.code


def test_the_records_of_a_buffer_are_read() -> None:
    """Kind, start and end by their places; another kind of record has no times to read."""
    kernel, copy, other = Activity(CONCURRENT_KERNEL, 5, 9), Activity(MEMCPY, 10, 11), Activity(4, 1, 2)
    found = cupti.Cupti(Library([kernel, other, copy]))
    assert found.collect() == [kernel, copy]


def test_a_driver_that_refuses_is_named_with_a_remedy() -> None:
    """Profiling may be for administrators alone."""
    with pytest.raises(NotMeasuredError, match="error 35") as caught:
        cupti.Cupti(Library([], code=35))
    assert "ERR_NVGPUCTRPERM" in str(caught.value)
