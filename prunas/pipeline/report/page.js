"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const canHover = matchMedia("(hover: hover) and (min-width: 621px)").matches;

  // Replaces every "var(--name)" by the colour it has in the scheme of the moment.
  const resolved = (value) => {
    if (typeof value === "string" && value.startsWith("var(")) {
      return getComputedStyle(document.documentElement)
        .getPropertyValue(value.slice(4, -1))
        .trim();
    }
    if (Array.isArray(value)) return value.map(resolved);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolved(inner)]));
  };

  const axis = (given) => ({
    automargin: true,
    gridcolor: "var(--rule)",
    linecolor: "var(--rule)",
    zeroline: false,
    fixedrange: !canHover,
    ...given,
  });

  const layout = (given) => ({
    margin: { l: 8, r: 12, t: 28, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: "var(--ink)", family: getComputedStyle(document.body).fontFamily, size: 13 },
    hoverlabel: { bgcolor: "var(--panel)", bordercolor: "var(--muted)", font: { color: "var(--ink)" } },
    hovermode: "closest",
    dragmode: canHover ? "zoom" : false, // a finger on a plot scrolls the page
    ...given,
    xaxis: axis(given.xaxis),
    yaxis: axis(given.yaxis),
  });

  const config = { displayModeBar: false, responsive: true };

  const draw = async () => {
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById(name);
      await Plotly.react(place, resolved(figure.data), resolved(layout(figure.layout)), config);
      place.dataset.drawn = "yes";
    }
  };

  dark.addEventListener("change", draw);
  draw();
})();
