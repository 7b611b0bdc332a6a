from gemma3n_perf.bench.clock import MeasuredClock


def test_only_what_is_counted_passes() -> None:
    """Between two readings lies what was counted, however long it took."""
    clock = MeasuredClock()
    assert clock() == clock() == 0.0
    clock.advance(0.25)
    begin = clock()
    clock.advance(0.5)
    assert (begin, clock() - begin) == (0.25, 0.5)
