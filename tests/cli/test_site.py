import argparse
import io
from pathlib import Path

from gemma3n_perf.cli import site
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, SMALL, Scratch


def test_the_site_judges_evidence_as_the_gate_does(tmp_path: Path) -> None:
    """Not each file by what it says of itself; what was admitted is no fusion, and a torn file is named."""
    scratch = Scratch(tmp_path / "repo")
    once = scratch.evidence(BIG, GEGLU, {"e2b-4bit/text/pp320-tg64": (0.05,)})
    assert once.workloads[0].judgement.verdict == "win"
    _, path = scratch.put(scratch.evidence(BIG), once)
    scratch.put(scratch.evidence(SMALL))
    admitted.write(scratch.baselines, BIG, (ALTUP,))
    (path.parent / "torn.json").write_text("{")
    parser = argparse.ArgumentParser()
    site.add_arguments(parser)
    out = io.StringIO()
    built = tmp_path / "site"
    places = ["--repo", str(scratch.root), "--results", str(tmp_path / "results"), "--output", str(built)]
    assert site.run(parser.parse_args(places), out) == 0
    text = (built / "fusions.html").read_text()
    rows = {tuple(cells[:3]): cells[3:] for cells in _rows(text)}
    assert rows[ALTUP, BIG, "e2b-4bit/text/pp320-tg64"][1:] == ["win", "yes"]
    assert rows[ALTUP, SMALL, "nano/text/pp40-tg64"][1:] == ["win", "-"]
    assert rows[GEGLU, BIG, "e2b-4bit/text/pp320-tg64"][1:] == ["not-measured", "-"]
    assert not [one for one in rows if one[0] == "admitted"]
    assert "torn.json" in out.getvalue()
    assert (built / "evidence" / BIG / path.name).read_bytes() == path.read_bytes()


def _rows(text: str) -> list[list[str]]:
    table = text[text.index("<table") : text.index("</table>")]
    return [
        ["".join(part.split(">", 1)[-1] for part in cell.split("<")).strip() for cell in row.split("</t")[:-2]]
        for row in table.split("<tr>")[2:]
    ]
