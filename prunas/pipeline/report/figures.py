"""The report's plots, as plotly figures in plain dictionaries.

Colours are written as CSS variables ("var(--found)"); the page resolves them, so that a plot
follows the reader's light or dark scheme. Names from outside are escaped, since plotly reads tags
in text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any, Final, TypeVar, cast

from prunas.pipeline.report.run import Compared, Evaluation, Gene, Result, Run

Trace = dict[str, Any]
Row = TypeVar("Row")

_MOST_POINTS: Final = 4000  # more dots than this make the page slow and say nothing more
_ROW: Final = 19  # pixels that one gene's bar takes
_LEGEND: Final = {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"}


@dataclass(frozen=True)
class Figure:
    """One plot: `name` is its id on the page, `caption` says what to see in it."""

    name: str
    title: str
    caption: str
    height: int
    traces: tuple[Trace, ...]
    layout: dict[str, Any]
    half: bool = False  # may stand beside another where the page is wide


def figures(run: Run) -> list[Figure]:
    """All plots for which the run has data, in the order of the page."""
    scored = [row for row in run.evaluations if row.score is not None]
    several = run.result is not None and len(run.result.seeds) > 1
    drawn: list[Figure] = []
    if scored:
        drawn.append(_trade_off(run, scored))
    if run.result and several:
        drawn.append(_seeds(run.result))
    if scored:
        drawn.append(_progress(run, half=several))
    if run.genes and len(run.chosen) == len(run.genes):
        drawn.append(_widths(run))
    return drawn


def front(rows: Iterable[Evaluation]) -> list[Evaluation]:
    """The rows that no other beats in both MACs (fewer) and score (higher), by ascending MACs."""
    kept: list[Evaluation] = []
    for row in sorted(rows, key=lambda row: (row.macs, -_score(row))):
        if not kept or _score(row) > _score(kept[-1]):
            kept.append(row)
    return kept


def _trade_off(run: Run, scored: Sequence[Evaluation]) -> Figure:
    shown = _thinned(scored)
    best = front(scored)
    traces = [
        _dots("tried in the search", shown, color="var(--dot)", size=6),
        _dots("best tried at its cost", best, color="var(--found)", size=5)
        | {"mode": "lines+markers", "line": {"shape": "hv", "width": 1.5, "color": "var(--found)"}},
    ]
    found = run.evaluation_of(run.chosen)
    if found is not None:
        ring = {"symbol": "circle-open", "size": 15, "line": {"width": 2.5}}
        label = "chosen" if run.result else "best so far"
        traces.append(_dots(label, [found], color="var(--found)", size=15, marker=ring))
    if run.result:
        traces += _baselines(run.result)
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "multiply-adds (MACs) per image"},
            "tickformat": "~s",
            "rangemode": "tozero",
        },
        "yaxis": _accuracy_axis("accuracy", traces, scored),
        "legend": _LEGEND,
    }
    limit = run.budget.get("macs")
    if isinstance(limit, int):
        layout |= _budget_line(limit)
    caption = (
        "Dots: accuracy on held-out training data with the weights of the search, before the final"
        " training."
    )
    if run.result:
        caption += (
            " Diamonds: test accuracy after it, so compare dots with dots and diamonds with"
            " diamonds."
        )
    caption += _below(layout["yaxis"], scored)
    if len(shown) < len(scored):
        caption += f" {len(shown):,} of {len(scored):,} dots are drawn, evenly chosen."
    return Figure("trade-off", "Accuracy against cost", caption, 460, tuple(traces), layout)


def _budget_line(limit: int) -> dict[str, Any]:
    line = {"color": "var(--muted)", "width": 1.5, "dash": "dash"}
    shape = {"type": "line", "x0": limit, "x1": limit, "yref": "paper", "y0": 0, "y1": 1}
    label = {
        "x": limit, "yref": "paper", "y": 1, "yanchor": "bottom", "text": "budget",
        "showarrow": False, "font": {"color": "var(--muted)"},
    }  # fmt: skip
    return {"shapes": [shape | {"line": line}], "annotations": [label]}


def _baselines(result: Result) -> list[Trace]:
    return [
        _baseline(name, network)
        for name, network in result.networks.items()
        if network.macs is not None and network.accuracies
    ]


def _baseline(name: str, network: Compared) -> Trace:
    color = f"var(--{name})"
    trace: Trace = {
        "type": "scatter", "mode": "markers", "name": f"{name}, trained",
        "x": [network.macs], "y": [network.accuracy],
        "marker": {
            "symbol": "diamond", "size": 13, "color": color,
            "line": {"width": 1.5, "color": "var(--panel)"},
        },
        "hovertemplate": f"{name}: %{{y:.1%}} on test data<br>%{{x:.3s}} MACs<extra></extra>",
    }  # fmt: skip
    if network.spread is not None:
        trace["error_y"] = {"array": [network.spread], "color": color, "thickness": 1.5, "width": 4}
    return trace


def _seeds(result: Result) -> Figure:
    names, networks = tuple(result.trained), tuple(result.trained.values())
    by_seed = zip(*(network.accuracies for network in networks), strict=False)
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "lines+markers", "x": names, "y": accuracies,
            "name": f"seed {seed}", "showlegend": False,
            "line": {"color": "var(--dot)", "width": 1.5},
            "marker": {"color": "var(--dot)", "size": 8},
            "hovertemplate": f"seed {seed}, %{{x}}: %{{y:.2%}}<extra></extra>",
        }
        for seed, accuracies in zip(result.seeds, by_seed, strict=False)
    ]  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "markers", "x": names, "name": "mean", "showlegend": False,
        "y": [network.accuracy for network in networks],
        "marker": {
            "symbol": "line-ew", "size": 44,
            "line": {"width": 3, "color": [f"var(--{name})" for name in names]},
        },
        "hovertemplate": "mean, %{x}: %{y:.2%}<extra></extra>",
    })  # fmt: skip
    layout = {
        "yaxis": {"title": {"text": "test accuracy"}, "tickformat": ".1%"},
        "xaxis": {"range": [-0.5, len(names) - 0.5]},
    }
    caption = "One line is one seed: the same data split and training for all. Bars: means."
    return Figure("seeds", "Every seed", caption, 360, tuple(traces), layout, half=True)


def _kept(gene: Gene, chosen: int) -> str:
    if gene.kind in ("depth", "operator"):
        return "kept" if chosen else "left out"
    if gene.kind in ("kernel", "resolution"):
        return f"{chosen}x{chosen} / {gene.choices[-1]}x{gene.choices[-1]}"
    return f"{chosen} / {gene.choices[-1]}"


def _widths(run: Run) -> Figure:
    most = [gene.choices[-1] for gene in run.genes]
    rows = list(range(len(most)))
    texts = [_kept(gene, chosen) for gene, chosen in zip(run.genes, run.chosen, strict=True)]
    traces: list[Trace] = [
        _bars("full network", most, most, "var(--track)")
        | {"text": texts, "textposition": "outside", "cliponaxis": False, "hoverinfo": "skip"},
        _bars("found" if run.result else "best so far", run.chosen, most, "var(--found)")
        | {
            "text": [escape(gene.name) for gene in run.genes],
            "textposition": "none",
            "hovertemplate": "%{text}<br>%{x:.1%} kept<extra></extra>",
        },
    ]
    uniform = run.result.uniform_candidate if run.result else ()
    if len(uniform) == len(most):
        traces.append({
            "type": "scatter", "mode": "markers", "name": "uniform",
            "x": _shares(uniform, most), "y": rows,
            "marker": {
                "symbol": "line-ns", "size": 11, "line": {"width": 2.5, "color": "var(--uniform)"},
            },
            "hovertemplate": "uniform: %{x:.1%}<extra></extra>",
        })  # fmt: skip
    layout = {
        "barmode": "overlay",
        "bargap": 0.3,
        "xaxis": {
            "side": "top", "tickformat": ".0%", "range": [0, 1], "tickvals": [0, 0.5, 1],
        },
        "margin": {"l": 8, "r": 92, "t": 28, "b": 8},  # room for "1280 / 1280" beside a bar
        "yaxis": {
            "autorange": False, "range": [len(rows) - 0.5, -0.5], "showgrid": False,
            "tickmode": "array", "tickvals": rows,
            "ticktext": [_short(gene.name) for gene in run.genes], "tickfont": {"size": 11},
        },
        "legend": _LEGEND,
    }  # fmt: skip
    caption = "The share that each gene keeps, from the network's input, at the top, to its output."
    height = 110 + _ROW * len(rows)
    return Figure("widths", "What was kept", caption, height, tuple(traces), layout)


def _bars(name: str, values: Sequence[int], most: Sequence[int], color: str) -> Trace:
    return {
        "type": "bar", "orientation": "h", "name": name, "x": _shares(values, most),
        "y": list(range(len(values))), "marker": {"color": color},
    }  # fmt: skip


def _shares(values: Sequence[int], most: Sequence[int]) -> list[float]:
    return [value / largest for value, largest in zip(values, most, strict=True)]


def _short(name: str, most: int = 24) -> str:
    return escape(name if len(name) <= most else f"…{name[1 - most :]}")


def _progress(run: Run, *, half: bool) -> Figure:
    numbered = [
        (number, row) for number, row in enumerate(run.evaluations, 1) if row.score is not None
    ]
    scored = [row for _, row in numbered]
    shown = _thinned(numbered)
    best = list(accumulate(map(_score, scored), max))
    steps = [0] + [index for index in range(1, len(best)) if best[index] > best[index - 1]]
    x = [numbered[index][0] for index in steps] + [len(run.evaluations)]
    y = [best[index] for index in steps] + [best[-1]]
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "name": "evaluated",
            "x": [number for number, _ in shown], "y": [row.score for _, row in shown],
            "marker": {"color": "var(--dot)", "size": 5},
            "hovertemplate": "evaluation %{x}: %{y:.1%}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "best so far", "x": x, "y": y,
            "line": {"shape": "hv", "width": 2.5, "color": "var(--found)"},
            "hovertemplate": "best after %{x}: %{y:.1%}<extra></extra>",
        },
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "evaluations"}, "rangemode": "tozero"},
        "yaxis": _accuracy_axis("held-out accuracy", traces, scored),
        "legend": _LEGEND,
    }
    caption = "Every candidate in the order asked for." + _below(layout["yaxis"], scored)
    return Figure("progress", "The search", caption, 360, tuple(traces), layout, half=half)


def _accuracy_axis(
    title: str, traces: Iterable[Trace], scored: Sequence[Evaluation]
) -> dict[str, Any]:
    """The axis; a few poor candidates may lie below it, so that the others can be told apart."""
    axis = {"title": {"text": title}, "tickformat": ".0%"}
    scores = sorted(map(_score, scored))
    top = max(height for trace in traces for height in trace["y"])
    poor = scores[len(scores) // 20]  # 5 % are worse
    low = poor - 0.3 * (top - poor)
    if scores[0] >= low:
        return axis
    return axis | {"range": [low, top + 0.06 * (top - low)]}


def _below(axis: dict[str, Any], scored: Sequence[Evaluation]) -> str:
    if "range" not in axis:
        return ""
    hidden = sum(_score(row) < axis["range"][0] for row in scored)
    lie = "dot lies" if hidden == 1 else "dots lie"
    return f" {hidden:,} {lie} below the plot<span class=mouse>; a double-click shows all</span>."


def _dots(
    name: str,
    rows: Sequence[Evaluation],
    *,
    color: str,
    size: int,
    marker: dict[str, Any] | None = None,
) -> Trace:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [row.macs for row in rows], "y": [row.score for row in rows],
        "marker": {"color": color, "size": size} | (marker or {}),
        "hovertemplate": "%{y:.1%} on held-out data<br>%{x:.3s} MACs<extra></extra>",
    }  # fmt: skip


def _thinned(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= _MOST_POINTS:
        return rows
    return [rows[index * len(rows) // _MOST_POINTS] for index in range(_MOST_POINTS)]


def _score(row: Evaluation) -> float:
    return cast(float, row.score)  # only scored rows come here
