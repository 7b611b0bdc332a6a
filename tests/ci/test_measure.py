import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.bench.regression import REGRESSIONS, Regression
from gemma3n_perf.ci.artifacts import COMPARISON, Manifest, named, open_artifact
from gemma3n_perf.ci.cli import main
from gemma3n_perf.ci.measure import measure, names_to_measure, pack
from gemma3n_perf.ci.plan import stage
from gemma3n_perf.errors import NotComparableError, NotMeasuredError, UsageError
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import FUSIONS
from gemma3n_perf.hardware.git import Repository
from tests.bench.regressions import record
from tests.fakes import CHIP, write_session
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, ONE, Scratch
from tests.rehearsal.github import Clone


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository with two fusions."""
    return Scratch(tmp_path / "repo")


def measured(
    scratch: Scratch, names: Sequence[str], pytest_run: Callable[[str], int], commit: str = ""
) -> tuple[Path, ...]:
    """Measure what a job was sent to measure, beside the repository."""
    request = Manifest(1, BIG, commit or scratch.commit, "42", 1, tuple(names))
    return measure(request, BIG, scratch.baselines, scratch.root.parent / "out", pytest_run, lambda text: None)


def writing(scratch: Scratch, *, fusion: str | None = None) -> Callable[[str], int]:
    """Return a pytest that measures, leaves evidence and finds a loss."""

    def pytest_run(name: str) -> int:
        record = scratch.evidence(fusion=fusion or name)
        scratch.put(replace(record, date=record.date.replace("10:00", "11:00")))
        return 1

    return pytest_run


def test_evidence_is_sent_with_a_manifest_that_the_last_job_accepts(scratch: Scratch, tmp_path: Path) -> None:
    """Whatever it says: a loss is the gate's business, so pytest's exit code does not matter."""
    import zipfile

    sent = measured(scratch, [ALTUP, GEGLU], writing(scratch))
    assert sorted(path.name for path in sent) == [f"{GEGLU}.json", "manifest.json", f"{ALTUP}.json"]
    packed = tmp_path / f"evidence-{BIG}-1.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sent:
            archive.write(path, path.name)
    found = open_artifact(named(packed), "42", scratch.commit)
    assert sorted(found) == [f"{GEGLU}.json", f"{ALTUP}.json"]


def test_a_runner_of_another_class_measures_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its label says one thing and its chip another: said at once, and not after waiting for a fit machine."""
    monkeypatch.setattr("gemma3n_perf.hardware.chip.detect", lambda: CHIP)
    monkeypatch.setattr("gemma3n_perf.hardware.fitness.consult", lambda *args: pytest.fail("it waits"))
    err = io.StringIO()
    argv = ["measure", "--chip-class", BIG, "--commit", "a" * 40, "--base", "main", "--run-id", "1", "--attempt", "1"]
    assert main([*argv, "--out", str(tmp_path)], io.StringIO(), err) == NotComparableError.exit_code
    assert f"asked for {BIG} and is {CHIP.chip_class}" in err.getvalue()


def test_evidence_that_was_there_before_is_not_sent_as_new(scratch: Scratch, tmp_path: Path) -> None:
    """pytest failed, and the committed record of another day lies there still."""
    scratch.put(scratch.evidence())
    with pytest.raises(NotMeasuredError, match="only the evidence that was there before"):
        measured(scratch, [ALTUP], lambda name: 4)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_fusion_without_evidence_is_not_measured(scratch: Scratch) -> None:
    """The others are measured all the same, and nothing is sent as if it were all."""
    done: list[str] = []

    def pytest_run(name: str) -> int:
        done.append(name)
        return 4

    with pytest.raises(NotMeasuredError, match=f"{ALTUP}: it left no evidence.*{GEGLU}: it left no evidence"):
        measured(scratch, [ALTUP, GEGLU], pytest_run)
    assert done == [ALTUP, GEGLU]


def test_evidence_of_another_commit_is_not_sent(scratch: Scratch) -> None:
    """The checkout changed under the measurement."""
    with pytest.raises(NotMeasuredError, match="its evidence is of commit"):
        measured(scratch, [ALTUP], writing(scratch), commit="f" * 40)


def test_what_an_earlier_job_left_is_not_sent_along(scratch: Scratch, tmp_path: Path) -> None:
    """The folder must be this job's own."""
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"):
        measured(scratch, [ALTUP], writing(scratch))


def test_the_fusions_to_measure_are_those_whose_sources_or_evidence_changed(scratch: Scratch) -> None:
    """A shared module touches all that use it; a record its own fusion; a page none."""
    here, base = scratch.checkout(), scratch.commit
    scratch.write("docs/page.md", "two")
    scratch.write(str(FUSIONS / "README.md"), "words")
    assert names_to_measure(base, here) == ()
    scratch.write(str(FUSIONS / "kernels.py"), "# changed")
    assert names_to_measure(base, here) == (ALTUP,)
    scratch.put(scratch.evidence(fusion=f"{ALTUP}+{GEGLU}"))
    assert names_to_measure(base, here) == (ALTUP, GEGLU, f"{ALTUP}+{GEGLU}")


def test_a_change_is_judged_by_the_rules_of_its_base(scratch: Scratch) -> None:
    """Its policy and harness give way, what it deletes comes back, its fusions and evidence stay."""
    scratch.write("perf/gemma3n_perf/stats/bounds.py", "honest")
    base = scratch.save("base")
    scratch.write("perf/gemma3n_perf/stats/bounds.py", "lenient")
    scratch.write("perf/gemma3n_perf/planted.py", "new")
    (scratch.root / "docs" / "page.md").unlink()
    scratch.write("baselines/policy.toml", "[gate]\nrequired = []\n")
    scratch.write(str(FUSIONS / "stacked_altup.py"), "# better")
    scratch.put(scratch.evidence())
    head = scratch.save("head")
    stage(Repository(scratch.root), head, base)
    read = {name: (scratch.root / name) for name in ("perf/gemma3n_perf/stats/bounds.py", "baselines/policy.toml")}
    assert read["perf/gemma3n_perf/stats/bounds.py"].read_text() == "honest"
    assert "minimum_effect" in read["baselines/policy.toml"].read_text()
    assert not (scratch.root / "perf/gemma3n_perf/planted.py").exists()
    assert (scratch.root / "docs/page.md").exists()
    assert (scratch.root / FUSIONS / "stacked_altup.py").read_text() == "# better"
    assert store.path_of(scratch.baselines, BIG, ALTUP).is_file()
    assert scratch.git("rev-parse", "HEAD") == head


def test_what_judges_fusions_is_the_bases(scratch: Scratch) -> None:
    """Though it lies among them; and nothing that Python would find before it stays."""
    rules, helper = str(FUSIONS / "parity_rules.py"), str(FUSIONS / "helper.py")
    scratch.write(rules, "FACTOR = 16.0")
    base = scratch.save("base")
    scratch.write(rules, "FACTOR = 1e9")
    scratch.write(helper, "# of the fusion")
    shadows = [
        str(FUSIONS / name)
        for name in ("parity_rules/__init__.py", "parity_rules.cpython-311.so", "sharing.abi3.so", "registry.pyc")
    ]
    for path in shadows:
        scratch.write(path, "planted")
    stage(Repository(scratch.root), scratch.save("head"), base)
    assert (scratch.root / rules).read_text() == "FACTOR = 16.0"
    assert (scratch.root / helper).read_text() == "# of the fusion"
    assert not [path for path in shadows if (scratch.root / path).exists()]


@pytest.mark.parametrize(("head", "base"), [("f" * 40, None), (None, "f" * 40)])
def test_a_checkout_that_is_not_what_it_should_be_is_not_staged(
    scratch: Scratch, head: str | None, base: str | None
) -> None:
    """Another commit, or a base that a shallow clone does not hold."""
    with pytest.raises(UsageError, match=r"fetch-depth|git restore failed"):
        stage(Repository(scratch.root), head or scratch.commit, base or scratch.commit)


def test_a_clone_for_a_rehearsal_is_the_checkout_as_it_lies_there(scratch: Scratch, tmp_path: Path) -> None:
    """Changed, new and deleted files come along; ignored ones do not, and the source stays as it was."""
    scratch.write(".gitignore", "ignored\n")
    scratch.save("ignore")
    scratch.write("docs/page.md", "changed")
    scratch.write("docs/new.md", "new")
    scratch.write("ignored", "no")
    (scratch.root / FUSIONS / "registry.py").unlink()
    before = scratch.git("status", "--porcelain")
    clone = Clone.of(scratch.root, tmp_path / "clone")
    assert (clone.root / "docs/page.md").read_text() == "changed"
    assert (clone.root / "docs/new.md").read_text() == "new"
    assert not (clone.root / "ignored").exists()
    assert not (clone.root / FUSIONS / "registry.py").exists()
    assert clone.git("status", "--porcelain") == ""
    assert scratch.git("status", "--porcelain") == before


def test_the_records_of_a_machine_are_sent_whole(tmp_path: Path) -> None:
    """All its sessions and its noise floor, laid out as the site reads them."""
    data, chip_class = tmp_path / "data", CHIP.chip_class
    for number in (1, 2):
        write_session(data / "sessions" / chip_class, number)
    noise = tmp_path / "baselines" / chip_class / "noise.json"
    noise.parent.mkdir(parents=True)
    noise.write_text(json.dumps({}))
    os.mkfifo(data / "sessions" / chip_class / "0003_pipe.json")  # nobody's session
    found = pack(chip_class, tmp_path / "baselines", tmp_path / "out", data)
    assert [path.relative_to(tmp_path / "out").parts[0] for path in found] == ["sessions", "sessions", "noise"]
    with pytest.raises(NotMeasuredError, match="no session"):
        pack("another", tmp_path / "baselines", tmp_path / "out", data)


@pytest.mark.parametrize("wanted", [True, False])
def test_base_against_head_is_sent_where_the_program_differs(scratch: Scratch, tmp_path: Path, wanted: bool) -> None:
    """Beside the evidence, whatever it says."""
    compared = []

    def compare() -> Regression:
        compared.append(1)
        return record(BIG, "b" * 40, scratch.commit, {ONE: -0.05})

    request = Manifest(1, BIG, scratch.commit, "42", 1, (), wanted)
    lines: list[str] = []
    sent = measure(request, BIG, scratch.baselines, tmp_path / "out", lambda name: 0, lines.append, compare)
    assert [path.name for path in sent] == [*([COMPARISON] if wanted else []), "manifest.json"]
    assert len(compared) == wanted
    assert lines == [f"base against head: {ONE}: loss"] * wanted
    if wanted:
        found = REGRESSIONS.read(sent[0])
        assert (found.chip_class, found.head) == (BIG, scratch.commit)
