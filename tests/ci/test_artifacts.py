import json
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.ci import artifacts
from gemma3n_perf.ci.artifacts import Job, gather, read_jobs
from gemma3n_perf.ci.plan import ChipClass
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.stats.verdicts import Verdict

COMMIT = "a" * 40
MAC, GPU = "apple-m1-ultra-64gpu", "nvidia-h200"
CLASSES = tuple(ChipClass(name, ("self-hosted", name), True) for name in (MAC, GPU))
JOBS = (Job(f"measure {MAC}", "success"), Job(f"measure {GPU}", "success"), Job("plan"))
RECORD = b'{"fusion": "stacked-altup"}'


def manifest(chip_class: str = MAC, **changes: Any) -> bytes:
    """Return what a measuring job says of itself."""
    tree = {
        "schema": 1,
        "chip_class": chip_class,
        "commit": COMMIT,
        "run_id": "42",
        "run_attempt": 1,
        "fusions": ["stacked-altup"],
    }
    return json.dumps(tree | changes).encode()


def archive(
    folder: Path, chip_class: str = MAC, attempt: int = 1, files: Mapping[str, bytes] | None = None, **changes: Any
) -> Path:
    """Write an artifact as it is downloaded."""
    contents = {"manifest.json": manifest(chip_class, run_attempt=attempt, **changes), "stacked-altup.json": RECORD}
    path = folder / f"evidence-{chip_class}-{attempt}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in (contents if files is None else contents | dict(files)).items():
            made.writestr(name, data)
    return path


def gathered(tmp_path: Path, jobs: tuple[Job, ...] = JOBS) -> tuple[Objection, ...]:
    """Gather what lies in the artifacts' folder."""
    return gather(tmp_path / "in", jobs, CLASSES, "42", COMMIT, tmp_path / "out")


def problems(found: tuple[Objection, ...]) -> dict[str | None, tuple[Verdict, str]]:
    """Return verdict and text by class."""
    return {one.chip_class: (one.verdict, one.found) for one in found}


def refused(tmp_path: Path) -> str:
    """Gather, see that the Mac's artifact alone was refused and nothing of it was kept; returns why."""
    archive(tmp_path / "in", GPU)
    before = sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts)
    found = gathered(tmp_path)
    assert [one.chip_class for one in found] == [MAC]
    assert found[0].verdict is Verdict.INVALID
    assert [path.name for path in (tmp_path / "out").iterdir()] == [GPU]
    assert sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts) == before
    return found[0].found


@pytest.mark.parametrize("nested", [False, True])
def test_evidence_of_every_class_is_laid_out_as_in_baselines(tmp_path: Path, nested: bool) -> None:
    """The action puts one archive into the folder itself and several into folders of theirs."""
    for name in (MAC, GPU):
        archive(tmp_path / "in" / (f"evidence-{name}-1" if nested else ""), name)
    found = gathered(tmp_path)
    assert found == ()
    assert (tmp_path / "out" / MAC / "fusions" / "stacked-altup.json").read_bytes() == RECORD
    assert [path.name for path in (tmp_path / "out" / GPU / "fusions").iterdir()] == ["stacked-altup.json"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (None, "no job of this class ran"),
        (Job(f"measure {GPU}", None), "the runner vanished"),
        (Job(f"measure {GPU}", "cancelled"), "cancelled"),
        (Job(f"measure {GPU}", "failure"), "measured nothing"),
        (Job(f"measure {GPU}", "timed_out"), "out of time"),
        (Job(f"measure {GPU}", "something new"), "never finished"),
    ],
)
def test_what_a_job_that_did_not_succeed_left_behind_does_not_count(tmp_path: Path, job: Job | None, said: str) -> None:
    """Even where its artifact is whole, as one of an earlier attempt is."""
    archive(tmp_path / "in", MAC)
    archive(tmp_path / "in", GPU)
    found = gathered(tmp_path, (JOBS[0], *([job] if job else [])))
    verdict, text = problems(found)[GPU]
    assert verdict is Verdict.NOT_MEASURED
    assert said in text
    assert not (tmp_path / "out" / GPU).exists()


def test_a_rerun_replaces_what_was_measured_before(tmp_path: Path) -> None:
    """The newest attempt counts; a class that was not run again keeps its own."""
    archive(tmp_path / "in", MAC, 1, {"stacked-altup.json": b'{"old": 1}'})
    archive(tmp_path / "in", MAC, 2)
    archive(tmp_path / "in", GPU, 1)
    found = gathered(tmp_path, (Job(f"measure {MAC}", "success", 2), JOBS[1]))
    assert found == ()
    assert (tmp_path / "out" / MAC / "fusions" / "stacked-altup.json").read_bytes() == RECORD


def test_a_rerun_that_failed_is_not_saved_by_its_first_attempt(tmp_path: Path) -> None:
    """The API tells the last attempt of every job."""
    archive(tmp_path / "in", MAC, 1)
    archive(tmp_path / "in", GPU, 1)
    both = (Job(f"measure {MAC}", "success", 1), Job(f"measure {MAC}", "failure", 2))
    assert problems(gathered(tmp_path, (*both, JOBS[1])))[MAC][0] is Verdict.NOT_MEASURED


def test_two_artifacts_for_one_class_refuse_it(tmp_path: Path) -> None:
    """To choose between them would be to pick."""
    archive(tmp_path / "in" / "one", MAC)
    archive(tmp_path / "in" / "two", MAC)
    assert "2 artifacts" in refused(tmp_path)


def test_a_job_that_succeeded_without_an_artifact_is_not_trusted(tmp_path: Path) -> None:
    """It cannot have: the upload fails where there is nothing."""
    (tmp_path / "in").mkdir()
    assert "left no artifact" in refused(tmp_path)


def test_an_artifact_of_two_gigabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    """Before a byte of it is read."""
    path = archive(tmp_path / "in", MAC)
    os.truncate(path, 2 * 10**9)
    assert "an artifact of 2000 MB" in refused(tmp_path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small size on the way says nothing; reading stops at the limit."""
    monkeypatch.setattr(artifacts, "MAX_ENTRY", 2**16)
    archive(tmp_path / "in", MAC, files={"stacked-altup.json": bytes(2**17)})
    assert "too large" in refused(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "folder/evil.json", "..\\evil.json", "evil.py", ".hidden.json", "C:evil.json"],
)
def test_a_path_outside_its_folder_refuses_the_archive(tmp_path: Path, name: str) -> None:
    """And every other name that is no record of evidence."""
    archive(tmp_path / "in", MAC, files={name: b"{}"})
    assert "in an artifact" in refused(tmp_path)
    assert not list(tmp_path.parent.rglob("evil*"))


def test_a_link_in_an_archive_refuses_it(tmp_path: Path) -> None:
    """It could point at anything of the judging machine's."""
    path = archive(tmp_path / "in", MAC)
    link = zipfile.ZipInfo("link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(link, "/etc/passwd")
    assert "no regular file" in refused(tmp_path)


def test_an_artifact_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The folder of artifacts is no more trusted than what lies in it."""
    other = archive(tmp_path / "elsewhere", MAC)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / other.name).symlink_to(other)
    assert "no regular file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "41"}, "another run"),
        ({"commit": "b" * 40}, "commit"),
        ({"chip_class": GPU}, "in its place"),
        ({"fusions": []}, "does not name"),
        ({"schema": 2}, "schema 2"),
        ({"fusions": "stacked-altup"}, "manifest"),
    ],
)
def test_evidence_from_another_run_commit_or_class_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """A runner's disk may hold what an earlier job left there."""
    archive(tmp_path / "in", MAC, files={"manifest.json": manifest(**change)})
    assert said in refused(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not an archive", b"{}"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: bytes) -> None:
    """It ends in a name and a remedy, not in a traceback."""
    archive(tmp_path / "in", MAC).write_bytes(damage)
    assert "cannot be read" in refused(tmp_path)


def test_a_name_that_is_no_text_refuses_the_archive(tmp_path: Path) -> None:
    """It says that it is UTF-8, and is none."""
    path = archive(tmp_path / "in", MAC)
    data = bytearray(path.read_bytes().replace(b"manifest.json", b"\xff" * 13))
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(head, at + 1)) >= 0:
            data[at + flags + 1] |= 0x08
    path.write_bytes(data)
    assert "cannot be read" in refused(tmp_path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    """A byte of its content was changed on the way."""
    path = archive(tmp_path / "in", MAC)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    assert refused(tmp_path)


def test_an_artifact_of_no_class_is_named_and_harms_none(tmp_path: Path) -> None:
    """A measuring job may upload under any name."""
    archive(tmp_path / "in", MAC)
    archive(tmp_path / "in", GPU)
    archive(tmp_path / "in", "some-other-chip")
    (tmp_path / "in" / "evidence-|evil-1.zip").write_bytes(b"")
    found = gathered(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MAC, GPU]
    assert [(one.chip_class, one.verdict) for one in found] == [(None, Verdict.INVALID)] * 2


def test_jobs_are_read_from_several_pages(tmp_path: Path) -> None:
    """The API pages, a page a line; what else it tells is not looked at."""
    path = tmp_path / "jobs.json"
    path.write_text(
        '{"jobs":[{"name":"plan","status":"completed","conclusion":"success","run_attempt":1,"id":5}]}\n'
        '{"jobs":[{"name":"measure x","status":"queued","conclusion":null,"run_attempt":2}]}\n'
    )
    assert read_jobs(path) == (Job("plan", "success", 1), Job("measure x", None, 2))


@pytest.mark.parametrize("text", ["{}", "[]", '{"jobs": [{"name": 1}]}', "gh: Not Found"])
def test_jobs_that_cannot_be_read_are_an_error(tmp_path: Path, text: str) -> None:
    """Never an empty run."""
    path = tmp_path / "jobs.json"
    path.write_text(text)
    with pytest.raises(MalformedRecordError):
        read_jobs(path)


def test_the_comparison_of_base_and_head_is_kept_beside_the_evidence(tmp_path: Path) -> None:
    """Only where the manifest names it."""
    both = {artifacts.COMPARISON: b"{}"}
    archive(tmp_path / "in", files=both | {"manifest.json": manifest(regression=True)})
    archive(tmp_path / "in", GPU)
    assert gathered(tmp_path) == ()
    assert (tmp_path / "out" / MAC / artifacts.COMPARISON).read_bytes() == b"{}"
    assert not (tmp_path / "out" / GPU / artifacts.COMPARISON).exists()


@pytest.mark.parametrize(("regression", "files"), [(False, {artifacts.COMPARISON: b"{}"}), (True, {})])
def test_a_comparison_that_the_manifest_does_not_name_or_lacks_is_invalid(
    tmp_path: Path, regression: bool, files: dict[str, bytes]
) -> None:
    """As with evidence."""
    archive(tmp_path / "in", files=files | {"manifest.json": manifest(regression=regression)})
    assert "files that the manifest does not name" in refused(tmp_path)


def test_a_change_that_cannot_be_set_up_is_told_so(tmp_path: Path) -> None:
    """Its lock does not resolve: not a machine that needs a person."""
    found = gathered(tmp_path, (Job(f"measure {MAC}", "failure", 1, "Set up"), Job(f"measure {GPU}", "failure", 1)))
    assert problems(found)[MAC] == (Verdict.NOT_MEASURED, "the environment of the change could not be set up")
    assert problems(found)[GPU] == (Verdict.NOT_MEASURED, "its job measured nothing")
