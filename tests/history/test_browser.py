"""The site in a real browser: headless Chromium, served from its folder, with nothing else to be reached."""

import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history.building import Places, build_site
from gemma3n_perf.history.evidence import recorded_evidence
from gemma3n_perf.history.pages import STYLE, write_documents
from gemma3n_perf.history.site import PAGES
from tests.history.replay import CPU
from tests.history.test_building import a_history

Opened = tuple[Page, list[str]]
OVERFLOWING = """[...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".skip") && getComputedStyle(one).display !== "inline" &&
        (one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth + 1))
    .map((one) => `${one.tagName} ${one.textContent.slice(0, 40)}`)"""
"""Elements that are wider inside than outside, or that reach beyond the window."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on this machine; yields its address."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build a site and serve it."""
    places = a_history(tmp_path_factory.mktemp("browser"))
    build_site(places, run_command)
    with served(places.site) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium: the system's, or the one that playwright installed; skipped where there is none."""
    with sync_playwright() as playwright:
        paths = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
        path = next(filter(None, paths), playwright.chromium.executable_path)
        if not Path(path).exists():
            lacking = "no Chromium here; next: .venv/bin/playwright install chromium, or apt-get install chromium"
            (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(lacking)
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=path, args=root)
        yield found
        found.close()


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Opened]:
    """Open a window in one scheme; returns it and what goes wrong in it."""
    wrong: list[str] = []
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith((address, "data:")) else wrong.append(one.url))
    page.on("response", lambda one: wrong.append(f"{one.status} {one.url}") if one.status >= 400 else None)
    yield page, wrong
    context.close()


def test_the_pages_draw_their_plots(opened: Opened, address: str) -> None:
    """Every plot has its size, its axis ticks rise from left to right, and nothing goes wrong or out."""
    page, wrong = opened
    page.goto(f"{address}index.html", wait_until="networkidle")
    assert page.locator("svg").count() == 0
    page.goto(f"{address}speed.html", wait_until="networkidle")
    drawn = page.locator("svg").count()
    page.goto(f"{address}history.html", wait_until="networkidle")
    plots = page.locator("svg")
    assert (drawn, plots.count()) == (1, 3)
    for number in range(plots.count()):
        box = plots.nth(number).bounding_box()
        assert box is not None
        assert box["width"] > 400
        assert box["height"] > 60
    page.goto(f"{address}speed.html")
    values = [float(one) for one in page.locator("svg").nth(0).locator("text.tick").all_text_contents()]
    assert values == sorted(values)
    assert values[0] == 0
    assert wrong == []


def test_paper_and_ink_follow_the_scheme(opened: Opened, address: str) -> None:
    """Dark paper has light ink, with a contrast that can be read."""
    page, _ = opened
    page.goto(f"{address}index.html")
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    paper, ink = (sum(int(part) for part in one[4:-1].split(",")) / 3 for one in colours)
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (paper < ink) == dark
    assert abs(paper - ink) > 150


def test_the_keyboard_reaches_everything(opened: Opened, address: str) -> None:
    """First the way past the navigation, then links, plots and tables; each shows that it has the focus."""
    page, _ = opened
    page.goto(f"{address}history.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.", "DIV.plot", "DIV.wide"} <= reached


def test_a_phone_shows_no_sideways_scrolling(browser: Browser, address: str) -> None:
    """Wide plots and tables scroll in their own boxes."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for name in PAGES:
        page.goto(f"{address}{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site of this repository's own records, all chip classes among them; returns its first page."""
    root, scratch = Path(__file__).parents[2], tmp_path_factory.mktemp("committed")
    evidence, faults = recorded_evidence(root / "baselines")
    places = Places(root, root / "baselines", scratch / "docs", scratch / "results", scratch / "site")
    found = build_site(places, run_command, evidence=evidence, faults=faults)
    assert len(found.baselines) >= 4
    return places.site / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_first_page_is_short_and_nothing_overflows(
    browser: Browser, committed: Path, tmp_path: Path, width: int, height: int, scheme: Literal["light", "dark"]
) -> None:
    """At most three screens; no element is wider than its own box or reaches beyond the window, none scrolls."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(committed.as_uri())
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollHeight") <= 3 * height
    assert page.evaluate(OVERFLOWING) == []
    if width > 1000:  # the three answers side by side, each with its header and first rows on the first screen
        tops = page.evaluate(
            "[...document.querySelectorAll('.answers table')].map((one) => one.getBoundingClientRect().top)"
        )
        assert len(tops) == 3
        assert max(tops) < height / 3
    for question in ("speed", "changes", "fusions"):
        assert page.locator(f"#{question}").is_visible()
    cells = page.locator("table.fit td").all_text_contents()
    assert len(cells) > 60
    assert [cell for cell in cells if "Traceback" in cell or "Error" in cell or "/tmp" in cell] == []
    context.close()


def test_asvs_graph_shows_what_was_measured_and_nothing_else(browser: Browser, committed: Path) -> None:
    """By default, with all classes and eight workloads selected: lines that have a value, no empty ones."""
    site = committed.parent
    index = json.loads((site / "asv" / "index.json").read_bytes())
    measured = sum(
        any(value is not None for value in series)
        for path in (site / "asv" / "graphs").rglob("decode.track_time_per_token.json")
        if "summary" not in path.parts
        for series in zip(*(row[1] for row in json.loads(path.read_bytes())), strict=True)
    )
    workloads = len(index["benchmarks"]["decode.track_time_per_token"]["params"][0])
    assert 10 < measured < 4 * workloads
    with served(site) as address:
        page = browser.new_page()
        page.goto(f"{address}asv/index.html#decode.track_time_per_token", wait_until="networkidle")
        page.wait_for_selector("#main-graph .legendLabel")
        # asv selects the first eight workloads: 32 lines of four classes, most of them empty.
        assert 10 < page.locator("#main-graph .legendLabel").count() <= measured
        page.close()


def test_what_overflows_is_seen(browser: Browser, committed: Path) -> None:
    """The measure of the test above: a cell that cannot break is one."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(committed.as_uri())
    page.evaluate("document.querySelector('td.n').style = 'white-space: nowrap; min-width: 400px'")
    assert page.evaluate(OVERFLOWING) != []
    context.close()


def test_documents_fit_a_phone_too(browser: Browser, tmp_path: Path) -> None:
    """All of this repository's own, whose tables are wide."""
    pages = write_documents(Path(__file__).parents[2] / "docs", tmp_path)
    shutil.copyfile(STYLE, tmp_path / STYLE.name)
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    widths = {}
    for address, _ in pages:
        page.goto((tmp_path / address).as_uri())
        widths[address] = page.evaluate("document.documentElement.scrollWidth")
    assert len(widths) > 15
    assert {address: width for address, width in widths.items() if width > 390} == {}
    context.close()


def test_asvs_pages_draw_from_their_own_folder(opened: Opened, address: str) -> None:
    """The list of benchmarks, a plot in seconds over commits, and the one regression: no error, no stranger asked."""
    page, wrong = opened
    page.goto(f"{address}asv/index.html", wait_until="networkidle")
    page.wait_for_selector("#summarylist-body td")
    assert "#summarylist" in page.url
    assert "time per token" in page.inner_text("#summarylist-body")
    page.goto(f"{address}asv/index.html#decode.track_time_per_token?machine={CPU}", wait_until="networkidle")
    page.wait_for_selector("#main-graph canvas.flot-base")
    labels = page.locator("#main-graph .flot-y-axis .flot-tick-label").all_text_contents()
    milliseconds = [float(one) for one in labels]
    assert milliseconds == sorted(milliseconds)
    assert milliseconds[0] == 0
    assert 25 <= milliseconds[-1] <= 40
    assert page.locator("#main-graph .legendLabel").count() <= 1
    page.goto(f"{address}asv/index.html#/regressions", wait_until="networkidle")
    page.wait_for_selector("#regressions-body td")
    assert "1.3" in page.inner_text("#regressions-body")
    assert page.locator("#regressions-body tbody tr").count() == 1
    page.goto(f"{address}upstream/mlx/index.html", wait_until="networkidle")
    page.wait_for_selector("#summarylist-body td")
    assert wrong == []
