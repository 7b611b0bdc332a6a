"""MLX's default device, as a decoder asks it."""

from typing import Any


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
