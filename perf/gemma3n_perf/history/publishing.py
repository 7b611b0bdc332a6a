"""asv's site in one folder: published from staged results, made to load nothing from outside, with our regressions.

Opinion: asv decides what its pages look like, and nothing else. What counts as a regression is decided here, with the
noise floor of the class, and written where asv's pages read it.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.history.asv_files import TIME
from gemma3n_perf.history.series import Series

_PUBLISH_S = 1800.0
_VENDOR = Path(__file__).resolve().parents[1] / "report" / "vendor"
_SCRIPT = re.compile(r'<script src="https?://[^"]*/([^"/]+)"[^>]*></script>')
_STYLE = re.compile(r'<link rel="stylesheet" href="https?://[^"]*/([^"/]+)"[^>]*>')
_LOADS = re.compile(r'(?:src|href)="(?:https?:)?//[^"]*"')
_LOCAL = {
    "jquery-3.3.1.min.js": "jquery.min.js",
    "jquery.flot.min.js": "jquery.flot.js",
    "jquery.flot.time.min.js": "jquery.flot.time.js",
    "jquery.flot.selection.min.js": "jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "jquery.flot.categories.js",
    "stupidtable.min.js": "stupidtable.js",
}
# asv's own style sheets fix light colours on every element; turning the picture round is the dark page it lacks.
_DARK = (
    "<style>@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(0.92) hue-rotate(180deg); } }"
    "\na:focus-visible, button:focus-visible { outline: 3px solid #1a66c2; }</style>\n  </head>"
)

_LAND = "</title>\n    <script>if (/^#?\\/?$/.test(location.hash)) { location.hash = '#/summarylist'; }</script>"


def publish(configuration: Path, html: Path, run: Run) -> None:
    """Run ``asv publish`` with a configuration file. Raises NotMeasuredError with asv's last words."""
    argv = ("env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}", sys.executable, "-m", "asv")
    done = run((*argv, "publish", "--no-pull", "--config", str(configuration), "--html-dir", str(html)), _PUBLISH_S)
    if done.code != 0 or not (html / "index.json").is_file():
        raise NotMeasuredError(
            f"asv publish failed: {done.last_output}",
            expected="a folder of pages",
            remedy=f"run it alone: asv publish --config {configuration}",
        )


def settle(html: Path, home: str) -> None:
    """Make asv's pages load nothing but what lies beside them; ``home`` is where their title leads."""
    shutil.copytree(_VENDOR, html / "vendor", dirs_exist_ok=True)
    index = html / "index.html"
    page = _SCRIPT.sub(lambda match: f'<script src="vendor/{_local(match[1])}"></script>', index.read_text())
    page = _STYLE.sub(lambda match: f'<link rel="stylesheet" href="vendor/{_local(match[1])}">', page)
    page = re.sub(r'<a href="https?://[^"]*"([^>]*)target="_blank">', rf'<a href="{home}"\1>', page)
    page = page.replace('"#" class="navbar-link" target="_blank"', f'"{home}" class="navbar-link"')
    page = page.replace("<html>", '<html lang="en">', 1).replace("</head>", _DARK.removesuffix("\n"), 1)
    # The grid draws one mean over machines and workloads, so a class that joins later looks like a step.
    page = page.replace('<li id="nav-li-" class="active"><a href="#/">Benchmark grid</a></li>', "", 1)
    page = page.replace("</title>", _LAND, 1)
    outside = _LOADS.findall(page)
    if outside:
        raise NotMeasuredError(
            f"asv's page still loads {outside[0]}",
            expected="every script and style beside the page",
            remedy="add it to gemma3n_perf/report/vendor; asv has changed its pages",
        )
    index.write_text(page)
    error = html / "error.html"
    if error.is_file():
        error.write_text(error.read_text().replace("external (JavaScript)", "JavaScript"))


def write_regressions(html: Path, listed: Sequence[Series]) -> int:
    """Put our regressions where asv's pages read them; returns how many. Steps that a duel refuted are left out."""
    from asv.graph import Graph  # asv takes a moment to import

    index: dict[str, Any] = json.loads((html / "index.json").read_bytes())
    revisions = {commit: int(revision) for revision, commit in index["revision_to_hash"].items()}
    described = index["benchmarks"].get(TIME)
    rows: list[list[Any]] = []
    for one in listed:
        jumps = [
            [_left(one, found.before, found.after, revisions), revisions[found.after], found.step.before_s,
             found.step.after_s]
            for found in one.found
            if found.step.slower and found.standing != "refuted"
            and found.before in revisions and found.after in revisions
        ]  # fmt: skip
        if not jumps or described is None or repr(one.workload) not in described["params"][0]:
            continue
        values = [point.value.result for point in one.points if point.value.result is not None]
        best = min(found.step.before_s for found in one.found)
        last = one.found[-1].step.after_s if one.found else values[-1]
        for graph in index["graph_param_list"]:
            if graph.get("machine") != one.chip_class:
                continue
            shown = {name: value for name, value in graph.items() if len(index["params"].get(name, ())) > 1}
            path = Graph.get_file_path(graph, TIME) + ".json"
            entry = f"{TIME}({one.workload!r})"
            place = described["params"][0].index(repr(one.workload))
            rows.append([entry, path, shown, place, last, best, jumps])
    (html / "regressions.json").write_text(json.dumps({"regressions": rows}))
    return len(rows)


def _left(one: Series, before: str, after: str, revisions: dict[str, int]) -> int | None:
    # asv's pages take None for "exactly this commit", else the last good one of a range.
    return None if revisions[after] - revisions[before] == 1 else revisions[before]


def _local(name: str) -> str:
    return _LOCAL.get(name, name)
