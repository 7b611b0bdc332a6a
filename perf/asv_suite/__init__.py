"""asv's benchmarks: an adapter over the harness that ``pytest perf/`` uses. Only ``decode.py`` holds benchmarks."""

import importlib.util
import sys
from pathlib import Path

# A workload that cannot be measured says why, in one line and not in a traceback of asv's own files.
sys.tracebacklimit = 0

# asv starts a process without PYTHONPATH, and a checkout need not be installed.
if importlib.util.find_spec("gemma3n_perf") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
