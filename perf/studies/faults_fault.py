"""A fault: what befalls a command, when, and what may follow."""

from collections.abc import Callable
from dataclasses import dataclass

from studies.faults_victim import Victim


@dataclass(frozen=True)
class Fault:
    """What befalls a command at one of its ``moments``.

    ``prepare`` is called on the command before it is started and its folders are filled, ``strike`` at the moment.
    ``ends`` are exit codes that may follow beside those that always may, ``touches`` the parts of the checkout that the
    fault itself changes. ``needs`` says why it cannot be tried here, or "". A ``cold`` one is tried where MLX has not
    compiled anything yet, for it may befall a compiler.
    """

    name: str
    what: str
    strike: Callable[[Victim], object]
    moments: tuple[str, ...] = ("before",)
    ends: frozenset[int] = frozenset()
    prepare: Callable[[Victim], object] = lambda victim: None
    touches: tuple[str, ...] = ()
    limit_s: float = 150.0
    needs: Callable[[], str] = lambda: ""
    cold: bool = False
