"""Profiles made up for tests."""

from dataclasses import replace
from typing import Any

from gemma3n_perf.profile.types import (
    Comparison,
    Context,
    Contexts,
    Deviation,
    EngineResult,
    Engines,
    Estimate,
    Floor,
    Histogram,
    Knob,
    Loop,
    Missing,
    Profile,
    Split,
    Sweep,
    Taken,
    Trace,
    WorkloadProfile,
)
from tests.fakes import CHIP, COMMIT, STACK, WORKLOAD


def about(value: float, spread: float = 0.05, rounds: int = 12) -> Estimate:
    """Return an estimate with an interval of ``spread`` on either side."""
    return Estimate(value, value * (1 - spread), value * (1 + spread), rounds)


def loop(build: float, dispatch: float, wait: float) -> Loop:
    """Return a loop of these stages, seconds, and a little sampling."""
    sample = 1e-5
    return Loop(about(build), about(sample), about(dispatch), about(wait), about(build + sample + dispatch + wait))


def split(build: float, dispatch: float, wait: float, exposed: float, bound: str) -> Split:
    """Return a split whose pipelined loop has these stages."""
    pipelined = loop(build, dispatch, wait)
    return Split(
        tokens=16,
        synchronous=loop(build, dispatch, wait + 0.002),
        pipelined=pipelined,
        hidden_s=about(0.002),
        planted_s=0.005,
        exposed=Estimate(exposed, exposed - 0.05, exposed + 0.05, 12),
        host_s=about(build + dispatch + 1e-5),
        bound=bound,
    )


def floor(chain: float, bandwidth: float, streamed: int = 2_500_000_000, tpot: float = 0.03) -> Floor:
    """Return a floor whose large product streams at ``bandwidth``."""
    return Floor(
        products=433,
        streamed_bytes=streamed,
        by_part={"attention": streamed // 10, "mlp": streamed // 2, "head": streamed // 8},
        chain_s=about(chain),
        dispatch_s=about(chain / 3),
        tpot_s=about(tpot),
        share=about(chain / tpot),
        gemv_bandwidth=about(bandwidth),
        copy_bandwidth=3e12,
    )


def histogram(views: int = 400, glue: int = 110, compute: int = 490) -> Histogram:
    """Return a histogram of these groups over 35 layers."""
    return Histogram(
        position=324,
        layers=35,
        nodes=views + glue + compute,
        operations={"Broadcast": views, "QuantizedMatmul": compute, "AsType": glue},
        groups={"compute": compute, "view": views, "glue": glue},
        dtypes={"bfloat16": 900, "float32": 100},
        per_layer={"Broadcast": 11.43},
        expected={"quantized_matmul": compute},
        found={"quantized_matmul": compute},
        comparisons=(
            Comparison(
                "published", "somebody's | page", (Deviation("Full", 149, 1, "a reason"), Deviation("Odd", 0, 3))
            ),
        ),
    )


def contexts(image: float | None = 0.0301) -> Contexts:
    """Return three lengths of text, and an image unless it is None."""
    points = tuple(Context("text", n, about(n / 1e4), about(0.03 + n * 1e-6)) for n in (68, 324, 2116))
    if image is None:
        return Contexts(points, about(0.001), None, None, None, "no tower")
    shot = Context("image", 324, about(0.2), about(image))
    return Contexts(points, about(0.001), shot, Estimate(1e-5, -1e-4, 1e-4, 12), about(0.000256))


def engines() -> Engines:
    """Return one engine that runs, one that departs, one that cannot load."""
    return Engines(
        320, 16,
        (
            EngineResult("loop", "1.0", about(0.03), about(1.0), 12),
            EngineResult("other", "2.0", about(0.04), about(0.75), 12, first_difference=5, note="a remark"),
            EngineResult("third", None, error="KeyError: 'model'"),
        ),
    )  # fmt: skip


def sweep(*knobs: Knob) -> Sweep:
    """Return a sweep of these knobs, or of one that won and one that was not measured."""
    made = knobs or (
        Knob("MLX_A=1", "win", "above", 0.11, 0.10, 0.12, 4),
        Knob("MLX_B=2", "not-measured", "this build of MLX does not read MLX_B"),
    )
    return Sweep(made, next((one.setting for one in made if one.verdict == "win"), None))


TAKEN = Taken("2026-11-22T10:00:00+00:00", COMMIT, False, 12.5)


def workload(name: str = WORKLOAD, **parts: Any) -> WorkloadProfile:
    """Return a workload's profile of these parts, each dated."""
    return WorkloadProfile(name, "forged:1", taken=dict.fromkeys(parts, TAKEN), **parts)


def whole(name: str = WORKLOAD) -> WorkloadProfile:
    """Return a profile with every part but one, which is missing."""
    made = workload(
        name,
        split=split(0.007, 0.02, 0.001, 0.95, "host-bound"),
        floor=floor(0.0036, 2.5e12, tpot=0.028),
        histogram=histogram(),
        contexts=contexts(),
        engines=engines(),
        sweep=sweep(),
    )
    return replace(made, missing=(Missing("trace", "no CUPTI | and no NVML", "install it"),))


def profile(*workloads: WorkloadProfile, **changes: Any) -> Profile:
    """Return a profile of the fakes' chip and stack."""
    return replace(Profile(1, CHIP, STACK, workloads or (whole(),)), **changes)


def trace(busy: float) -> Trace:
    """Return what CUPTI says."""
    return Trace("CUPTI", about(busy), about(1.5 * busy), 2_500.0, "a remark")
