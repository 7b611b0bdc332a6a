"""The registry's fusions and compositions, as the gate and a session of evidence ask for them."""

from pathlib import Path

from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.hardware.types import Chip


class Registered:
    """The fusions of this package. Importing the registry imports them all, so it waits until one is asked for."""

    def names(self) -> tuple[str, ...]:
        """Return all fusions, without compositions."""
        from gemma3n_perf.fusions import registry

        return registry.names()

    def fusion(self, name: str) -> Fusion:
        """Return a fusion or a composition. Raises UsageError for an unknown name or parts that do not go together."""
        from gemma3n_perf.fusions import registry

        return registry.get(name)

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the modules it is made of, each once. Raises UsageError for an unknown name."""
        from gemma3n_perf.fusions import registry

        return registry.source_files(name)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of its sources. Raises UsageError for an unknown name."""
        from gemma3n_perf.fusions import registry

        return registry.source_digest(name)

    def enabled(self, name: str, chip: Chip) -> bool:
        """Whether it is on for a chip; a composition where every part is. Raises UsageError for an unknown name."""
        return self.fusion(name).enabled(chip)
