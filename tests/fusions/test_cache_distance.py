from typing import Any

import mlx.core as mx
import pytest
from mlx_vlm.models.cache import KVCache

from gemma3n_perf.fusions.stepwise import cache_distance


def filled(tokens: int, *, step: int = 256, heads: int = 2, dim: int = 4) -> Any:
    """Return a cache of so many tokens, the same for all that ask."""
    cache = KVCache()
    cache.step = step
    rows = mx.arange(1, 1 + heads * tokens * dim, dtype=mx.float32).reshape(1, heads, tokens, dim)
    cache.update_and_fetch(rows, 2 * rows)
    return cache


def test_room_that_is_not_filled_is_not_compared() -> None:
    """A cache that grows by 1,024 places holds the same as one that grows by 256."""
    assert cache_distance([filled(5)], [filled(5, step=1024)]) == 0.0


def test_what_is_filled_is() -> None:
    """Keys and values, to the last token."""
    one, other = filled(5), filled(5, step=1024)
    other.values[..., 4, 3] += 0.5
    assert cache_distance([one], [other]) == pytest.approx(0.5)
    other.keys[..., 0, 0] = float("nan")
    assert cache_distance([one], [other]) == float("inf")


@pytest.mark.parametrize("other", [filled(6), filled(5, heads=3), filled(5, dim=8)])
def test_other_positions_and_shapes_are_infinitely_far(other: Any) -> None:
    """Nothing of them can be compared."""
    assert cache_distance([filled(5)], [other]) == float("inf")
