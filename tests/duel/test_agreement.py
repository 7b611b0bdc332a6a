import numpy as np
import pytest

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import is_near_tie, same_logits, same_outputs
from gemma3n_perf.errors import InvalidError

LOGITS = np.linspace(-1, 1, 64, dtype=np.float32)
MOVED = LOGITS * np.float32(1.03)


@pytest.mark.parametrize(("baseline", "candidate"), [("float32", "bfloat16"), ("float32", "float16")])
def test_a_candidate_is_held_to_the_type_that_the_baseline_computes_in(baseline: str, candidate: str) -> None:
    """One that cast its logits was allowed the 7 % of bfloat16, and left out part of every layer: a win of 5 %."""
    runs = (wire.Whole(1.0, (7,), baseline), wire.Whole(1.0, (7,), candidate))
    with pytest.raises(InvalidError, match=r"3 % apart after a whole run, where rounding explains 0\.1 %"):
        same_outputs(runs, (LOGITS, MOVED))
    with pytest.raises(InvalidError, match=r"3 % apart in a block, where rounding explains 0\.1 %"):
        same_logits((wire.Written(baseline), wire.Written(candidate)), (LOGITS, MOVED))
    if candidate == "bfloat16":
        assert same_outputs((runs[1], runs[0]), (LOGITS, MOVED)) == ()
    assert not is_near_tie((wire.Whole(1.0, (63,), baseline), wire.Whole(1.0, (62,), candidate)), (LOGITS, MOVED))


def test_over_versions_rounding_may_move_more() -> None:
    """Two of mlx-vlm lie 2 % apart in float32."""
    written = (wire.Written("float32"), wire.Written("float32"))
    same_logits(written, (LOGITS, MOVED), same_versions=False)
    with pytest.raises(InvalidError):
        same_logits(written, (LOGITS, MOVED))
