import json
import os
import time
from pathlib import Path

import pytest

from gemma3n_perf.duel import hashes


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path) -> None:
    """By another process too; a small one always, and one that was just written."""
    large, kept = tmp_path / "large", tmp_path / "cache" / "hashes.json"
    large.write_bytes(b"1" * 2_000_000)
    files = hashes.Hashes(kept)
    fresh = files.of(large)
    files.save()
    assert not kept.exists()
    past = time.time() - 60
    os.utime(large, (past, past))
    assert files.of(large) == fresh
    files.save()
    known = json.loads(kept.read_bytes())
    assert list(known.values()) == [fresh]
    kept.write_text(json.dumps(dict.fromkeys(known, "remembered")))
    assert hashes.Hashes(kept).of(large) == "remembered"
    (tmp_path / "link").hardlink_to(large)
    large.write_bytes(b"2" * 2_000_000)
    os.utime(large, (past, past))
    assert hashes.Hashes(kept).of(large) not in (fresh, "remembered")
    for nonsense in ("nonsense", "5"):
        kept.write_text(nonsense)
        assert hashes.Hashes(kept).of(large) == hashes.Hashes(tmp_path / "none").of(large)


def test_names_of_variables_are_whole_strings_of_a_library(tmp_path: Path) -> None:
    """Capitals with an underscore between zero bytes; an empty file has none."""
    library = tmp_path / "lib.so"
    library.write_bytes(b"\0MLX_ONE\0MLX_TWO\0NOT_ended")
    assert hashes.Hashes(tmp_path / "none").names(library) == ["MLX_ONE", "MLX_TWO"]
    library.write_bytes(b"")
    assert hashes.Hashes(tmp_path / "none").names(library) == []


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[1]", None])
def test_what_is_kept_and_no_record_is_forgotten(tmp_path: Path, content: str | None) -> None:
    """It is a cache: one that nests, or is a pipe, costs time alone."""
    kept, file = tmp_path / "hashes.json", tmp_path / "file"
    file.write_text("x")
    if content is None:
        os.mkfifo(kept)
    else:
        kept.write_text(content)
    assert len(hashes.Hashes(kept).of(file)) == 64
