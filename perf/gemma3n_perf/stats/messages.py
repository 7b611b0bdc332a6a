"""The sentences of a judgement: why it came out as it did, and what to do next."""

from gemma3n_perf.stats.verdicts import Caution, Judgement, NoiseStatus, Verdict

SESSIONS_DISAGREE = Caution(
    "sessions-disagree",
    "the sessions of this duel point in different directions",
    "measure another session, and look at what differs between them",
)


UNSAID = Caution(
    "unsaid",
    "what the launches within the budget showed, those beyond it do not bear out",
    "measure again, with a budget that holds all sessions",
)
RARE = "rare"


def rare(room: float) -> Caution:
    """What keeps typical tokens that do not differ from being called no change."""
    return Caution(
        RARE,
        f"typical tokens show no change, whole times allow of {percent(room)}: an arm may be slow now and then",
        "measure longer, or look at the blocks in the record",
    )


def percent(value: float, digits: int = 2) -> str:
    """A signed percentage: ``+1.25 %``. Zero has no sign."""
    text = f"{100 * value:+.{digits}f}"
    return f"{text.lstrip('+-') if float(text) == 0 else text} %"


def too_few(launches: int, needed: int, budget_spent: bool, measured_s: float) -> str:
    """Why launches below the minimum give no interval."""
    if not budget_spent:
        return f"{launches} of at least {needed} launches measured"
    return (
        f"the budget ended after {launches} of at least {needed} launches; "
        f"about {needed * measured_s / launches:.0f} s of measuring would hold them"
    )


def reason(judgement: Judgement, power: float, budget_spent: bool) -> str:
    """One sentence: the interval against the threshold or margin, and what would settle it."""
    low, high = judgement.low or 0.0, judgement.high or 0.0
    threshold, margin = judgement.threshold or 0.0, judgement.margin or 0.0
    interval = f"{percent(low)} to {percent(high)}"
    match judgement.verdict:
        case Verdict.WIN:
            return f"the whole interval, {interval}, is above {percent(threshold)}"
        case Verdict.LOSS:
            return f"the whole interval, {interval}, is below {percent(-threshold)}"
        case Verdict.NO_CHANGE:
            return f"the whole interval, {interval}, is within {percent(-margin)} to {percent(margin)}"
        case _:
            return _undecided(judgement, interval, power, budget_spent)


def _undecided(judgement: Judgement, interval: str, power: float, budget_spent: bool) -> str:
    held = next((one.found for one in judgement.cautions if one.code in (RARE, UNSAID.code)), None)
    if held is not None:
        return held
    state = "the budget is spent and" if budget_spent else f"after {judgement.launches} launches"
    text = f"{state} the interval, {interval}, shows neither a change nor its absence"
    if judgement.detectable is not None:
        text += f"; so many launches show a change of {100 * judgement.detectable:.2f} % with {power:.0%} chance"
    if judgement.needed_s is not None and judgement.needed_s > judgement.measured_s:
        text += f"; an effect of this size would take about {judgement.needed_s:.0f} s of measuring"
    return text


def cautions(judgement: Judgement, correlation: float | None) -> tuple[Caution, ...]:
    """Doubts worth printing beside the verdict."""
    found: list[Caution] = []
    match judgement.noise:
        case NoiseStatus.MISSING:
            found.append(
                Caution("noise-missing", "this chip class has no calibrated noise floor", "run gemma3n-perf calibrate")
            )
        case NoiseStatus.STALE:
            found.append(
                Caution(
                    "noise-stale",
                    "the noise floor of this chip class is stale: it raises the threshold, its spread is not used",
                    "run gemma3n-perf calibrate again",
                )
            )
        case NoiseStatus.CONTRADICTED:
            found.append(
                Caution(
                    "noise-contradicted",
                    "these launches spread quite differently from the calibration, so it was not relied on",
                    "look for other load on this machine, or run gemma3n-perf calibrate again",
                )
            )
        case NoiseStatus.USED:
            pass
    if judgement.margin is not None and (judgement.noise_floor or 0.0) > judgement.margin:
        found.append(
            Caution(
                "noise-above-margin",
                f"the noise floor, {percent(judgement.noise_floor or 0.0)}, is above the margin of "
                f"{percent(judgement.margin)}, so no-change cannot be shown here",
                "find out why sessions differ on this machine, or judge with a wider margin",
            )
        )
    if correlation is not None:
        found.append(
            Caution(
                "launches-dependent",
                f"successive launches resemble each other (correlation {correlation:.2f}), so the interval was widened",
                "look for drift: heat, a growing cache, or other load",
            )
        )
    return tuple(found)
