"""Whether MLX's 4-bit products are right here, by rows and K: ``python -m studies.two_rows``, from perf/.

Adds what this release gives to ``baselines/<class>/two-rows.json``, in place of what it gave before.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import mlx.core as mx
import numpy as np

from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.stack import in_checkout, installed
from gemma3n_perf.history.findings import PRODUCTS
from gemma3n_perf.store.files import write_over
from studies import carry_out


def product(rows: int, k: int) -> dict[str, Any]:
    """Return the largest error of a product of so many rows and 4-bit weights of ``k`` inputs; whether two agree."""
    weight, x = mx.random.normal((256, k), key=mx.random.key(1)), mx.random.normal((rows, k), key=mx.random.key(2))
    packed = mx.quantize(weight, group_size=64, bits=4)
    right = x @ mx.dequantize(*packed, group_size=64, bits=4).T
    one, other = (mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=4) for _ in range(2))
    mx.eval(one, other)
    worst = float(np.abs(np.array([one, other]) - np.array(right)).max())
    same = bool(mx.array_equal(one, other).item())
    return {"rows": rows, "k": k, "error": f"{worst:.2g}" if math.isfinite(worst) else "not finite", "same": same}


def main(argv: Sequence[str], out: TextIO) -> int:
    """Try every product, print it and keep it. Raises UsageError on a machine that is not known."""
    parser = argparse.ArgumentParser(prog="python -m studies.two_rows", description=__doc__)
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    args = parser.parse_args(argv)
    chip = detect()
    require_known(chip)
    version = installed("mlx") or "unknown"
    found = [{"mlx": version, **product(rows, k)} for k in (64, 2048) for rows in (1, 2, 8)]
    path = in_checkout("baselines", args.baselines) / chip.chip_class / PRODUCTS
    known = json.loads(path.read_bytes()) if path.exists() else []
    kept = [one for one in known if one["mlx"] != version] + found
    write_over(path, json.dumps(kept, indent=1).encode() + b"\n")
    for one in found:
        what = f"mlx {version}, {one['rows']} rows, K = {one['k']}"
        out.write(f"{what}: error {one['error']}, {'the same twice' if one['same'] else 'not the same twice'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
