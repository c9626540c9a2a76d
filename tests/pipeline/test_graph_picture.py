"""The picture of a graph before and after."""

import re
from html import unescape

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.pipeline.report.graph_picture import graph_picture, operator_words
from prunas.pipeline.report.run import Operation, Transformation
from prunas.pipeline.report.transformed import transformed_section
from prunas.supernet.space import Candidate
from prunas.transformer_nat import OF_NETWORKS, TracedTransformations, traced_transformations
from tests.transformer_nat.traced_networks import IMAGE, NETWORKS

NESTED = traced_transformations(NETWORKS["nested"](), IMAGE)


def transformation(found: TracedTransformations, positions: Candidate) -> Transformation:
    moves = found.moves
    after = moves.operators(positions)
    live = set(moves.graph.live(after))
    operations = []
    for index, (path, edge, name) in enumerate(
        zip(found.paths, moves.graph.edges, after, strict=True)
    ):
        now = edge.cost_of(name)
        alive = index in live
        operations.append(
            Operation(
                path, edge.source, edge.target, edge.operator, name, alive, (8, 8), (4, 4),
                (edge.cost.macs, now.macs * alive), (edge.cost.params, now.params * alive),
            )
        )  # fmt: skip
    before, spent = moves.cost(moves.source), moves.cost(positions)
    return Transformation(
        "policy", 8, "64", (before.macs, spent.macs), (before.params, spent.params),
        (0.5, 0.6), (None, None), tuple(operations),
    )  # fmt: skip


def boxes(picture: str) -> list[str]:
    return [
        unescape(text) for text in re.findall(r'font-weight="600" fill="[^"]*">([^<]*)', picture)
    ]


def test_before_and_after() -> None:
    place = {path: index for index, path in enumerate(NESTED.paths) if path}
    positions = [0] * len(NESTED.paths)
    positions[place["1.inner.0"]] = 1
    positions[place["1.last"]] = NESTED.moves.options[place["1.last"]].index("ds_conv_3x3")
    picture = graph_picture(transformation(NESTED, Candidate(positions)))
    drawn = boxes(picture)
    whole = [
        "convolution 3×3", "residual branch", "residual branch", "convolution 3×3",
        "residual branch", "convolution 3×3", "convolution 3×3",
    ]  # fmt: skip
    assert drawn[:7] == whole
    assert drawn[7:] == [
        *whole[:2], "left out", "left out with its block", *whole[4:6], "factored convolution 3×3"
    ]  # fmt: skip
    assert picture.count("stroke-dasharray") == 2
    assert picture.count("<circle") == 3 + 2  # sums; the one of the block that went is none now
    assert 'aria-label="1.inner.0: residual branch to nothing' in picture


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_every_operator_has_a_row_in_both(seed: int) -> None:
    (positions,) = NESTED.moves.sample(np.random.default_rng(seed), 1)
    picture = graph_picture(transformation(NESTED, positions))
    assert len(boxes(picture)) == 2 * sum(bool(path) for path in NESTED.paths)
    assert "nan" not in picture


def test_names_are_escaped() -> None:
    row = Operation("a<b>&", "x", "y", "conv_3x3", "conv_1x1", True, (1, 1), (1, 1), (9, 1), (9, 1))
    told = Transformation("<m>", 1, "2", (9, 1), (9, 1), (None, None), (None, None), (row,))
    page = transformed_section(told, None)
    assert "<b>" not in page
    assert "<m>" not in page
    assert "a&lt;b&gt;&amp;" in page


def test_what_goes_with_a_block_is_one_row_of_the_table() -> None:
    place = {path: index for index, path in enumerate(NESTED.paths) if path}
    positions = [0] * len(NESTED.paths)
    for path in ("1", "1.last"):
        positions[place[path]] = 1
    page = transformed_section(transformation(NESTED, Candidate(positions)), None)
    table = page[: page.index("<svg")]
    assert "<code>1</code>" in table
    assert "<code>1.last</code>" not in table
    saved = NESTED.moves.cost(NESTED.moves.source).macs - NESTED.moves.cost(positions).macs
    rows = re.findall(r"<td>([\d.]+)\u202fK", table)
    assert float(rows[0]) == float(rows[2]) == round(saved / 1000, 1 if saved < 1e5 else 0)


def test_every_operator_has_words() -> None:
    words = [operator_words(name) for name in OF_NETWORKS]
    assert len(set(words)) == len(words)
    assert not any("_" in each for each in words)


def test_no_graph_no_picture() -> None:
    told = Transformation("policy", 1, "2", (9, 9), (9, 9), (None, None), (None, None), ())
    assert graph_picture(told) == ""
    assert "No operator was replaced" in transformed_section(told, None)
