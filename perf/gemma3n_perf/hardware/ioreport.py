"""The states of a Mac's GPU by IOReport, in a process of its own: Apple documents none of it, and a fault ends that.

``python -S ioreport.py`` answers each line of standard input with how long the GPU was in each of its states since the
line before, ``{"OFF": 12, "P1": 3}``, and ends with its input. Source of the calls: github.com/vladkens/macmon.
"""

import atexit
import ctypes
import json
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = ("/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation", "/usr/lib/libIOReport.dylib")
CHANNEL = "GPUPH"
TIMEOUT_S = 2.0
_UTF8, _LONGEST = 0x08000100, 128
_REF, _LONG, _INT, _CHARS = ctypes.c_void_p, ctypes.c_long, ctypes.c_int32, ctypes.c_char_p
SIGNATURES: Mapping[str, tuple[Any, ...]] = {  # the result, then the arguments
    "CFStringCreateWithCString": (_REF, _REF, _CHARS, ctypes.c_uint32),
    "CFStringGetCString": (ctypes.c_bool, _REF, _CHARS, _LONG, ctypes.c_uint32),
    "CFDictionaryCreateMutableCopy": (_REF, _REF, _LONG, _REF),
    "CFDictionaryGetValue": (_REF, _REF, _REF),
    "CFArrayGetCount": (_LONG, _REF),
    "CFArrayGetValueAtIndex": (_REF, _REF, _LONG),
    "CFRelease": (None, _REF),
    "IOReportCopyChannelsInGroup": (_REF, _REF, _REF, *(ctypes.c_uint64,) * 3),
    "IOReportCreateSubscription": (_REF, _REF, _REF, ctypes.POINTER(_REF), ctypes.c_uint64, _REF),
    "IOReportCreateSamples": (_REF, _REF, _REF, _REF),
    "IOReportCreateSamplesDelta": (_REF, _REF, _REF, _REF),
    "IOReportChannelGetChannelName": (_REF, _REF),
    "IOReportStateGetCount": (_INT, _REF),
    "IOReportStateGetNameForIndex": (_REF, _REF, _INT),
    "IOReportStateGetResidency": (ctypes.c_int64, _REF, _INT),
}


class GpuStates:
    """A subscription to the GPU's states. ``call`` has the functions of ``SIGNATURES`` as attributes."""

    def __init__(self, call: Any) -> None:
        self._call = call
        found = call.IOReportCopyChannelsInGroup(
            self._string("GPU Stats"), self._string("GPU Performance States"), 0, 0, 0
        )
        self._channels = found and call.CFDictionaryCreateMutableCopy(None, 0, found)
        subscribed = _REF()
        self._subscription = self._channels and call.IOReportCreateSubscription(
            None, self._channels, ctypes.byref(subscribed), 0, None
        )
        if not self._subscription:
            raise OSError("IOReport knows no states of a GPU")
        self._items = self._string("IOReportChannels")
        self._last = self._sample()

    def read(self) -> dict[str, int]:
        """Return the time in each state since the last reading, in ticks of one unknown length. Raises OSError."""
        call, now = self._call, self._sample()
        delta = call.IOReportCreateSamplesDelta(self._last, now, None)
        call.CFRelease(self._last)
        self._last = now
        items = delta and call.CFDictionaryGetValue(delta, self._items)
        if not items:
            raise OSError("IOReport gave no difference")
        states: Counter[str] = Counter()
        for place in range(call.CFArrayGetCount(items)):
            channel = call.CFArrayGetValueAtIndex(items, place)
            if self._text(call.IOReportChannelGetChannelName(channel)) == CHANNEL:
                for number in range(call.IOReportStateGetCount(channel)):
                    name = self._text(call.IOReportStateGetNameForIndex(channel, number))
                    states[name] += call.IOReportStateGetResidency(channel, number)
        call.CFRelease(delta)
        return dict(states)

    def _sample(self) -> Any:
        sample = self._call.IOReportCreateSamples(self._subscription, self._channels, None)
        if not sample:
            raise OSError("IOReport gave no sample")
        return sample

    def _string(self, text: str) -> Any:
        return self._call.CFStringCreateWithCString(None, text.encode(), _UTF8)

    def _text(self, string: Any) -> str:
        buffer = ctypes.create_string_buffer(_LONGEST)
        known = string and self._call.CFStringGetCString(string, buffer, _LONGEST, _UTF8)
        return buffer.value.decode(errors="replace") if known else ""


class Functions:
    """The functions of ``SIGNATURES``, as attributes, from Apple's ``libraries``. Raises OSError, AttributeError."""

    def __init__(self, libraries: tuple[str, str] = LIBRARIES) -> None:
        foundation, report = map(ctypes.CDLL, libraries)
        for name, (result, *arguments) in SIGNATURES.items():
            function = getattr(report if name.startswith("IOReport") else foundation, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


class StatesReader:
    """Reads the GPU's states through a process of its own; None from the first failure on."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def __call__(self) -> Mapping[str, int] | None:
        """Return the time in each state since the last reading, in ticks."""
        if self._ended:
            return None
        try:
            if self._process is None:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                atexit.register(self.close)
            return self._exchange(self._process)
        except (OSError, ValueError, TypeError, AttributeError):  # ended, or no such JSON
            self.close()
            return None

    def _exchange(self, process: subprocess.Popen[bytes]) -> Mapping[str, int]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], TIMEOUT_S)[0]:
            raise TimeoutError("the reader of the GPU's states does not answer")
        states = json.loads(process.stdout.readline())
        return {str(name): int(ticks) for name, ticks in states.items()}

    def close(self) -> None:
        """End the process."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@cache
def states_here() -> Callable[[], Mapping[str, int] | None]:
    """Return the reader of this machine's GPU, one a process; its program is not started before it is called."""
    command = (sys.executable, "-I", "-S", str(Path(__file__)))
    return StatesReader(command) if sys.platform == "darwin" else lambda: None


def main() -> None:
    """Answer until standard input ends."""
    states = GpuStates(Functions())
    for _ in sys.stdin:
        print(json.dumps(states.read()), flush=True)


if __name__ == "__main__":
    main()
