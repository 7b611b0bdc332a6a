import pytest

from gemma3n_perf.hardware.types import slug


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "nvidia-h100-80gb-hbm3-mig-1g.10gb"),
        ("Intel(R) Xeon(R) Platinum 8481C", "intel-xeon-platinum-8481c"),
        ("Apple M1 (Virtual)", "apple-m1-virtual"),
        ("../../evil . name.", "evil-name"),
    ],
)
def test_slug_is_a_plain_folder_name(name: str, expected: str) -> None:
    """Marks, spaces and stray dots become single hyphens; a dot within a word stays."""
    assert slug(name) == expected
