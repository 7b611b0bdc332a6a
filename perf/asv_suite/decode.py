"""Time per token and throughput of this chip's default workloads, measured once for both.

asv decides when to run, the harness how. ``setup_cache`` holds the machine's measuring lock, takes all runs
under watched conditions and hands the samples on; a workload that cannot be measured fails alone, with its reason.

Names and parameters are frozen (``gemma3n_perf.history.asv_files``): a renamed benchmark starts its history anew.
"""

from typing import Any

from gemma3n_perf.history import asv_adapter as _adapter
from gemma3n_perf.history import asv_files as _asv_files

_WORKLOADS = _adapter.default_workloads()


def setup_cache() -> Any:
    """Measure every workload; asv runs this once for both benchmarks."""
    return _adapter.measure_all(_WORKLOADS)


def track_time_per_token(measured: Any, workload: str) -> dict[str, Any]:
    """Seconds per output token of every run: lower is better, and what regressions are looked for in."""
    return _adapter.samples(measured, workload)


def track_throughput(measured: Any, workload: str) -> dict[str, Any]:
    """Tokens per second of the same runs: for reading; asv would take more for worse."""
    return _adapter.rates(measured, workload)


setup_cache.timeout = 3600  # type: ignore[attr-defined]
for _function in (track_time_per_token, track_throughput):
    _described = _asv_files.description(f"decode.{_function.__name__}", _WORKLOADS) | {"params": [_WORKLOADS]}
    for _key in ("unit", "pretty_name", "params", "param_names", "timeout", "version"):
        setattr(_function, _key, _described[_key])
