"""``python3 -m gemma3n_perf.ci``, for jobs that have nothing installed."""

import sys

from gemma3n_perf.ci.cli import main
from gemma3n_perf.report.output import tolerant

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], tolerant(sys.stdout), tolerant(sys.stderr)))
