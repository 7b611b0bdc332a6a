"""The reports that the golden files show, and how they are compared."""

from pathlib import Path

from gemma3n_perf.bench.table import Report, Row
from gemma3n_perf.stats.verdicts import Caution, Verdict
from gemma3n_perf.store.published import Figure, Publication, PublishedFigure

GOLDEN = Path(__file__).parent / "golden"

FIGURE = Figure("Apple M1 Ultra", None, "mlxcel", "e2b-4bit", "text", 83.1, 83.1, "raw", "section 1")
SOURCE = Publication(1, "p", "lablup/mlxcel #345", "https://example.org", "June 2026", "x", {"raw": "x"}, (FIGURE,))

FULL = Report(
    heading="Apple M1 Ultra, 64 GPU cores (apple-m1-ultra-64gpu): mlx 0.32.4, mlx-vlm 0.7.10, commit 0123456789ab",
    rows=(
        Row(
            "e2b-4bit/text/pp320-tg96", 83.06, (82.41, 83.7), 0.01204, 0.312, 0.28, -0.0213, (-0.0301, -0.0122),
            Verdict.LOSS, differs=("graph: +30 Transpose",),
        ),
        Row(
            "e2b-4bit/image/pp320-tg96", 79.9, (79.0, 80.8), 0.01252, 1.3119, 0.27, 0.0004, (-0.0031, 0.0042),
            Verdict.NO_CHANGE,
        ),
        Row(
            "e4b-4bit/text/pp320-tg96", 64.85, (64.2, 65.5), 0.01542, 0.498, 0.41, 0.0314, (0.0187, 0.0442),
            Verdict.WIN, differs=("mlx 0.32.3 -> 0.32.4",),
        ),
        Row(
            "e4b-4bit/image/pp320-tg96", 58.7, (55.1, 62.3), 0.01704, 2.01, 0.37, 0.004, (-0.058, 0.066),
            Verdict.INCONCLUSIVE, "smallest change this could have shown: 6.1 %",
        ),
        Row("e4b-bf16/text/pp320-tg96", 1204.2, (1190.0, 1218.0), 0.00083, verdict=Verdict.NOT_MEASURED),
        Row("nano/text/pp40-tg64", verdict=Verdict.INVALID, note="greedy tokens differ"),
    ),
    cautions=(
        Caution(
            "x", "3 of 23 runs were discarded: steal above 5 %", "close what else runs on this machine, then repeat",
        ),
        Caution("y", "the noise floor of this chip class is missing", "gemma3n-perf calibrate"),
    ),
    references=(("e2b-4bit/text", PublishedFigure(SOURCE, FIGURE)),),
    against="ref:0123456789ab (the last release, v1.0); choose another with --against ARM",
)  # fmt: skip

UNCOMPARED = Report(
    heading="Fake CPU (cpu-fake-2c)",
    rows=(Row("nano/text/pp40-tg64", 98.6, (97.9, 99.2), 0.01014, 0.041, 0.12),),
    planted=0.125,
)


def golden(name: str) -> str:
    """Return the text of a golden file."""
    return (GOLDEN / name).read_text(encoding="utf-8")
