"""A picture of estimates with their intervals: rows are methods, panels are settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

import numpy as np

COLOURS: Final = ("#0b7a70", "#c8452d", "#5b6abf", "#e0a030")
INK, FAINT = "#222222", "#d8d8d8"
ROW, TOP, BOTTOM, WIDTH, GAP = 22, 62, 62, 190, 26
_CHARACTER = 7  # of a name, so wide at most on average
LETTER: Final = 6.6  # pixels, of the labels


@dataclass(frozen=True)
class Mark:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One setting: for every row its marks, of which each has a colour of its own."""

    title: str
    subtitle: str
    rows: Sequence[Sequence[Mark]]


def forest(
    labels: Sequence[str],
    panels: Sequence[Panel],
    *,
    unit: str,
    names: Sequence[str] = (),
    zero: bool = False,
) -> str:
    """An SVG document.

    Args:
        labels: of the rows.
        panels: side by side, on one scale.
        unit: what the scale counts.
        names: of the marks of a row, in the order of their colours.
        zero: draw a line where nothing is.
    """
    left = 16 + LETTER * max(map(len, labels))
    height = TOP + ROW * len(labels) + BOTTOM
    width = left + len(panels) * (WIDTH + GAP)
    svg = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height}",
        attrib={"font-family": "system-ui, sans-serif", "font-size": "12"},
    )
    ElementTree.SubElement(svg, "rect", width="100%", height="100%", fill="white")
    for row, label in enumerate(labels):
        _text(svg, left - 10, _middle(row) + 4, label, "end")
    ends = [end for panel in panels for row in panel.rows for m in row for end in (m.low, m.high)]
    scale = _Scale.of([*ends, 0.0] if zero else ends)
    for number, panel in enumerate(panels):
        _draw(svg, panel, left + number * (WIDTH + GAP), scale, height, unit, zero)
    step = max([130, *(30 + _CHARACTER * len(name) for name in names)])
    for number, name in enumerate(names):
        x = left + step * number
        _circle(svg, x + 5, height - 8, COLOURS[number], name)
        _text(svg, x + 14, height - 4, name)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


@dataclass(frozen=True)
class _Scale:
    ticks: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Scale":
        low, high = min(values), max(values)
        rough = max(high - low, 1e-9) / 4
        power = 10.0 ** np.floor(np.log10(rough))
        step = min(
            (s for s in (power, 2 * power, 5 * power, 10 * power)), key=lambda s: abs(s - rough)
        )
        ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
        room = 0.04 * (high - low)
        return cls(tuple(ticks.tolist()), low - room, high + room)

    def at(self, value: float) -> float:
        return WIDTH * (value - self.low) / (self.high - self.low)


def _draw(
    svg: ElementTree.Element,
    panel: Panel,
    left: float,
    scale: _Scale,
    height: int,
    unit: str,
    zero: bool,
) -> None:
    end = height - BOTTOM
    _text(svg, left, 20, panel.title, weight="600")
    _text(svg, left, 37, panel.subtitle)
    for tick in scale.ticks:
        x = left + scale.at(tick)
        _line(svg, x, TOP - 12, x, end, INK if zero and abs(tick) < 1e-12 else FAINT)
        _text(svg, x, end + 14, f"{tick:.6g}".replace("-", "−"), "middle")
    _text(svg, left + WIDTH / 2, end + 30, unit, "middle")
    for row, marks in enumerate(panel.rows):
        for number, mark in enumerate(marks):
            y = _middle(row) + 6 * (number - (len(marks) - 1) / 2)
            colour = COLOURS[number]
            _line(svg, left + scale.at(mark.low), y, left + scale.at(mark.high), y, colour, 2)
            told = f"{mark.value:.3g} ({mark.low:.3g} to {mark.high:.3g})"
            _circle(svg, left + scale.at(mark.value), y, colour, told)


def _middle(row: int) -> float:
    return TOP + ROW * (row + 0.5)


def _line(
    svg: ElementTree.Element,
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    width: int = 1,
) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ElementTree.SubElement(svg, "line", {**ends, "stroke": colour, "stroke-width": str(width)})


def _circle(svg: ElementTree.Element, x: float, y: float, colour: str, told: str) -> None:
    circle = ElementTree.SubElement(svg, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", fill=colour)
    ElementTree.SubElement(circle, "title").text = told


def _text(
    svg: ElementTree.Element,
    x: float,
    y: float,
    words: str,
    anchor: str = "start",
    weight: str = "400",
) -> None:
    placed = {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": INK}
    style = {"text-anchor": anchor, "font-weight": weight}
    ElementTree.SubElement(svg, "text", {**placed, **style}).text = words
