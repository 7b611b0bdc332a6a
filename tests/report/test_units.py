import pytest

from gemma3n_perf.report import units


@pytest.mark.parametrize(
    ("value", "text"), [(0.0000004, "0.0 %"), (-0.0000004, "0.0 %"), (-0.0213, "-2.1 %"), (0.0213, "+2.1 %")]
)
def test_change_has_a_sign_only_where_there_is_one(value: float, text: str) -> None:
    """A change that rounds to nothing points in no direction."""
    assert units.percent(value, 1, sign=True) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00083, "0.83 ms"), (0.01204, "12.0 ms"), (0.3119, "312 ms"), (1.3, "1.30 s"), (312.4, "312 s")],
)
def test_times_are_scaled(value: float | None, text: str) -> None:
    """Seconds become what a reader would say."""
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (12, "12 B"), (2_500, "2.5 kB"), (2.52e9, "2.52 GB"), (137.4e9, "137 GB")]
)
def test_sizes_are_decimal(value: float | None, text: str) -> None:
    """Bytes are scaled by thousands, as bandwidth is."""
    assert units.size(value) == text


def test_an_effect_shows_what_is_known_of_it() -> None:
    """With its interval, without one, and as a dash."""
    assert units.effect(-0.02, -0.02612, -0.0138) == "-2.00 % [-2.61, -1.38]"
    assert units.effect(-0.02, None, None, 1) == "-2.0 %"
    assert units.effect(None, -0.1, 0.1) == "-"
