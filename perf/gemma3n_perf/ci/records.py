"""What a machine has recorded, in one folder to send: every session it keeps, and the noise floor just measured.

Opinion: the machines keep the history and every night sends all of it, so no job needs a token that can write to the
repository. Promotion into ``baselines/`` stays a person's commit.
"""

import shutil
from pathlib import Path

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.store.local import local_folder

NOISE = "noise.json"


def pack(chip_class: str, baselines: Path, out: Path, data: Path | None = None) -> tuple[Path, ...]:
    """Copy this machine's sessions of ``chip_class``, and its noise floor, into ``out``; returns what is there.

    The layout is that of the user's data folder: ``sessions/<chip class>/``. Raises NotMeasuredError with no session.
    """
    sessions = sorted(local_folder(chip_class, data).glob("[0-9]*.json"))
    if not sessions:
        raise NotMeasuredError(
            f"this machine has no session of {chip_class}",
            expected="what gemma3n-perf baseline save records",
            remedy="see the log of the step that measures",
        )
    wanted = [(path, out / "sessions" / chip_class / path.name) for path in sessions]
    noise = baselines / chip_class / NOISE
    wanted += [(noise, out / "noise" / chip_class / NOISE)] if noise.is_file() else []
    for source, target in wanted:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return tuple(target for _, target in wanted)
