import json
import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

from prunas.errors import InputError, RunError
from prunas.pipeline.report import write_report
from prunas.pipeline.report.figures import figures, front
from prunas.pipeline.report.run import Evaluation, read_run
from prunas.pipeline.report.wording import THIN
from tests.pipeline.made_up_run import GENES, SEEDS, evaluations, record, write_run

EVIL = "</script><img src=x onerror=alert(1)>\"'&"


def text_of(report: Path) -> str:
    """The page without its scripts and styles, with one kind of space."""
    html = re.sub(r"(?s)<(script|style).*?</\1>", "", report.read_text(encoding="utf-8"))
    return re.sub(r"<[^>]*>", " ", html).replace(THIN, " ").replace("\u2011", "-")


def figures_of(report: Path) -> dict[str, Any]:
    html = report.read_text(encoding="utf-8")
    found = re.search(r'(?s)id="figures">(.*?)</script>', html)
    assert found
    assert "<" not in found[1]  # nothing in it can end the script element
    drawn: dict[str, Any] = json.loads(found[1])
    return drawn


def changed_result(**changed: Any) -> dict[str, Any]:
    """run.json with fields of the result replaced, or removed where None."""
    result = record()["result"] | changed
    return record(result={name: value for name, value in result.items() if value is not None})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "demo", record()))


# What the page says


def test_a_finished_run_leads_with_what_was_found(finished: Path) -> None:
    said = text_of(finished)
    result = record()["result"]
    share = f"{100 * result['macs'] / result['macs_full']:.1f} %"
    # means of the three seeds: found 96.73, uniform 95.07, full 98.33
    assert f"mobilenetv2_050 with {share} of its multiply-adds: 96.7 % accuracy" in said
    assert "−1.6 points against the full network (98.3 %)" in said
    assert "+1.7 points against narrowing every layer alike (95.1 %)" in said
    assert "Found beats uniform by 1.7 points on 3 seeds" in said


def test_a_finished_run_says_how_it_was_made_and_how_to_use_it(finished: Path) -> None:
    said = text_of(finished)
    assert f"prunas.load(&#x27;{finished.parent.as_posix()}/model&#x27;)" in said
    assert "float32 (n, 1, 8, 8)" in said
    assert "The first 3 of 5 strides are 1" in said
    assert "1.6 × 10¹⁵ candidates, 18 genes" in said  # 7 ** 18 = 1.63e15
    assert "1 of them gave no number" in said
    assert "train the supernet" in said
    assert "Time: 5 min 12 s" in said


def test_reasons_of_what_was_pinned_are_told_once_with_their_places(finished: Path) -> None:
    said = text_of(finished)
    assert said.count("The network&#x27;s outputs are fixed.") == 1
    assert "2 places" in said
    assert "classifier.bias" in said


def test_every_plot_has_its_data(finished: Path) -> None:
    drawn = figures_of(finished)
    assert list(drawn) == ["trade-off", "seeds", "progress", "widths"]
    assert len(drawn["trade-off"]["data"][0]["x"]) == 299  # one of 300 has no score
    kept = drawn["widths"]["data"][1]["x"]
    result = record()["result"]
    assert kept == [
        width / gene["choices"][-1] for gene, width in zip(GENES, result["candidate"], strict=True)
    ]
    error_bars = [trace["error_y"]["array"] for trace in drawn["trade-off"]["data"][3:]]
    assert error_bars[2] == [pytest.approx(0.0056862, rel=1e-3)]  # of 0.969, 0.972, 0.961


def test_the_last_round_is_told_with_the_chosen_one_first(finished: Path) -> None:
    text = text_of(finished)
    told = text[text.index("The last round") : text.index("by which one was chosen")]
    places = [told.index(text) for text in ("96.2", "chosen", "94.8", "uniform width", "93.1")]
    assert places == sorted(places)


@pytest.mark.parametrize("finalists", [None, [{"candidate": [1], "score": 0.5, "held_out": None}]])
def test_without_a_last_round_nothing_is_told_of_it(finalists: Any, tmp_path: Path) -> None:
    fields = changed_result(finalists=finalists)
    assert "The last round" not in text_of(write_report(write_run(tmp_path, fields)))


def test_the_same_run_gives_the_same_bytes(finished: Path) -> None:
    before = finished.read_bytes()
    assert write_report(finished.parent).read_bytes() == before


def test_nothing_but_the_report_is_left_behind(finished: Path) -> None:
    names = sorted(path.name for path in finished.parent.iterdir())
    assert names == ["archive.sqlite", "report.html", "run.json"]


def test_the_page_names_nothing_to_fetch(finished: Path) -> None:
    html = re.sub(r"(?s)<script.*?</script>", "", finished.read_text(encoding="utf-8"))
    assert "default-src 'none'" in html
    assert re.findall(r"https?://|(?:src|href)=\"(?!data:)|@import|url\(", html) == []


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    genes = [{**gene, "name": EVIL} for gene in GENES]
    network = {**record()["network"], "name": EVIL, "small_images": EVIL}
    space = {"size": EVIL, "genes": genes, "pinned": [{"name": EVIL, "reason": EVIL}]}
    request = {**record()["request"], "data": EVIL, EVIL: EVIL}
    stages = [{"name": EVIL, "seconds": 1.0}]
    paired = {**record()["result"]["paired"], "sentence": EVIL}
    fields = changed_result(paired=paired) | {
        "network": network, "space": space, "request": request, "stages": stages,
        "device": EVIL, "versions": {EVIL: EVIL}, "budget": {EVIL: EVIL},
    }  # fmt: skip
    report = write_report(write_run(tmp_path / "a # b?c%20'd", fields))
    html = report.read_text(encoding="utf-8")
    assert "<img" not in re.sub(r"(?s)<script>.*?</script>", "", html)
    labels = figures_of(report)["widths"]["layout"]["yaxis"]["ticktext"]
    assert not any(set(label) & set("<>") for label in labels)


@pytest.mark.parametrize("rows", [[], evaluations(120)])
def test_an_unfinished_run_says_so(tmp_path: Path, rows: list[Any]) -> None:
    report = write_report(write_run(tmp_path, record(result=None, stages=None), rows))
    said = text_of(report)
    assert "This run of mobilenetv2_050 has not finished" in said
    assert f"{len(rows)} of 300 evaluations are done" in said
    assert "Use it" not in said
    assert list(figures_of(report)) == (["trade-off", "progress", "widths"] if rows else [])


def test_a_run_without_an_archive_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, record(result=None)).joinpath("archive.sqlite").unlink()
    assert "0 of 300 evaluations are done. No candidate has a score yet." in text_of(
        write_report(tmp_path)
    )


def test_one_seed_carries_no_error_bar_and_says_so(tmp_path: Path) -> None:
    report = write_report(write_run(tmp_path, changed_result(seeds=SEEDS[:1], paired=None)))
    said = text_of(report)
    assert "One seed: the differences carry no error bar" in said
    assert "±" not in said
    assert "seeds" not in figures_of(report)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"accuracy": None, "seeds": None}, "A smaller mobilenetv2_050 was found"),
        ({"accuracy": {"found": 0.5}, "seeds": None, "paired": None}, "multiply-adds: 50.0 %"),
        ({"macs_full": None}, "A smaller mobilenetv2_050 was found"),
        ({"uniform_candidate": None, "macs_uniform": None}, "+1.7 points"),
        ({"candidate": None}, "96.7 % accuracy"),
    ],
)
def test_missing_parts_of_the_result_leave_the_rest(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    assert sentence in text_of(write_report(write_run(tmp_path, changed_result(**changed))))


# What it refuses


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "does not exist; give the folder of a prunas run"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        (json.dumps(record(schema=2)), "is of schema 2 and this prunas reads schema 1"),
        (json.dumps(record(schema=None)), "is of schema None"),
        (json.dumps(record(seed="a")), "'seed' should be a whole number and is 'a'"),
        (json.dumps(record(network=[])), "'network' should be an object"),
        (json.dumps(record(stages=[1])), "'stages' should be a list of objects"),
        (json.dumps(changed_result(candidate=["a"])), "result: 'candidate' should be a list of w"),
        (json.dumps(changed_result(seeds=[{"full": "a"}])), "seeds[0]: 'full' should be a number"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(sentence)):
        write_report(tmp_path)


@pytest.mark.parametrize("content", ["text", "table", "candidate"])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    archive = write_run(tmp_path, record()) / "archive.sqlite"
    if content == "text":
        archive.write_text("not a database, and long enough for its header to be looked at" * 9)
    else:
        change = {
            "table": "DROP TABLE evaluations",
            "candidate": "UPDATE evaluations SET candidate = 'x' WHERE id = 1",
        }[content]
        connection = sqlite3.connect(archive)
        with connection:
            connection.execute(change)
        connection.close()
    with pytest.raises(InputError, match=r"archive\.sqlite is (damaged or not|a database but not)"):
        write_report(tmp_path)


def test_an_earlier_report_outlives_a_failed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(write_run(tmp_path, record())).read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(RunError, match=r"report\.html cannot be written \(No space left on"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


# The data of the plots


def row(macs: int, score: float) -> Evaluation:
    return Evaluation((macs,), score, macs, 1, 1.0)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9).map(float))))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, float]]) -> None:
    def beaten(macs: int, score: float) -> bool:
        return any((a <= macs and b >= score) and (a < macs or b > score) for a, b in pairs)

    kept = [(kept.macs, kept.score) for kept in front(row(*pair) for pair in pairs)]
    assert kept == sorted({pair for pair in pairs if not beaten(*pair)})


def test_a_long_search_is_thinned_and_the_page_says_so(finished: Path) -> None:
    rows = tuple(row(1000 + index, 0.5 + index % 7 / 100) for index in range(9000))
    trade_off, _, progress, _ = figures(replace(read_run(finished.parent), evaluations=rows))
    assert "4,000 of 9,000 dots are drawn" in trade_off.caption
    assert len(trade_off.traces[0]["x"]) == len(progress.traces[0]["x"]) == 4000


def test_the_best_so_far_never_falls_and_ends_with_the_search(finished: Path) -> None:
    run = read_run(finished.parent)
    line = next(figure for figure in figures(run) if figure.name == "progress").traces[1]
    assert line["y"] == sorted(line["y"])
    assert line["x"][-1] == len(run.evaluations)
    assert run.best
    assert line["y"][-1] == run.best.score


def test_the_plot_says_how_many_dots_lie_below_it(finished: Path) -> None:
    rows = tuple(row(1000 + index, 0.9 + index % 5 / 100) for index in range(99))
    poor = row(999, 0.1)
    trade_off, *_ = figures(replace(read_run(finished.parent), evaluations=(poor, *rows)))
    assert " 1 dot lies below the plot" in trade_off.caption
    low, high = trade_off.layout["yaxis"]["range"]
    assert 0.1 < low < 0.9
    assert high > 0.983  # the full network's diamond stays in sight


# In a browser


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_browser_draws_every_plot_without_a_complaint(
    tmp_path: Path, browser: Browser, *, width: int, unfinished: bool
) -> None:
    fields = record(result=None) if unfinished else record()
    report = write_report(write_run(tmp_path, fields))
    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    for name in figures_of(report):
        page.wait_for_selector(f"#{name}[data-drawn=yes]")
        assert page.locator(f"#{name} .trace, #{name} .point").count() > 0
    assert page.locator(".plot").count() == (3 if unfinished else 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_the_plots_follow_the_scheme_of_the_reader(finished: Path, browser: Browser) -> None:
    page = browser.new_page(color_scheme="light", bypass_csp=True)  # to wait for an expression
    page.goto(finished.as_uri())
    ink = "document.querySelector('#widths').layout?.font.color"
    page.wait_for_function(f"{ink} === '#1d2530'")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} === '#e7eaef'")
    page.close()
