import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import point_record, publishing
from gemma3n_perf.history.building import Places, build_site
from gemma3n_perf.history.changes import failure_text
from gemma3n_perf.history.evidence import Evidence
from gemma3n_perf.history.point_record import Blocks, Point
from gemma3n_perf.history.site import PAGES, Site
from gemma3n_perf.stats.verdicts import Verdict
from tests.fakes import STACK, measurement
from tests.history.replay import CPU, ROOT, WORKLOADS, chip, repository, write, write_history

GONE = "f" * 40
WON = Cell("stacked", CPU, "nano/text/pp40-tg64", Verdict.WIN, "shown", effect=0.05, low=0.04, high=0.06)


def a_history(folder: Path) -> Places:
    """Write 14 commits with a slowdown at the eighth, two releases, evidence and a profile.

    And what is to be left out: half a session, and one of a commit that is gone.
    """
    hashes = repository(folder / "repo", 14)
    baselines = folder / "baselines"
    write_history(baselines, CPU, hashes, at=7, factor=1.3, seed=1)
    write(baselines / CPU, 0, measurement(), replace(STACK, commit=GONE), chip(CPU))
    (baselines / CPU / "9998_0123456789ab.json").write_text("{")
    shutil.copytree(ROOT / "published", baselines / "published")
    (baselines / CPU / "fusions").mkdir()
    evidence_of(baselines).source.write_text("{}")
    table = '[classes.{}]\nstate = "{}"\nworkloads = ["nano/text/pp40-tg64"]\n'
    (baselines / "policy.toml").write_text(table.format(CPU, "required") + table.format("apple-m9", "awaiting"))
    launch = Blocks(4.0, 7, (0.020, 0.021, 0.019), (0.025, 0.026, 0.024))
    point = Point(
        1, "2026-07-01T10:00:00+00:00", chip(CPU), "mlx", "0.31.0", WORKLOADS[CPU], STACK, replace(STACK, mlx="0.31.0"),
        12.0, "loss", -0.2, -0.22, -0.18, (launch,),
    )  # fmt: skip
    point_record.write(baselines, point)
    failure = replace(
        point, version="0.30.0", stack=None, verdict="not-measured", effect=None, low=None, high=None, launches=(),
        failure="no <wheel> for this Python",
    )  # fmt: skip
    point_record.write(baselines, failure)
    for place in (2, 9, 11):
        one = replace(
            point,
            line=point_record.OWN,
            version=hashes[place],
            anchor=replace(STACK, commit=hashes[2]),
            effect=-0.05 if place == 11 else 0.001,
            low=-0.06,
            high=0.008,
            verdict="loss" if place == 11 else "no-change",
        )
        point_record.write(baselines, one)
    docs = folder / "docs"
    (docs / "profiles").mkdir(parents=True)
    (docs / "profiles" / "x.md").write_text("# Profile of x\n\nSee [trust](../trust.md) and [code](../../perf/x.py).\n")
    (docs / "trust.md").write_text("# How much to trust it\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    return Places(folder / "repo", baselines, docs, folder / "results", folder / "site")


def evidence_of(baselines: Path) -> Evidence:
    """Return the one that every site here has."""
    return Evidence(CPU, "stacked", baselines / CPU / "fusions" / "stacked.json", (WON,), admitted=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Places, Site]:
    """Build one site."""
    places = a_history(tmp_path_factory.mktemp("site"))
    return places, build_site(places, run_command, evidence=[evidence_of(places.baselines)], faults=["bad.json: torn"])


def ours(places: Places) -> list[Path]:
    """Return every page that is not asv's."""
    return [*places.site.glob("*.html"), *(places.site / "docs").rglob("*.html")]


def test_the_pages_lead_everywhere(built: tuple[Places, Site]) -> None:
    """Every address on every page of ours is a file of the site, and the first page leads to all others."""
    places, _ = built
    first = (places.site / "index.html").read_text()
    assert [name for name in PAGES if f'href="{name}.html"' not in first] == []
    for page in ours(places):
        for address in re.findall(r'(?:href|src)="([^"#]*)[^"]*"', page.read_text()):
            if address and not address.startswith("data:"):
                assert (page.parent / address).exists(), f"{page.name}: {address}"


def test_classes_that_await_a_machine_are_named(built: tuple[Places, Site]) -> None:
    """On the first page, beside those that have numbers."""
    assert "Awaiting a machine: apple-m9." in (built[0].site / "index.html").read_text()


class Balance(HTMLParser):
    """Checks that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember an element that must be closed."""
        if tag not in ("meta", "link", "br", "wbr", "img", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Pass over an element that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost."""
        assert self.open.pop() == tag


def test_pages_are_well_formed(built: tuple[Places, Site]) -> None:
    """With one first heading, a language and a way past the navigation."""
    places, _ = built
    for page in ours(places):
        text = page.read_text()
        parser = Balance()
        parser.feed(text)
        assert parser.open == []
        assert text.count("<h1>") == 1
        assert '<html lang="en">' in text
        assert 'class="skip"' in text


def test_no_page_loads_anything_from_outside(built: tuple[Places, Site]) -> None:
    """Neither ours nor asv's: no script, style or picture with an address of its own."""
    places, _ = built
    for page in places.site.rglob("*.html"):
        assert re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//', page.read_text()) == []
    assert "@import" not in (places.site / "site.css").read_text()


def test_every_plot_says_what_it_shows(built: tuple[Places, Site]) -> None:
    """A title and a description for those who do not see it; the numbers in a table."""
    text = "".join(page.read_text() for page in ours(built[0]))
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 4
    for plot in plots:
        title, description = re.search(r'aria-labelledby="(\S+) (\S+)"', plot).groups()  # type: ignore[union-attr]
        assert f'<title id="{title}">' in plot
        assert f'<desc id="{description}">' in plot
        assert re.findall(r'="-?(?:nan|inf)', plot) == []
    assert text.count("<table>") >= 3


def test_the_slowdown_is_a_suspected_step_and_asvs_one_regression(built: tuple[Places, Site]) -> None:
    """Where asv's pages read them, with the time before and after; tok/s is none."""
    places, found = built
    (series,) = found.series
    (step,) = series.steps
    assert "suspected step" in (places.site / "index.html").read_text()
    text = (places.site / "history.html").read_text()
    assert "suspected" in text
    assert f"history confirm {step.before[:12]} {step.after[:12]}" in text
    rows = json.loads((places.site / "asv" / "regressions.json").read_bytes())["regressions"]
    assert [row[0] for row in rows] == ["decode.track_time_per_token('nano/text/pp40-tg64')"]
    assert (places.site / "asv" / rows[0][1]).is_file()
    (jump,) = rows[0][6]
    assert jump[0] is None
    index = json.loads((places.site / "asv" / "index.json").read_bytes())
    assert index["revision_to_hash"][str(jump[1])] == step.after
    assert jump[3] / jump[2] == pytest.approx(1.3, rel=0.1)


def test_releases_are_shown_with_their_failures(built: tuple[Places, Site]) -> None:
    """On our page and on asv's, where a failure is a missing value."""
    places, _ = built
    assert "0.31.0 was 20.0 % slower" in (places.site / "index.html").read_text()
    text = (places.site / "history.html").read_text()
    assert "-20.0 %" in text
    assert "no &lt;wheel&gt; for this Python" in text
    index = json.loads((places.site / "upstream" / "mlx" / "index.json").read_bytes())
    assert index["params"]["branch"] == ["mlx"]
    assert set(index["tags"]) == {"mlx-0.30.0", "mlx-0.31.0"}


def test_releases_of_one_package_are_not_labelled_with_anothers(tmp_path: Path) -> None:
    """Each line is a site of its own: asv labels a graph with every tag of its repository."""
    places = a_history(tmp_path)
    release = point_record.read_class(places.baselines, CPU)[0]
    (one,) = [point for point in release if point.version == "0.31.0"]
    point_record.write(places.baselines, replace(one, line="mlx-vlm", version="0.7.0"))
    build_site(places, run_command)
    for line, tags in (("mlx", {"mlx-0.30.0", "mlx-0.31.0"}), ("mlx-vlm", {"mlx-vlm-0.7.0"})):
        index = json.loads((places.site / "upstream" / line / "index.json").read_bytes())
        assert set(index["tags"]) == tags


def test_commits_against_the_anchor_are_drawn_and_their_newest_is_the_answer(built: tuple[Places, Site]) -> None:
    """In the order of the repository, with the anchor named."""
    places, found = built
    (points,) = found.anchored.values()
    newest = list(points)[-1]
    assert f"{newest[:7]} is slower than" in (places.site / "index.html").read_text()
    text = (places.site / "history.html").read_text()
    assert f"by commit, against {next(iter(points))[:12]}" in text
    assert "zoomed" in text


@pytest.mark.parametrize(
    ("said", "line", "shown"),
    [
        (
            "mlx==0.30.0: AttributeError: module 'mlx.core' has no attribute 'device_info'; its last words: x | "
            'File "/tmp/x/perf/gemma3n_perf/hardware/system.py", line 124, in mlx_accelerator | AttributeError',
            "mlx",
            "the release has no device_info, which our own harness needs",
        ),
        (
            "mlx==0.31.0: AttributeError: module 'mlx.core' has no attribute 'new_thread_local_stream'; its last words:"
            ' File "~/.cache/lib/python3.11/site-packages/mlx_vlm/speculative/common.py", line 10 | AttributeError',
            "mlx",
            "the release has no new_thread_local_stream, which today's mlx-vlm needs",
        ),
        (
            "mlx-vlm==0.6.12: mlx-vlm cannot load nano-v1: Missing 825 parameters: audio_tower.conformer.0, x.y",
            "mlx-vlm",
            "mlx-vlm of this release cannot load nano-v1, our own checkpoint of that time",
        ),
        ("no wheel", "mlx", "no wheel"),
    ],
)
def test_a_failure_is_said_without_a_traceback_or_a_path(said: str, line: str, shown: str) -> None:
    """And whose it is: ours is ours."""
    version = said.partition(":")[0].rpartition("=")[2]
    none = (None, None, None, (), said)
    day = "2026-07-01T10:00:00+00:00"
    failed = Point(1, day, chip(CPU), line, version, WORKLOADS[CPU], STACK, None, 12.0, "not-measured", *none)
    assert failure_text(failed) == shown


def test_what_was_left_out_is_said(built: tuple[Places, Site]) -> None:
    """On the page and to who built it."""
    places, found = built
    assert any("9998_0123456789ab.json" in note for note in found.notes)
    text = (places.site / "documents.html").read_text()
    assert "9998_0123456789ab.json" in text
    assert f"commit {GONE[:12]} is not in this repository" in text
    assert not list((places.site / "asv").rglob(f"{GONE[:8]}*"))
    assert "bad.json: torn" in text


def test_evidence_and_documents_are_linked(built: tuple[Places, Site]) -> None:
    """With the verdict, and a copy of the file; links to files that are not on the site are words."""
    places, _ = built
    text = (places.site / "fusions.html").read_text()
    assert f'href="evidence/{CPU}/stacked.json"' in text
    assert '<td class="n win">+5.0 % ✓</td>' in (places.site / "index.html").read_text()
    assert (places.site / "evidence" / CPU / "stacked.json").read_text() == "{}"
    row = re.search(r"<tr><th[^>]*><a[^>]*>stacked</a>.*?</tr>", text, re.DOTALL)
    assert row is not None
    assert "+5.00 % [+4.00, +6.00]" in row[0]
    assert "<span class='win'>win</span>" in row[0]
    assert "<td>yes</td>" in row[0]
    assert 'href="docs/trust.html"' in (places.site / "documents.html").read_text()
    profile = (places.site / "docs" / "profiles" / "x.html").read_text()
    assert 'href="../trust.html"' in profile
    assert "<span>code</span>" in profile
    assert "<table>" in (places.site / "docs" / "trust.html").read_text()


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    """Only a site that was built here is."""
    repository(tmp_path / "repo", 1)
    site = tmp_path / "site"
    site.mkdir()
    (site / "precious.txt").touch()
    places = Places(tmp_path / "repo", tmp_path / "none", tmp_path / "none", tmp_path / "results", site)
    with pytest.raises(UsageError, match="no site of this suite"):
        build_site(places, run_command)
    (site / "precious.txt").unlink()
    assert build_site(places, run_command).series == ()
    assert build_site(places, run_command).series == ()
    assert "No baseline is committed yet" in (site / "index.html").read_text()


def test_a_document_that_is_no_text_is_named(tmp_path: Path) -> None:
    """And the site that was there stays."""
    repository(tmp_path / "repo", 1)
    (tmp_path / "docs").mkdir()
    places = Places(tmp_path / "repo", tmp_path / "none", tmp_path / "docs", tmp_path / "results", tmp_path / "site")
    build_site(places, run_command)
    (tmp_path / "docs" / "x.md").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"x\.md cannot be read"):
        build_site(places, run_command)
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_new_outside_address_of_asv_is_an_error(tmp_path: Path) -> None:
    """Rather than a page that asks a stranger for scripts."""
    (tmp_path / "index.html").write_text(
        '<html><head><title>x</title><img src="https://cdn.example/a.png"></head></html>'
    )
    with pytest.raises(NotMeasuredError, match=r"cdn\.example"):
        publishing.settle(tmp_path, "../index.html")
