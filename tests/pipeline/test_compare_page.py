"""The page and the sentences about a comparison."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from prunas.pipeline.comparison import Comparison, Results
from prunas.pipeline.comparison.arena import Problem
from prunas.pipeline.comparison.findings import findings, verdicts_of
from prunas.pipeline.comparison.results import Contest, contest_of
from prunas.pipeline.comparison.runs import Cell, Row
from prunas.pipeline.report.compare_page import compare_page
from prunas.pipeline.terminal import compare_text

EVIL = "<b>\"&'"
METHODS = ("evolution", "random", "evolution+di")


def contest(
    *heights: float, space: str = "toy", seeds: int = 12, methods: tuple[str, ...] = METHODS
) -> Contest:
    """Runs whose best score rises in two steps to a height of their contender, give or take."""
    request = asked(seeds, methods)
    problem = Problem(space, "macs=40%", {"macs": 12345}, 321, 2, (0.9, 0.9), (0.8, 0.8))
    rng = np.random.default_rng(0)
    rows = []
    for name, height in zip(methods, heights, strict=True):
        for seed in range(seeds):
            top = height + 0.002 * rng.random()
            curve = ((1, 0, 0.5), (10, 1, 0.7), (40, 2, top))
            cell = Cell(name, space, "macs=40%", seed)
            rows.append(Row(cell, seed % 2, curve, 60, 0.25, top - 0.1))
    return contest_of(problem, request, rows)


def asked(seeds: int = 12, methods: tuple[str, ...] = METHODS) -> Comparison:
    return Comparison(
        methods, ("table",), budgets=("macs=40%",), seeds=tuple(range(seeds)),
        evaluations=60, start=5, at=(20, 50),
    )  # fmt: skip


def results(*contests: Contest) -> Results:
    seeds = contests[0].regrets.shape[1]
    return Results(asked(seeds, contests[0].names), contests)


class Reader(HTMLParser):
    """Collects the text, the rows of tables, and the figures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.figures = "", dict[str, Any]()
        self.rows: list[list[str]] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = "figures" if dict(attrs).get("id") == "figures" else tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "figures":
            self.figures = json.loads(data)
        elif self._inside not in ("script", "style"):
            self.text += data
            if self._inside in ("td", "th"):
                self.rows[-1][-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


# -- sentences -------------------------------------------------------------------------------------


def test_few_pairs_are_told_one_by_one() -> None:
    said = findings(results(contest(0.88, 0.85, 0.88)))
    where = "toy, macs=40%, 60 evaluations"
    assert said[0] == (
        f"{where}: evolution+di has the least regret, 1.88 (1.85 to 1.91) points; no evidence that"
        " it is better than evolution."
    )
    assert re.fullmatch(
        rf"{where}: evolution: better than random \(corrected p = 0.0015, chance of being better"
        r" 1.00\)\.",
        said[1],
    )
    assert f"{where}: evolution: no evidence of a difference from evolution+di" in said[2]
    assert f"{where}: random: worse than evolution+di" in said[3]
    assert len(said) == 5  # and one of ranks


def test_many_pairs_are_told_beside_random_search() -> None:
    methods = ("evolution", "random", "uniform", "nsga2", "evolution+di")
    said = findings(results(contest(0.88, 0.85, 0.8, 0.85, 0.86, methods=methods)))
    assert said[1] == (
        "toy, macs=40%, 60 evaluations: beside random search, better: evolution, evolution+di;"
        " worse: uniform; no evidence of a difference: nsga2."
    )
    assert said[0].endswith(", better than all.")


def test_where_nothing_is_shown_no_list_is_made() -> None:
    said = findings(results(contest(0.88, 0.85, 0.86, seeds=2)))
    assert said[0].endswith("; no evidence that it is better than any other.")


def test_too_few_seeds_and_early_ends_are_said() -> None:
    short = contest(0.88, 0.85, 0.86, seeds=6)
    short.made[1] = 30
    said = " ".join(findings(results(short)))
    assert "6 seeds cannot show a difference among 3 pairs whatever they are" in said
    assert "found no further candidate (random after 30 evaluations on average)" in said
    assert "cannot show" not in " ".join(findings(results(contest(0.88, 0.85, 0.86, seeds=12))))


def test_ranks_are_told_only_apart_if_they_are() -> None:
    clear = [contest(0.88, 0.85, 0.8, space=f"s{i}") for i in range(4)]
    assert "Over 8 problems" in findings(results(*clear))[-1]
    assert "average ranks differ" in findings(results(*clear))[-1]
    level = results(contest(0.88, 0.8, 0.85), contest(0.8, 0.88, 0.85))
    assert "do not differ" in findings(level)[-1]


def test_a_verdict_reads_from_either_side() -> None:
    found = contest(0.88, 0.85, 0.88)
    assert verdicts_of(found, "evolution", 60) == {
        "random": "better",
        "evolution+di": "no evidence",
    }
    assert verdicts_of(found, "random", 60) == {"evolution": "worse", "evolution+di": "worse"}


def test_the_terminal_has_the_best_first() -> None:
    lines = compare_text(results(contest(0.85, 0.88, 0.8))).split("\n")
    assert lines[0] == (
        "toy, macs=40%: regret after 60 evaluations, points, mean of 12 seeds (95 % interval)"
    )
    assert [line.split()[0] for line in lines[1:4]] == ["random", "evolution", "evolution+di"]


# -- the page --------------------------------------------------------------------------------------


def test_the_page_has_all_of_it() -> None:
    found = results(contest(0.88, 0.85, 0.86), contest(0.8, 0.85, 0.8, space=EVIL))
    page = compare_page(found)
    assert "<b>" not in page.split("<script")[0]
    reader = read(page)
    assert all(sentence in reader.text for sentence in findings(found))
    assert set(reader.figures) == {"regret0", "regret1", "time"}
    assert reader.rows[0][:4] == ["contender", "after 20", "after 50", "regret after 60"]
    assert reader.rows[1][0] == "evolution"
    assert "321 candidates on it" in reader.text
    assert "The rule was fixed before any result was seen" in reader.text
    assert page.split("<script")[0].count("<svg") == 1


def test_the_matrix_says_what_was_decided() -> None:
    reader = read(compare_page(results(contest(0.88, 0.85, 0.88))))
    start = next(i for i, row in enumerate(reader.rows) if row[:2] == ["", "1"])
    order = ["evolution", "evolution+di", "random"]
    matrix = {row[0].split()[1]: row[1:] for row in reader.rows[start + 1 : start + 4]}
    assert sorted(matrix) == sorted(order)
    assert matrix["random"] == ["▼", "▼", ""]
    assert matrix["evolution"][2] == "▲"
    assert "·" in matrix["evolution"]


def test_curves_begin_where_methods_begin_to_differ() -> None:
    reader = read(compare_page(results(contest(0.88, 0.85, 0.86))))
    lines = {trace["name"]: trace for trace in reader.figures["regret0"]["data"] if "name" in trace}
    assert list(lines) == list(METHODS)
    for trace in lines.values():
        assert trace["x"][0] >= 5
        assert trace["x"][-1] == 60
    assert lines["random"]["y"][-1] == pytest.approx(100 * (0.9 - 0.851), abs=0.1)
    assert lines["evolution+di"]["line"]["dash"] == "dash"
    assert lines["evolution+di"]["line"]["color"] == lines["evolution"]["line"]["color"]


def test_one_problem_has_no_ranks() -> None:
    alone = contest(0.88, 0.85, 0.86, seeds=1)
    found = results(alone)
    assert found.ranks is None
    assert "One problem has no average ranks" in read(compare_page(found)).text


def test_how_scores_agree_with_training_is_shown() -> None:
    tau = {"value": 0.61, "low": 0.4, "high": 0.75}
    entry = {"agreement": {"all": {"supernet": {"tau": tau}}, "window": {}}}
    reader = read(compare_page(replace(results(contest(0.88, 0.85, 0.86)), agreement=entry)))
    assert ["supernet, over all networks", "0.61 (0.40 to 0.75)"] in reader.rows


@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_draws_it_without_a_complaint(
    width: int, tmp_path: Path, browser: Browser
) -> None:
    file = tmp_path / "compare.html"
    file.write_text(compare_page(results(contest(0.88, 0.85, 0.86, space=EVIL))))
    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    for name in ("regret0", "time"):
        page.wait_for_selector(f"#{name}[data-drawn=yes]")
        assert page.locator(f"#{name} .trace, #{name} .point").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    page.close()
