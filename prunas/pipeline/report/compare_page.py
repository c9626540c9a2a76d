"""The page about a comparison: regret, decisions, ranks, time, and how it was done."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from prunas.eval.contest import RESAMPLES
from prunas.pipeline.comparison.contenders import DAIS, DI, of_name
from prunas.pipeline.comparison.findings import RULE, findings, in_points, told, verdicts_of
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.comparison.results import Contest, Results, Summary
from prunas.pipeline.report.document import document, plot, section
from prunas.pipeline.report.figures import Figure, Trace
from prunas.pipeline.report.rank_diagram import rank_diagram
from prunas.pipeline.report.wording import THIN, UNKNOWN, amount, duration

_COLOURS: Final = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#e0860b", "#17a2b8",
    "#8c564b", "#e377c2", "#7f7f7f", "#9aa01e", "#3f51b5", "#009688",
)  # fmt: skip
_MARKS: Final = {"better": "▲", "worse": "▼", "no evidence": "·"}
_ROW: Final = 22  # pixels of a contender's bar
_DIGITS: Final = 4  # of regret in points: finer than a line on a screen


def compare_page(results: Results) -> str:
    """The whole HTML document."""
    plots = [*(_curves(results, index) for index in range(len(results.contests))), _time(results)]
    body = [
        _header(results),
        section("What it says", _list(findings(results))),
        *(section(_title(contest), _table(contest)) for contest in results.contests),
        section("Average ranks", _ranks(results)),
        f"<div class=plots>{''.join(map(plot, plots))}</div>",
        *(section(f"Decisions, {_title(c)}", _decisions(c)) for c in results.contests),
        *([section("Scores and training", _agreement(results.agreement))] * _has(results)),
        section("What was compared, and how", _protocol(results)),
    ]
    return document("comparison of searches", body, plots)


def _has(results: Results) -> bool:
    return results.agreement is not None


def _title(contest: Contest) -> str:
    return escape(f"{contest.problem.space}, {contest.problem.budget}")


def _header(results: Results) -> str:
    request, first = results.request, results.contests[0]
    spaces = dict.fromkeys(contest.problem.space for contest in results.contests)
    count = len(results.contests)
    problems = f"{count} combination{'s' * (count != 1)} of space and budget"
    return (
        f"<header><p class=origin>{escape(' · '.join(spaces))}</p><h1>Which search is better?</h1>"
        f"<p class=lead>{len(first.names)} contenders on {problems}, {len(request.seeds)} seeds"
        f" each, {request.evaluations} evaluations a run.</p></header>"
    )


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


# -- tables ----------------------------------------------------------------------------------------


def _table(contest: Contest) -> str:
    *earlier, last = contest.points
    head = [
        "contender",
        *(f"after {at}" for at in earlier),
        f"regret after {last}",
        "middle half",
        "median",
        "test regret",
        "as random",
    ]
    cells = [
        (name, *_cells([each for each in contest.summaries if each.contender == name]))
        for name in _ordered(contest)
    ]
    note = (
        "Regret in percentage points, mean over seeds, in brackets the 95 % bootstrap interval;"
        f" middle half, median and test regret after {last}. As random: evaluations after which"
        " half of the runs are where random search is, on average, after all of its own."
        " summary.csv has the intervals of all."
    )
    return f"<div class=scroll>{_html(head, cells)}</div>{_caption(note)}"


def _ordered(contest: Contest) -> list[str]:
    """The contenders, the one with the least mean regret first."""
    last = dict(zip(contest.names, contest.regrets[:, :, -1].mean(axis=1), strict=True))
    return sorted(contest.names, key=lambda name: float(last[name]))


def _cells(rows: Sequence[Summary]) -> list[str]:
    *earlier, last = rows
    reach = last.to_random_mean
    return [
        *(f"{100 * each.mean.value:.2f}" for each in earlier),
        in_points(last.mean),
        f"{100 * last.iqm.value:.2f}",
        f"{100 * last.median:.2f}",
        UNKNOWN if last.test is None else f"{100 * last.test.value:.2f}",
        UNKNOWN if reach is None else f"{reach:.0f}",
    ]


def _html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _caption(text: str) -> str:
    return f"<p class=caption>{escape(text)}</p>"


def _decisions(contest: Contest) -> str:
    """A matrix: the row beside the column, after all evaluations."""
    at = contest.points[-1]
    names = _ordered(contest)
    numbers = {name: str(number) for number, name in enumerate(names, 1)}
    sentences = {
        pair: told(duel)
        for duel in contest.duels[at]
        for pair in ((duel.one, duel.other), (duel.other, duel.one))
    }
    head = "".join(f"<th title='{escape(name)}'>{numbers[name]}</th>" for name in names)
    rows = []
    for name in names:
        verdicts = verdicts_of(contest, name, at)
        cells = "".join(
            f"<td title='{escape(sentences[name, other])}'>{_MARKS[verdicts[other]]}</td>"
            if other != name
            else "<td></td>"
            for other in names
        )
        rows.append(f"<tr><th>{numbers[name]} {escape(name)}</th>{cells}</tr>")
    note = (
        f"After {at} evaluations. ▲ the row is better than the column, ▼ worse, · no evidence of a"
        " difference. A mouse over a mark shows its figures; pairs.csv has them all."
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class=scroll>{table}</div>{_caption(note)}"


def _agreement(found: Mapping[str, Any] | None) -> str:
    """What `prunas rank` found of the run."""
    scopes = {"all": "over all networks", "window": "where the budget is used"}
    rows = [
        (f"{name}, {said}", f"{tau['value']:.2f} ({tau['low']:.2f} to {tau['high']:.2f})")
        for scope, said in scopes.items()
        for name, each in ((found or {}).get("agreement", {}).get(scope) or {}).items()
        for tau in (each["tau"],)
    ]
    note = (
        "Kendall's tau between scores and the accuracy of the same networks trained alone. A search"
        " can be no better than its scores: regret here is in scores."
    )
    return _html(["ordered by", "Kendall's tau"], rows) + _caption(note)


def _ranks(results: Results) -> str:
    ranks = results.ranks
    if ranks is None:
        return "<p>One problem has no average ranks; compare on more.</p>"
    note = (
        f"1 is best. A problem is a space, a budget and a set of scores; there are {ranks.blocks}."
        " Bars join contenders whose average ranks differ by less than the critical difference"
        f" (CD, Nemenyi at 0.05). Friedman's test in Iman and Davenport's form: p ="
        f" {ranks.p_value:.2g}."
    )
    return f"<div class=scroll>{rank_diagram(ranks)}</div>{_caption(note)}"


# -- plots -----------------------------------------------------------------------------------------


def _curves(results: Results, index: int) -> Figure:
    contest, start = results.contests[index], max(1, results.request.start)
    numbers, bands = contest.curves
    shown = [place for place, number in enumerate(numbers) if number >= start] or [-1]
    x = [numbers[place] for place in shown]
    traces: list[Trace] = []
    for name, band in zip(contest.names, bands, strict=True):
        value, low, high = (
            np.round(100 * part[shown], _DIGITS).tolist()
            for part in (band.value, band.low, band.high)
        )
        colour, line = _colour(results, name), _line(results, name)
        traces.append({
            "type": "scatter", "mode": "lines", "legendgroup": name, "showlegend": False,
            "x": x + x[::-1], "y": high + low[::-1], "fill": "toself", "line": {"width": 0},
            "fillcolor": _faint(colour), "hoverinfo": "skip",
        })  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "lines", "name": name, "legendgroup": name,
            "x": x, "y": value, "line": line,
            "hovertemplate": f"{name}, %{{x}} evaluations: %{{y:.2f}} points<extra></extra>",
        })  # fmt: skip
    layout = {
        "xaxis": {"type": "log", "title": {"text": "evaluations"}, **_ticks(x[0], x[-1])},
        "yaxis": {"title": {"text": "regret, points"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
    }
    same = f" Up to {start} all have the same start points." if results.request.start else ""
    caption = (
        "The best score there is, less the best one found so far; mean over seeds, shaded its 95 %"
        f" bootstrap interval. Dashed: with the DI prior; dotted: with learnt indicators.{same}"
    )
    title = f"Regret, {_title(contest)}"
    height = 400 + 8 * len(contest.names)
    return Figure(f"regret{index}", title, caption, height, tuple(traces), layout)


def _ticks(first: int, last: int) -> dict[str, Any]:
    """Round numbers of evaluations: plotly's own would read 5, 2, 5 between powers of ten."""
    steps = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    values = sorted({first, last, *(step for step in steps if 1.15 * first < step < last / 1.15)})
    ends = [math.log10(first), math.log10(last) + 0.004]  # the last tick is just inside
    texts = [str(each) for each in values]
    return {"tickmode": "array", "tickvals": values, "ticktext": texts, "range": ends}


def _time(results: Results) -> Figure:
    names = results.contests[0].names
    seconds = [
        float(np.mean([contest.seconds[index].mean() for contest in results.contests]))
        for index in range(len(names))
    ]
    made = [
        float(np.mean([contest.made[index].mean() for contest in results.contests]))
        for index in range(len(names))
    ]
    each = [1000 * spent / count for spent, count in zip(seconds, made, strict=True)]
    texts = [f"{duration(s)} a run, {m:.2g}{THIN}ms" for s, m in zip(seconds, each, strict=True)]
    trace: Trace = {
        "type": "bar", "orientation": "h", "x": each, "y": list(names), "text": texts,
        "marker": {"color": [_colour(results, name) for name in names]}, "textposition": "auto",
        "hovertemplate": "%{y}: %{text} an evaluation<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "milliseconds an evaluation"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "showgrid": False},
    }
    caption = "Spent by the methods themselves, on asking and telling; evaluations are not in it."
    height = 110 + _ROW * len(names)
    return Figure("time", "Time of the methods", caption, height, (trace,), layout)


def _colour(results: Results, name: str) -> str:
    methods = list(dict.fromkeys(each.method for each in results.request.contenders))
    return _COLOURS[methods.index(of_name(name).method) % len(_COLOURS)]


def _line(results: Results, name: str) -> dict[str, Any]:
    dash = {None: "solid", DI: "dash", DAIS: "dot"}[of_name(name).prior]
    return {"color": _colour(results, name), "width": 2, "dash": dash}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.10)"


# -- protocol --------------------------------------------------------------------------------------


def _protocol(results: Results) -> str:
    request = results.request
    return (
        f"<dl>{''.join(f'<dt>{escape(t)}</dt><dd>{escape(d)}</dd>' for t, d in _facts(results))}"
        f"</dl>{_list(_conditions(request))}"
    )


def _facts(results: Results) -> Iterable[tuple[str, str]]:
    request = results.request
    yield "contenders", ", ".join(results.contests[0].names)
    for contest in results.contests:
        problem = contest.problem
        limits = ", ".join(f"{amount(limit)} {name}" for name, limit in problem.limits.items())
        counted = "more candidates than were counted"
        if problem.window is not None:
            counted = f"{problem.window:,} candidates"
        sets = f"{problem.evaluation_seeds} set{'s' * (problem.evaluation_seeds != 1)} of scores"
        yield f"{problem.space}, {problem.budget}", f"up to {limits}; {counted} on it; {sets}"
    tolerance = request.budget(results.contests[0].problem.budget).tolerance
    yield "tolerance", f"{100 * tolerance:g}{THIN}% below a limit is on the budget"
    yield "seeds", f"{len(request.seeds)}: {_spelled(request.seeds)}"
    yield "evaluations", f"{request.evaluations}, {request.start} of them start points"
    yield "batch", f"{request.batch} candidates asked for at once"


def _spelled(seeds: Sequence[int], most: int = 12) -> str:
    if list(seeds) == list(range(len(seeds))) and len(seeds) > 1:
        return f"0 to {len(seeds) - 1}"
    more = ", ..." if len(seeds) > most else ""
    return ", ".join(map(str, seeds[:most])) + more


def _conditions(request: Comparison) -> Iterable[str]:
    yield (
        "With one seed all contenders have the same start points, drawn at random from the window,"
        " which count as evaluations, and the same set of scores. An evaluation is a distinct"
        " candidate: asking again is neither possible nor counted."
    )
    if request.run is None:
        yield (
            "Every candidate of a table has been evaluated, so regret is exact: the best score"
            " within the limits under that set of scores, less the best found so far."
        )
    else:
        yield (
            "The best score there is is not known; regret is against the best that any contender"
            " has seen with any seed. All contenders share an archive of scores."
        )
    yield (
        "Test regret is the best test score within the limits, or seen, less that of the candidate"
        " with the best held-out score, which is the one that a search would return."
    )
    yield f"Intervals are percentiles over {RESAMPLES:,} resamples of the seeds."
    yield RULE
    yield "A method that finds no further candidate ends; its best score stands for the rest."
