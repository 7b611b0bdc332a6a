import errno
import os
from pathlib import Path

import pytest

from gemma3n_perf.errors import DiskFullError, MalformedRecordError, NotMeasuredError, UsageError
from gemma3n_perf.store.files import (
    MOST_BYTES,
    Disk,
    contents,
    data_folder,
    file_stem,
    numbered_files,
    require_writable,
    write_next,
    write_over,
)
from tests.fakes import COMMIT, STACK


class FullDisk(Disk):
    """Has room for ``files`` files; the next is cut in the middle."""

    def __init__(self, files: int) -> None:
        self.files = files

    def write(self, path: Path, data: bytes) -> None:
        """Write, or leave half of it and fail."""
        if self.files == 0:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.files -= 1
        super().write(path, data)


class InterruptedDisk(Disk):
    """Ctrl-C arrives around the publication of file ``at``."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.seen = at, after, 0

    def publish(self, temporary: Path, final: Path) -> None:
        """Publish, interrupted before or after."""
        self.seen += 1
        if self.seen == self.at and not self.after:
            raise KeyboardInterrupt
        super().publish(temporary, final)
        if self.seen == self.at:
            raise KeyboardInterrupt


class LinklessDisk(Disk):
    """A file system without hard links."""

    def publish(self, temporary: Path, final: Path) -> None:
        """Rename, as a file system without links must."""
        if final.exists():
            raise FileExistsError(str(final))
        temporary.replace(final)


def names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def test_numbers_follow_the_highest(tmp_path: Path) -> None:
    """A gap left by a removed file is not filled, so the newest always sorts last."""
    (tmp_path / "0007_abcdef0.json").write_text("{}")
    paths = write_next(tmp_path, ["1234567", "1234567"], [b"a", b"b"])
    assert [path.name for path in paths] == ["0008_1234567.json", "0009_1234567.json"]
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]
    assert names(tmp_path) == ["0007_abcdef0.json", "0008_1234567.json", "0009_1234567.json"]


def test_malformed_file_keeps_its_number(tmp_path: Path) -> None:
    """A file nobody can read is passed over and left as it is."""
    (tmp_path / "0001_broken").write_text("half a rec")
    assert write_next(tmp_path, ["abcdef0"], [b"new"])[0].name == "0002_abcdef0.json"
    assert (tmp_path / "0001_broken").read_text() == "half a rec"


@pytest.mark.parametrize("files", [0, 1, 2])
def test_full_disk_loses_nothing(tmp_path: Path, files: int) -> None:
    """Without room for all files none is written, and what was there stays."""
    (tmp_path / "0001_abcdef0.json").write_text("old")
    with pytest.raises(DiskFullError) as caught:
        write_next(tmp_path, ["a"] * 3, [b"xx"] * 3, FullDisk(files))
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == ["0001_abcdef0.json"]
    assert (tmp_path / "0001_abcdef0.json").read_text() == "old"


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
def test_interrupt_leaves_no_half_set(tmp_path: Path, at: int, after: bool) -> None:
    """Ctrl-C around any of several files takes all of them back and passes on."""
    (tmp_path / "0001_abcdef0.json").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_next(tmp_path, ["abcdef0"] * 3, [b"x"] * 3, InterruptedDisk(at, after))
    assert names(tmp_path) == ["0001_abcdef0.json"]


def test_name_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """A file that appears under the chosen name between choice and writing keeps it."""

    class Racing(Disk):
        raced = False

        def publish(self, temporary: Path, final: Path) -> None:
            if not self.raced:
                self.raced = True
                final.write_text("theirs")
            super().publish(temporary, final)

    path = write_next(tmp_path, ["abcdef0"], [b"ours"], Racing())[0]
    assert path.name == "0002_abcdef0.json"
    assert (tmp_path / "0001_abcdef0.json").read_text() == "theirs"


def test_a_name_that_is_taken_and_not_seen_is_said(tmp_path: Path) -> None:
    """As in a folder that cannot be listed: it would be tried for ever."""

    class Blind(Disk):
        def publish(self, temporary: Path, final: Path) -> None:
            raise FileExistsError(str(final))

    with pytest.raises(NotMeasuredError, match="its files cannot be listed"):
        write_next(tmp_path, ["abcdef0"], [b"x"], Blind())
    assert names(tmp_path) == []


def test_works_without_hard_links(tmp_path: Path) -> None:
    """On a file system without links files are renamed into place, numbers still apart."""
    paths = write_next(tmp_path, ["abcdef0"] * 2, [b"1", b"2"], LinklessDisk())
    assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    assert len(names(tmp_path)) == 2


def test_link_refused_by_the_system_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system refuses to link, the file is still published, and never over another."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    temporary, final = tmp_path / "t", tmp_path / "f"
    temporary.write_text("x")
    Disk().publish(temporary, final)
    assert final.read_text() == "x"
    temporary.write_text("y")
    with pytest.raises(FileExistsError):
        Disk().publish(temporary, final)
    assert final.read_text() == "x"


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is reported as such, not as a traceback."""
    (tmp_path / "occupied").write_text("")
    with pytest.raises(NotMeasuredError, match="occupied"):
        write_next(tmp_path / "occupied", ["abcdef0"], [b"x"])


def test_last_number_is_refused(tmp_path: Path) -> None:
    """After 9999 files the next is refused rather than given a name that sorts first."""
    (tmp_path / "9999_abcdef0.json").write_text("{}")
    with pytest.raises(UsageError, match="9999"):
        write_next(tmp_path, ["abcdef0"], [b"x"])
    assert names(tmp_path) == ["9999_abcdef0.json"]


def test_files_are_listed_by_number_others_left_out(tmp_path: Path) -> None:
    """noise.json and the like are not sessions."""
    for name in ("0010_abcdef0.json", "0002_unversioned-dirty.json", "noise.json", "profile.json", ".x.partial"):
        (tmp_path / name).write_text("{}")
    found = numbered_files(tmp_path)
    assert [path.name for path in found] == ["0002_unversioned-dirty.json", "0010_abcdef0.json"]
    assert numbered_files(tmp_path / "absent") == ()


@pytest.mark.parametrize("name", ["0001_.json", "1_abcdef0.json", "00001_abcdef0.json", "0001_abcdef0 (copy).json"])
def test_half_right_names_are_refused(tmp_path: Path, name: str) -> None:
    """A renamed session file is pointed out, not silently left out of a baseline."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(MalformedRecordError, match="not understood"):
        numbered_files(tmp_path)


def test_number_twice_is_refused(tmp_path: Path) -> None:
    """Two branches that promoted the same number must be put in order by hand."""
    for name in ("0001_abcdef0.json", "0001_abcdef1.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MalformedRecordError, match="same number"):
        numbered_files(tmp_path)


def test_stem_tells_commit_and_dirt() -> None:
    """The name shows the short commit, and whether it is the whole truth."""
    assert file_stem(STACK) == COMMIT[:12]


def test_page_is_replaced_or_left_whole(tmp_path: Path) -> None:
    """A generated page is replaced at once, and a full disk leaves the old one."""
    page = tmp_path / "docs" / "page.md"
    write_over(page, b"one")
    write_over(page, b"two")
    with pytest.raises(DiskFullError):
        write_over(page, b"three", FullDisk(0))
    assert page.read_bytes() == b"two"
    assert names(page.parent) == ["page.md"]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    """As root, ``--json /dev/null`` would otherwise put a file in its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        require_writable(pipe)
        write_over(pipe, b"one")
        assert os.read(reader, 100) == b"one"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_data_folder_is_the_users_own() -> None:
    """Sessions live outside any checkout, in a folder of this suite's name."""
    assert data_folder().name == "gemma3n-perf"
    assert data_folder().is_absolute()


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    """A pipe, a device, a folder, and a file that no record is as large as: each says so at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", MOST_BYTES + 1)
    (tmp_path / "right").write_bytes(b"{}")
    (tmp_path / "link").symlink_to(tmp_path / "right")
    for name, said in (("pipe", "no regular file"), ("huge", "are the most that is read"), (".", "a folder")):
        with pytest.raises(OSError, match=said):
            contents(tmp_path / name)
    with pytest.raises(OSError, match="no regular file"):
        contents(Path("/dev/zero"))
    assert contents(tmp_path / "link") == b"{}"
