"""pytest-benchmark's clock, which moves on by what was measured and by nothing else."""


class MeasuredClock:
    """Seconds of measured time; pass it as pytest-benchmark's ``timer``.

    pytest-benchmark reads its timer before and after every round. Between the two, a round takes one run that counts,
    discards included, and moves this clock on by the run's time per token: its tables then show seconds per token, and
    its OPS column tok/s.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def __call__(self) -> float:
        """Seconds counted so far."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Count one sample."""
        self._seconds += seconds
