"""Cells in a line: "2: s3@0, sk@1; 3: nu@0, c3@2" are the edges of nodes 2 and 3.

An edge is operator@source. s separable, d dilated, c plain convolution, mp and ap max and average
pool, all followed by the kernel; c13 is 1 x 3 then 3 x 1, c17 and c71 are pairs of 7; sk skip, nu
null.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from prunas.errors import InputError
from prunas.transformer_nat.genotype import INPUTS, Cell, Triple
from prunas.transformer_nat.operators import NULL, SKIP

SHORT: Final[Mapping[str, str]] = {
    "mp2": "max_pool_2x2",
    "mp3": "max_pool_3x3",
    "mp5": "max_pool_5x5",
    "ap2": "avg_pool_2x2",
    "ap3": "avg_pool_3x3",
    "ap5": "avg_pool_5x5",
    "sk": SKIP,
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "s7": "sep_conv_7x7",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "c1": "conv_1x1",
    "c3": "conv_3x3",
    "c5": "conv_5x5",
    "c13": "conv_1x3_3x1",
    "c17": "conv_1x7_7x1",
    "c71": "conv_7x1_1x7",
    "nu": NULL,
}
_LONG: Final = {name: short for short, name in SHORT.items()}
_EDGE: Final = re.compile(r"(\w+)@(\d{1,9})")
_NODE: Final = re.compile(r"\d{1,9}")


def read_cell(line: str, output: Sequence[int]) -> Cell:
    """The cell that a line describes.

    Raises:
        InputError: the line is not of that form, or does not make a cell.
    """
    edges = [edge for node in line.split(";") for edge in _read_node(node.strip())]
    return Cell(tuple(edges), tuple(output))


def write_cell(cell: Cell) -> str:
    """The edges of a cell as a line; which nodes it joins is not in it."""
    nodes = range(INPUTS, cell.edges[-1][2] + 1)
    return "; ".join(f"{node}: {_write_node(cell, node)}" for node in nodes)


def _read_node(text: str) -> list[Triple]:
    node, _, edges = text.partition(":")
    found = [_EDGE.fullmatch(edge.strip()) for edge in edges.split(",")]
    if not _NODE.fullmatch(node) or not all(found):
        raise InputError(f"{text!r} is not the edges of a node; write them as '2: s3@0, sk@1'")
    named = [(each[1], int(each[2])) for each in found if each]
    for short, _ in named:
        if short not in SHORT:
            raise InputError(f"there is no operator {short!r}; the short names are {[*SHORT]}")
    return [(SHORT[short], source, int(node)) for short, source in named]


def _write_node(cell: Cell, node: int) -> str:
    edges = (f"{_LONG[name]}@{source}" for name, source, target in cell.edges if target == node)
    return ", ".join(edges)
