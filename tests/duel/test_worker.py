import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel import worker
from gemma3n_perf.errors import InvalidError, NonFiniteError
from tests.decode.fakes import fake_decoder

PROMPT = Prompt(np.arange(40, dtype=np.int32))
LOADED = wire.Loaded("forged:1", "prompt:1", 40, 64, None)


class FakeLoader:
    """Hands out one decoder over a fake engine."""

    def __init__(self, **engine: Any) -> None:
        self.decoder, self.engine = fake_decoder(**engine)
        self.guard: Callable[[], None] = lambda: None

    def load(self, request: wire.Load) -> tuple[wire.Loaded, worker.Model]:
        """Hand out the model."""
        if request.source == "missing":
            raise RuntimeError("[malloc] Unable to allocate 9 bytes")
        return LOADED, worker.Model(self.decoder, lambda variant: PROMPT, lambda: self.guard(), request.planted)

    def stack(self) -> dict[str, Any]:
        """Return a stack of one field."""
        return {"mlx": "1"}

    def program(self, checkpoints: dict[str, str]) -> wire.Program:
        """Return a program of one part."""
        return wire.Program({f"checkpoint {name}": value for name, value in checkpoints.items()})


def talk(loader: worker.Loader, *requests: wire.Request | bytes) -> list[wire.Reply]:
    """Return the answers to a conversation."""
    lines = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in requests]
    replies: list[wire.Reply] = []
    worker.serve(lines, replies.append, loader)
    return replies


def load(source: str = "nano") -> wire.Load:
    """Return a request to load."""
    return wire.Load("nano/text/pp40-tg64", source, "/root", "mlx_vlm", 0.0)


def test_a_worker_says_hello_loads_prepares_and_times() -> None:
    """Every request has one answer, in order, and Quit ends it."""
    replies = talk(FakeLoader(), load(), wire.Prepare(), wire.Block(7, 1, 1), wire.Quit(), wire.Block(7, 1, 1))
    assert [type(one) for one in replies] == [wire.Hello, wire.Loaded, wire.Prepared, wire.Timed]
    assert replies[0] == wire.Hello(wire.PROTOCOL, replies[0].pid, {"mlx": "1"})  # type: ignore[union-attr]


@pytest.mark.parametrize(("host_s", "step_s"), [(0.004, 0.010), (0.012, 0.010)])
def test_the_ends_of_a_block_do_not_count(host_s: float, step_s: float) -> None:
    """What is left takes the slower of host and device, as decode does for ever; the ends take more and less."""
    whole, inner = (
        talk(FakeLoader(host_s=host_s, step_s=step_s), load(), wire.Block(7, ends, ends))[-1] for ends in (0, 1)
    )
    assert isinstance(whole, wire.Timed)
    assert isinstance(inner, wire.Timed)
    assert inner.tpot_s == pytest.approx(max(host_s, step_s))
    assert whole.tpot_s * 7 == pytest.approx(whole.seconds)
    assert inner.seconds == pytest.approx(whole.seconds)
    assert whole.tpot_s != pytest.approx(inner.tpot_s)


def test_a_workers_logits_are_those_of_the_latest_step(tmp_path: Path) -> None:
    """Of a block's as of a whole run's, asked for afterwards, in a file of the duel's choice."""
    path = tmp_path / "logits.npy"
    loader = FakeLoader()
    replies = talk(loader, load(), wire.Prepare(), wire.Block(7, 1, 1), wire.LastLogits(str(path)))
    assert replies[-1] == wire.Written("float32")
    assert np.array_equal(np.load(path), loader.decoder.last_logits()[0])


@pytest.mark.parametrize(("fault", "seconds"), [("", 0.5), ("it goes in one token at a time", 0.0)])
def test_a_prefill_is_timed_where_it_means_something(fault: str, seconds: float) -> None:
    """Blocks go on from their position after it; memory is told beside it, and beside every block."""
    loader = FakeLoader(fault=fault)
    block = wire.Block(4, 1, 1)
    *_, first, prefilled, again = talk(loader, load(), wire.Prepare(), block, wire.Prefill(), block)
    assert isinstance(prefilled, wire.Prefilled)
    assert (prefilled.fault, prefilled.peak_bytes, prefilled.kv_bytes) == (fault, 1_000, 8 * 48)
    assert prefilled.seconds == pytest.approx(seconds)
    assert isinstance(first, wire.Timed)
    assert isinstance(again, wire.Timed)
    assert (again.peak_bytes, again.kv_bytes) == (1_000, 8 * 48)
    assert again.step_s == pytest.approx(first.step_s)
    assert loader.engine.device.resets == 1


def test_a_prefill_that_ends_otherwise_each_time_is_not_timed() -> None:
    """Its kernels are wrong here, so its time means nothing."""
    values = iter(range(1_000))
    loader = FakeLoader(token_at=lambda position: next(values) if position == 40 else 7)
    prefilled = talk(loader, load(), wire.Prefill())[-1]
    assert isinstance(prefilled, wire.Prefilled)
    assert (prefilled.seconds, prefilled.fault) == (0.0, "prefilling one prompt twice gave different first tokens")


def test_a_worker_says_what_program_it_is() -> None:
    """Beside what the process consists of, the checkpoints that it was given the digests of."""
    assert talk(FakeLoader(), wire.Describe({"nano": "1"}))[-1] == wire.Program({"checkpoint nano": "1"})


def test_the_steps_that_count_are_told_where_they_are_several() -> None:
    """Each by itself; their mean is the block's time per token."""
    loader = FakeLoader(host_s=0.001, step_s=0.004)
    several, single = talk(loader, load(), wire.Prepare(), wire.Block(7, 1, 1), wire.Block(3, 1, 1))[-2:]
    assert isinstance(several, wire.Timed)
    assert isinstance(single, wire.Timed)
    assert len(several.step_s) == 5
    assert sum(several.step_s) / 5 == pytest.approx(several.tpot_s)
    assert single.step_s == ()


def test_every_block_starts_from_the_same_position() -> None:
    """The KV cache is rewound before each."""
    loader = FakeLoader()
    talk(loader, load(), *[wire.Block(4, 1, 1)] * 3)
    assert loader.engine.rewinds == 3
    assert loader.engine.steps == 12


def test_tokens_that_change_between_blocks_are_invalid() -> None:
    """A rerun that decodes other tokens is told by its named error, and the worker lives on."""
    loader = FakeLoader()
    talk(loader, load(), wire.Block(4, 1, 1))
    loader.engine.token_at = lambda position: position
    replies = talk(loader, load(), wire.Block(4, 1, 1), wire.Block(4, 1, 1))
    assert [one.kind for one in replies if isinstance(one, wire.Failed)] == ["InvalidError", "InvalidError"]


def test_a_named_error_keeps_its_parts() -> None:
    """Kind, fact, expectation and remedy travel to the other side."""
    replies = talk(FakeLoader(finite=True), load(), wire.Prepare())
    assert isinstance(replies[-1], wire.Prepared)
    broken = FakeLoader()
    broken.engine.finite = False
    assert talk(broken, load(), wire.Prepare())[-1] == wire.Failed(
        "NonFiniteError", "1 of 8 logits are NaN or infinite"
    )
    named = wire.failed(NonFiniteError("x", expected="y", remedy="z"))
    assert named == wire.Failed("NonFiniteError", "x", "y", "z")


def test_a_failed_allocation_is_out_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """MLX has no type of its own for it; its words decide, and the traceback goes to standard error."""
    failed = talk(FakeLoader(), load("missing"))[-1]
    assert isinstance(failed, wire.Failed)
    assert failed.kind == "OutOfMemoryError"
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No room"), OSError("262144 requested and 4064 written")])
def test_a_full_temporary_folder_is_named(error: OSError) -> None:
    """Where logits of whole runs go; numpy has its own words for it."""
    failed = wire.failed(error)
    assert failed.kind == "DiskFullError"
    assert "TMPDIR" in str(failed.expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_failure_is_replied_to_where_nothing_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would learn of it."""
    with Path("/dev/full").open("w", buffering=1, encoding="utf-8") as full, Path(os.devnull).open("wb") as empty:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", full)
            assert wire.failed(ValueError("x")).found == "ValueError: x"
        os.dup2(empty.fileno(), full.fileno())  # so that it can be closed


def test_what_is_no_request_is_answered_too() -> None:
    """A line that does not parse, and a block before anything is loaded, are failures and no crash."""
    replies = talk(FakeLoader(), b"{}", b"nonsense", wire.Block(4, 1, 1), load())
    assert [type(one).__name__ for one in replies] == ["Hello", "Failed", "Failed", "Failed", "Loaded"]


def test_the_conversation_is_one_json_object_a_line() -> None:
    """Every message names its type, so that another version can tell what it does not know."""
    sent = json.loads(msgspec.json.encode(wire.Block(7, 1, 1, "one")))
    flags = {"built": False, "settled": False, "continued": False, "text": -1}
    assert sent == {"type": "Block", "steps": 7, "drop": 1, "tail": 1, "slot": "one", **flags}


def test_a_whole_run_is_timed_from_end_to_end(tmp_path: Path) -> None:
    """Every step of it, with the logits of the last one beside it."""
    loader = FakeLoader(host_s=0.001, step_s=0.010)
    whole = talk(loader, load(), wire.Prepare(), wire.WholeRun(3, 16, str(tmp_path / "logits.npy")))[-1]
    assert isinstance(whole, wire.Whole)
    assert whole.seconds == pytest.approx(16 * 0.010, rel=0.05)
    assert len(whole.tokens) == 16
    assert whole.dtype == "float32"
    assert np.load(tmp_path / "logits.npy").tolist() == [40.0 + 16] * 8


def test_a_fusion_that_replaced_the_clock_is_invalid() -> None:
    """Whatever its times are."""
    loader = FakeLoader()

    def replaced() -> None:
        raise InvalidError("time.perf_counter was replaced")

    loader.guard = replaced
    failed = talk(loader, load(), wire.Prepare(), wire.Block(4, 1, 1))[-1]
    assert isinstance(failed, wire.Failed)
    assert (failed.kind, failed.found) == ("InvalidError", "time.perf_counter was replaced")


def test_the_real_loader_gives_a_model_of_nano(nano_root: Path) -> None:
    """Variants are other prompts; what differs in nothing else shares its weights."""
    loader = worker.MlxVlmLoader()
    request = msgspec.structs.replace(load(), root=str(nano_root), workload="nano/text/pp40-tg4")
    first, model = loader.load(request)
    other, second = loader.load(msgspec.structs.replace(request, variant=1))
    assert first.checkpoint_digest == other.checkpoint_digest
    assert first.prompt_digest != other.prompt_digest
    assert model.decoder is not second.decoder
    assert loader.load(msgspec.structs.replace(request, planted=0.1))[1].decoder is model.decoder


def test_a_whole_run_is_interrupted_by_tokens_of_the_prompt(nano_root: Path, tmp_path: Path) -> None:
    """What follows them is their successor, as forged weights have it; the time is that of as many steps."""
    loader = worker.MlxVlmLoader()
    request = msgspec.structs.replace(load(), root=str(nano_root), workload="nano/text/pp40-tg16")
    forced = ((3, 5), (4, 45), (8, 7))
    run = wire.WholeRun(9, 12, str(tmp_path / "logits.npy"), forced=forced)
    *_, whole = talk(loader, request, wire.Prepare(), run)
    assert isinstance(whole, wire.Whole)
    _, model = loader.load(request)
    ids, width = model.prompt_of(9).ids, 256
    given = {0: ids[0], 3: ids[5], 4: ids[5], 8: ids[7]}
    inputs = [given.get(i, whole.tokens[i - 1]) for i in range(12)]
    assert list(whole.tokens) == [one // width * width + (one % width + 1) % width for one in inputs]
    assert np.load(tmp_path / "logits.npy").argmax() == whole.tokens[-1]


def test_a_text_begins_with_a_token_of_the_prompt_and_repeats_itself(nano_root: Path) -> None:
    """Others are other tokens, from the same position; blocks that go on stay with theirs; shapes know one alone."""
    loader = worker.MlxVlmLoader()
    _, model = loader.load(msgspec.structs.replace(load(), root=str(nano_root), workload="nano/text/pp40-tg16"))
    decoder = model.decoder
    decoder.prepare()

    def tokens(text: int, steps: int = 8) -> tuple[int, ...]:
        found = decoder.run(worker._NoProbe(), steps, built=True, text=text)[1]
        decoder.same_tokens(found)
        return tuple(found)

    first = {text: tokens(text) for text in (-1, 0, 1, 2)}
    assert len(set(first.values())) == 4
    assert {text: tokens(text) for text in first} == first
    halves = tokens(1, 4) + tuple(decoder.run(worker._NoProbe(), 4, built=True, continued=True, text=2)[1])
    assert halves == first[1]
    decoder._tokens[decoder._text][0] += 1
    with pytest.raises(InvalidError, match="run and rerun from one position differ from step 1 on"):
        tokens(1)
