"""What the study of searches shows: a table and a picture from a finished comparison.

Run: prunas compare benchmarks/search_study.json --out runs/search_study
     python benchmarks/search_study.py runs/search_study
writes docs/search_study.svg and prints the tables of docs/search_study.md.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from forest import Mark, Panel, forest

OURS: Final = "regression+di"
POINTS: Final = (100, 500)
PICTURE: Final = Path(__file__).parents[1] / "docs" / "search_study.svg"

Rows = Mapping[tuple[str, str, str, int], Mapping[str, Any]]
"""Summaries by contender, space, budget and number of evaluations."""


def main(folder: Path) -> None:
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    rows = {(r["contender"], r["space"], r["budget"], r["at"]): r for r in found["summaries"]}
    names = found["request"]["methods"]
    problems = [(each["space"], each["budget"]) for each in found["problems"]]
    for at in POINTS:
        print(table(rows, names, problems, at, found["pairs"]))
    print(ranks(found["ranks"]))
    PICTURE.write_text(picture(rows, names, problems), encoding="utf-8")


def table(
    rows: Rows,
    names: Sequence[str],
    problems: Sequence[tuple[str, str]],
    at: int,
    pairs: Sequence[Mapping[str, Any]],
) -> str:
    """Mean regret in points; bold where ours is better by the rule, italic where it is worse."""
    verdicts = {
        (each["space"], each["budget"], *sorted((each["one"], each["other"]))): each
        for each in pairs
        if each["at"] == at
    }
    head = f"| after {at} | " + " | ".join(f"{space}, {budget}" for space, budget in problems)
    lines = [head + " |", "|---" * (len(problems) + 1) + "|"]
    for name in names:
        cells = [
            cell(rows[name, *place, at], verdicts.get((*place, *sorted((OURS, name)))))
            for place in problems
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(row: Mapping[str, Any], pair: Mapping[str, Any] | None) -> str:
    mean = row["mean"]
    reached = row["to_random_mean"]
    text = f"{100 * mean['value']:.2f} ({100 * mean['low']:.2f} to {100 * mean['high']:.2f})"
    text += f"; {'never' if reached is None else f'{reached:.0f}'}"
    if pair is None or pair["verdict"] == "no evidence":
        return text
    ahead = (pair["verdict"] == "better") == (pair["one"] == OURS)
    return f"**{text}**" if ahead else f"*{text}*"


def ranks(found: Mapping[str, Any]) -> str:
    order = sorted(zip(found["average"], found["names"], strict=True))
    listed = ", ".join(f"{name} {rank:.2f}" for rank, name in order)
    return f"Average ranks over {found['blocks']} problems, CD {found['difference']:.2f}: {listed}"


def picture(rows: Rows, names: Sequence[str], problems: Sequence[tuple[str, str]]) -> str:
    panels = []
    for space, budget in problems:
        marks = []
        for name in names:
            means = [rows[name, space, budget, at]["mean"] for at in POINTS]
            marks.append([Mark(*(100 * m[key] for key in ("value", "low", "high"))) for m in means])
        panels.append(Panel(space, budget, marks))
    labels = [f"after {at} evaluations" for at in POINTS]
    return forest(names, panels, unit="mean regret, points", names=labels, zero=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
