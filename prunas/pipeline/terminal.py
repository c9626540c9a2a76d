"""What the command line prints: texts for a person to read, from values that others computed."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Final

from rich import box
from rich.table import Table

from prunas.pipeline.comparison import Results
from prunas.pipeline.comparison.findings import findings as compared
from prunas.pipeline.comparison.findings import in_points
from prunas.pipeline.coverage import Row
from prunas.pipeline.export import Exported
from prunas.pipeline.profile import Price, Profile
from prunas.pipeline.progress import plain_console
from prunas.pipeline.pruning import Pruned
from prunas.pipeline.rank import Ranking, findings
from prunas.pipeline.report import wording
from prunas.pipeline.report.wording import THIN
from prunas.pipeline.timings import Timings
from prunas.search.costs import COSTS
from prunas.supernet.space import Pinned

_SHOWN: Final = 6  # widths, or names, that are written out


def profile_text(found: Profile, title: str, width: int) -> str:
    """The profile as a table of at most `width` columns, and what belongs to it in sentences."""
    out = io.StringIO()
    console = plain_console(out, width)
    console.print(title)
    console.print(_prices(found))
    console.print(_genes(found))
    space = found.space
    console.print(
        f"{len(space.genes)} genes, {wording.magnitude(str(space.size))} candidates."
        f" {found.thop.sentence}".replace(THIN, " ")
    )
    for line in (*_pinned(space.pinned), *space.notes, *_limits(found)):
        console.print(line)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _drawn(table: Table, width: int) -> str:
    out = io.StringIO()
    plain_console(out, width).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def _prices(found: Profile) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in ("MACs", "", "params", ""):
        table.add_column(name, justify="right")
    rows = {"full": found.full, "every gene at half": found.half, "smallest": found.smallest}
    for name, price in rows.items():
        table.add_row(name, *_shares(price, found.full))
    return table


def _shares(price: Price, full: Price) -> Iterator[str]:
    for value, whole in ((price.macs, full.macs), (price.params, full.params)):
        yield f"{value:,}"
        yield _percent(value / whole)


def _genes(found: Profile) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("gene", overflow="fold")
    table.add_column("choices", overflow="fold")
    table.add_column("MACs it decides", justify="right", no_wrap=True)
    for gene, macs in zip(found.space.genes, found.decided, strict=True):
        share = f"{_amount(macs)} ({_percent(macs / found.full.macs)})"
        offered = "left out, kept" if gene.choices == (0, 1) else _shortened(gene.choices)
        table.add_row(gene.name, offered, share)
    return table


def _shortened(choices: Sequence[int]) -> str:
    """The first and the last choices.

    >>> _shortened((8, 16, 24)), _shortened(range(1, 101))
    ('8 16 24', '1 2 3 ... 99 100 (100 widths)')
    """
    if len(choices) <= _SHOWN:
        return " ".join(map(str, choices))
    first, last = " ".join(map(str, choices[:3])), " ".join(map(str, choices[-2:]))
    return f"{first} ... {last} ({len(choices)} widths)"


def _pinned(pinned: Sequence[Pinned]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for entry in pinned:
        names.setdefault(entry.reason, []).append(entry.name)
    for reason, members in names.items():
        more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
        yield f"pinned, because {reason}: {', '.join(members[:_SHOWN])}{more}"


def _limits(found: Profile) -> Iterator[str]:
    for name, limit in found.limits.items():
        share = _percent(limit / found.whole[name])
        what = "bytes of memory" if name == "memory" else name
        yield (
            f"the budget allows {COSTS[name].written(limit)} {what} ({share} of the full network),"
            " which is in reach"
        )


def timings_text(found: Timings) -> str:
    """Networks with their costs and times, and whether cutting pays."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("network")
    for name in ("MACs", "parameters", "time", "quartiles", "of full"):
        table.add_column(name, justify="right", no_wrap=True)
    full = found.rows[0].time.milliseconds
    for row in found.rows:
        time = row.time
        table.add_row(
            row.name,
            _amount(row.macs),
            _amount(row.params),
            f"{time.milliseconds:.3g} ms",
            f"{time.low:.3g} to {time.high:.3g}",
            _percent(time.milliseconds / full),
        )
    heading = f"batches of {found.batch} with {found.device}"
    return "\n".join([heading, _drawn(table, 110), *found.sentences])


def search_text(run: Path, entries: Mapping[str, Any]) -> str:
    """What a finished search found, and what to do next."""
    result = entries["result"]
    return "\n".join(
        (
            f"found: {_size(result, '')}, of {_size(result, '_full')}",
            _chosen(result),
            *([result["latency_worth"]] if "latency_worth" in result else []),
            f"train it, beside the uniform network of this budget: prunas train {quote(str(run))}",
        )
    )


def _chosen(result: Mapping[str, Any]) -> str:
    best = result["finalists"][0]
    count = f"{result['evaluations']} candidates"
    if best["held_out"] is None:
        return f"score {best['score']:.4f} on the held-out images, the best of {count}"
    return (
        f"held-out accuracy {_percent(best['held_out'])} after a short training, the best of"
        f" {len(result['finalists'])} finalists of {count}"
    )


_NETWORKS: Final = {
    "full": "_full",
    "uniform": "_uniform",
    "smaller": "_smaller",
    "found": "",
    "transformed": "_transformed",
}
"""Trained networks; "smaller" is the full one on smaller images."""


def train_text(result: Mapping[str, Any]) -> str:
    """How the networks do on the test images."""
    seeds = len(result["seeds"])
    heading = f"test accuracy, mean of {seeds} training{'s' * (seeds != 1)}:"
    width = 12 if "transformed" in result["accuracy"] else 8
    rows = [
        f"  {name:<{width}}{_percent(result['accuracy'][name]):>8}   {_size(result, suffix)}"
        for name, suffix in _NETWORKS.items()
        if name in result["accuracy"]
    ]
    pairs = {"paired": "found - uniform", "paired_transformed": "transformed - found"}
    last = [f"{said}: {result[key]['sentence']}" for key, said in pairs.items() if key in result]
    return "\n".join([heading, *rows, *last])


def transform_text(run: Path, entry: Mapping[str, Any]) -> str:
    """What was replaced in the found network, and what to do next."""
    rows = entry["replacements"]
    looked = f"{entry['evaluations']} of {wording.magnitude(entry['size'])} transformations scored"
    if not rows:
        return f"nothing is replaced: {looked}{_not_chosen(entry)}"
    after, before = entry["macs"], entry["macs_before"]
    lines = [f"{each['path']}: {each['source']} -> {each['operator']}" for each in rows] + [
        f"multiply-adds {_amount(before)} -> {_amount(after)}, parameters"
        f" {_amount(entry['params_before'])} -> {_amount(entry['params'])}; {looked}",
        _kept_up(entry),
        f"train it, beside the found network and the uniform one: prunas train {quote(str(run))}",
    ]
    return "\n".join(lines)


def _not_chosen(entry: Mapping[str, Any]) -> str:
    """How the others did, where the found network was chosen itself."""
    own, *others = entry["finalists"]
    if own["held_out"] is None:
        return ", and none is worth more"
    told = ", ".join(
        f"{_percent(row['held_out'])} at {_percent(row['macs'] / own['macs'])} of its multiply-adds"
        for row in others
    )
    return (
        ", and after a short training none that costs less is right on held-out images as often as"
        f" the found network ({_percent(own['held_out'])}): {told or 'no other was trained'}"
    )


def _kept_up(entry: Mapping[str, Any]) -> str:
    if entry["held_out"] is None:
        what, pair = "score on the shared weights", ("score_before", "score")
    else:
        what, pair = "held-out accuracy after a short training", ("held_out_before", "held_out")
    before, after = (_percent(entry[name]) for name in pair)
    return f"{what}: {before} before, {after} after"


def rank_text(found: Ranking) -> str:
    """How well each prediction orders networks."""
    heading = f"{len(found.candidates)} networks, Kendall's tau with training (95 % intervals):"
    rows = [f"  {name:<22}{each.tau}" for name, each in found.overall.items()]
    return "\n".join([heading, *rows, *findings(found)])


def compare_text(found: Results) -> str:
    """Regret of every contender after all evaluations, and what it says."""
    lines = []
    for contest in found.contests:
        last = [each for each in contest.summaries if each.at == contest.points[-1]]
        where = f"{contest.problem.space}, {contest.problem.budget}"
        lines.append(
            f"{where}: regret after {contest.points[-1]} evaluations, points, mean of"
            f" {last[0].seeds} seeds (95 % interval)"
        )
        rows = sorted(last, key=lambda each: each.mean.value)
        lines += [f"  {each.contender:<22}{in_points(each.mean)}" for each in rows]
    return "\n".join([*lines, *compared(found)])


def coverage_text(rows: Sequence[Row]) -> str:
    """How many models pass, and of each that does not, why."""
    passed = sum(row.passes for row in rows)
    share = f"{passed} of {len(rows)} models pass"
    old = f"{sum(row.old_protocol for row in rows)} run at half width with fewer parameters"
    return "\n".join([f"{share}; {old}", *(_shortfall(row) for row in rows if not row.passes)])


def _shortfall(row: Row) -> str:
    if row.error:
        return f"  {row.model}, {row.stage}: {row.error}"
    if row.macs_left is not None and row.runs and row.reloads:
        return f"  {row.model}: {_percent(row.macs_left)} of the MACs are left at half width"
    return f"  {row.model}: {'does not come back from disk' if row.runs else 'does not run'}"


def pruned_text(found: Pruned, held_out: Mapping[str, float]) -> str:
    """What a cut network costs, and its accuracy beside that of the full one, untrained."""
    costs = dict(zip(("macs", "macs_full"), found.macs, strict=True))
    costs |= dict(zip(("params", "params_full"), found.params, strict=True))
    lines = [f"pruned: {_size(costs, '')}, of {_size(costs, '_full')}"]
    if held_out:
        lines.append(
            f"held-out accuracy without training: {_percent(held_out['pruned'])}, the full network"
            f" {_percent(held_out['full'])}"
        )
    return "\n".join(lines)


def loading_text(folder: Path, input_size: Sequence[int]) -> str:
    """The lines that load a network from its folder."""
    return "\n".join(
        (
            "load the network in Python:",
            "  import prunas, torch",
            f"  network = prunas.load({str(folder)!r})",
            f"  scores = network(torch.zeros(1, {', '.join(map(str, input_size))}))",
        )
    )


def export_text(files: Sequence[Exported], params_full: int | None) -> str:
    """The files with their sizes, beside the weights of the full network."""
    lines = [
        f"{each.file}: {_bytes(each.size)}, outputs differ by {each.difference:.1g}"
        for each in files
    ]
    if params_full is not None:
        lines.append(f"the weights of the full network take {_bytes(4 * params_full)}")
    return "\n".join(lines)


def _size(result: Mapping[str, Any], suffix: str) -> str:
    macs, params = result[f"macs{suffix}"], result[f"params{suffix}"]
    share = "" if suffix == "_full" else f" ({_percent(macs / result['macs_full'])})"
    time = result.get(f"latency{suffix}")
    timed = "" if time is None else f", {time:.3g} ms"
    return f"{_amount(macs)} MACs{share}, {_amount(params)} parameters{timed}"


def _amount(value: float) -> str:
    return wording.amount(value).replace(THIN, " ")


def _percent(share: float) -> str:
    return wording.percent(share).replace(THIN, " ")


def _bytes(count: int) -> str:
    """Binary units.

    >>> _bytes(2048), _bytes(3 * 2**20)
    ('2.0 KiB', '3.0 MiB')
    """
    return f"{count / 2**10:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"
