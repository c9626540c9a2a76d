"""The critical-difference diagram of Demsar (2006), as SVG in the page's own colours."""

from html import escape
from typing import Final

from prunas.eval.contest import Ranks

_WIDTH: Final = 900
_MARGIN: Final = 210  # room for a name and its rank
_AXIS: Final = 58
_ROW: Final = 22
_BAR: Final = 7


def rank_diagram(ranks: Ranks) -> str:
    """Average ranks on an axis, the best at the left; bars join those not told apart."""
    ordered, groups = ranks.ordered, ranks.alike
    first_label = _AXIS + 20 + _BAR * len(groups)
    half = (len(ordered) + 1) // 2
    height = first_label + _ROW * half + 6
    parts = [
        *_axis(ranks),
        *(_bar(ranks, group, row) for row, group in enumerate(groups)),
        *(
            _label(ranks, place, first_label + _ROW * min(place, len(ordered) - 1 - place))
            for place in range(len(ordered))
        ),
    ]
    said = ", ".join(f"{name} {rank:.2f}" for name, rank in ordered)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(said)}"'
        f' style="width:100%;min-width:640px;max-height:{height}px" font-size="13"'
        f' fill="var(--ink)" stroke-linecap="round">{"".join(parts)}</svg>'
    )


def _x(ranks: Ranks, rank: float) -> float:
    inside = _WIDTH - 2 * _MARGIN
    return _MARGIN + inside * (rank - 1) / (len(ranks.names) - 1)


def _axis(ranks: Ranks) -> list[str]:
    count = len(ranks.names)
    ticks = []
    for rank in range(1, count + 1):
        x = _x(ranks, rank)
        ticks.append(_line(x, _AXIS, x, _AXIS - 6, "var(--muted)", 1.5))
        ticks.append(_text(x, _AXIS - 11, str(rank), "middle"))
    start, end = _x(ranks, 1), _x(ranks, count)
    # the difference may exceed the axis where blocks are few; it is drawn as far as there is room
    reach = min(_x(ranks, 1 + ranks.difference), _WIDTH - 10)
    return [
        _line(start, _AXIS, end, _AXIS, "var(--muted)", 1.5),
        *ticks,
        _line(start, 20, reach, 20, "var(--uniform)", 3),
        _text((start + reach) / 2, 13, f"CD {ranks.difference:.2f}", "middle"),
    ]


def _bar(ranks: Ranks, group: tuple[int, int], row: int) -> str:
    first, last = (_x(ranks, ranks.ordered[place][1]) for place in group)
    y = _AXIS + 10 + _BAR * row
    return _line(first - 4, y, last + 4, y, "var(--ink)", 4)


def _label(ranks: Ranks, place: int, y: float) -> str:
    name, rank = ranks.ordered[place]
    left = place < (len(ranks.names) + 1) // 2
    x, end = _x(ranks, rank), _MARGIN - 12 if left else _WIDTH - _MARGIN + 12
    path = (
        f'<path d="M{x:.1f} {_AXIS}V{y:.1f}H{end}" fill="none" stroke="var(--found)"'
        ' stroke-width="1.5"/>'
    )
    text = f"{name} {rank:.2f}" if left else f"{rank:.2f} {name}"
    return path + _text(end + (-6 if left else 6), y + 4, text, "end" if left else "start")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
