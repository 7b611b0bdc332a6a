"""Numbers as a reader would write them: base units in, scaled text out, a dash for what is unknown."""

import math


def percent(fraction: float | None, digits: int = 0, *, sign: bool = False) -> str:
    """Return ``-2.1 %``; a dash where the value is unknown."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:{'+' if sign else ''}.{digits}f}"
    # A change that rounds to nothing has no direction.
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return f"{text} %"


def effect(middle: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """Return ``-2.00 % [-2.61, -1.38]``; without the interval where it is unknown, a dash where nothing is known."""
    shown = interval(low, high, digits) if middle is not None else ""
    return f"{percent(middle, digits, sign=True)} {shown}".rstrip()


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return fractions as ``[-3.0, -1.2]`` in percent, or nothing where an end is unknown or infinite."""
    if low is None or high is None or not math.isfinite(high - low):
        return ""
    ends = (percent(value, digits, sign=True).removesuffix(" %") for value in (low, high))
    return f"[{', '.join(ends)}]"


def tokps(value: float | None) -> str:
    """Return a throughput with three or four significant digits, tok/s."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Return a time scaled for reading: ``12.1 ms``, ``312 ms``, ``1.25 s``."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
    milli = value * 1e3
    return f"{milli:.0f} ms" if milli >= 100 else f"{milli:.1f} ms" if milli >= 10 else f"{milli:.2f} ms"


def size(value: float | None) -> str:
    """Return bytes scaled for reading, decimal: ``2.52 GB``."""
    if value is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"
