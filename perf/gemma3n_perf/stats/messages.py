"""The sentences of a judgement: why it came out as it did, and what to do next."""

from gemma3n_perf.stats.policy import Policy
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
HALVES_DISAGREE = Caution(
    "halves-disagree",
    "the first and the second half of the launches disagree, so what both show together is not said",
    "look for what changed meanwhile (heat, other load), and measure again",
)
RARE = "rare"
_WITHHELD = (RARE, UNSAID.code, HALVES_DISAGREE.code, SESSIONS_DISAGREE.code)
"""The codes of what keeps a look from saying what its interval shows."""

_NOISE = {
    NoiseStatus.MISSING: Caution(
        "noise-missing", "this chip class has no calibrated noise floor", "run gemma3n-perf calibrate"
    ),
    NoiseStatus.STALE: Caution(
        "noise-stale",
        "the noise floor of this chip class is stale: it raises the threshold, its spread is not used",
        "run gemma3n-perf calibrate again",
    ),
    NoiseStatus.CONTRADICTED: Caution(
        "noise-contradicted",
        "these launches spread quite differently from the calibration, so it was not relied on",
        "look for other load on this machine, or run gemma3n-perf calibrate again",
    ),
}


def rare(effect: float) -> Caution:
    """What keeps typical tokens that do not differ from being called no change."""
    return Caution(
        RARE,
        f"typical tokens show no change, whole times allow of {percent(effect)}: an arm may be slow now and then",
        "measure longer, or look at the blocks in the record",
    )


def noise_cautions(status: NoiseStatus, noise_floor: float, margin: float) -> list[Caution]:
    """Doubts about the class's calibration."""
    found = [_NOISE[status]] if status in _NOISE else []
    if noise_floor > margin:
        above = Caution(
            "noise-above-margin",
            f"the noise floor, {percent(noise_floor)}, is above the margin of {percent(margin)}, "
            "so no-change cannot be shown here",
            "find out why sessions differ on this machine, or judge with a wider margin",
        )
        found.append(above)
    return found


def dependent(correlation: float) -> Caution:
    """Say that launches are not independent."""
    return Caution(
        "launches-dependent",
        f"successive launches resemble each other (correlation {correlation:.2f}), so the interval was widened",
        "look for drift: heat, a growing cache, or other load",
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


def reason(judgement: Judgement, policy: Policy, budget_spent: bool) -> str:
    """One sentence: the interval against the threshold or margin, and what would settle it."""
    if judgement.verdict.decided:
        return f"the whole interval ({100 * judgement.level:.4g} %), {shown(judgement)}"
    withheld = next((one.found for one in judgement.cautions if one.code in _WITHHELD), None)
    if withheld is not None:
        return withheld
    state = "the budget is spent and" if budget_spent else f"after {judgement.launches} launches"
    level = f"{100 * (1 - policy.alpha / policy.shares):.4g} % over all looks"
    bounds = _between(judgement.bound_low, judgement.bound_high)
    text = f"{state} the interval that decides ({level}), {bounds}, shows neither a change nor its absence"
    if judgement.detectable is not None:
        text += f"; so many launches show a change of {100 * judgement.detectable:.2f} % with {policy.power:.0%} chance"
    if judgement.needed_s is not None and judgement.needed_s > judgement.measured_s:
        text += f"; an effect of this size would take about {judgement.needed_s:.0f} s of measuring"
    return text


def shown(judgement: Judgement) -> str:
    """The interval of a decided judgement, and where it lies."""
    threshold, margin = judgement.threshold or 0.0, judgement.margin or 0.0
    where = {
        Verdict.WIN: f"above {percent(threshold)}",
        Verdict.LOSS: f"below {percent(-threshold)}",
        Verdict.NO_CHANGE: f"within {percent(-margin)} to {percent(margin)}",
    }
    return f"{_between(judgement.low, judgement.high)}, is {where[judgement.verdict]}"


def _between(low: float | None, high: float | None) -> str:
    return f"{percent(low or 0.0)} to {'any' if high is None else percent(high)}"
