"""The page and the picture of docs/coverage.csv, beside what Torch-Pruning did with the same zoo.

torch_pruning_1.6.1_timm_1.0.31.csv holds one row for every architecture of timm 1.0.31 with at most
60 M parameters: its pruner as its documentation says, every width halved, the classifier kept;
"ok" where a forward then runs and parameters are gone.

Run: python benchmarks/coverage_page.py
"""

import csv
import platform
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final
from xml.etree import ElementTree

from prunas.pipeline.coverage import Row, read_rows, zoo

DOCS: Final = Path(__file__).parents[1] / "docs"
TORCH_PRUNING: Final = Path(__file__).with_name("torch_pruning_1.6.1_timm_1.0.31.csv")
COLOURS: Final = {"passes": "#0b7a70", "runs": "#e0a030", "fails": "#c8452d"}
SIDE, GAP, ACROSS, LEFT, TOP = 9, 2, 60, 190, 44

PROTOCOL: Final = """\
Each network is created as its library creates it, with random weights; one that has no classifier
is given one of 1,000 classes (else its embedding is its output, and must stay). It is traced at its
own input size without weights, and every width is halved: these are the figures of MACs and
parameters left. Then, at the smallest input from 64 pixels that it takes or that timm can build it
for, in float64 and with shaken weights: the channels of every gene are permuted, which must not
change the output (relative difference below 1e-9, or below 1,000 times what one rounding of the
inputs changes, where that is more); random candidates are cut, also without some blocks, and must
give the output of the full network with the same channels zeroed; the network cut at half width
must run, be saved, and come back with equal outputs. Networks whose copies do not fit into the
memory are proven at a half of every width, a quarter, and so on (`oracle_width`).

A network **passes** if at half width at most 60 % of its MACs are left, both oracles hold, and the
cut network runs and comes back. The **old protocol** is what other tools report: every width
halved, the classifier kept, a forward runs and parameters are gone.
"""


def main() -> None:
    rows = read_rows(DOCS / "coverage.csv")
    others = torch_pruning()
    (DOCS / "coverage.md").write_text(page(rows, others), encoding="utf-8")
    ElementTree.ElementTree(picture(rows)).write(DOCS / "coverage.svg")


def torch_pruning() -> dict[str, bool]:
    """Whether Torch-Pruning passes the old protocol, by model."""
    with TORCH_PRUNING.open(newline="", encoding="utf-8") as file:
        return {row["model"]: row["status"] == "ok" for row in csv.DictReader(file)}


def page(rows: Sequence[Row], others: dict[str, bool]) -> str:
    families = by_family(rows)
    return "\n".join(
        [
            "# Coverage",
            "",
            *summary(rows, others),
            "",
            "![One square for every network, by family](coverage.svg)",
            "",
            "## The protocol",
            "",
            PROTOCOL,
            f"{versions()}. `make coverage` repeats it; rows: [coverage.csv](coverage.csv).",
            "",
            "## Families",
            "",
            "Genes, blocks, MACs left at half width and seconds to trace are medians over the"
            " family.",
            "",
            "| family | networks | pass | widths | blocks | MACs left | trace, s"
            " | Torch-Pruning 1.6.1, old protocol |",
            "|---|---|---|---|---|---|---|---|",
            *(family_line(name, families[name], others) for name in sorted(families)),
            "",
            "## What does not pass",
            "",
            *(shortfalls(rows) or ["Everything passes."]),
            "",
        ]
    )


def versions() -> str:
    packages = ("prunas", "torch", "torchvision", "timm")
    known = [f"{name} {version(name).partition('+')[0]}" for name in packages]
    return ", ".join([*known, f"Python {platform.python_version()}"])


def by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    families = defaultdict(list)
    for row in rows:
        families[row.family].append(row)
    return families


def summary(rows: Sequence[Row], others: dict[str, bool]) -> list[str]:
    traced = [row.trace_s for row in rows if row.trace_s is not None]
    whole = sum(row.oracle_width == 1 for row in rows)
    narrow = sum(row.oracle_width is not None and row.oracle_width < 1 for row in rows)
    both = [row for row in rows if row.model in others]
    return [
        f"{len(rows)} of {len(zoo.names(['*']))} networks of timm and torchvision are examined:"
        f" {len(traced)} are traced, {sum(row.passes for row in rows)} pass.",
        f"Both oracles held on {whole} at their own width and on {narrow} at a narrower one.",
        f"Tracing takes {median(traced):.2f} s in the median, {max(traced):.0f} s at most.",
        f"Of the {len(both)} networks of at most 60 M parameters on which Torch-Pruning 1.6.1 was"
        f" run, {sum(row.old_protocol for row in both)} pass the old protocol here,"
        f" {sum(others[row.model] for row in both)} there.",
    ]


def family_line(name: str, rows: Sequence[Row], others: dict[str, bool]) -> str:
    known = [row for row in rows if row.macs_left is not None]
    both = [row.model for row in rows if row.model in others]
    beside = f"{sum(others[model] for model in both)} of {len(both)}" if both else ""
    figures = ["", "", "", ""]
    if known:
        figures = [
            f"{median(row.genes or 0 for row in known):.0f}",
            f"{median(row.blocks or 0 for row in known):.0f}",
            f"{100 * median(row.macs_left or 0 for row in known):.0f} %",
            f"{median(row.trace_s or 0 for row in known):.1f}",
        ]
    passed = sum(row.passes for row in rows)
    return f"| {' | '.join([name, str(len(rows)), str(passed), *figures, beside])} |"


def shortfalls(rows: Sequence[Row]) -> list[str]:
    return [f"- `{row.model}`: {shortfall(row)}" for row in rows if not row.passes]


def shortfall(row: Row) -> str:
    if row.error:
        return f"{row.stage}: {row.error}"
    if row.runs and row.reloads:
        return f"{100 * (row.macs_left or 0):.0f} % of the MACs are left; pinned: {row.why}"
    return "does not come back from disk" if row.runs else "does not run when cut"


# -- the picture -----------------------------------------------------------------------------------


def picture(rows: Sequence[Row]) -> ElementTree.Element:
    """One square a network, one line or more a family."""
    drawing = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
    drawing.set("font-family", "sans-serif")
    y = TOP
    for name, members in sorted(by_family(rows).items()):
        text(drawing, LEFT - 8, y + SIDE, name, anchor="end")
        for index, row in enumerate(members):
            line, place = divmod(index, ACROSS)
            square(drawing, LEFT + place * (SIDE + GAP), y + line * (SIDE + GAP), row)
        y += (1 + (len(members) - 1) // ACROSS) * (SIDE + GAP) + 3
    width = LEFT + ACROSS * (SIDE + GAP) + 10
    drawing.set("viewBox", f"0 0 {width} {y + 8}")
    drawing.insert(0, ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff"))
    legend(drawing, rows)
    return drawing


def legend(drawing: ElementTree.Element, rows: Sequence[Row]) -> None:
    x = LEFT
    for kind, words in (
        ("passes", "proven, at most 60 % of the MACs left at half width"),
        ("runs", "traced and cut, not all proven"),
        ("fails", "not traced"),
    ):
        count = sum(verdict(row) == kind for row in rows)
        box = {"x": str(x), "y": "14", "width": str(SIDE), "height": str(SIDE)}
        ElementTree.SubElement(drawing, "rect", box, fill=COLOURS[kind])
        text(drawing, x + SIDE + 4, 14 + SIDE, f"{words}: {count}")
        x += 90 + 5 * len(words)


def square(drawing: ElementTree.Element, x: int, y: int, row: Row) -> None:
    box = {"x": str(x), "y": str(y), "width": str(SIDE), "height": str(SIDE)}
    shape = ElementTree.SubElement(drawing, "rect", box, fill=COLOURS[verdict(row)])
    ElementTree.SubElement(shape, "title").text = f"{row.model}: {verdict(row)}"


def verdict(row: Row) -> str:
    if row.passes:
        return "passes"
    return "runs" if row.macs_left is not None else "fails"


def text(drawing: ElementTree.Element, x: int, y: int, words: str, anchor: str = "start") -> None:
    place = {"x": str(x), "y": str(y), "text-anchor": anchor, "font-size": "10", "fill": "#22313a"}
    ElementTree.SubElement(drawing, "text", place).text = words


if __name__ == "__main__":
    main()
