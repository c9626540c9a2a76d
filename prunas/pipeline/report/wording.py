"""How the report writes numbers."""

from typing import Final

THIN: Final = "\u202f"  # narrow no-break space, between a number and its unit
MINUS: Final = "\u2212"
UNKNOWN: Final = "–"


def amount(value: float | None) -> str:
    """Three significant digits with K, M or G.

    >>> amount(3012345).replace(THIN, " "), amount(999), amount(None)
    ('3.01 M', '999', '–')
    """
    if value is None:
        return UNKNOWN
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= scale * 0.9995:
            return f"{_three_digits(value / scale)}{THIN}{letter}"
    return f"{value:.0f}"


def _three_digits(value: float) -> str:
    whole = len(str(int(value)))
    return f"{value:.{max(0, 3 - whole)}f}"


def percent(share: float | None, decimals: int = 1) -> str:
    """A share of one, in per cent.

    >>> percent(0.4).replace(THIN, " ")
    '40.0 %'
    """
    return UNKNOWN if share is None else f"{100 * share:.{decimals}f}{THIN}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, always with its sign.

    >>> points(0.0123).replace(THIN, " "), points(-0.02).replace(THIN, " ")
    ('+1.2 points', '−2.0 points')
    """
    return f"{_signed(difference)}{THIN}points"


def interval(low: float, high: float) -> str:
    """The ends of an interval of differences, in percentage points.

    >>> interval(-0.01, 0.02)
    '−1.0 to +2.0'
    """
    return f"{_signed(low)} to {_signed(high)}"


def _signed(difference: float) -> str:
    figure = f"{abs(100 * difference):.1f}"
    if figure == "0.0":
        return figure
    return f"{MINUS if difference < 0 else '+'}{figure}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, to the precision that a person reads.

    >>> duration(200.0).replace(THIN, " "), duration(0.42).replace(THIN, " ")
    ('3 min 20 s', '0.4 s')
    """
    if seconds < 9.95:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{hours}{THIN}h {minutes}{THIN}min"


def milliseconds(value: float | None) -> str:
    """Three significant digits.

    >>> milliseconds(4.9876).replace(THIN, " "), milliseconds(0.05).replace(THIN, " ")
    ('4.99 ms', '0.05 ms')
    """
    return UNKNOWN if value is None else f"{value:.3g}{THIN}ms"


def magnitude(digits: str) -> str:
    """A whole number given as its digits (it may have thousands), rounded down to two of them.

    >>> magnitude("512"), magnitude("123456789").replace(THIN, " ")
    ('512', '1.2 × 10⁸')
    """
    if len(digits) <= 6 or not digits.isdecimal():
        return digits
    exponent = str(len(digits) - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits[0]}.{digits[1]}{THIN}×{THIN}10{exponent}"
