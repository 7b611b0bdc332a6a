"""asv's site in one folder: published from results, made to load nothing from outside, with our regressions.

asv decides what its pages look like, and nothing else. What counts as a regression is decided here, with the noise
floor of the class, and written where asv's pages read it.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import RATE, TIME
from gemma3n_perf.history.results import ResultFile
from gemma3n_perf.history.series import Series

_PUBLISH_S = 1800.0
_VENDOR = Path(__file__).parent / "vendor"
_SCRIPT = re.compile(r'<script src="https?://[^"]*/([^"/]+)"[^>]*></script>')
_STYLE = re.compile(r'<link rel="stylesheet" href="https?://[^"]*/([^"/]+)"[^>]*>')
_LOADS = re.compile(r'(?:src|href)="(?:https?:)?//[^"]*"')
# asv's own style sheets fix light colours on every element; turning the picture round is the dark page it lacks.
_DARK = (
    "<style>@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(0.92) hue-rotate(180deg); } }"
    "\na:focus-visible, button:focus-visible { outline: 3px solid #1a66c2; }</style>\n  </head>"
)
_LAND = "</title>\n    <script>if (/^#?\\/?$/.test(location.hash)) { location.hash = '#/summarylist'; }</script>"

# asv's legend lists every combination of machine and workload, measured or not.
_DRAWN = "                    orig_graphs.push({\n"
_IF_MEASURED = "                    if (!series.some((point) => point[1] !== null)) { return; }\n"


def publish(
    project: str,
    repo: Path,
    branches: Sequence[str],
    files: Iterable[ResultFile],
    machines: Iterable[Mapping[str, str]],
    html: Path,
    run: Run,
    front: str = "../index.html",
) -> None:
    """Publish results of commits on ``branches`` of ``repo`` into ``html``, which loads nothing from elsewhere.

    ``front`` is the page that their title leads to.

    asv never meets a file but these: its own reader stops at one that it cannot read. Raises NotMeasuredError with
    asv's last output, DiskFullError.
    """
    work = html.with_name(f".{html.name}.work")
    asv_files.write(work / "results", files, machines)
    configuration = work / "asv.conf.json"
    configuration.write_bytes(asv_configuration(project, repo, branches, work / "results", html))
    argv = ("env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}", sys.executable, "-m", "asv")
    done = run((*argv, "publish", "--no-pull", "--config", str(configuration), "--html-dir", str(html)), _PUBLISH_S)
    if done.code != 0 or not (html / "index.json").is_file():
        raise NotMeasuredError(
            f"asv publish failed: {done.last_output}",
            expected="a folder of pages",
            remedy=f"run it alone: asv publish --config {configuration}",
        )
    shutil.rmtree(work)
    settle(html, front)


def asv_configuration(project: str, repo: Path, branches: Sequence[str], results: Path, html: Path) -> bytes:
    """Return an ``asv.conf.json`` for publishing ``results`` into ``html``."""
    document = {
        "version": 1,
        "project": project,
        "repo": str(repo.resolve()),
        "branches": list(branches),
        "benchmark_dir": ".",
        "results_dir": str(results.resolve()),
        "html_dir": str(html.resolve()),
        "environment_type": "existing",
        "regressions_first_commits": {rf"{re.escape(RATE)}.*": None},
    }
    return json.dumps(document, indent=4).encode() + b"\n"


def settle(html: Path, front: str) -> None:
    """Make asv's pages load nothing but what lies beside them; ``front`` is the page that their title leads to."""
    shutil.copytree(_VENDOR, html / "vendor", dirs_exist_ok=True)
    index = html / "index.html"
    page = index.read_text(encoding="utf-8")
    page = _SCRIPT.sub(lambda match: f'<script src="vendor/{_local(match)}"></script>', page)
    page = _STYLE.sub(lambda match: f'<link rel="stylesheet" href="vendor/{_local(match)}">', page)
    page = re.sub(r'<a href="https?://[^"]*"([^>]*)target="_blank">', rf'<a href="{front}"\1>', page)
    page = page.replace('"#" class="navbar-link" target="_blank"', f'"{front}" class="navbar-link"')
    page = page.replace("<html>", '<html lang="en">', 1).replace("</head>", _DARK, 1)
    # The grid draws one mean over machines and workloads, so a class that joins later looks like a step.
    page = page.replace('<li id="nav-li-" class="active"><a href="#/">Benchmark grid</a></li>', "", 1)
    page = page.replace("</title>", _LAND, 1)
    if outside := _LOADS.findall(page):
        raise NotMeasuredError(
            f"asv's page still loads {outside[0]}",
            expected="every script and style beside the page",
            remedy=f"add it to {_VENDOR.parent.name}/{_VENDOR.name} of gemma3n_perf; asv has changed its pages",
        )
    index.write_text(page, encoding="utf-8")
    graphs = html / "graphdisplay.js"
    if graphs.is_file():
        script = graphs.read_text(encoding="utf-8")
        if _DRAWN not in script:
            raise NotMeasuredError(
                f"{graphs.name} of asv has changed", expected=f"the line {_DRAWN.strip()}", remedy="read asv again"
            )
        graphs.write_text(script.replace(_DRAWN, _IF_MEASURED + _DRAWN, 1), encoding="utf-8")
    error = html / "error.html"
    if error.is_file():
        error.write_bytes(error.read_bytes().replace(b"external (JavaScript)", b"JavaScript"))


def write_regressions(html: Path, listed: Sequence[Series]) -> None:
    """Put our regressions where asv's pages read them. Steps that a duel refuted are left out."""
    from asv.graph import Graph  # asv takes a moment to import

    index: dict[str, Any] = json.loads((html / "index.json").read_bytes())
    place = {commit: int(revision) for revision, commit in index["revision_to_hash"].items()}
    shown = index["benchmarks"][TIME]["params"][0] if TIME in index["benchmarks"] else []
    rows: list[list[Any]] = []
    for one in listed:
        jumps = [
            # asv's pages take None for "exactly this commit", else the last good one of a range.
            [None if place[step.after] - place[step.before] == 1 else place[step.before], place[step.after],
             step.change.before_s, step.change.after_s]
            for step in one.steps
            if step.change.slower and step.standing != "refuted" and {step.before, step.after} <= place.keys()
        ]  # fmt: skip
        workload = repr(one.workload)
        for graph in index["graph_param_list"] if jumps and workload in shown else ():
            if graph.get("machine") == one.chip_class:
                path = Graph.get_file_path(graph, TIME) + ".json"
                axes = {name: value for name, value in graph.items() if len(index["params"].get(name, ())) > 1}
                last, best = one.steps[-1].change.after_s, min(step.change.before_s for step in one.steps)
                rows.append([f"{TIME}({workload})", path, axes, shown.index(workload), last, best, jumps])
    (html / "regressions.json").write_bytes(json.dumps({"regressions": rows}).encode())


def _local(match: re.Match[str]) -> str:
    """Return the name of our copy of a script or style, which need not be a minified one."""
    return match[1] if (_VENDOR / match[1]).exists() else match[1].replace(".min.", ".")
