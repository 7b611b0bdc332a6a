"""CUPTI's activity records through ctypes: when each kernel and copy ran on the GPU, by the GPU's own clock.

Opinion: a busy share that is sampled a few times a second cannot tell a gap of microseconds; the records can. They are
taken in a process of their own, since a callback into Python from a driver's thread is no place to take chances with.

Source: cupti_activity.h of CUDA 13. The records of kernels (all versions since 4), copies and fills differ, but each
has ``start`` and ``end`` in nanoseconds at bytes 16 and 24, after its kind.
"""

import ctypes
import glob
import os
import site
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gemma3n_perf.errors import NotMeasuredError

MEMCPY, MEMSET, KERNEL, CONCURRENT_KERNEL = 1, 2, 3, 10
_START, _END = 16, 24
_BUFFER_BYTES = 32 << 20
_FORCED = 1
_LONGEST_NS = 10_000_000_000
_NAMES = ("libcupti.so.13", "libcupti.so.12", "libcupti.so")


@dataclass(frozen=True, slots=True)
class Activity:
    """One kernel, copy or fill: ``start`` and ``end`` in nanoseconds of the GPU's clock."""

    kind: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Busy:
    """A stretch of work: seconds in which anything ran, seconds from first to last, and how many kernels."""

    busy_s: float
    span_s: float
    kernels: int


def busy(found: Iterable[Activity]) -> Busy:
    """Join activities that overlap. Raises NotMeasuredError for none, or for records that no GPU can have made."""
    ordered = sorted(found, key=lambda one: one.start)
    if not ordered:
        raise NotMeasuredError("CUPTI recorded nothing", expected="a record of every kernel")
    if any(not 0 < one.start <= one.end or one.end - one.start > _LONGEST_NS for one in ordered):
        raise NotMeasuredError(
            "CUPTI's records do not read as times", expected="start before end: another layout of the record"
        )
    total, begin, end = 0, ordered[0].start, ordered[0].end
    for one in ordered[1:]:
        if one.start > end:
            total, begin, end = total + end - begin, one.start, one.end
        end = max(end, one.end)
    total += end - begin
    kernels = sum(one.kind in (KERNEL, CONCURRENT_KERNEL) for one in ordered)
    return Busy(total / 1e9, (end - ordered[0].start) / 1e9, kernels)


def candidates(folders: Sequence[str] | None = None) -> list[str]:
    """Paths and names to try, likeliest first: NVIDIA's Python packages, then CUDA's folders, then the linker's."""
    places = folders if folders is not None else [*site.getsitepackages(), *sys.path]
    found = [
        path
        for place in dict.fromkeys(places)
        for pattern in ("nvidia/cu[0-9]*/lib/libcupti.so*", "nvidia/cuda_cupti/lib/libcupti.so*")
        for path in sorted(glob.glob(os.path.join(place, pattern)), reverse=True)
    ]
    if folders is None:
        found += sorted(glob.glob("/usr/local/cuda*/**/libcupti.so*", recursive=True), reverse=True)
        found += _NAMES
    return list(dict.fromkeys(found))


class Cupti:
    """Records activities from its making on; make it before CUDA is used, so that no graph predates it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._buffers: dict[int, Any] = {}
        self._activities: list[Activity] = []
        requested = ctypes.CFUNCTYPE(
            None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
        )
        completed = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
        )
        self._requested = requested(self._give)
        self._completed = completed(self._take)
        library.cuptiActivityGetNextRecord.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p),
        )  # fmt: skip
        self._check(library.cuptiActivityRegisterCallbacks(self._requested, self._completed), "register callbacks")
        for kind in (CONCURRENT_KERNEL, MEMCPY, MEMSET):
            self._check(library.cuptiActivityEnable(kind), f"record activities of kind {kind}")

    @classmethod
    def open(cls) -> "Cupti":
        """Load the library and start recording. Raises NotMeasuredError saying what was tried."""
        tried = []
        for name in candidates():
            try:
                return cls(ctypes.CDLL(name))
            except OSError as error:
                tried.append(str(error))
        raise NotMeasuredError(
            f"no CUPTI library could be loaded: {tried[-1] if tried else 'none was found'}"[:300],
            expected="libcupti.so, as in the package nvidia-cuda-cupti or the CUDA toolkit",
            remedy="pip install nvidia-cuda-cupti",
        )

    def collect(self) -> list[Activity]:
        """Flush, and return what was recorded since the last call. Wait for the device before."""
        self._check(self._library.cuptiActivityFlushAll(_FORCED), "flush")
        found, self._activities = self._activities, []
        return found

    def _give(self, buffer: Any, size: Any, most: Any) -> None:
        made = ctypes.create_string_buffer(_BUFFER_BYTES + 8)
        address = (ctypes.addressof(made) + 7) & ~7
        self._buffers[address] = made
        buffer[0] = address
        size[0] = _BUFFER_BYTES
        most[0] = 0

    def _take(self, context: Any, stream: int, buffer: int, size: int, valid: int) -> None:
        record = ctypes.c_void_p()
        next_record = self._library.cuptiActivityGetNextRecord
        while valid and next_record(buffer, valid, ctypes.byref(record)) == 0 and record.value:
            at = record.value
            kind = ctypes.c_uint32.from_address(at).value
            if kind in (CONCURRENT_KERNEL, KERNEL, MEMCPY, MEMSET):
                start = ctypes.c_uint64.from_address(at + _START).value
                end = ctypes.c_uint64.from_address(at + _END).value
                self._activities.append(Activity(kind, start, end))
        self._buffers.pop(buffer, None)

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            raise NotMeasuredError(
                f"CUPTI cannot {what}: error {code}",
                expected="a driver that lets this user profile, and no other profiler in this process",
                remedy="see NVIDIA's ERR_NVGPUCTRPERM, or run where the driver allows it",
            )
