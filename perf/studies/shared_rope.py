"""How far a forward of several tokens turns the queries of layers that share KV: ``python -m studies.shared_rope``.

Those layers of mlx-vlm read the cache's offset after an earlier layer has moved it on by the tokens of the forward.
Adds what this release gives to ``baselines/<class>/shared-rope.json``, in place of what it gave before.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import mlx.core as mx
import numpy as np

from gemma3n_perf.decode import prompt
from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.stack import in_checkout, installed
from gemma3n_perf.history.findings import ROTATIONS
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload import load
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import Workload
from studies import carry_out

WORKLOAD = Workload.parse("nano/text/pp32-tg6")


@contextmanager
def in_place(model: Any) -> Iterator[None]:
    """Have layers that share KV turn their queries by the position of the first token, as all others do."""
    attention = type(model.language_model.model.layers[-1].self_attn)
    call = attention.__call__

    def turned(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> Any:
        if self.is_kv_shared_layer:
            cache = SimpleNamespace(state=cache.state, offset=cache.offset - x.shape[1])
        return call(self, x, mask, cache)

    attention.__call__ = turned
    try:
        yield
    finally:
        attention.__call__ = call


def logits(model: Any, tokens: mx.array, step: int) -> mx.array:
    """Return the logits of all tokens (1, N, vocabulary), ``step`` of them in each forward, from an empty cache."""
    cache = model.make_cache()
    parts = mx.split(tokens, tokens.shape[1] // step, axis=1)
    return mx.concatenate([model.language_model(part, cache=cache).logits for part in parts], axis=1)


def compare(model: Any, tokens: mx.array, steps: Sequence[int] = (1, 2, 4, 8, 32)) -> list[dict[str, Any]]:
    """Return by tokens of a forward how far logits are, in root mean square, from those of right positions, one by one.

    ``mended`` is the same with right positions, ``greedy`` whether the likeliest tokens are the same.
    """
    with in_place(model):
        right = logits(model, tokens, 1)
        mended = [_far(logits(model, tokens, step), right) for step in steps]
    found = [logits(model, tokens, step) for step in steps]
    return [
        {
            "tokens": step, "off": f"{100 * _far(one, right):.1f} %", "mended": f"{fixed:.1g}",
            "greedy": bool(mx.array_equal(one.argmax(-1), right.argmax(-1)).item()),
        }
        for step, one, fixed in zip(steps, found, mended, strict=True)
    ]  # fmt: skip


def _far(one: mx.array, right: mx.array) -> float:
    return float(np.sqrt(np.mean(np.square(np.array(one - right))) / np.mean(np.square(np.array(right)))))


def nano(root: Path) -> tuple[Any, mx.array]:
    """Return the forged checkpoint, loaded, and tokens of its prompt (1, 32)."""
    ensure_forged(PRESETS["nano"], root)
    checkpoint = load.inspect("nano", root)
    made = prompt.make(WORKLOAD, checkpoint)
    return load.load(checkpoint, with_towers=False), mx.array([int(one) for one in made.ids])[None]


def main(argv: Sequence[str], out: TextIO, loaded: Callable[[Path], tuple[Any, mx.array]] = nano) -> int:
    """Compare, print and keep. Raises UsageError on a machine that is not known."""
    parser = argparse.ArgumentParser(prog="python -m studies.shared_rope", description=__doc__)
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    args = parser.parse_args(argv)
    chip = detect()
    require_known(chip)
    version = installed("mlx-vlm") or "unknown"
    found = [{"mlx_vlm": version, **one} for one in compare(*loaded(checkpoints_root()))]
    path = in_checkout("baselines", args.baselines) / chip.chip_class / ROTATIONS
    known = json.loads(path.read_bytes()) if path.exists() else []
    kept = [one for one in known if one["mlx_vlm"] != version] + found
    write_over(path, json.dumps(kept, indent=1).encode() + b"\n")
    for one in found:
        out.write(f"mlx-vlm {version}, {one['tokens']} tokens a forward: logits {one['off']} off, ")
        out.write(f"{one['mended']} with right positions; greedy tokens {'equal' if one['greedy'] else 'differ'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
