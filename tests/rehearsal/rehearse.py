"""Pull requests from plan to comment, played on this machine by the steps of the workflow itself.

Opinion: evidence is real wherever it can be. A fusion and its evidence are taken out of a scratch clone's base and
proposed again, so the change under judgement is the one that was measured; what is planted is said so.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from gemma3n_perf.ci.plan import read_plan
from gemma3n_perf.errors import NotMeasuredError, PerfError, UsageError
from gemma3n_perf.gate import record as store
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.stack import suite_checkout
from tests.rehearsal import farm, github, programs
from tests.rehearsal.github import Clone, Comments
from tests.rehearsal.programs import Bump
from tests.rehearsal.proposal import completed
from tests.rehearsal.steps import carry_out, read_steps

WORKFLOW = Path(".github/workflows/gate.yml")
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A pull request to play: what the gate's job must exit with, and how its comment must begin.

    ``plant`` changes a copy of each record (nothing is planted where it is None), ``lost`` loses one class's runner,
    ``docs`` changes a page and nothing else, ``fork`` comes from one, ``approved`` dispatched for an older commit,
    ``passed`` run again after a dispatched run for its commit passed, ``bump`` changes the lock instead of a fusion,
    and may be measured here (``measures``). ``farm`` is played in a fork with one machine of its own.
    """

    name: str
    says: str
    code: int
    plant: Callable[[Tree], None] | None = None
    planted: str = ""
    lost: bool = False
    docs: bool = False
    fork: bool = False
    approved: bool = False
    passed: bool = False
    bump: Bump | None = None
    measures: bool = False
    farm: bool = False


@dataclass
class Stage:
    """Where a scenario is played: clones of one checkout with ``fusion`` taken out of its base and proposed again.

    ``synthetic`` are the classes whose evidence no machine measured.
    """

    clone: Clone
    fusion: str
    base: str
    head: str
    records: Mapping[str, Path]
    folder: Path
    synthetic: tuple[str, ...] = ()

    @property
    def introduction(self) -> str:
        """Say what is proposed, and whose evidence was never measured."""
        real = [one for one in self.records if one not in self.synthetic]
        told = [f"evidence as committed of {', '.join(real)}"] if real else []
        told += [f"planted: synthetic evidence of {', '.join(self.synthetic)}"] if self.synthetic else []
        return f"fusion {self.fusion}; {'; '.join(told)}\n"


def exchange_arms(record: Tree) -> None:
    """Plant a loss: what the fused model took is told of the unfused one, and the other way round."""
    other = {"baseline": "candidate", "candidate": "baseline"}
    for workload in record["workloads"]:
        for launch in workload["raw"]:
            for name in {"first", "started_first"} & launch.keys():  # the older records' name, and today's
                launch[name] = other.get(launch[name], launch[name])  # or another candidate of that launch
            launch["whole_s"] = launch["whole_s"] and launch["whole_s"][::-1]
            for block in (block for pair in launch["pairs"] for block in pair):
                block["arm"] = other[block["arm"]]
        for judged in (workload["judgement"], *workload["per_session"]):
            if judged["effect"] is not None:
                judged["effect"] = 1 / (1 + judged["effect"]) - 1


def wrong_output(record: Tree) -> None:
    """Plant a wrong result: the fused model's tokens differ."""
    for one in record["checked"]:
        if one["parity"] is not None:
            one["parity"] |= {"passed": False, "reason": "planted: token 3 differs"}


SCENARIOS = (
    Scenario("admitted", "admitted: ", 0),
    Scenario("loss", "refused: loss", 1, exchange_arms, "the arms of the evidence are exchanged"),
    Scenario("missing-class", "refused: not-measured", 4, lost=True),
    Scenario("wrong-output", "refused: invalid", 5, wrong_output, "parity fails in the evidence"),
    Scenario("docs-only", "nothing to gate", 0, docs=True),
    Scenario("fork", "not-measured: waiting for approval", 4, fork=True),
    Scenario("fork-moved-on", "not-measured: waiting for approval", 4, fork=True, approved=True),
    Scenario("fork-passed", "nothing to gate", 0, fork=True, passed=True),
    Scenario("lock-slower", "refused: loss (mlx 0.32.0 ", 1, bump=Bump("mlx", "0.32.0", (-0.07,)), measures=True),
    Scenario("lock-equal", "no regression: ", 0, bump=Bump("mlx-vlm", "0.7.9"), measures=True),
    Scenario("lock-of-tools", "nothing to gate", 0, bump=Bump("ruff", "0.15.0")),
    Scenario("loss-accepted", "no regression: ", 0, bump=Bump("mlx", "0.32.0", (-0.07,), accepts=9)),
    Scenario("classes-disagree", "refused: loss (mlx 0.32.0 ", 1, bump=Bump("mlx", "0.32.0", (0.05, -0.07, 0.0))),
    Scenario("base-gone", "refused: not-measured", 4, bump=Bump("mlx", "0.32.0", gone="mlx 0.32.0 was withdrawn")),
    Scenario("head-unresolved", "refused: not-measured", 4, bump=Bump("mlx", "0.32.0", unresolved=True)),
    Scenario("fork-of-the-lock", "not-measured: waiting for approval", 4, fork=True, bump=Bump("mlx", "0.32.0")),
    Scenario("new-farm", "admitted: ", 0, planted="the sessions of a recorded Mac", farm=True),
)


def rehearse(named: Sequence[str], out: TextIO, source: Path | None = None, *, measure: bool = False) -> int:
    """Play the scenarios asked for, or all, and print each comment. Returns 0 where each came out as it should, else 1.

    ``measure`` has this machine measure those lock bumps that can be, by the workflow's own step.

    Raises UsageError for an unknown scenario.
    """
    names = [one.name for one in SCENARIOS]
    for name in named:
        if name not in names:
            raise UsageError(f"scenario {name!r}", expected=f"one of {', '.join(names)}")
    chosen = [one for one in SCENARIOS if not named or one.name in named]
    source = source or suite_checkout()
    if source is None:
        raise UsageError("this package is not run from a git checkout", expected="a clone of the repository")
    failed = []
    with _stage(source) as stage, Comments().served() as api:
        out.write(stage.introduction)
        for scenario in [one for one in chosen if one.bump and one.bump.disagrees and len(stage.records) < 2]:
            chosen.remove(scenario)
            out.write(f"{scenario.name} is left out: the policy requires one class, and it takes two\n")
        for scenario in chosen:
            began = time.monotonic()
            here = measure and scenario.measures
            if scenario.farm:
                code, comment = _new_farm(scenario, source, stage.folder / "farm", api, out)
            else:
                code, comment = play(scenario, stage, api, measure=here)
            title = comment.splitlines()[1].removeprefix("### ") if "\n" in comment else comment
            right = code == scenario.code and title.startswith(scenario.says)
            planted = str(scenario.bump) if scenario.bump else scenario.planted
            note = f"; planted{' on other classes' if here else ''}: {planted}" if planted else ""
            out.write(f"\n==== {scenario.name}: exit {code}, {time.monotonic() - began:.1f} s{note}\n{comment}")
            if not right:
                failed.append(scenario.name)
                out.write(f"WRONG: expected exit {scenario.code} and a comment that says {scenario.says!r}\n")
            out.flush()
    out.write(f"\n{len(chosen) - len(failed)} of {len(chosen)} scenarios came out as they should\n")
    return 1 if failed else 0


def _new_farm(scenario: Scenario, source: Path, folder: Path, api: str, out: TextIO) -> tuple[int, str]:
    """Play the founding of a farm, and the first pull request there."""
    folder.mkdir()
    fork = farm.founded(source, folder, api, out)
    with _stage(fork.root) as stage:
        out.write(stage.introduction)
        code, comment = play(scenario, stage, api)
    return code, comment + farm.site(fork, folder)


def play(scenario: Scenario, stage: Stage, api: str, *, measure: bool = False) -> tuple[int, str]:
    """Play one pull request; returns the gate job's exit code and the comment that was posted."""
    folder = stage.folder / scenario.name
    folder.mkdir()
    base, head = stage.base, _documented(stage) if scenario.docs else stage.head
    if scenario.bump is not None:
        base, head = programs.proposed(scenario.bump, stage.clone, head)
    for name, commit in (("trusted", base), ("candidate", head)):
        stage.clone.at(commit, folder / name)
    variables = github.variables(folder, api) | _event(scenario, base, folder, head)
    known = {"github.token": "none", "github.event.pull_request.number": str(github.NUMBER)}
    workflow = folder / "trusted" / WORKFLOW

    def step(job: str, name: str) -> int:
        ended = carry_out(read_steps(workflow, job)[name], folder, known, variables)
        with (folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{job}: {name}: {ended.code}\n{ended.said}\n")
        return ended.code

    if step("plan", "Plan") == 0:
        lines = (folder / "outputs").read_text().splitlines()
        known |= {f"needs.plan.outputs.{name}": value for name, _, value in (line.partition("=") for line in lines)}
    known.setdefault("needs.plan.outputs.plan", "")
    if known.get("needs.plan.outputs.state") == "measure":
        if scenario.bump is None:
            _measured(scenario, stage, folder)
        else:
            plan = read_plan(known["needs.plan.outputs.plan"])
            here = _compared_here(stage, folder, known, variables, base, head) if measure else None
            classes = {one.name: one.required for one in plan.classes}
            programs.measured(scenario.bump, folder, classes, base, head, here)
        step("gate", "Judge by the rules of the branch it wants to enter")
        github.installed(folder / "candidate")
        code = step("gate", "Answer")
    else:
        code = step("gate", "Answer at once where nothing was measured")
    (folder / "answer").mkdir(exist_ok=True)
    text = folder / "comment.md"
    if not text.is_file():
        raise NotMeasuredError(f"{scenario.name} left no comment", remedy=(folder / "log").read_text()[-800:])
    (folder / "answer" / "comment.md").write_text(text.read_text())
    if step("comment", "Comment") != 0:
        raise NotMeasuredError(f"{scenario.name}: not posted", remedy=(folder / "log").read_text()[-800:])
    return code, text.read_text()


def _compared_here(
    stage: Stage, folder: Path, known: Mapping[str, str], variables: Mapping[str, str], base: str, head: str
) -> str:
    """Carry out the measuring step of this machine's class; returns the class."""
    chip_class = detect().chip_class
    checkout = stage.clone.at(head, folder / "machine").root
    github.installed(checkout)
    known = {
        **known, "matrix.class": chip_class, "needs.plan.outputs.base": base, "needs.plan.outputs.head": head,
    }  # fmt: skip
    ended = carry_out(
        read_steps(checkout / WORKFLOW, "measure")["Measure"], checkout, known, {**variables, **programs.runner(folder)}
    )
    with (folder / "log").open("a", encoding="utf-8") as log:
        log.write(f"measure: {ended.code}\n{ended.said}\n")
    if ended.code:
        raise NotMeasuredError(f"this machine measured nothing: {ended.said[-800:]}")
    return chip_class


def _event(scenario: Scenario, base: str, folder: Path, head: str) -> dict[str, str]:
    path = folder / "event.json"
    if scenario.approved:
        github.dispatch(path, folder / "pull.json", head, base, base)
        return {"GITHUB_EVENT_NAME": "workflow_dispatch", "GITHUB_EVENT_PATH": str(path)}
    passed = f"gate of #{github.NUMBER} at {head}"
    (folder / "passed.json").write_text(json.dumps([passed] if scenario.passed else []))
    repo = "stranger/gemma3n" if scenario.fork else github.REPO
    github.event(path, head, base, head_repo=repo)
    return {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(path)}


def _documented(stage: Stage) -> str:
    stage.clone.git("checkout", "--quiet", "--detach", stage.base)
    page = stage.clone.root / "docs" / "glossary.md"
    page.write_text(page.read_text() + "\nA corrected sentence.\n")
    return stage.clone.save("a page is corrected")


def _measured(scenario: Scenario, stage: Stage, folder: Path) -> None:
    """Play the measuring jobs: their evidence was measured before, and is packed as they pack it."""
    ends: dict[str, str | None] = dict.fromkeys(stage.records, "success")
    for number, (chip_class, path) in enumerate(stage.records.items()):
        if scenario.lost and number == 0:
            ends[chip_class] = None
            continue
        if scenario.plant is not None:
            path = _planted(path, scenario.plant, folder / "planted" / chip_class)
        github.pack(folder / "artifacts", chip_class, stage.head, [path])
    github.jobs(folder / "jobs.json", ends)


def _planted(path: Path, plant: Callable[[Tree], None], folder: Path) -> Path:
    # As its reader sees it: stored, blocks are folded.
    record: Tree = msgspec.json.decode(msgspec.json.encode(store.read(path)))
    plant(record)
    record["content_digest"] = store.content_digest(record)
    folder.mkdir(parents=True)
    made = folder / path.name
    made.write_bytes(json.dumps(record).encode())
    return made


@contextmanager
def _stage(source: Path) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="gemma3n-perf-rehearsal-") as name:
        folder = Path(name)
        clone = Clone.of(source, folder / "clone")
        fusion, module, kept, synthetic = completed(clone)
        contents = {path: path.read_bytes() for path in (module, *kept.values())}
        for path in contents:
            path.unlink()
        base = clone.save(f"before {fusion}")
        for path, data in contents.items():
            path.write_bytes(data)
        head = clone.save(f"propose {fusion}")
        records = {}
        for chip_class, path in kept.items():
            records[chip_class] = folder / "evidence" / chip_class / path.name
            records[chip_class].parent.mkdir(parents=True)
            records[chip_class].write_bytes(contents[path])
        yield Stage(clone, fusion, base, head, records, folder, synthetic)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Play the scenarios named, or all. A named error becomes its text and exit code."""
    parser = argparse.ArgumentParser(prog="make rehearse", description=__doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("--measure", action="store_true", help="have this machine measure lock bumps: minutes each")
    try:
        args = parser.parse_args(argv)
        return rehearse(args.scenario, out, measure=args.measure)
    except PerfError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout))
