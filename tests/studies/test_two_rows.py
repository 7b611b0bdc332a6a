import io
import json
from pathlib import Path

import mlx.core as mx
import pytest

from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.history.findings import PRODUCTS
from studies import two_rows


def test_products_are_recorded_by_release(tmp_path: Path) -> None:
    """A release's own rows are replaced, those of others kept; on a CPU every product is right."""
    path = tmp_path / detect().chip_class / PRODUCTS
    path.parent.mkdir()
    path.write_text(json.dumps([{"mlx": "0.1", "rows": 2, "k": 64, "error": "not finite", "same": False}]))
    for _ in range(2):
        assert two_rows.main(["--baselines", str(tmp_path)], io.StringIO()) == 0
    found = json.loads(path.read_bytes())
    assert len(found) == 7
    assert found[0]["mlx"] == "0.1"
    if detect().vendor == "cpu":
        assert all(one["same"] and float(one["error"]) < 1e-3 for one in found[1:])


def test_a_wrong_product_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage has an error, NaN none that is finite."""
    real = mx.quantized_matmul
    monkeypatch.setattr(mx, "quantized_matmul", lambda *args, **kwargs: real(*args, **kwargs) + 5)
    assert float(two_rows.product(2, 64)["error"]) == pytest.approx(5, rel=0.01)
    monkeypatch.setattr(mx, "quantized_matmul", lambda *args, **kwargs: real(*args, **kwargs) * float("nan"))
    found = two_rows.product(2, 64)
    assert found["error"] == "not finite"
    assert not found["same"]
