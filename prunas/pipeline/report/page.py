"""The report's page: headline, tiles, plots, tables, as one HTML file that needs no network."""

from collections.abc import Iterable
from html import escape
from typing import Final

from prunas.pipeline.report.document import document, plot, section
from prunas.pipeline.report.figures import figures
from prunas.pipeline.report.run import Compared, Latency, Result, Run
from prunas.pipeline.report.transformed import transformed_section
from prunas.pipeline.report.wording import (
    UNKNOWN,
    amount,
    duration,
    interval,
    magnitude,
    milliseconds,
    percent,
    points,
)


def page(run: Run) -> str:
    """The whole HTML document. Every text that comes from the run is escaped."""
    plots = figures(run)
    body = [
        _header(run),
        _tiles(run),
        f"<div class=plots>{''.join(map(plot, plots))}</div>",
        _numbers(run.result) if run.result else "",
        _last_round(run.result) if run.result else "",
        transformed_section(run.transformation, run.result) if run.transformation else "",
        _load(run) if run.result else "",
        _pinned(run.pinned),
        _making(run),
    ]
    return document(run.model, body, plots)


def _header(run: Run) -> str:
    lead = "".join(f"<p class=lead>{sentence}</p>" for sentence in _lead(run))
    origin = " · ".join(escape(part) for part in (run.model, run.data) if part)
    return f"<header><p class=origin>{origin}</p><h1>{_headline(run)}</h1>{lead}</header>"


def _headline(run: Run) -> str:
    model = escape(run.model)
    if run.result is None:
        return f"This run of {model} has not finished"
    found, full = run.result.final, run.result.full
    if found.accuracy is None or not found.macs or not full.macs:
        return f"A smaller {model} was found"
    return (
        f"{model} with {percent(found.macs / full.macs)} of its multiply\u2011adds:"
        f" {percent(found.accuracy)} accuracy"
    )


def _lead(run: Run) -> list[str]:
    if run.result is None:
        return [_so_far(run)]
    full, uniform, found = (
        network.accuracy for network in (run.result.full, run.result.uniform, run.result.final)
    )
    if found is None:
        return ["Its test accuracy was not measured."]
    compared = [
        f"{points(found - other)} against {what} ({percent(other)})"
        for what, other in (("the full network", full), ("narrowing every layer alike", uniform))
        if other is not None
    ]
    return [f"On test data: {'; '.join(compared)}."] if compared else []


def _so_far(run: Run) -> str:
    asked = run.request.get("evaluations")
    of = f" of {asked:,}" if isinstance(asked, int) else ""
    done = f"{len(run.evaluations):,}{of} evaluations are done."
    best = run.best
    if best is None or best.score is None:
        return f"{done} No candidate has a score yet."
    return (
        f"{done} The best candidate so far reaches {percent(best.score)} on held-out data with"
        f" {amount(best.macs)} multiply-adds, before any training of its own."
    )


def _tiles(run: Run) -> str:
    if run.result is None:
        return ""
    full, uniform, found = run.result.full, run.result.uniform, run.result.final
    limits = {name: f"budget {_limit(name, value)}" for name, value in run.budget.items()}
    tiles = [
        _cost_tile("Multiply-adds", found.macs, full.macs, limits.get("macs", "")),
        _cost_tile("Parameters", found.params, full.params, limits.get("params", "")),
        _latency_tile(run.result.latency, limits.get("latency", "")),
        _tile("Test accuracy", _accuracy(found), f"full network {_accuracy(full)}"),
        _gain_tile(run.result, uniform, run.result.found),
    ]
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _limit(name: str, value: object) -> str:
    if name == "latency" and isinstance(value, int):
        return milliseconds(value / 1e6)
    return amount(value) if isinstance(value, int | float) else escape(str(value))


def _cost_tile(label: str, found: int | None, full: int | None, limit: str) -> str:
    if not found or not full:
        return _tile(label, amount(found), limit)
    note = f"{percent(found / full)} of {amount(full)}" + (f", {limit}" if limit else "")
    meter = f'<div class="meter"><i style="width:{100 * min(1.0, found / full):.2f}%"></i></div>'
    return _tile(label, amount(found), note, meter)


def _latency_tile(latency: Latency | None, limit: str) -> str:
    if latency is None:
        return ""
    share = f"{percent(latency.found / latency.full)} of " if latency.full else ""
    note = f"{share}{milliseconds(latency.full)}" + (f", {limit}" if limit else "")
    return _tile("Latency, measured", milliseconds(latency.found), note)


def _gain_tile(result: Result, uniform: Compared, found: Compared) -> str:
    if uniform.accuracy is None or found.accuracy is None:
        return ""
    note = f"uniform width {_accuracy(uniform)}"
    paired = result.paired
    if paired and paired.low is not None and paired.high is not None:
        note += f"; {percent(0.95, 0)} interval {interval(paired.low, paired.high)}"
    whose = "Against" if result.final is result.found else "Before replacing, against"
    return _tile(f"{whose} uniform width", points(found.accuracy - uniform.accuracy), note)


def _tile(label: str, value: str, note: str, extra: str = "") -> str:
    return f"<div class=tile><h2>{label}</h2><b>{value}</b>{extra}<small>{note}</small></div>"


def _accuracy(network: Compared) -> str:
    if network.spread is None:
        return percent(network.accuracy)
    return f"{percent(network.accuracy)} ±{100 * network.spread:.1f}"


_LABELS: Final = {
    "full": "Full",
    "uniform": "Uniform",
    "smaller": "Smaller images",
    "found": "Found",
    "transformed": "Transformed",
}


def _numbers(result: Result) -> str:
    full = result.full
    rows = "".join(
        f'<tr class="{key}"><th scope=row>{label}</th>'
        f"<td>{_accuracy(network)}<td>{_cost(network.macs, full.macs)}"
        f"<td>{_cost(network.params, full.params)}</tr>"
        for key, network in result.networks.items()
        for label in [_LABELS[key]]
    )
    return section(
        "The numbers",
        "<div class=scroll><table><thead><tr><th>Network<th>Test accuracy<th>MACs"
        f"<th>Parameters</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p class=caption>{_how_sure(result)}{_how_fast(result.latency)}</p>{_seed_table(result)}",
    )


def _cost(part: int | None, whole: int | None) -> str:
    share = f" <small>{percent(part / whole)}</small>" if part is not None and whole else ""
    return f"{amount(part)}{share}"


def _how_sure(result: Result) -> str:
    count = len(result.seeds)
    spread = (
        f"Mean ± standard deviation over {count} seeds."
        if count > 1
        else "One seed: the differences carry no error bar, and may be chance."
    )
    compared = f"Found minus uniform: {result.paired.sentence}." if result.paired else ""
    return f"{spread} {escape(compared)} One multiply-accumulate is one MAC."


def _how_fast(latency: Latency | None) -> str:
    if latency is None:
        return ""
    uniform = f" The uniform network takes {milliseconds(latency.uniform)}."
    said = latency.worth[:1].upper() + latency.worth[1:]
    return escape(
        f" {said}, measured whole on batches of {latency.batch} with {latency.device}."
        f"{uniform if latency.uniform else ''}"
    )


def _last_round(result: Result) -> str:
    """The finalists, the chosen one first, where there was a last round."""
    if len(result.finalists) < 2:
        return ""
    names = {result.uniform_candidate: "uniform width", result.candidate: "chosen"}
    if result.candidate == result.uniform_candidate:
        names[result.candidate] = "chosen: uniform width"
    rows = "".join(
        f"<tr{' class=found' if place == 1 else ''}><th scope=row>{place}</th>"
        f"<td>{percent(each.score)}<td>{percent(each.held_out)}"
        f"<td class=words>{names.get(each.candidate, '')}</tr>"
        for place, each in enumerate(result.finalists, 1)
    )
    return section(
        "The last round",
        "<div class=scroll><table><thead><tr><th>Finalist<th>Before<th>After<th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class=caption>Held-out accuracy of the best"
        " candidates with the weights of the search, and after a short training of their own, by"
        " which one was chosen. The test set is not used here.</p>",
    )


def _seed_table(result: Result) -> str:
    if len(result.seeds) < 2:
        return ""
    columns = [network.accuracies for network in result.trained.values()]
    head = "".join(f"<th>{_LABELS[name]}" for name in result.trained)
    rows = "".join(
        f"<tr><th scope=row>{seed}</th>{''.join(f'<td>{percent(value)}' for value in values)}</tr>"
        for seed, *values in zip(result.seeds, *columns, strict=False)
    )
    return (
        "<details><summary>Every seed</summary><div class=scroll><table><thead><tr><th>Seed"
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _load(run: Run) -> str:
    shape = ", ".join(map(str, run.input_size)) or "..."
    model = escape(repr((run.folder / "model").as_posix()))
    return section(
        "Use it",
        f"<pre><code>import prunas\nnetwork = prunas.load({model})\n"
        f"logits = network(images)  # float32 (n, {shape}), normalised as in training"
        "</code></pre><p class=caption>A plain <code>torch.nn.Module</code>, to train on or to"
        " export.</p>",
    )


def _pinned(pinned: Iterable[tuple[str, str]]) -> str:
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in pinned:
        names_by_reason.setdefault(reason, []).append(name)
    if not names_by_reason:
        return ""
    items = "".join(
        f"<li>{escape(reason)} <details><summary>{len(names)}"
        f" {'place' if len(names) == 1 else 'places'}</summary>"
        f"<p class=names>{', '.join(f'<code>{escape(name)}</code>' for name in names)}</p>"
        "</details></li>"
        for reason, names in names_by_reason.items()
    )
    return section("What was left alone, and why", f"<ul class=pinned>{items}</ul>")


def _making(run: Run) -> str:
    pairs = [
        ("Asked for", _pairs(run.request)),
        ("Budget", _pairs({name: _limit(name, value) for name, value in run.budget.items()})),
        ("Seed", UNKNOWN if run.seed is None else str(run.seed)),
        ("Search space", _space(run)),
        ("Data", _data(run)),
        ("Small images", escape(run.small_images)),
        ("Evaluations", _evaluations(run)),
        ("Device", escape(run.device)),
        ("Versions", _pairs(run.versions)),
    ]
    listed = "".join(f"<dt>{label}<dd>{value}" for label, value in pairs if value)
    return section("How it was made", f"<dl>{listed}</dl>{_stages(run)}")


def _pairs(values: object) -> str:
    if not isinstance(values, dict):
        return ""
    return " ".join(
        f"<span class=pair>{escape(str(name))} <code>{escape(str(value))}</code></span>"
        for name, value in values.items()
        if value is not None
    )


def _space(run: Run) -> str:
    if not run.size:
        return ""
    return f"{escape(magnitude(run.size))} candidates, {len(run.genes)} genes"


def _data(run: Run) -> str:
    size = " × ".join(map(str, run.input_size))
    parts = [run.data, f"{run.classes} classes" if run.classes else "", size]
    return escape(", ".join(part for part in parts if part))


def _evaluations(run: Run) -> str:
    if not run.evaluations:
        return ""
    each = sum(row.seconds for row in run.evaluations) / len(run.evaluations)
    broken = sum(row.score is None for row in run.evaluations)
    note = f"; {broken:,} of them gave no number and are not drawn" if broken else ""
    return f"{len(run.evaluations):,}, {duration(each)} each{note}"


def _stages(run: Run) -> str:
    if not run.stages:
        return ""
    longest = max(seconds for _, seconds in run.stages) or 1.0
    total = run.result.seconds if run.result and run.result.seconds else None
    if total is None:
        total = sum(seconds for _, seconds in run.stages)
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{duration(seconds)}"
        f'<td class=wide><div class="meter"><i style="width:{100 * seconds / longest:.2f}%"></i>'
        "</div></tr>"
        for name, seconds in run.stages
    )
    return f"<h3>Time: {duration(total)}</h3><table class=stages><tbody>{rows}</tbody></table>"
