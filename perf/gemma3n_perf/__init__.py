"""Performance regression suite for Gemma3n decode on MLX: faster, slower or neither, on this chip."""

from typing import Any

__all__ = ["fuse"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: most commands never load MLX.
    if name == "fuse":
        from gemma3n_perf.gate.fuse import fuse

        return fuse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
