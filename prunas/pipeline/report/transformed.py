"""What the report says of a transformation: what was replaced, what it saved, what it cost."""

from html import escape

from prunas.pipeline.report.document import section
from prunas.pipeline.report.graph_picture import graph_picture, operator_words
from prunas.pipeline.report.run import Operation, Result, Transformation
from prunas.pipeline.report.wording import amount, magnitude, percent, points


def transformed_section(transformation: Transformation, result: Result | None) -> str:
    """A part of the page; with the pictures of the graph before and after."""
    changed = [each for each in transformation.operations if each.before != each.after]
    told = _told(transformation, result)
    picture = graph_picture(transformation)
    shown = f'<div class="scroll picture">{picture}</div>' if picture else ""
    caption = (
        "<p class=caption>Boxes are what could be replaced; dots add or join what comes in. What is"
        " filled was replaced, what is dashed left out. A residual branch costs what is in it"
        " without the boxes below it.</p>"
    )
    return section(
        "Operators that were replaced" if changed else "No operator was replaced",
        f"<p class=caption>{told}</p>{_table(transformation, changed)}{caption}{shown}",
    )


def _told(transformation: Transformation, result: Result | None) -> str:
    looked = (
        f"{transformation.evaluations or 0:,} of {magnitude(transformation.size)} transformations"
        f" were scored ({escape(transformation.method)})."
    )
    parts = [looked]
    for what, (before, after) in (
        ("Held-out accuracy on the shared weights", transformation.scores),
        ("Held-out accuracy after a short training", transformation.held_out),
    ):
        if before is not None and after is not None:
            parts.append(f"{what}: {percent(before)} before, {percent(after)} after.")
    return " ".join([*parts, *_tested(result)])


def _tested(result: Result | None) -> list[str]:
    if result is None or result.transformed is None or result.transformed.accuracy is None:
        return []
    after, before = result.transformed.accuracy, result.found.accuracy
    if before is None:
        return []
    paired = result.paired_transformed
    sure = f" ({escape(paired.sentence)})" if paired else ""
    return [
        f"Test accuracy after equal training: {percent(before)} before, {percent(after)} after,"
        f" {points(after - before)}{sure}."
    ]


def _table(transformation: Transformation, changed: list[Operation]) -> str:
    if not changed:
        return ""
    rows = "".join(
        f"<tr><th scope=row><code>{escape(each.path)}</code>"
        f"<td class=words>{operator_words(each.before)}<td class=words>{operator_words(each.after)}"
        f"<td>{amount(_saved(transformation, each, 'macs'))}"
        f"<td>{amount(_saved(transformation, each, 'params'))}</tr>"
        for each in changed
        if not _inside_of_gone(transformation, each)
    )
    macs, params = transformation.macs, transformation.params
    total = "".join(
        f"<td>{amount(before - after)} <small>of {amount(before)}</small>"
        for before, after in (macs, params)
    )
    return (
        "<div class=scroll><table><thead><tr><th>Where<th>Before<th>After<th>MACs saved"
        f"<th>Parameters saved</tr></thead><tbody>{rows}"
        f"<tr class=found><th scope=row>All<td><td>{total}</tr></tbody></table></div>"
    )


def _saved(transformation: Transformation, operation: Operation, what: str) -> int:
    """With all that went along with it."""
    rows = [
        each
        for each in transformation.operations
        if each is operation or (operation.after == "null" and _holds(operation, each))
    ]
    return sum(getattr(each, what)[0] - getattr(each, what)[1] for each in rows)


def _inside_of_gone(transformation: Transformation, operation: Operation) -> bool:
    return any(
        each.after == "null" and each is not operation and _holds(each, operation)
        for each in transformation.operations
    )


def _holds(outer: Operation, inner: Operation) -> bool:
    return bool(outer.path) and inner.path.startswith(f"{outer.path}.")
