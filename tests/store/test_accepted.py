from pathlib import Path

import pytest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.store.accepted import FOLDER, Accepted, read_accepted

TEXT = """\
commit = "0123456789ab"
workload = "nano/text/pp40-tg64"
effect = "-3 %"
why = "a sampler that users asked for"
"""


def written(baselines: Path, text: str) -> Path:
    """Write a maintainers' file."""
    path = baselines / FOLDER / "sampler.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_accepted_is_read(tmp_path: Path) -> None:
    """By the file's name; no folder is nothing accepted."""
    assert read_accepted(tmp_path) == ()
    written(tmp_path, TEXT)
    why = "a sampler that users asked for"
    assert read_accepted(tmp_path) == (Accepted("sampler", "0123456789ab", "nano/text/pp40-tg64", -0.03, why),)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("why = ", "because = ", "its keys are because, commit, effect, workload"),
        ('"a sampler that users asked for"', '" "', "why = ' '"),
        ("-3 %", "3 %", "effect = '3 %'"),
        ("-3 %", "-3", "effect = '-3'"),
        ('"-3 %"', "-0.03", "effect = -0.03"),
        ("-3 %", "-100 %", "effect = '-100 %'"),
        ("0123456789ab", "main", "commit = 'main'"),
        ("=", "", "Expected '='"),
        ("commit", ".".join(["a"] * 50_000), "dots, and 65,536 and 1,000 are the most that is read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    """File, fault, what was expected and what to do."""
    path = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(MalformedRecordError) as caught:
        read_accepted(tmp_path)
    assert f"{path}: " in caught.value.found
    assert said in caught.value.found
    assert caught.value.remedy
