"""Processes whose own parent has ended, taken in for real."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, subprocess, sys, time
from gemma3n_perf.hardware.strays import Strays
before = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
strays = Strays()
ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(60)
    os._exit(0)
os.waitpid(child, 0)
stray = int(os.read(read, 20))
found = strays.end([ours.pid])
time.sleep(0.2)
print(len(found), before.poll(), ours.poll(), os.waitpid(stray, 0)[1], strays.end([]))
before.kill()
ours.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone hands them on")
def test_what_is_left_behind_is_found_and_ended() -> None:
    """And nothing else: neither what was started before nor what is named."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("1 None None 9 []\n", "")
