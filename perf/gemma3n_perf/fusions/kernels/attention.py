"""Decode attention for one query position: norms and rotation of the new heads, then the cache in splits.

MLX's own CUDA kernels stop at head_dim 128 and the rest is decomposed into a dozen kernels; one query row
needs no tiles, only enough blocks to keep the memory busy.
"""

from gemma3n_perf.fusions.kernels.common import source

NEW_KEYS = source("new_keys")
ATTEND = source("attend")


def splits_for(capacity: int) -> int:
    """Blocks that share one head's cache of ``capacity`` tokens."""
    return max(1, min(16, capacity // 64))
