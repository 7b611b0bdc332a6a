"""What a session would measure and how long, said in place of measuring it: ``pytest perf/ --explain``."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gemma3n_perf.bench.bench import LEAST_RUNS, usual_runs
from gemma3n_perf.bench.comparator import comparators
from gemma3n_perf.gate.change import registered
from gemma3n_perf.gate.session import states
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import installed_release, suite_checkout
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.report.dry_run import at_most, dry_run
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.files import local_folder
from gemma3n_perf.workload.workload import Workload

_WARM_RUNS = 2
_PREFILLS = 5
"""What is done beside the runs of a workload, about."""


def explained(suite: SuiteSession, selected: Iterable[Workload | None]) -> str:
    """Return what a session would measure on the workloads of ``selected`` tests; nothing is built or opened."""
    workloads = [str(one) for one in dict.fromkeys(selected) if one]
    if suite.fusions:
        return _evidence(suite)
    return _comparison(suite, workloads) if suite.storage.comparing else _runs(suite, workloads)


def _evidence(suite: SuiteSession) -> str:
    from gemma3n_perf.gate.run import spec_of  # brings MLX along

    spec = spec_of(suite.options.baselines, suite.chip, suite.narrowed, suite.options.time_budget)
    enabled, _ = states(suite.fusions, registered(), suite.chip)
    on, off = ([name for name in suite.fusions if enabled[name] is state] for state in (True, False))
    sessions = spec.policy.sessions
    what = (
        f"evidence on {suite.chip.chip_class}: graph, outputs and memory, then {sessions} sessions of duels with the "
    )
    what += f"unfused model, of {', '.join(on) or 'none'}" + (f" (off here: {', '.join(off)})" if off else "") + ", on"
    pauses_s = spec.policy.apart * (sessions - 1)
    how_long = at_most(len(spec.workloads), spec.each_s, duels=len(on), pauses_s=pauses_s)
    return dry_run(what, spec.workloads, *([how_long] if on else []))


def _comparison(suite: SuiteSession, workloads: Sequence[str]) -> str:
    request = replace(suite.request, workloads=tuple(workloads))
    what = f"a duel of {_baseline(suite)} with {request.candidate}, unless both are the same program, on"
    how_long = [at_most(len(workloads), request.budget_s(suite.chip.vendor))]
    if suite.options.runs:
        how_long.append(f"and {suite.options.runs} runs of each")
    return dry_run(what, workloads, *how_long)


def _baseline(suite: SuiteSession) -> str:
    if suite.options.against or suite.options.planted:
        return suite.options.against or "this tree without the planted slowdown"
    repo, release, baseline = suite_checkout(), installed_release(), suite.storage.baseline
    git, then = Repository(repo) if repo else None, baseline.stack if baseline else None
    found = comparators(git, suite.stack, then, release[0] if release else None, suite.chip.chip_class)
    return next((str(one) for one in found if not one.missing), "nothing (there is nothing to compare with)")


def _runs(suite: SuiteSession, workloads: Sequence[str]) -> str:
    options, chip = suite.options, suite.chip
    runs, budget = options.runs or usual_runs(chip.vendor), options.time_budget
    stored = Baselines(options.baselines).load(chip.chip_class) or Baselines.local(local_folder(chip.chip_class))
    last = {name: one for name in workloads for one in (stored.sessions_of(name)[-1:] if stored else ())}
    decoding_s = sum((runs + _WARM_RUNS) * one.session_tpot_s * one.generated_tokens for one in last.values())
    prefills_s = sum(_PREFILLS * max(one.ttft_s, default=0.0) for one in last.values())
    unknown = [name for name in workloads if name not in last]
    how_long = [f"about {decoding_s + prefills_s:.0f} s, as stored sessions took, and loading"] if last else []
    how_long += [f"no stored session says how long: {', '.join(unknown)}"] if unknown else []
    how_long += [f"at most {budget:g} s of measuring (--budget), or {LEAST_RUNS} runs of each"] if budget else []
    return dry_run(f"exact counts, prefills and {runs} runs of each, on", workloads, *how_long)
