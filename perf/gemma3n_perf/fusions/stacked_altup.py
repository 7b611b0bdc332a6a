"""AltUp over the stacked planes as one small product each way, without transposes, on any device.

The coefficients are clipped and cast once instead of at every step, and identity and ones ride on the product.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replace prediction and correction at one position of batch 1."""
    for layer in model.language_model.model.layers:
        altup = layer.altup
        if altup.config.altup_active_idx == 0:
            modalities = _modalities(altup)
            patching.wrap(altup, "predict", _predict(altup, modalities))
            patching.wrap(altup, "correct", _correct(altup, modalities))


def _modalities(altup: Any) -> Callable[[mx.array], mx.array]:
    # The router's factor 1/hidden is a power of two in every released size, so it moves into the norm exactly.
    scaled = altup.router_norm.weight * (altup.config.hidden_size**-1.0)
    eps = altup.config.rms_norm_eps
    mx.eval(scaled)  # a few thousand numbers; unevaluated, they would hang on the weights as they were

    def modalities(x: mx.array) -> mx.array:
        return mx.tanh(altup.modality_router(mx.fast.rms_norm(x, scaled, eps)).astype(mx.float32))

    return modalities


def coefficients(linear: Any, clip: float | None) -> mx.array:
    """A coefficient matrix as the model uses it: float32, clipped, transposed for a row vector."""
    weight = linear.weight.astype(mx.float32)
    transposed = (weight if clip is None else mx.clip(weight, -clip, clip)).T
    mx.eval(transposed)
    return transposed


def mix(mixing: mx.array, planes: mx.array) -> mx.array:
    """``mixing`` (planes, planes) times ``planes`` (planes, hidden). A GPU's matrix unit would round float32 inputs."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return mixing @ planes
    return mx.sum(mixing[:, :, None] * planes[None], axis=1)


def _predict(altup: Any, modalities: Callable[[mx.array], mx.array]) -> Callable[..., Any]:
    n = altup.config.altup_num_inputs
    weights = coefficients(altup.prediction_coefs, altup.config.altup_coef_clip)
    identity = mx.eye(n).reshape(1, n * n)

    def predict(original: Any, x: Any) -> Any:
        if x.shape[1:3] != (1, 1):
            return original(x)
        planes = x.reshape(n, -1)
        mixing = mx.addmm(identity, modalities(planes[:1]), weights).reshape(n, n)
        return mix(mixing, planes.astype(mx.float32)).astype(x.dtype).reshape(x.shape)

    return predict


def _correct(altup: Any, modalities: Callable[[mx.array], mx.array]) -> Callable[..., Any]:
    n = altup.config.altup_num_inputs
    weights = coefficients(altup.correction_coefs, altup.config.altup_coef_clip)
    ones = mx.ones((1, n))

    def correct(original: Any, predictions: Any, activated: Any) -> Any:
        if activated.shape[:2] != (1, 1):
            return original(predictions, activated)
        factors = mx.addmm(ones, modalities(activated.reshape(1, -1)), weights).reshape(n, 1, 1, 1)
        return (factors * (activated - predictions[0]) + predictions).astype(activated.dtype)

    return correct


FUSION = Fusion(
    name="stacked-altup",
    summary="AltUp's prediction and correction as one small product each, coefficients prepared once",
    replaces=("Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    graph=Declared(fewer=("nodes", "operations.Transpose"), more=("calls.addmm",)),
    file=__file__,
    apply=apply,
)
