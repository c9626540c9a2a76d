"""Cells as data: both conventions, the notation, and the published ones."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from prunas.errors import InputError
from prunas.transformer_nat.genotype import Cell, Genotype
from prunas.transformer_nat.notation import SHORT, read_cell, write_cell
from prunas.transformer_nat.operators import NULL, OPERATORS
from prunas.transformer_nat.published_cells import PUBLISHED, published_genotype
from tests.transformer_nat.graphs import cells, genotypes

DARTS_V2 = PUBLISHED["DARTS_V2"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_pairs_and_triples_of_the_published_cells(name: str) -> None:
    genotype = PUBLISHED[name]
    assert Genotype.from_pairs(*genotype.pairs()) == genotype
    assert Genotype.from_triples(*genotype.triples()) == genotype
    normal, normal_concat, reduce, reduce_concat = genotype.pairs()
    with_targets = [(op, source, 2 + i // 2) for i, (op, source) in enumerate(normal)]
    assert with_targets == genotype.triples()[0]
    assert (normal_concat, reduce_concat) == (genotype.triples()[1], genotype.triples()[3])
    assert len(normal) % 2 == len(reduce) % 2 == 0


@settings(deadline=None, max_examples=50)
@given(genotypes())
def test_pairs_and_triples_of_any_cells(genotype: Genotype) -> None:
    assert Genotype.from_pairs(*genotype.pairs()) == genotype
    assert Genotype.from_triples(*genotype.triples()) == genotype
    assert genotype.with_operators(genotype.operators) == genotype


def test_a_genotype_as_darts_writes_it() -> None:
    """The second-order cell of the paper, word for word as its code has it."""
    genotype = Genotype.from_pairs(
        normal=[
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
        ],
        normal_concat=[2, 3, 4, 5],
        reduce=[
            ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
        ],
        reduce_concat=[2, 3, 4, 5],
    )  # fmt: skip
    assert genotype == DARTS_V2


def test_none_is_read_as_null() -> None:
    pairs = [("none", 0), ("skip_connect", 1)]
    genotype = Genotype.from_pairs(pairs, [2], pairs, [2])
    assert genotype.operators == (NULL, "skip_connect") * 2
    assert genotype.pairs()[0] == [(NULL, 0), ("skip_connect", 1)]


def test_operators_can_be_replaced() -> None:
    changed = DARTS_V2.with_operators([NULL] * 15 + ["skip_connect"])
    assert changed.operators == (*[NULL] * 15, "skip_connect")
    assert [edge[1:] for edge in changed.triples()[2]] == [e[1:] for e in DARTS_V2.triples()[2]]
    with pytest.raises(InputError, match="1 operators were given for 16 edges"):
        DARTS_V2.with_operators([NULL])


EDGE = ("conv_3x3", 0, 2)


@pytest.mark.parametrize(
    ("edges", "output", "message"),
    [
        (
            (("magic", 0, 2), EDGE),
            (2,),
            "edge 0 .* no operator 'magic' of cells; choose one of max",
        ),
        ((EDGE, ("branch", 0, 2)), (2,), "edge 1 of the cell: there is no operator 'branch'"),
        ((EDGE, ("dw_conv_3x3", 0, 2)), (2,), "no operator 'dw_conv_3x3' of cells"),
        ((EDGE, (["conv_3x3"], 0, 2)), (2,), r"edge 1 .* no operator \['conv_3x3'\] of cells"),
        ((EDGE, ("conv_3x3", "0", 2)), (2,), r"edge 1 .* from '0' to 2, .*choose one of 0\.\.1"),
        ((EDGE, ("conv_3x3", None, 2)), (2,), "from None to 2, does not come from an earlier node"),
        ((EDGE, ("conv_3x3", 0.5, 2)), (2,), "edge 1 of the cell, conv_3x3 from 0.5 to 2"),
        ((EDGE, ("conv_3x3", 0, 2.0)), (2,), "edge 1 .* goes to node 2.0; .* make that 2"),
        (
            (EDGE, ("conv_3x3", 0)),
            (2,),
            r"edge 1 .* is \('conv_3x3', 0\); write it as \(op.* target",
        ),
        ((EDGE, EDGE), (2.0,), "joins node 2.0; its own nodes are"),
        ((), (2,), "at least one node"),
        ((EDGE,), (2,), "1 edges, so its last node has one"),
        ((EDGE, ("conv_3x3", 2, 2)), (2,), "edge 1 of the cell, conv_3x3 from 2 to 2, .* cycle"),
        ((EDGE, ("conv_3x3", 3, 2)), (2,), r"no such node; choose one of 0\.\.1"),
        ((EDGE, ("conv_3x3", -1, 2)), (2,), "from -1 to 2"),
        ((EDGE, ("conv_3x3", 0, 3)), (2,), "edge 1 .* goes to node 3; .* make that 2"),
        ((EDGE, EDGE), (1,), r"joins node 1; its own nodes are 2\.\.2"),
        ((EDGE, EDGE), (3,), "joins node 3"),
        ((EDGE, EDGE), (), "name at least one"),
        ((EDGE, EDGE), (2, 2), r"joins the nodes \(2, 2\)"),
        ((EDGE, ("conv_3x3", True, 2)), (2,), "from True to 2, does not come from an earlier"),
        (None, (2,), "the edges of a cell are given as None; write them as a list"),
        ((EDGE, EDGE), 4, "the nodes that a cell joins are given as 4; write them as a list"),
    ],
)
def test_what_is_no_cell(edges: Any, output: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cell(edges, output)


def test_what_is_no_genotype() -> None:
    pairs: Any = [("conv_3x3", 0)] * 2
    with pytest.raises(InputError, match="the edges of a cell are given as None"):
        Genotype.from_pairs(None, [2], pairs, [2])  # type: ignore[arg-type]
    for joined in (None, 4):
        with pytest.raises(InputError, match=f"that a cell joins are given as {joined}; write"):
            Genotype.from_pairs(pairs, joined, pairs, [2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="None is no cell; make a Cell"):
        Genotype(DARTS_V2.normal, None)  # type: ignore[arg-type]


def test_pairs_are_no_triples() -> None:
    pairs, triples = [("conv_3x3", 0)] * 2, [EDGE] * 2
    with pytest.raises(InputError, match=r"edge 0 .* is \('conv_3x3', 0, 2\); .* \(.*, source\)$"):
        Genotype.from_pairs(triples, [2], pairs, [2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"edge 0 .* is \('conv_3x3', 0\); .*, source, target\)$"):
        Genotype.from_triples(pairs, [2], triples, [2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"edge 0 of the cell is 'c'; write it as \(operator"):
        Genotype.from_pairs("conv_3x3", [2], pairs, [2])  # type: ignore[arg-type]
    lists = [["conv_3x3", np.int64(0)]] * 2  # as JSON and arrays have them
    read = Genotype.from_pairs(lists, np.array([2]), pairs, [2])  # type: ignore[arg-type]
    assert read == Genotype.from_triples(triples, [2], triples, [2])
    fields = json.loads(json.dumps([read.pairs(), read.triples()]))
    assert Genotype.from_pairs(*fields[0]) == Genotype.from_triples(*fields[1]) == read


@settings(deadline=None, max_examples=50)
@given(cells(tuple(SHORT.values())))
def test_the_notation_reads_what_it_writes(cell: Cell) -> None:
    assert read_cell(write_cell(cell), cell.output) == cell


def test_the_notation_has_a_name_for_every_operator() -> None:
    assert set(SHORT.values()) == set(OPERATORS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2: s3@0, sk", "is not the edges of a node; write them as"),
        ("s3@0, sk@1", "is not the edges of a node"),
        ("x: s3@0, sk@1", "is not the edges of a node"),
        ("2: s9@0, sk@1", "no operator 's9'; the short names are"),
        ("3: s3@0, sk@1", "goes to node 3"),
        ("2: s3@" + "9" * 5000 + ", sk@0", "is not the edges of a node"),
        ("9" * 5000 + ": s3@0, sk@0", "is not the edges of a node"),
    ],
)
def test_lines_that_are_no_cells(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_cell(line, (2,))


def test_the_published_cells() -> None:
    assert len(PUBLISHED) == 31
    assert published_genotype("VGG").reduce.edges[-1] == ("max_pool_3x3", 4, 5)
    with pytest.raises(InputError, match="no genotype 'LeNet' was published; there are DARTS_V1"):
        published_genotype("LeNet")
    changes = {
        name: sum(a != b for a, b in zip(PUBLISHED[name].operators, source.operators, strict=True))
        for name, source in [("NAT_DARTS", DARTS_V2), ("NAT_ENAS", PUBLISHED["ENAS"])]
    }
    assert changes == {"NAT_DARTS": 5, "NAT_ENAS": 2}  # counted by hand in both tables
