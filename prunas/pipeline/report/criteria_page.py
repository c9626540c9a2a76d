"""The page about criteria: which differ, which tell channels apart, where a network aches."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np

from prunas.eval.criteria.comparison import (
    ALIKE,
    GAUSSIAN_SPEARMAN,
    TOO_CLOSE,
    Comparison,
    Normality,
    findings,
)
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.sensitivity import Sensitivity
from prunas.eval.criteria.verdict import Verdict
from prunas.pipeline.report.document import document, plot, section
from prunas.pipeline.report.figures import Figure, Trace
from prunas.pipeline.report.wording import percent
from prunas.supernet.space import SearchSpace

_SCALE: Final = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]]
_SHARES: Final = [[0, "#f7fbff"], [1, "#08519c"]]
_CELL: Final = 21  # pixels of a criterion in a matrix
_LEGEND: Final = {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"}


@dataclass(frozen=True, eq=False)
class Study:
    """All that the page shows.

    Attributes:
        model: the network's name.
        data: the data's name; "" without data.
        space: the search space.
        verdicts: by criterion.
        comparison: of these verdicts.
        normality: of the filters of every gene.
        sensitivities: by gene, for `ordered_by`; empty without data.
        ordered_by: the criterion whose best channels the sensitivities keep.
        untrained: what of the network has random weights, in a sentence.
    """

    model: str
    data: str
    space: SearchSpace
    verdicts: dict[str, Verdict]
    comparison: Comparison
    normality: tuple[Normality | None, ...]
    sensitivities: tuple[Sensitivity, ...]
    ordered_by: str
    untrained: str | None = None

    @property
    def findings(self) -> list[str]:
        """What all this says, in sentences."""
        return [*filter(None, [self.untrained]), *findings(self.comparison)]


def criteria_page(study: Study) -> str:
    """The whole HTML document."""
    plots = [_similarity(study), _overlap(study), _spread(study), _filters(study)]
    plots += [_sensitivity(study)] if study.sensitivities else []
    drawn = [figure for figure in plots if figure is not None]
    body = [
        _header(study),
        section("What it says", _list(study.findings)),
        f"<div class=plots>{''.join(map(plot, drawn))}</div>",
        _not_judged(study),
    ]
    return document(f"criteria of {study.model}", body, drawn)


def _header(study: Study) -> str:
    origin = " · ".join(escape(part) for part in (study.model, study.data) if part)
    genes, names = len(study.comparison.variation[0]), len(study.comparison.names)
    weights = [found.weights for found in study.normality if found is not None]
    predicted = (
        f" Filters that were Gaussian would be ranked alike by L1 and L2 at {GAUSSIAN_SPEARMAN:.3f}"
        if weights
        else ""
    )
    measured = _between(study.comparison, "l1", "l2")
    beside = f"; here it is {measured:.3f}." if measured is not None else "."
    lead = f"{names} criteria on {genes} groups of channels.{predicted}{beside if weights else ''}"
    return (
        f"<header><p class=origin>{origin}</p><h1>What the criteria say of {escape(study.model)}"
        f"</h1><p class=lead>{lead}</p></header>"
    )


def _between(found: Comparison, one: str, two: str) -> float | None:
    if one not in found.names or two not in found.names:
        return None
    value = found.similarity[found.names.index(one), found.names.index(two)]
    return None if np.isnan(value) else float(value)


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _matrix(
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
    values: Array,
    colours: dict[str, Any],
) -> Figure:
    numbers = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in values]
    trace: Trace = {
        "type": "heatmap", "x": list(names), "y": list(names), "z": numbers,
        "xgap": 1, "ygap": 1, "hoverongaps": False,
        "hovertemplate": "%{y} and %{x}: %{z:.2f}<extra></extra>",
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    } | colours  # fmt: skip
    layout = {
        "yaxis": {"autorange": "reversed", "showgrid": False, "tickfont": {"size": 11}},
        "xaxis": {"side": "top", "tickangle": -60, "showgrid": False, "tickfont": {"size": 11}},
        "margin": {"l": 118, "r": 8, "t": 104, "b": 8},
    }
    return Figure(name, title, caption, 150 + _CELL * len(names), (trace,), layout)


def _similarity(study: Study) -> Figure:
    found = study.comparison
    caption = (
        "Spearman's rank correlation of the orders of removal within a group, its mean over groups."
        f" Red: they order channels alike; from {ALIKE} on, choosing between two is pointless."
        " Blue: they contradict each other."
    )
    colours = {"zmin": -1, "zmax": 1, "colorscale": _SCALE}
    return _matrix("similarity", "Who agrees", caption, found.names, found.similarity, colours)


def _overlap(study: Study) -> Figure:
    found = study.comparison
    caption = (
        "Of the channels that either of two would remove at half width, the share that both would;"
        " a third is chance."
    )
    colours = {"zmin": 0, "zmax": 1, "colorscale": _SHARES}
    title = "What would be removed by both"
    return _matrix("overlap", title, caption, found.names, found.overlap, colours)


def _spread(study: Study) -> Figure:
    found = study.comparison
    genes = [escape(gene.name) for gene in study.space.genes]
    traces: list[Trace] = []
    for name, row in zip(found.names, found.variation, strict=True):
        known = [(float(v), genes[g]) for g, v in enumerate(row) if not np.isnan(v)]
        traces.append({
            "type": "box", "name": name, "orientation": "h", "x": [max(v, 1e-4) for v, _ in known],
            "text": [gene for _, gene in known], "boxpoints": "all", "jitter": 0.4, "pointpos": 0,
            "marker": {"size": 4, "color": "var(--dot)"}, "line": {"width": 1.2},
            "fillcolor": "rgba(0,0,0,0)", "showlegend": False,
            "hovertemplate": "%{text}: %{x:.3f}<extra></extra>",
        })  # fmt: skip
    line = {"color": "var(--found)", "width": 1.5, "dash": "dash"}
    layout = {
        "xaxis": {"type": "log", "title": {"text": "coefficient of variation of the scores"}},
        "yaxis": {"autorange": "reversed", "tickfont": {"size": 11}},
        "margin": {"l": 118, "r": 8, "t": 8, "b": 48},
        "shapes": [
            {"type": "line", "x0": TOO_CLOSE, "x1": TOO_CLOSE, "yref": "paper", "y0": 0, "y1": 1}
            | {"line": line}
        ],
    }
    caption = (
        "One dot is one group. Left of the dashed line scores differ by less than"
        f" {percent(TOO_CLOSE, 0)}: the criterion cannot tell the channels of that group apart."
    )
    height = 110 + _CELL * len(found.names)
    return Figure("spread", "Who can rank at all", caption, height, tuple(traces), layout)


def _filters(study: Study) -> Figure | None:
    rows = [
        (study.space.genes[gene].name, found)
        for gene, found in enumerate(study.normality)
        if found is not None
    ]
    if not rows:
        return None
    names = [escape(name) for name, _ in rows]
    places = list(range(len(rows)))
    measures = (
        ("quantile fit R\u00b2 (1: Gaussian)", [f.quantiles for _, f in rows], "circle", "--found"),
        ("|mean| / std (0: centred)", [f.shift for _, f in rows], "diamond", "--uniform"),
        ("spread of scales (0: equal)", [f.scales for _, f in rows], "square", "--full"),
    )
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "name": label, "x": places, "y": values,
            "text": names, "marker": {"symbol": symbol, "size": 8, "color": f"var({colour})"},
            "hovertemplate": "%{text}: %{y:.3f}<extra></extra>",
        }
        for label, values, symbol, colour in measures
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "group, from the input to the output"}, "showgrid": False},
        "yaxis": {"rangemode": "tozero"},
        "legend": _LEGEND,
    }
    caption = (
        "Theory explains why norms agree if filters are independent Gaussians of one scale. Where"
        " the scales of filters differ, every norm ranks alike; where the fit is poor, norms may"
        " differ."
    )
    return Figure("filters", "Are filters Gaussian?", caption, 380, tuple(traces), layout)


def _sensitivity(study: Study) -> Figure:
    rows = sorted(study.sensitivities, key=lambda row: row.gene)
    colours = ("var(--found)", "var(--uniform)", "var(--dot)")
    wanted = (0.25, 0.5, 0.75)
    traces: list[Trace] = []
    for share, colour in zip(wanted, colours, strict=True):
        points = [_nearest(row, share) for row in rows]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": f"{share:.0%} of the channels",
            "x": list(range(len(rows))), "y": [accuracy for _, accuracy in points],
            "text": [
                f"{escape(study.space.genes[row.gene].name)}, {width} of {row.widths[-1]}"
                for row, (width, _) in zip(rows, points, strict=True)
            ],
            "line": {"width": 1.2, "color": colour}, "marker": {"size": 6, "color": colour},
            "hovertemplate": "%{text}: %{y:.1%}<extra></extra>",
        })  # fmt: skip
    whole = rows[0].accuracies[-1]
    line = {"color": "var(--muted)", "width": 1.5, "dash": "dash"}
    layout = {
        "xaxis": {"title": {"text": "group, from the input to the output"}, "showgrid": False},
        "yaxis": {"title": {"text": "held-out accuracy"}, "tickformat": ".0%"},
        "legend": _LEGEND,
        "shapes": [
            {"type": "line", "y0": whole, "y1": whole, "xref": "paper", "x0": 0, "x1": 1}
            | {"line": line}
        ],
    }
    caption = (
        f"One group alone is narrowed, its best channels by {escape(study.ordered_by)} kept, and"
        " batch norms are recalibrated. Dashed: the whole network. Deep dips are groups to leave"
        " wide."
    )
    return Figure("sensitivity", "Where it hurts", caption, 400, tuple(traces), layout)


def _nearest(row: Sensitivity, share: float) -> tuple[int, float]:
    full = row.widths[-1]
    place = min(range(len(row.widths)), key=lambda i: abs(row.widths[i] - share * full))
    return row.widths[place], row.accuracies[place]


def _not_judged(study: Study) -> str:
    items = []
    for name, verdict in study.verdicts.items():
        reasons: dict[str, int] = {}
        for reason in verdict.reasons.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        items += [f"{name}: {count} groups, {reason}" for reason, count in reasons.items()]
        items += [f"{name}: {note}" for note in verdict.notes]
    return section("What could not be judged, and notes", _list(items)) if items else ""
