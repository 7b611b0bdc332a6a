import pytest

from gemma3n_perf.duel.arms import Arm, parse, slowdowns
from gemma3n_perf.errors import UsageError


def test_every_part_is_read() -> None:
    """A sum of parts holds what each says, and a plus inside a value splits nothing."""
    arm = parse("ref:v1.0+mlx==0.32.3+mlx-vlm==0.7.9+env:B=x+y+env:A=1=2+engine:mlx_vlm+plant:+2.5%")
    assert (arm.ref, arm.engine) == ("v1.0", "mlx_vlm")
    assert arm.packages == (("mlx", "==0.32.3"), ("mlx-vlm", "==0.7.9"))
    assert (arm.version("mlx"), arm.version("mlx-lm")) == ("0.32.3", None)
    assert arm.env == (("A", "1=2"), ("B", "x+y"))
    assert arm.plant == pytest.approx(0.025)


def test_here_asks_for_nothing() -> None:
    """``here`` needs no other packages."""
    assert parse("here") == Arm("here")
    assert parse("here+env:A=1").packages == ()


def test_any_package_can_be_named_by_release_or_place() -> None:
    """Several in one arm, however they are spelled; a plus, an at or a hash inside a place splits nothing."""
    arm = parse("here+MLX_LM==0.31.0+transformers@~/src/a+b/transformers#v5+mlx@dist/mlx-0.33.0+mine-*.whl+plant:+2%")
    assert arm.packages == (
        ("mlx", "@dist/mlx-0.33.0+mine-*.whl"),
        ("mlx-lm", "==0.31.0"),
        ("transformers", "@~/src/a+b/transformers#v5"),
    )
    assert arm.plant == pytest.approx(0.02)
    assert parse("mlx-vlm@https://git@host/x+y.git#main").packages == (("mlx-vlm", "@https://git@host/x+y.git#main"),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not understood"),
        ("heer", "not understood"),
        ("here+foo", "not understood"),
        ("here+nonsense:x", "not understood"),
        ("ref:", "not understood"),
        ("here+ref:main", "both here and at a commit"),
        ("mlx==1.0+mlx==1.1", "given twice"),
        ("mlx-vlm==0.7.9+mlx-vlm@main", "given twice"),
        ("env:A=1+env:A=2", "given twice"),
        ("env:A", "sets no variable"),
        ("here+env:MLX_BFS_MAX_WIDTH=wide", "MLX_BFS_MAX_WIDTH=wide"),
        ("env:1A=2", "sets no variable"),
        ("env:PYTHONPATH=x", "sets no variable"),
        ("mlx==latest", "no version"),
        ("mlx==", "no version"),
        ("mlx@", "not understood"),
        ("mlx-vlm@main+mlx_vlm@dev", "mlx-vlm is given twice"),
        ("fusion:no-such", "no fusion 'no-such'"),
        ("engine:llama", "no engine 'llama'"),
        ("plant:+2%", "grows on something"),
        ("here+plant:2%", "no slowdown"),
        ("here+plant:+0%", "no slowdown"),
        ("here+plant:-60%", "no slowdown"),
        ("here+plant:+2000%", "no slowdown"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, found: str) -> None:
    """The error names the part and what was expected."""
    with pytest.raises(UsageError, match=found) as caught:
        parse(text)
    assert caught.value.expected


def test_a_plant_lengthens_its_own_arm() -> None:
    """+2 % on one side makes that side's blocks take 2 % longer, and nothing else."""
    assert slowdowns(parse("here"), parse("here+plant:+2%")) == pytest.approx((0.0, 0.02))
    assert slowdowns(parse("here+plant:+10%"), parse("here")) == pytest.approx((0.1, 0.0))


def test_a_negative_plant_slows_the_other_arm_by_as_much() -> None:
    """The ratio of times is what was asked for: 0.98 for -2 %."""
    baseline, candidate = slowdowns(parse("here"), parse("here+plant:-2%"))
    assert candidate == 0.0
    assert (1 + candidate) / (1 + baseline) == pytest.approx(0.98)


def test_plants_on_both_sides_multiply() -> None:
    """Each arm carries its own slowdown and what the other's speed-up asks of it."""
    baseline, candidate = slowdowns(parse("here+plant:+10%"), parse("here+plant:-20%"))
    assert (baseline, candidate) == pytest.approx((1.1 / 0.8 - 1, 0.0))


@pytest.mark.parametrize("text", ["here+env:FOO=\udcff", "mlx-vlm@/tmp/caf\udce9"])
def test_an_arm_that_cannot_be_recorded_is_refused(text: str) -> None:
    """Before it is measured, and its record lost."""
    with pytest.raises(UsageError, match="it is not UTF-8"):
        parse(text)


def test_what_looks_like_a_version_and_is_none_is_refused() -> None:
    """Two pre-releases in one."""
    with pytest.raises(UsageError, match="is no version"):
        parse("mlx==0.32.3rc1rc2")
