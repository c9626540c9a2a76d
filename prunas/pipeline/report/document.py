"""One HTML file that needs no network: sections, tables, plots in the reader's colour scheme."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Final

from plotly.offline import get_plotlyjs

from prunas.pipeline.report.figures import Figure

# Nothing is fetched, whatever a name in the run says; plotly draws with inline styles.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def document(title: str, body: Sequence[str], plots: Sequence[Figure]) -> str:
    """The whole document. The body is HTML; its plots are drawn where `plot` put them."""
    drawn = {plot.name: {"data": plot.traces, "layout": plot.layout} for plot in plots}
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)} · prunas</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<main>
{content}
</main>
<script type="application/json" id="figures">{_script_json(drawn)}</script>
<script>{get_plotlyjs()}</script>
<script>{_asset("page.js")}</script>
</body>
</html>
"""


def plot(figure: Figure) -> str:
    """The place of a plot, with its title and caption."""
    return section(
        figure.title,
        f"<p class=caption>{figure.caption}</p>"
        f'<div class="plot" id="{figure.name}" style="height:{figure.height}px" role="img"'
        f' aria-label="{figure.title}"></div>',
        "panel half" if figure.half else "panel",
    )


def section(title: str, content: str, classes: str = "panel") -> str:
    """A part of the page with a heading."""
    return f'<section class="{classes}"><h2>{title}</h2>{content}</section>'


def _asset(name: str) -> str:
    return files("prunas.pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _script_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
