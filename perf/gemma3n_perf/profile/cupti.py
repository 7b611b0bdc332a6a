"""CUPTI's activity records through ctypes: when each kernel and copy ran on the GPU, by the GPU's own clock.

``main`` is a process that decodes under CUPTI and prints what the GPU did, as one line of JSON: see ``trace.by_cupti``.

A busy share that is sampled a few times a second cannot tell a gap of microseconds; the records can. They are taken in
a process of their own, since a callback into Python from a driver's thread is no place to take chances with.

Source: cupti_activity.h of CUDA 13. The records of kernels (all versions since 4), copies and fills differ, but begin
alike. Not by cupti-python: four calls and two fields are not worth its 34 MB, four packages and NVIDIA's own licence.
"""

import ctypes
import glob
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gemma3n_perf.errors import NotMeasuredError

MEMCPY, MEMSET, KERNEL, CONCURRENT_KERNEL = 1, 2, 3, 10
_BUFFER_BYTES = 32 << 20
_FORCED = 1
_LONGEST_NS = 10_000_000_000
_IN_PACKAGES = ("nvidia/cu[0-9]*/lib/libcupti.so*", "nvidia/cuda_cupti/lib/libcupti.so*")
_NAMES = ("libcupti.so.13", "libcupti.so.12", "libcupti.so")


class Activity(NamedTuple):
    """One kernel, copy or fill: ``start`` and ``end`` in nanoseconds of the GPU's clock."""

    kind: int
    start: int
    end: int


def busy(found: Iterable[Activity]) -> tuple[float, float, int]:
    """Return the seconds in which anything ran, the seconds from first to last, and how many kernels there were.

    Activities that overlap are joined. Raises NotMeasuredError for none, or for records that no GPU can have made.
    """
    ordered = sorted(found, key=lambda one: one.start)
    if not ordered:
        raise NotMeasuredError("CUPTI recorded nothing", expected="a record of every kernel")
    if any(not 0 < one.start <= one.end or one.end - one.start > _LONGEST_NS for one in ordered):
        raise NotMeasuredError(
            "CUPTI's records do not read as times", expected="start before end: another layout of the record"
        )
    kinds, starts, ends = np.array(ordered).T
    last = np.maximum.accumulate(ends)
    span, idle = int(last[-1] - starts[0]), int(np.maximum(starts[1:] - last[:-1], 0).sum())
    return (span - idle) / 1e9, span / 1e9, int(np.isin(kinds, (KERNEL, CONCURRENT_KERNEL)).sum())


def packaged(folders: Sequence[str]) -> list[str]:
    """Return the libraries that NVIDIA's Python packages brought into ``folders``, newest first."""
    pairs = ((folder, pattern) for folder in dict.fromkeys(folders) for pattern in _IN_PACKAGES)
    return [path for pair in pairs for path in sorted(glob.glob(os.path.join(*pair)), reverse=True)]


class _Record(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint32), ("differing", ctypes.c_uint32 * 3), ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
    )  # fmt: skip


class Cupti:
    """Records activities from its making on; make it before CUDA is used, so that no graph predates it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._buffers: dict[int, Any] = {}
        self._activities: list[Activity] = []
        size, pointer = ctypes.c_size_t, ctypes.POINTER
        requested = ctypes.CFUNCTYPE(None, pointer(ctypes.c_void_p), pointer(size), pointer(size))
        completed = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, size, size)
        self._callbacks = requested(self._give), completed(self._take)  # kept alive as long as CUPTI may call them
        library.cuptiActivityGetNextRecord.argtypes = (ctypes.c_void_p, size, ctypes.c_void_p)
        self._check(library.cuptiActivityRegisterCallbacks(*self._callbacks), "register callbacks")
        for kind in (CONCURRENT_KERNEL, MEMCPY, MEMSET):
            self._check(library.cuptiActivityEnable(kind), f"record activities of kind {kind}")

    @classmethod
    def open(cls) -> "Cupti":
        """Load the likeliest library and start recording. Raises NotMeasuredError saying what was tried."""
        toolkits = sorted(glob.glob("/usr/local/cuda*/**/libcupti.so*", recursive=True), reverse=True)
        for name in (*packaged(sys.path), *toolkits, *_NAMES):
            try:
                return cls(ctypes.CDLL(name))
            except OSError as error:
                last = error
        raise NotMeasuredError(
            f"no CUPTI library could be loaded: {last}"[:300],
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
        buffer[0], size[0], most[0] = address, _BUFFER_BYTES, 0

    def _take(self, context: Any, stream: int, buffer: int, size: int, valid: int) -> None:
        record = ctypes.POINTER(_Record)()
        following = self._library.cuptiActivityGetNextRecord
        while valid and following(buffer, valid, ctypes.byref(record)) == 0 and record:
            one = record.contents
            if one.kind in (CONCURRENT_KERNEL, KERNEL, MEMCPY, MEMSET):
                self._activities.append(Activity(one.kind, one.start, one.end))
        self._buffers.pop(buffer, None)

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            raise NotMeasuredError(
                f"CUPTI cannot {what}: error {code}",
                expected="a driver that lets this user profile, and no other profiler in this process",
                remedy="see NVIDIA's ERR_NVGPUCTRPERM, or run where the driver allows it",
            )


class TraceRequest(msgspec.Struct, frozen=True):
    """What to decode: ``blocks`` of ``tokens`` each. ``source`` is a preset, folder or hub id; ``root`` the forged."""

    workload: str
    source: str
    root: str
    blocks: int
    tokens: int


class Recorded(msgspec.Struct, frozen=True):
    """Per block, seconds and kernels; or ``error``."""

    busy_s: tuple[float, ...] = ()
    span_s: tuple[float, ...] = ()
    kernels: tuple[int, ...] = ()
    error: str | None = None


def record(request: TraceRequest) -> Recorded:
    """Decode and read the records of every block. Raises what loading raises, NotMeasuredError.

    Recording starts before MLX is imported, for CUDA graphs that were made before are not recorded node by node.
    """
    cupti = Cupti.open()
    import mlx.core as mx

    from gemma3n_perf.decode.device import MlxDevice
    from gemma3n_perf.profile.subject import Subject
    from gemma3n_perf.workload import load
    from gemma3n_perf.workload.workload import Workload

    workload, checkpoint = Workload.parse(request.workload), load.inspect(request.source, Path(request.root))
    towers = workload.modality == "image"
    decoder, engine = Subject(
        workload, checkpoint, request.tokens, lambda: towers, time.perf_counter, MlxDevice(), lambda text: None
    ).prepared()
    found = []
    for block in range(request.blocks + 1):
        token, _ = decoder.bare_start()
        mx.synchronize()
        cupti.collect()  # what rewinding copies is no part of a token
        for _ in range(request.tokens):
            last, token = token, engine.step(token)
            mx.async_eval(token)
            last.item()
        token.item()
        mx.synchronize()
        taken = cupti.collect()
        if block:  # the first one warms
            found.append(busy(taken))
    busy_s, span_s, kernels = zip(*found, strict=True)
    return Recorded(busy_s, span_s, kernels)


def main() -> None:
    """Read a request from the first argument, print what was recorded."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the result
    try:
        found = record(msgspec.json.decode(sys.argv[1].encode(), type=TraceRequest))
    except Exception as error:
        found = Recorded(error=f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
    print(msgspec.json.encode(found).decode(), file=out)
