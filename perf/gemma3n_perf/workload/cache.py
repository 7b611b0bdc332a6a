"""Where forged checkpoints live."""

import os
from pathlib import Path

import platformdirs


def checkpoints_root() -> Path:
    """The user's cache folder for checkpoints; GEMMA3N_PERF_CACHE moves it."""
    base = os.environ.get("GEMMA3N_PERF_CACHE")
    return (Path(base) if base else Path(platformdirs.user_cache_dir("gemma3n-perf"))) / "checkpoints"
