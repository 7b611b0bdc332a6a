from dataclasses import replace

import pytest

from gemma3n_perf.bench.comparison import SAME_PROGRAM, Compared, graph_causes, rises, same_mlx
from gemma3n_perf.decode.types import Graph, HostWork
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.fakes import STACK, WORKLOAD

HOST = HostWork(1000, 500, {"mlx.core.add": 300, "mlx.core.take": 200}, "3.11")
GRAPH = Graph({"rope": 4}, {"QuantizedMatmul": 9, "Add": 3}, {"float32": 12}, 12, {"streamed": 100}, HOST)


def test_one_mlx_is_version_and_backend() -> None:
    """Of mlx and mlx-vlm."""
    assert same_mlx(STACK, replace(STACK, python="3.12.1"))
    assert not same_mlx(STACK, replace(STACK, backend="cuda"))


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (replace(GRAPH, nodes=13), ("graph nodes 12 -> 13",)),
        (replace(GRAPH, bytes={"streamed": 101, "vision": 9}), ("streamed bytes 100 -> 101",)),
        (replace(GRAPH, host=replace(HOST, python_calls=1001)), ("Python calls 1000 -> 1001",)),
        (replace(GRAPH, host=replace(HOST, mlx_calls=501)), ("MLX calls 500 -> 501",)),
        (replace(GRAPH, host=replace(HOST, mlx_calls=501, python="3.12")), ()),
        (replace(GRAPH, host=None), ()),
        (replace(GRAPH, nodes=11, bytes={"streamed": 99}, host=replace(HOST, python_calls=999)), ()),
        (replace(GRAPH, bytes={"streamed": 100, "vision": 9}), ()),
    ],
)
def test_a_rise_is_named_and_a_fall_is_none(after: Graph, found: tuple[str, ...]) -> None:
    """Nodes, streamed bytes, and host calls within one minor version of Python."""
    assert rises(GRAPH, after) == found


def test_causes_are_the_largest_changes() -> None:
    """By operation, type and bytes, and what the host does."""
    after = replace(
        GRAPH,
        operations={"QuantizedMatmul": 9, "Transpose": 60, "Add": 2},
        dtypes={"float32": 72},
        host=replace(HOST, python_calls=1060, by_name=HOST.by_name | {"mlx.core.transpose": 60}),
    )
    assert graph_causes(GRAPH, after) == (
        "graph: +60 Transpose, -1 Add",
        "types: +60 float32",
        "host: +60 Python calls, +60 mlx.core.transpose",
    )
    assert graph_causes(GRAPH, GRAPH) == ()
    many = {f"Op{number}": number for number in range(1, 10)}
    assert graph_causes(replace(GRAPH, operations={}), replace(GRAPH, operations=many)) == (
        "graph: +9 Op9, +8 Op8, +7 Op7, +6 Op6, +5 Op5 and 4 more",
    )


@pytest.mark.parametrize(("verdict", "alarm"), [(Verdict.WIN, False), (Verdict.NO_CHANGE, True), (Verdict.LOSS, True)])
def test_a_rise_is_an_alarm_but_for_a_win(verdict: Verdict, alarm: bool) -> None:
    """A fusion may add nodes and win by it."""
    one = Compared(WORKLOAD, Judgement(verdict, "x"), rises=("graph nodes 12 -> 13",))
    assert one.is_alarm is alarm
    assert not replace(one, rises=()).is_alarm


def test_the_same_program_is_known_by_its_reason() -> None:
    """Shown by a duel it is no-change as well, and not this."""
    assert Compared(WORKLOAD, Judgement(Verdict.NO_CHANGE, SAME_PROGRAM)).is_same_program
    assert not Compared(WORKLOAD, Judgement(Verdict.NO_CHANGE, "shown")).is_same_program
