"""MLX's default device, as a decoder asks it, and the state that mlx-vlm generates in."""

import atexit
from contextlib import ExitStack
from functools import cache
from typing import Any, Protocol


class Device(Protocol):
    """The few things a session asks of MLX itself, so that tests need no device."""

    def dispatch(self, token: Any) -> None:
        """Start computing ``token``."""

    def wait(self, token: Any) -> None:
        """Wait until ``token`` is computed."""

    def synchronize(self) -> None:
        """Wait for all that was started."""

    def reset_peak_memory(self) -> None:
        """Start a new peak."""

    def peak_memory(self) -> int:
        """Bytes at the peak."""


class MlxDevice:
    """MLX's default device."""

    def dispatch(self, token: Any) -> None:
        """Start computing ``token`` without waiting for it."""
        import mlx.core as mx

        mx.async_eval(token)

    def wait(self, token: Any) -> None:
        """Wait until ``token`` is computed."""
        import mlx.core as mx

        mx.eval(token)

    def synchronize(self) -> None:
        """Wait for all that was started on the default stream."""
        import mlx.core as mx

        mx.synchronize()

    def reset_peak_memory(self) -> None:
        """Start a new peak from what is in use now."""
        import mlx.core as mx

        mx.reset_peak_memory()

    def peak_memory(self) -> int:
        """Bytes at the peak since the last reset."""
        import mlx.core as mx

        return int(mx.get_peak_memory())


@cache
def begin_generation() -> None:
    """On Metal, from now until this process ends: memory wired, and mlx-vlm's own stream, as its loop has them.

    It enters them for one generation; every run here is the midst of one. Source: mlx_vlm/generate, stream_generate.
    """
    import mlx.core as mx

    if not mx.metal.is_available() or mx.default_device().type != mx.DeviceType.gpu:
        return
    from mlx_vlm.generate import generation_stream, wired_limit

    stack = ExitStack()
    stack.enter_context(wired_limit({}, [generation_stream]))
    stack.enter_context(mx.stream(generation_stream))
    atexit.register(stack.close)
