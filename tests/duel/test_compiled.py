import os
from pathlib import Path

from gemma3n_perf.duel.compiled import FOLDER, Compiled


def test_a_file_may_come_and_not_change(tmp_path: Path) -> None:
    """Since it was last asked; without a folder there is nothing."""
    seen = Compiled(tmp_path)
    assert seen.changed() == []
    folder = tmp_path / FOLDER / "mlx" / "1" / "cpu"
    folder.mkdir(parents=True)
    (folder / "liba.so").write_text("1")
    (folder / "libb.so").write_text("1")
    assert seen.changed() == []
    assert seen.changed() == []
    (folder / "new").write_text("2")
    os.replace(folder / "new", folder / "liba.so")
    (folder / "libb.so").unlink()
    assert seen.changed() == ["liba.so", "libb.so"]
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert seen.changed() == []


def test_a_file_that_is_written_over_has_changed(tmp_path: Path) -> None:
    """Though it is as long and as old as it was."""
    file = tmp_path / FOLDER / "mlx" / "liba.so"
    file.parent.mkdir(parents=True)
    file.write_text("fast")
    seen, before = Compiled(tmp_path), file.stat()
    file.write_text("slow")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert seen.changed() == ["liba.so"]
