"""A host whose core has two speeds, and what both arms of a launch take on it."""

import numpy as np

Arms = tuple[list[list[float]], list[list[float]]]


def steps(
    rng: np.random.Generator,
    pairs: int,
    faster: float = 0.0,
    *,
    changes: float = 0.15,
    slow: float = 0.5,
    stalls: float = 0.0,
    count: int = 3,
) -> Arms:
    """Blocks of steps of 25 ms, 3 % apart, of which a share stalls; in turn on a core that is ``slow`` by that fraction
    half of the time, and changes its speed after a step with that chance."""
    states = np.cumsum(rng.random(2 * pairs * (count + 2)) < changes) % 2
    own = states.reshape(pairs, 2, count + 2)[:, :, 2:]
    times = 0.025 * np.exp(rng.normal(0, 0.03, own.shape)) * (1 + slow * own)
    times *= 1 + (rng.random(own.shape) < stalls) * (0.3 + rng.exponential(1.5, own.shape))
    first = rng.random(pairs) < 0.5
    base = np.where(first[:, None], times[:, 0], times[:, 1])
    cand = np.where(first[:, None], times[:, 1], times[:, 0])
    return base.tolist(), (cand / (1 + faster)).tolist()
