"""What a decoder needs of an engine."""

from typing import Any, Protocol

from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.workload.workload import Shape


class Engine(Protocol):
    """What a decode session needs of an engine. Tokens are opaque; ``item()`` reads one and waits for it."""

    name: str
    cache: Any

    def prefill(self, prompt: Prompt) -> Any:
        """Run the prompt into an empty KV cache and return the first token."""

    def prefill_fault(self) -> str:
        """Why a prefill here is not what generation does, so that its time means nothing; empty where it is."""

    def begin(self, token_id: int) -> Any:
        """Start an empty KV cache and return ``token_id`` as a token to feed."""

    def token(self, token_id: int) -> Any:
        """Return ``token_id`` as a token to feed."""

    def step(self, token: Any) -> Any:
        """Feed ``token`` and return the next one, not yet computed."""

    def snapshot(self) -> Any:
        """Copy the state that ``rewind`` goes back to."""

    def rewind(self, snapshot: Any) -> None:
        """Go back to ``snapshot``, which stays usable."""

    def last_logits(self) -> tuple[Any, str]:
        """Logits of the latest step, float32 of shape (vocabulary,), and the type they were computed in."""

    def kv_bytes(self) -> int:
        """Bytes of the KV cache now."""

    def shaped(self, shape: Shape, prompt: Prompt) -> Any:
        """An engine for a shape that is not plain; its ``read`` makes one number of a step's tokens."""

    def check_finite(self, token: Any) -> None:
        """Feed ``token`` and look at every logit. Raises NonFiniteError."""
