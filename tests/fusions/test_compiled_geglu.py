from typing import Any

from tests.fusions import check


def test_the_graph_changes_as_declared() -> None:
    """What it removes is gone from the graph of a decode token."""
    assert check.complaints("compiled-geglu") == ()


def test_it_computes_the_same(nano_model: Any) -> None:
    """Each step stays within what rounding allows, across the window's edge and the cache's growth."""
    assert check.worst_ratio(nano_model, "compiled-geglu") <= 1.0


def test_the_unfused_model_stays_as_it_was(nano_model: Any) -> None:
    """Applying it changes one model object, no weights and no other model."""
    check.assert_leaves_others_alone(nano_model, "compiled-geglu")
