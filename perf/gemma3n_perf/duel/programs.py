"""The programs of two arms: whether they are one, which needs no measuring, and what differs where they are not.

Two digests must agree: what the checkouts declare, and what two worker processes that have decoded consist of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemma3n_perf.duel import program, startup
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.parts import Parts, differences
from gemma3n_perf.duel.tools import Job, Tools
from gemma3n_perf.errors import NotComparableError, PerfError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.workload.workload import Workload

DESCRIBES = 6
"""The first protocol whose workers say what program they are."""

_STEPS = 2


@dataclass(frozen=True, slots=True)
class ArmProgram:
    """What one arm is. ``declared`` and ``installed`` are parts of its program, None where unknown;
    ``replies`` what its worker loaded and the greedy tokens it decodes, by workload."""

    arm: ReadyArm
    declared: Parts | None
    installed: Parts | None = None
    replies: Mapping[str, tuple[wire.Loaded, str]] = field(default_factory=dict)

    @property
    def checkpoints(self) -> dict[str, str]:
        """Digests of what was loaded, by name."""
        return {name.split("/")[0]: loaded.checkpoint_digest for name, (loaded, _) in self.replies.items()}


def same_program(before: ArmProgram, after: ArmProgram) -> bool:
    """Whether both arms are one program in every part, so that a comparison can only show error."""
    kept = [(one.arm.engine, one.arm.fusions, one.arm.planted, _settings(one.arm)) for one in (before, after)]
    return (
        None not in (before.declared, before.installed, after.declared, after.installed)
        and (before.declared, before.installed, before.replies) == (after.declared, after.installed, after.replies)
        and kept[0] == kept[1]
        and kept[0][2] == 0
    )


def changes(before: ArmProgram, after: ArmProgram) -> tuple[str, ...]:
    """What differs between two programs in short sentences: as installed where both are known, else as declared."""
    for one, other in ((before.installed, after.installed), (before.declared, after.declared)):
        if one is not None and other is not None:
            return tuple(differences(one, other))
    return ()


def declared(arm: ReadyArm, ref: str | None, repo: Path | None, chip_class: str) -> Parts | None:
    """What the checkout of an arm declares: of commit ``ref``, or this tree's where it is None; None where unknown."""
    if repo is None or "installed" in arm.text:
        return None
    try:
        tree = program.revision(Repository(repo), ref) if ref else program.folder(repo)
        return program.declared(tree, chip_class)
    except (PerfError, OSError):
        return None


def inspect(arm: ReadyArm, parts: Parts | None, jobs: Sequence[Job], tools: Tools) -> ArmProgram:
    """Start an arm alone, have it decode, and return what it is. Raises what its worker raises.

    One workload of each checkpoint, modality and engine is enough: shapes import nothing. An old worker cannot say
    what it is.
    """
    tools.note(f"{arm.text}: which program is it?")
    workloads = [(job, Workload.parse(job.workload)) for job in reversed(jobs)]
    kinds = {(one.checkpoint, one.modality, one.engine): job for job, one in workloads}
    replies: dict[str, tuple[wire.Loaded, str]] = {}
    with startup.started([arm], tools) as running:
        worker = running.workers[arm.name]
        for job in kinds.values():
            worker.send(startup.load(job, arm, running.protocol))
            loaded = startup.expect(worker, wire.Loaded, tools.waits.load)
            worker.send(wire.Prepare(arm.model_id))
            tokens = startup.expect(worker, wire.Prepared, tools.waits.prepare)
            worker.send(wire.Block(_STEPS, 0, 0, arm.model_id))
            startup.expect(worker, wire.Timed, tools.waits.block)
            replies[job.workload] = (loaded, tokens.token_digest)
        found = ArmProgram(arm, parts, None, replies)
        if running.protocol < DESCRIBES:
            return found
        worker.send(wire.Describe(found.checkpoints))
        described = startup.expect(worker, wire.Program, tools.waits.load)
    return replace(found, installed=described.parts)


def require_same_work(before: ArmProgram, after: ArmProgram) -> None:
    """Raise NotComparableError where the arms load other checkpoints or make other prompts of one workload."""
    for name, (loaded, _) in before.replies.items():
        other = after.replies.get(name)
        if other is not None and other[0] != loaded:
            fields = [one for one in loaded.__struct_fields__ if getattr(loaded, one) != getattr(other[0], one)]
            raise NotComparableError(f"its {', '.join(fields).replace('_', ' ')} of {name} differ from those of here")


def _settings(arm: ReadyArm) -> dict[str, str]:
    return {name: value for name, value in arm.environ.items() if name != "PYTHONPATH"}
