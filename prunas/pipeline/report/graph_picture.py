"""The operators of a network before and after, side by side, as SVG in the page's own colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from prunas.pipeline.report.run import Operation, Transformation
from prunas.pipeline.report.wording import amount

_WIDTH: Final = 900
_LANE: Final = 96  # room for shortcuts, at the left of each column
_BOX: Final = 340
_HIGH: Final = 40
_GAP: Final = 16
_DOT: Final = 5
_WORDS: Final[Mapping[str, str]] = {
    "branch": "residual branch",
    "gate": "gate",
    "skip_connect": "identity",
    "null": "nothing",
    "other_conv": "convolution",
    "other_dw_conv": "depthwise convolution",
}
_KINDS: Final[Mapping[str, str]] = {
    "conv": "convolution",
    "dw_conv": "depthwise convolution",
    "ds_conv": "factored convolution",
    "max_pool": "max pool",
    "avg_pool": "average pool",
}


def operator_words(name: str) -> str:
    """An operator for people.

    >>> operator_words("dw_conv_3x3"), operator_words("null")
    ('depthwise convolution 3×3', 'nothing')
    """
    if name in _WORDS:
        return _WORDS[name]
    kind, _, kernel = name.rpartition("_")
    return f"{_KINDS.get(kind, kind)} {kernel.replace('x', '×')}"


def graph_picture(transformation: Transformation) -> str:
    """Both graphs from the images, at the top, to the output; nothing where there is no graph."""
    if not transformation.operations:
        return ""
    before = _Column(transformation.operations, after=False)
    after = _Column(transformation.operations, after=True)
    rows = _rows(before)
    heights = {row: (_HIGH if isinstance(row, int) else 2 * _DOT) for row in rows}
    places: dict[int | str, float] = {}
    y = 64.0
    for row in rows:
        places[row] = y
        y += heights[row] + _GAP
    parts = [*_heading(0, "before"), *_heading(_WIDTH // 2, "after")]
    parts += _drawn(before, 0, places, heights) + _drawn(after, _WIDTH // 2, places, heights)
    height = y + 24
    said = ", ".join(f"{o.path}: {operator_words(o.before)} to {operator_words(o.after)}"
                     for o in transformation.operations if o.before != o.after)  # fmt: skip
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(said or "nothing is replaced")}" style="width:100%;min-width:760px"'
        f' font-size="13" fill="var(--ink)" stroke-linecap="round">{"".join(parts)}</svg>'
    )


# -- what is drawn ---------------------------------------------------------------------------------


@dataclass
class _Column:
    """One of the two graphs: what feeds each box, and each sum.

    A node with several incoming edges is a sum, and drawn as a dot; others are not drawn.
    """

    operations: Sequence[Operation]
    after: bool
    entering: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, operation in enumerate(self.operations):
            if self.alive(operation):
                self.entering.setdefault(operation.target, []).append(index)

    def alive(self, operation: Operation) -> bool:
        return operation.live or not self.after

    def carried(self, operation: Operation) -> str:
        return operation.after if self.after else operation.before

    def is_box(self, index: int) -> bool:
        """Whether an edge is drawn: what passes its input on is a line."""
        operation = self.operations[index]
        passes = ("fixed", "skip_connect", "null")
        return self.alive(operation) and self.carried(operation) not in passes

    def origin(self, node: str) -> int | str | None:
        """The box or sum that a node comes from; None for the images."""
        while True:
            entering = self.entering.get(node, [])
            if not entering:
                return None
            if len(entering) > 1:
                return node
            if self.is_box(entering[0]):
                return entering[0]
            node = self.operations[entering[0]].source

    def links(self) -> list[tuple[int | str | None, int | str]]:
        """Pairs of what a line joins."""
        found: list[tuple[int | str | None, int | str]] = [
            (self.origin(operation.source), index)
            for index, operation in enumerate(self.operations)
            if self.is_box(index)
        ]
        for node, entering in self.entering.items():
            if len(entering) > 1:
                found += [
                    (index if self.is_box(index) else self.origin(self.operations[index].source),
                     node)
                    for index in entering
                ]  # fmt: skip
        return list(dict.fromkeys(found))


def _rows(column: _Column) -> list[int | str]:
    """Boxes and sums of the graph before, from the top: a sum comes when the last edge into it has.

    Whatever is replaced keeps its row.
    """
    rows: list[int | str] = []
    last = {node: edges[-1] for node, edges in column.entering.items() if len(edges) > 1}
    for index, operation in enumerate(column.operations):
        if column.is_box(index):
            rows.append(index)
        if last.get(operation.target) == index:
            rows.append(operation.target)
    return rows


def _drawn(
    column: _Column,
    left: float,
    places: Mapping[int | str, float],
    heights: Mapping[int | str, int],
) -> list[str]:
    middle = left + _LANE + _BOX / 2
    shown = [row for row in places if _shown(column, row)]
    order = {row: place for place, row in enumerate(shown)}
    parts = []
    for source, target in column.links():
        top = 48.0 if source is None else places[source] + heights[source]
        end = places[target]
        span = order[target] - (-1 if source is None else order[source])
        if span <= 1:
            parts.append(_path(f"M{middle:.0f} {top:.0f}V{end:.0f}"))
        else:
            parts.append(_shortcut(middle, left, top, end, span))
    last = places[shown[-1]] + heights[shown[-1]] if shown else 48.0
    bottom = max(places[row] + heights[row] for row in places) + _GAP
    parts.append(_path(f"M{middle:.0f} {last:.0f}V{bottom:.0f}"))
    parts.append(_note(middle, bottom + 14, "output"))
    for row, y in places.items():
        if isinstance(row, int):
            parts.append(_box(column, row, left + _LANE, y))
        elif _shown(column, row):
            parts.append(
                f'<circle cx="{middle:.0f}" cy="{y + _DOT:.0f}" r="{_DOT}" fill="var(--muted)"/>'
            )
    return parts


def _shown(column: _Column, row: int | str) -> bool:
    return column.is_box(row) if isinstance(row, int) else len(column.entering.get(row, ())) > 1


def _shortcut(middle: float, left: float, top: float, end: float, span: int) -> str:
    """Round the boxes at the left; the longer, the further out."""
    x = left + _LANE - 12 - min(span, 8) * 9
    first, last = top + _GAP / 2, end - _GAP / 2
    return _path(
        f"M{middle:.0f} {top:.0f}V{first - 4:.0f}Q{middle:.0f} {first:.0f} {middle - 8:.0f}"
        f" {first:.0f}H{x + 8:.0f}Q{x:.0f} {first:.0f} {x:.0f} {first + 8:.0f}V{last - 8:.0f}"
        f"Q{x:.0f} {last:.0f} {x + 8:.0f} {last:.0f}H{middle - 8:.0f}"
        f"Q{middle:.0f} {last:.0f} {middle:.0f} {min(last + 8, end):.0f}V{end:.0f}"
    )


def _path(d: str) -> str:
    return f'<path d="{d}" fill="none" stroke="var(--muted)" stroke-width="1.5"/>'


def _box(column: _Column, index: int, x: float, y: float) -> str:
    operation = column.operations[index]
    changed = column.after and operation.before != operation.after
    gone = column.after and not column.is_box(index)
    if gone:
        inside = "left out" if changed else "left out with its block"
        frame = _frame(x, y, "none", "var(--muted)", dash=True)
        return frame + _words(x, y, inside, operation.path, "", "var(--muted)")
    fill, stroke = ("var(--found)", "var(--found)") if changed else ("var(--panel)", "var(--rule)")
    macs = operation.macs[1 if column.after else 0]
    return _frame(x, y, fill, stroke, dash=False) + _words(
        x,
        y,
        operator_words(column.carried(operation)),
        f"{operation.path}  {_shape(operation)}",
        f"{amount(macs)} MACs" if macs else "",
        "var(--panel)" if changed else "var(--ink)",
    )


def _shape(operation: Operation) -> str:
    before, after = operation.channels
    rows, columns = operation.size
    channels = f"{before}→{after}" if before != after else f"{after}"
    return f"{channels} × {rows}×{columns}"


def _frame(x: float, y: float, fill: str, stroke: str, *, dash: bool) -> str:
    dashes = ' stroke-dasharray="4 4"' if dash else ""
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_BOX}" height="{_HIGH}" rx="8" fill="{fill}"'
        f' stroke="{stroke}" stroke-width="1.5"{dashes}/>'
    )


def _words(x: float, y: float, title: str, note: str, cost: str, color: str) -> str:
    note = note if len(note) <= 48 else f"…{note[-47:]}"
    return (
        f'<text x="{x + 12:.0f}" y="{y + 17:.0f}" font-weight="600" fill="{color}">{escape(title)}'
        f'</text><text x="{x + _BOX - 12:.0f}" y="{y + 17:.0f}" text-anchor="end" font-size="12"'
        f' fill="{color}">{escape(cost)}</text>'
        f'<text x="{x + 12:.0f}" y="{y + 32:.0f}" font-size="11" fill="{color}">{escape(note)}'
        "</text>"
    )


def _heading(left: float, title: str) -> list[str]:
    middle = left + _LANE + _BOX / 2
    return [
        f'<text x="{middle:.0f}" y="16" text-anchor="middle" font-weight="600">{title}</text>',
        _note(middle, 40, "images"),
    ]


def _note(x: float, y: float, text: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-size="12" fill="var(--muted)">'
        f"{text}</text>"
    )
