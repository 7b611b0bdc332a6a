"""What the gate asks of a fusion, as data. A rule that could admit anything unmeasured is refused when it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.workload.workload import Workload

LEAST_SESSIONS = 2


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """One chip class: the ``workloads`` a fusion must win there, and the labels of its self-hosted ``runner``."""

    workloads: tuple[str, ...]
    runner: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a class without workloads, and ids that are none."""
        if not self.workloads or len(set(self.workloads)) != len(self.workloads):
            raise UsageError(f"workloads {list(self.workloads)}", expected="one workload id or more, each once")
        for workload in self.workloads:
            Workload.parse(workload)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The rules of admission.

    ``required`` are the chip classes that must show a win or prove that the fusion is off there; ``minimum_effect`` is
    a fraction of throughput; evidence older than ``max_age_days`` counts no more; a win must repeat in ``sessions``
    sessions; ``memory`` bounds the bytes of a fused and an unfused model together, by those of one. ``mlx`` and
    ``mlx_vlm``, where given, are the versions that evidence must be of.
    """

    required: tuple[str, ...]
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)
    minimum_effect: float = 0.005
    max_age_days: int = 90
    sessions: int = LEAST_SESSIONS
    memory: float = 1.1
    mlx: str | None = None
    mlx_vlm: str | None = None

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out, or would admit what was not shown."""
        if not self.required or len(set(self.required)) != len(self.required):
            raise UsageError(f"required classes {list(self.required)}", expected="one chip class or more, each once")
        for name in self.required:
            if name not in self.classes:
                raise UsageError(
                    f"class {name} is required, and nothing says which workloads it measures",
                    expected=f"a table [classes.{name}] with its workloads",
                )
        if self.sessions < LEAST_SESSIONS:
            raise UsageError(f"sessions = {self.sessions}", expected="2 or more: a win must repeat")
        if self.max_age_days < 1:
            raise UsageError(f"max_age_days = {self.max_age_days}", expected="1 or more")
        if not 1.0 <= self.memory <= 2.0:
            raise UsageError(f"memory = {self.memory}", expected="a factor from 1 to 2, for instance 1.1")
        if not 0 < self.minimum_effect < 1:
            raise UsageError(f"minimum_effect = {self.minimum_effect}", expected="a fraction, 0.005 for 0.5 %")

    @property
    def judging(self) -> Policy:
        """The rules by which each duel is judged again."""
        usual = Policy()
        return Policy(minimum_effect=self.minimum_effect, margin=max(usual.margin, self.minimum_effect))
