import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload.workload import (
    IMAGE_TOKENS,
    KV_STEP,
    PREFILLS,
    WARM_TOKENS,
    Shape,
    Workload,
    customary,
    defaults,
    wide,
    wide_defaults,
)


@pytest.mark.parametrize(
    ("text", "shape"), [("pp40-tg64", Shape(40, 64)), ("pp1-tg2", Shape(1, 2)), ("pp320-tg96", Shape(320, 96))]
)
def test_a_shape_is_read_and_written_alike(text: str, shape: Shape) -> None:
    """A shape's text names prompt and generated tokens, and comes back unchanged."""
    assert Shape.parse(text) == shape
    assert str(shape) == text


@pytest.mark.parametrize("text", ["", "pp40", "tg64", "40-64", "pp-tg64", "pp40-tg64 ", "pp4.5-tg64", "pp40-tg-4"])
def test_what_is_no_shape_is_refused_with_an_example(text: str) -> None:
    """The error shows the text, the form and an example."""
    with pytest.raises(UsageError, match="is not understood") as caught:
        Shape.parse(text)
    assert caught.value.found == f"shape {text!r} is not understood"
    assert "ppN-tgM" in str(caught.value.expected)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["pp0-tg64", "pp0-tg0", "pp40-tg1"])
def test_an_empty_shape_is_refused(text: str) -> None:
    """One decode step has no interval to compare, no prompt token no context."""
    with pytest.raises(UsageError, match="is empty"):
        Shape.parse(text)


@pytest.mark.parametrize("text", ["pp200-tg64", "pp192-tg60", "pp252-tg2", "pp249-tg8", "pp508-tg16", "pp300-tg300"])
def test_a_run_across_a_cache_growth_is_measured_but_not_by_old_workers(text: str) -> None:
    """The KV cache grows at multiples of 256 positions; workers before protocol 9 refuse such shapes."""
    shape = Shape.parse(text)
    assert shape.grows_cache
    assert not shape.is_known_of_old


def test_the_edges_of_a_cache_growth() -> None:
    """A run may begin right after a growth and end right before the next."""
    assert not Shape.parse(f"pp{KV_STEP}-tg{KV_STEP - WARM_TOKENS - 1}").grows_cache
    assert Shape.parse(f"pp191-tg{KV_STEP - 191 - WARM_TOKENS - 1}").is_known_of_old
    assert Shape.parse(f"pp191-tg{KV_STEP - 191 - WARM_TOKENS}").grows_cache


@pytest.mark.parametrize(
    ("text", "shape", "positions"),
    [
        ("pp40-tg64-b4", Shape(40, 64, batch=4), 108),
        ("pp40-tg64-v8", Shape(40, 64, verify=8), 40 + 68 * 8),
        ("pp40-tg64-b2-v3-kv4", Shape(40, 64, 2, 3, 4), 40 + 68 * 3),
        ("pp40-tg64-kv8", Shape(40, 64, kv_bits=8), 108),
        ("pp2500-tg0", Shape(2500, PREFILLS, prefill_alone=True), 2500),
    ],
)
def test_a_shape_that_is_not_plain(text: str, shape: Shape, positions: int) -> None:
    """Batch, verification, quantized cache and prefills alone have a part of the id each, in one order."""
    assert Shape.parse(text) == shape
    assert str(shape) == text
    assert shape.positions == positions
    assert not shape.is_plain
    assert not shape.is_known_of_old


@pytest.mark.parametrize(
    "text", ["pp40-tg64-b1", "pp40-tg64-b65", "pp40-tg64-v1", "pp40-tg64-v9", "pp40-tg64-kv3", "pp40-tg0-v4"]
)
def test_what_is_not_measured_is_refused(text: str) -> None:
    """A batch of one is the plain shape, which has an id already."""
    with pytest.raises(UsageError, match="none that is measured"):
        Shape.parse(text)


@pytest.mark.parametrize("text", ["pp040-tg64", "pp40-tg64-b04"])
def test_one_shape_has_one_text(text: str) -> None:
    """Another spelling would be another id of the same workload."""
    with pytest.raises(UsageError, match="is written pp40-tg64"):
        Shape.parse(text)


@pytest.mark.parametrize(
    "text", ["pp40-tg64-v2-b2", "pp40-tg64-x2", "pp40-tg64-b", "pp40-tg64-b2-b2", f"pp{4400 * chr(57)}-tg64"]
)
def test_parts_of_a_shape_come_in_one_order(text: str) -> None:
    """The error shows the grammar."""
    with pytest.raises(UsageError, match="is not understood"):
        Workload.parse(f"nano/text/{text}")


@pytest.mark.parametrize("text", ["nano/text/pp40-tg64@mlx_lm", "a-1/text/pp8-tg4-b2@stream_generate"])
def test_an_id_may_name_an_engine(text: str) -> None:
    """It is the last part of the id; the rest names the same work."""
    workload = Workload.parse(text)
    assert str(workload) == text
    assert str(workload.bare) == text.partition("@")[0]
    assert workload != workload.bare


@pytest.mark.parametrize("text", ["nano/text/pp40-tg64@", "nano/text/pp40@mlx_lm-tg64", "nano/text/pp40-tg64@A"])
def test_an_engine_is_a_name_after_the_shape(text: str) -> None:
    """The error shows the grammar."""
    with pytest.raises(UsageError, match="is not understood") as caught:
        Workload.parse(text)
    assert "SHAPE@ENGINE" in str(caught.value.expected)


def test_an_image_goes_with_a_plain_shape_alone() -> None:
    """Batches and the like are measured with text."""
    with pytest.raises(UsageError, match="measured with text alone"):
        Workload.parse("nano/image/pp296-tg64-b2")


@pytest.mark.parametrize("vendor", ["cpu", "nvidia", "apple"])
def test_the_wide_set_adds_to_the_default_one(vendor: str) -> None:
    """Longer contexts, one across the sliding window, batches, verification: each id once, and none of the default."""
    added, usual = wide_defaults(vendor), defaults(vendor)
    assert len(set(added)) == len(added)
    assert not set(added) & set(usual)
    assert all(Workload.parse(str(one)) == one for one in added)
    assert {one.shape.batch for one in added} == {1, 2, 4, 8}
    assert {one.shape.verify for one in added} == {1, 2, 4, 8}
    assert max(one.shape.prompt for one in added) == 16_384
    assert {one.engine for one in added} == {"", "stream_generate", "mlx_lm"}
    assert ({"nano-8bit", "nano-mixed"} < {one.checkpoint for one in added}) == (vendor == "cpu")
    assert len(defaults("cpu")) == 3


def test_the_wide_set_spares_a_cpu_the_released_sizes() -> None:
    """They take seconds a token."""
    assert wide("e2b-4bit", "cpu") == ()


@pytest.mark.parametrize("text", ["e2b-4bit/text/pp320-tg96", "nano/image/pp296-tg64", "my.model-1_a/text/pp8-tg4"])
def test_an_id_is_read_and_written_alike(text: str) -> None:
    """The frozen id is the whole identity."""
    workload = Workload.parse(text)
    assert str(workload) == text
    assert text.split("/") == [workload.checkpoint, workload.modality, str(workload.shape)]


@pytest.mark.parametrize(
    "text", ["", "nano", "nano/text", "nano/text/pp40", "NANO/text/pp40-tg64", "/text/pp40-tg64", "a/b/text/pp40-tg64"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """The error names the form of an id and the command that lists them."""
    with pytest.raises(UsageError, match="is not understood") as caught:
        Workload.parse(text)
    assert "CHECKPOINT/MODALITY/SHAPE" in str(caught.value.expected)
    assert "gemma3n-perf workloads" in str(caught.value.remedy)


def test_an_unknown_modality_is_refused() -> None:
    """Audio has soft tokens of its own that no workload measures."""
    with pytest.raises(UsageError, match="modality 'audio' is unknown") as caught:
        Workload.parse("nano/audio/pp296-tg64")
    assert caught.value.expected == "text or image"


def test_an_image_prompt_must_hold_its_soft_tokens_and_some_text() -> None:
    """256 soft tokens alone are too short by one."""
    with pytest.raises(UsageError, match="an image prompt of 256 tokens is too short"):
        Workload.make("nano", "image", Shape(IMAGE_TOKENS, 64))
    assert Workload.make("nano", "image", Shape(IMAGE_TOKENS + 1, 64)).shape.prompt == 257
    assert Workload.make("nano", "text", Shape(IMAGE_TOKENS, 64)).modality == "text"


def test_a_cpu_measures_nano() -> None:
    """Two text prompts on either side of nano's sliding window, and an image."""
    found = defaults("cpu")
    assert {workload.checkpoint for workload in found} == {"nano"}
    assert {workload.modality for workload in found} == {"text", "image"}
    assert {workload.shape.prompt > 128 for workload in found if workload.modality == "text"} == {True, False}


@pytest.mark.parametrize("vendor", ["nvidia", "apple"])
def test_a_gpu_measures_both_released_sizes_in_both_modalities(vendor: str) -> None:
    """Four workloads, all of one shape, so that text and image compare at equal length."""
    found = defaults(vendor)
    assert {(w.checkpoint, w.modality) for w in found} == {
        (size, modality) for size in ("e2b-4bit", "e4b-4bit") for modality in ("text", "image")
    }
    assert len(found) == 4
    assert len({w.shape for w in found}) == 1


def test_a_released_size_on_a_cpu_takes_a_few_tokens() -> None:
    """Seconds a token would else make it a coffee break."""
    assert sum(w.shape.generate + w.shape.prompt for w in customary("e2b-4bit", "cpu")) < 32
    assert customary("nano", "nvidia") == customary("nano", "cpu")
