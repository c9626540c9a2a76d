"""The page about ranking: what was predicted of networks, and what training gave."""

from collections.abc import Mapping, Sequence
from html import escape

from prunas.eval.ranking import Agreement, Estimate
from prunas.pipeline.rank import Ranking, findings
from prunas.pipeline.report.document import document, plot, section
from prunas.pipeline.report.figures import Figure, Trace
from prunas.pipeline.report.wording import UNKNOWN, percent


def rank_page(found: Ranking, *, model: str, data: str) -> str:
    """The whole HTML document."""
    plots = [_agreements(found), *(_scatter(found, name) for name in found.predicted)]
    body = [
        _header(found, model, data),
        section("What it says", _list(findings(found))),
        section("Agreement over all networks", _table(found.overall)),
        section(
            "Agreement where the budget is used",
            _table(found.where_used) if found.enough_in_window else _too_few(found),
        ),
        f"<div class=plots>{''.join(map(plot, plots))}</div>",
    ]
    return document(f"ranking of {model}", body, plots)


def _too_few(found: Ranking) -> str:
    return f"<p>{sum(found.in_window)} networks are too few to say; rank more.</p>"


def _header(found: Ranking, model: str, data: str) -> str:
    count, inside = len(found.candidates), sum(found.in_window)
    spread = f"{percent(min(found.trained))} to {percent(max(found.trained))}"
    return (
        f"<header><p class=origin>{escape(model)} · {escape(data)}</p><h1>Do scores rank as"
        f" training does?</h1><p class=lead>{count} networks trained alone for {found.epochs}"
        f" epochs, {inside} of which make use of the budget; test accuracy {spread}.</p></header>"
    )


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _table(found: Mapping[str, Agreement]) -> str:
    first = next(iter(found.values()), None)
    if first is None:
        return f"<p>{UNKNOWN}</p>"
    head = ("ordered by", "Kendall tau-b", "Spearman", f"best {first.top} found", "regret, points")
    rows = [
        (name, str(a.tau), str(a.spearman), str(a.precision), _in_points(a.regret))
        for name, a in found.items()
    ]
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    note = f"{first.n} networks; in brackets 95 % bootstrap intervals over networks."
    return f"<table><tr>{titles}</tr>{body}</table><p class=caption>{note}</p>"


def _in_points(share: Estimate) -> str:
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _agreements(found: Ranking) -> Figure:
    traces: list[Trace] = []
    scopes = [("all networks", found.overall, "var(--found)")]
    if found.enough_in_window:
        scopes.append(("where the budget is used", found.where_used, "var(--uniform)"))
    for name, agreements, colour in scopes:
        taus = [a.tau for a in agreements.values()]
        traces.append({
            "type": "scatter", "mode": "markers", "name": name,
            "x": list(found.predicted), "y": [tau.value for tau in taus],
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1.5,
                "array": [tau.high - tau.value for tau in taus],
                "arrayminus": [tau.value - tau.low for tau in taus],
            },
            "marker": {"size": 11, "color": colour},
            "hovertemplate": "%{x}: %{y:.2f}<extra></extra>",
        })  # fmt: skip
    layout = {
        "yaxis": {"title": {"text": "Kendall's tau-b"}, "zeroline": True},
        "scattermode": "group",
        "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
    }
    caption = "1: the order that training gives; 0: any order. Bars are 95 % intervals."
    return Figure("taus", "Agreement with training", caption, 360, tuple(traces), layout)


def _scatter(found: Ranking, name: str) -> Figure:
    values = found.predicted[name]
    megas = [f"{macs / 1e6:.2f} M" for macs in found.macs]
    traces = []
    for inside, label, symbol in (
        (False, "below the budget", "circle-open"),
        (True, "budget used", "circle"),
    ):
        chosen = [i for i, window in enumerate(found.in_window) if window == inside]
        traces.append({
            "type": "scatter", "mode": "markers", "name": label,
            "x": [values[i] for i in chosen], "y": [found.trained[i] for i in chosen],
            "text": [megas[i] for i in chosen],
            "marker": {"size": 8, "symbol": symbol, "color": "var(--found)"},
            "hovertemplate": "predicted %{x:.3~g}, trained %{y:.1%}, %{text}<extra></extra>",
        })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": escape(name)}},
        "yaxis": {"title": {"text": "test accuracy, trained alone"}, "tickformat": ".0%"},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
    }
    caption = "One dot is one network."
    number = list(found.predicted).index(name)
    title = f"Ordered by {escape(name)}"
    return Figure(f"rank{number}", title, caption, 380, tuple(traces), layout, half=True)
