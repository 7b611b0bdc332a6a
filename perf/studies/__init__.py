"""What the method rests on: ``python -m studies.NAME``, from perf/. Not in the wheel."""

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from gemma3n_perf.errors import PerfError


def carry_out(main: Callable[[Sequence[str], TextIO], int]) -> int:
    """Run a study's command line and return its exit code; a named error becomes its text."""
    try:
        return main(sys.argv[1:], sys.stdout)
    except PerfError as error:
        print(error, file=sys.stderr)
        return error.exit_code
