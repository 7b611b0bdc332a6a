"""pytest's side of the suite."""

import sys

from gemma3n_perf.errors import OutOfMemoryError, UsageError
from gemma3n_perf.hardware.limits import absolute_cache, require_counts, require_memory

try:
    require_memory()
    require_counts()
    absolute_cache()
except (OutOfMemoryError, UsageError) as error:
    # Before any hook: importing them brings numpy along. pytest passes no other exception on without a traceback.
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code) from None
