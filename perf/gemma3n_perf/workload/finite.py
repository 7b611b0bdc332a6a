"""Whether weights are finite: a fast NaN is no result."""

from typing import Any

import numpy as np

from gemma3n_perf.errors import NonFiniteError
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.presets import made_again


def require_finite(module: Any, checkpoint: str) -> None:
    """Raise NonFiniteError naming the first parameter of ``module`` that holds NaN or infinity."""
    import mlx.core as mx

    named = [(n, a) for n, a in skeleton.named_arrays(module.parameters()) if mx.issubdtype(a.dtype, mx.floating)]
    if mx.default_device().type == mx.DeviceType.cpu:
        bad = [name for name, a in named if not finite_on_cpu(a)]
    else:
        flags = [mx.isfinite(a).all() for _, a in named]
        mx.eval(flags)
        bad = [name for (name, _), flag in zip(named, flags, strict=True) if not flag.item()]
    if bad:
        raise NonFiniteError(
            f"{len(bad)} tensors hold NaN or infinity, first {bad[0]}",
            expected="finite weights",
            remedy=made_again(checkpoint),
        )


def finite_on_cpu(array: Any) -> bool:
    """Say whether all of ``array``, of any floating-point type, is finite."""
    # MLX's elementwise CPU kernels take seconds over a large checkpoint; numpy looks at the bits in place.
    import mlx.core as mx

    if array.dtype == mx.bfloat16:
        exponents = np.asarray(array.view(mx.uint16)) & 0x7F80
        return not bool((exponents == 0x7F80).any())
    return bool(np.isfinite(np.asarray(array)).all())
