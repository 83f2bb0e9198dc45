"""Figures in the form that a reader of the report wants them. None is a dash everywhere."""

import math

DASH = "–"
_UNIT_SPACE = "\N{NO-BREAK SPACE}"
_TIMES = {1: "once", 2: "twice"}


def is_number(value: float | None) -> bool:
    """Whether there is a figure to print: not None, not NaN, not infinite."""
    return value is not None and math.isfinite(value)


def whole(value: float | None) -> str:
    """1,234,567."""
    return f"{value:,.0f}" if value is not None and is_number(value) else DASH


def decimal(value: float | None, digits: int = 3) -> str:
    """4.631, with that many digits after the point."""
    return f"{value:,.{digits}f}" if value is not None and is_number(value) else DASH


def count(value: float | None) -> str:
    """Three significant digits with K, M, B or T: 4.47 M."""
    if value is None or not is_number(value):
        return DASH
    # Rounded first, so that 999,999 becomes 1 M and not 1000 K.
    value = _significant(value)
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.12g}{_UNIT_SPACE}{unit}"
    return f"{value:.12g}"


def power(value: float | None) -> str:
    """8.1e13, for what is too large to be written out."""
    return _exponential(value, 1) if value is not None and is_number(value) else DASH


def error(value: float | None) -> str:
    """3.1e-15; an error of exactly nothing is 0, and one that is no number says so."""
    if value is None:
        return DASH
    return _exponential(value, 1) if value and is_number(value) else f"{value:.0f}"


def bound(value: float | None) -> str:
    """A power of ten as one writes a bound: 1e-12."""
    return _exponential(value, 0) if value is not None else DASH


def setting(value: float) -> str:
    """What a model computes with: whole numbers as 20,480, others to four digits as 2.833e-06."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 0 to 1 as 41 %."""
    return f"{share:.{digits}%}".replace("%", f"{_UNIT_SPACE}%") if share is not None else DASH


def factor(value: float | None) -> str:
    """× 1.25."""
    return f"× {value:.3g}" if value is not None and is_number(value) else DASH


def duration(seconds: float | None) -> str:
    """48 s, 11 min 20 s, 2 h 5 min."""
    if seconds is None or not is_number(seconds):
        return DASH
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def days(value: float | None) -> str:
    """13.6 days, or what is less than one as 2 h 5 min."""
    if value is None or not is_number(value) or value < 1:
        return duration(value and 86_400 * value)
    return f"{decimal(value, 1)} days"


def seconds(value: float | None) -> str:
    """Three significant digits: 1,230 s, 0.591 s."""
    if value is None or not is_number(value):
        return DASH
    return f"{_significant(value):,.12g}{_UNIT_SPACE}s"


def times(number: int) -> str:
    """once, twice, 3 times."""
    return _TIMES.get(number, f"{number} times")


def listing(items: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


FILTERS = {
    function.__name__: function
    for function in (
        whole,
        decimal,
        count,
        power,
        error,
        bound,
        setting,
        percent,
        factor,
        duration,
        days,
        seconds,
        times,
        listing,
    )
}
"""What the templates know by these names."""


def _exponential(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _significant(value: float) -> float:
    return float(f"{value:.3g}")
