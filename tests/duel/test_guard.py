import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma3n_perf.decode import decoder
from gemma3n_perf.duel.guard import Guard
from gemma3n_perf.errors import InvalidError


def test_what_stays_as_it_was_passes() -> None:
    """Also where it was used meanwhile."""
    guard = Guard()
    mx.eval(mx.ones(3) + 1)
    guard.check()


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (time, "perf_counter", "time.perf_counter"),
        (decoder.Decoder, "run", "gemma3n_perf.decode.decoder.Decoder.run"),
        (decoder, "Decoder", "gemma3n_perf.decode.decoder.Decoder"),
        (mx, "async_eval", "mlx.core.async_eval"),
        (np, "save", "numpy.save"),
    ],
)
def test_what_is_replaced_is_named(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, said: str) -> None:
    """The clock, the loop and what starts or awaits the device."""
    guard = Guard()
    plain: Callable[..., Any] = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: plain(*args, **kwargs))
    with pytest.raises(InvalidError, match=said):
        guard.check()
