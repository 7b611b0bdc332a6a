import ctypes
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.hardware import ioreport

# What the reader calls, on the shapes that Apple's libraries give it: strings, a dictionary of one array of channels.
# Every reference handed out is counted, so that a reader which lets one go twice, or never, is found out.
STAND_IN = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef struct { int kind; char text[64]; long first, second; } thing;
static long samples, alive;
static thing *made(int kind, const char *text) {
    thing *one = calloc(1, sizeof *one); one->kind = kind; strncpy(one->text, text, 63); alive++; return one;
}
void *CFStringCreateWithCString(void *allocator, const char *text, uint32_t encoding) {
    return encoding == 0x08000100 ? made(1, text) : NULL;
}
_Bool CFStringGetCString(thing *string, char *buffer, long size, uint32_t encoding) {
    if (string->kind != 1 || (long)strlen(string->text) >= size) return 0;
    strcpy(buffer, string->text); return 1;
}
void *CFDictionaryCreateMutableCopy(void *allocator, long capacity, thing *one) {
    return one->kind == 2 ? made(2, "") : NULL;
}
void *CFDictionaryGetValue(thing *one, thing *key) {
    return one->kind == 3 && !strcmp(key->text, "IOReportChannels") ? one : NULL;
}
long CFArrayGetCount(thing *one) { return one->kind == 3 ? 2 : -1; }
static thing channels[2] = {{4, "GPU_THING"}, {4, "GPUPH"}};
void *CFArrayGetValueAtIndex(thing *one, long place) { channels[place].first = one->first; return &channels[place]; }
void CFRelease(thing *one) { one->kind = 0; alive--; free(one); }
void *IOReportCopyChannelsInGroup(thing *group, thing *subgroup, uint64_t a, uint64_t b, uint64_t c) {
    return strcmp(group->text, "GPU Stats") || strcmp(subgroup->text, "GPU Performance States") || a || b || c
        ? NULL : made(2, "");
}
void *IOReportCreateSubscription(void *a, thing *channels, void **subscribed, uint64_t id, void *b) {
    *subscribed = channels; return channels->kind == 2 ? made(5, "") : NULL;
}
void *IOReportCreateSamples(thing *subscription, thing *channels, void *a) {
    thing *one = subscription->kind == 5 && channels->kind == 2 ? made(6, "") : NULL;
    if (one) one->first = ++samples * 5000000000;
    return one;
}
void *IOReportCreateSamplesDelta(thing *before, thing *after, void *a) {
    thing *one = before->kind == 6 && after->kind == 6 ? made(3, "") : NULL;
    if (one) one->first = after->first - before->first;
    return one;
}
static thing names[4] = {{1, "GPU_THING"}, {1, "GPUPH"}, {1, "OFF"}, {1, "P1"}};
void *IOReportChannelGetChannelName(thing *channel) { return &names[channel == &channels[1]]; }
int32_t IOReportStateGetCount(thing *channel) { return 2; }
void *IOReportStateGetNameForIndex(thing *channel, int32_t number) { return &names[2 + number]; }
int64_t IOReportStateGetResidency(thing *channel, int32_t number) { return number ? channel->first : 7; }
long references(void) { return alive; }
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the stand-in for Apple's two libraries, which are on no other system; skipped without a compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("ioreport")
    source, library = folder / "stand_in.c", folder / "stand_in.so"
    source.write_text(STAND_IN)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    return str(library)


def test_states_are_those_of_the_gpus_channel_since_the_last_reading(stand_in: str) -> None:
    """Times of more than 32 bits arrive whole, and no reference is left behind or let go twice."""
    references: Any = ctypes.CDLL(stand_in).references
    states = ioreport.GpuStates(ioreport.Functions((stand_in, stand_in)))
    first, alive = states.read(), references()
    assert first == {"OFF": 7, "P1": 5_000_000_000}
    assert states.read() == first
    assert references() == alive


class Broken:
    """Apple's functions, of which one gives nothing."""

    def __init__(self, name: str, functions: ioreport.Functions) -> None:
        self._name, self._functions = name, functions

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name == self._name else getattr(self._functions, name)


@pytest.mark.parametrize(
    "name",
    [
        "IOReportCopyChannelsInGroup",
        "IOReportCreateSubscription",
        "IOReportCreateSamples",
        "IOReportCreateSamplesDelta",
        "CFDictionaryGetValue",
    ],
)
def test_a_call_that_gives_nothing_is_an_error_and_no_crash(stand_in: str, name: str) -> None:
    """Null is followed nowhere."""
    with pytest.raises(OSError, match="IOReport"):
        ioreport.GpuStates(Broken(name, ioreport.Functions((stand_in, stand_in)))).read()


def reader(code: str) -> ioreport.StatesReader:
    """Return a reader of a program with this code."""
    return ioreport.StatesReader((sys.executable, "-c", code))


@pytest.fixture
def answers() -> Iterator[ioreport.StatesReader]:
    """A reader of a program that counts its answers."""
    code = "import sys\nfor n, _ in enumerate(sys.stdin): print('{\"OFF\": %d}' % n, flush=True)"
    found = reader(code)
    yield found
    found.close()


def test_a_reader_asks_its_program_again_and_again(answers: ioreport.StatesReader) -> None:
    """One program for all readings, started with the first."""
    assert [answers() for _ in range(3)] == [{"OFF": 0}, {"OFF": 1}, {"OFF": 2}]


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "input(); print('no JSON', flush=True); input()",
        "input(); print('[1]', flush=True); input()",
        'input(); print(\'{"OFF": "many"}\', flush=True); input()',
        "input(); print('{\"OFF\": null}', flush=True); input()",
    ],
)
def test_a_program_that_fails_ends_nothing_but_itself(code: str) -> None:
    """It is unknown then, and stays so: it is not started again."""
    found = reader(code)
    assert (found(), found()) == (None, None)


def test_a_program_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not wait for it."""
    monkeypatch.setattr(ioreport, "TIMEOUT_S", 0.1)
    began, found = time.monotonic(), reader("import time; time.sleep(60)")
    assert found() is None
    assert time.monotonic() - began < 10


def test_the_program_itself_ends_where_there_is_no_ioreport() -> None:
    """It needs nothing but the standard library, and is started so."""
    if sys.platform == "darwin":
        pytest.skip("it is there")
    command = [sys.executable, "-I", "-S", str(Path(ioreport.__file__))]
    done = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr
