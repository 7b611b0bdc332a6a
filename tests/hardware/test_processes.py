import os
import subprocess
import sys
import threading
import time

from gemma3n_perf.hardware import processes, trees

GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"])
print(child.pid, flush=True)
child.wait()
"""


def test_the_tree_holds_children_and_grandchildren() -> None:
    """A worker's own helpers are measured with it."""
    child = subprocess.Popen([sys.executable, "-c", GRANDCHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    try:
        assert {os.getpid(), child.pid, grandchild} <= processes.tree(os.getpid())
        assert processes.tree(child.pid) == {child.pid, grandchild}
        if sys.platform == "linux":
            # What kernels without a list of children have to go by.
            assert processes.scanned_tree(child.pid) == {child.pid, grandchild}
            assert {child.pid, grandchild} <= processes.scanned_tree(os.getpid())
    finally:
        child.communicate(b"\n")
    assert processes.tree(child.pid) == {child.pid}


def test_cpu_seconds_are_those_of_the_process() -> None:
    """They agree with what Python reports of itself, finer than the kernel's ticks."""
    before, reported_before = processes.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < reported_before + 0.05:
        sum(range(1000))
    after, reported = processes.cpu_seconds(os.getpid()), time.process_time()
    assert before is not None
    assert after is not None
    assert abs((after - before) - (reported - reported_before)) < 0.005


def test_a_reaped_childs_time_stays_with_its_parent() -> None:
    """A compiler we ran ourselves is not foreign after it has ended."""
    before = processes.cpu_seconds(os.getpid())
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    after = processes.cpu_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 0.19


def test_a_living_childs_time_is_its_trees() -> None:
    """On Linux; what it was left to do by one that never waits for it counts."""
    spin = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ntime.sleep(60)"
    before = trees.tree_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = trees.tree_seconds(os.getpid())
        child.kill()
    assert before is not None
    assert after is not None
    assert after - before > (0.19 if sys.platform == "linux" else -1.0)


def test_a_process_that_is_gone_has_no_time_and_no_leader() -> None:
    """Both are unknown, not zero."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert processes.cpu_seconds(child.pid) is None
    assert processes.leader(child.pid) is None


def test_a_threads_leader_is_its_process() -> None:
    """Drivers have been seen to answer with thread ids."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert processes.leader(os.getpid()) == os.getpid()
        if sys.platform == "linux":
            assert thread.native_id is not None
            assert processes.leader(thread.native_id) == os.getpid()
    finally:
        done.set()
        thread.join()
