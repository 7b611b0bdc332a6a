import pytest

from gemma3n_perf import gate
from tests.stats.test_values import is_value, values


@pytest.mark.parametrize("kind", values(gate), ids=lambda kind: kind.__name__)
def test_the_gates_are_values(kind: type) -> None:
    """As those of the judge."""
    assert is_value(kind)
