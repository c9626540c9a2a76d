"""Cells as data: the genotypes of DARTS (pairs) and of NAT (triples).

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019. Nodes 0 and 1 of a cell are its
inputs, the outputs of the cell before the last and of the last one; every further node is the sum
of two edges. A pair is (operator, source), pair i feeds node 2 + i // 2; a triple, (operator,
source, target), says so itself. DARTS writes "none" where NAT writes "null"; both are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.transformer_nat.operators import NULL, OPERATORS

Pair = tuple[str, int]
Triple = tuple[str, int, int]

INPUTS: Final = 2
_PER_NODE: Final = 2
_PAIR: Final = "(operator, source)"
_TRIPLE: Final = "(operator, source, target)"
_EDGES: Final = "the edges of a cell"
_OUTPUT: Final = "the nodes that a cell joins"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        edges: (operator, source, target), two for every node from 2 on, in their order.
        output: the nodes that are joined, ascending.

    Raises:
        InputError: an operator that is unknown or none of cells, a node without its two edges, an
            edge that does not come from an earlier node (all others would close a cycle or start
            nowhere), an output that is no node, or no lists at all.
    """

    edges: tuple[Triple, ...]
    output: tuple[int, ...]

    def __post_init__(self) -> None:
        given = _listed(_EDGES, self.edges)
        if not given:
            raise InputError("a cell needs at least one node, and two edges for it")
        edges = tuple(_checked_edge(index, edge) for index, edge in enumerate(given))
        if len(edges) % _PER_NODE:
            raise InputError(
                f"the cell has {len(edges)} edges, so its last node has one; every node has two,"
                f" of which one may be {NULL!r}"
            )
        nodes = range(INPUTS, INPUTS + len(edges) // _PER_NODE)
        output = _checked_output(nodes, _listed(_OUTPUT, self.output))
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "output", output)


@dataclass(frozen=True)
class Genotype:
    """A normal cell and a reduction cell; in the latter, edges from the inputs have stride 2.

    Raises:
        InputError: one of them is no `Cell`.
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for cell in (self.normal, self.reduce):
            if not isinstance(cell, Cell):
                raise InputError(f"{cell!r} is no cell; make a Cell, or see Genotype.from_pairs")

    @classmethod
    def from_pairs(
        cls,
        normal: Sequence[Pair],
        normal_concat: Sequence[int],
        reduce: Sequence[Pair],
        reduce_concat: Sequence[int],
    ) -> "Genotype":
        """Read the four fields of a genotype as DARTS writes them.

        Raises:
            InputError: they do not make cells; see `Cell`.
        """
        return cls.from_triples(
            _with_targets(normal), normal_concat, _with_targets(reduce), reduce_concat
        )

    @classmethod
    def from_triples(
        cls,
        normal: Sequence[Triple],
        normal_concat: Sequence[int],
        reduce: Sequence[Triple],
        reduce_concat: Sequence[int],
    ) -> "Genotype":
        """Read the four fields of a genotype as NAT writes them.

        Raises:
            InputError: they do not make cells; see `Cell`.
        """
        return cls(_cell(normal, normal_concat), _cell(reduce, reduce_concat))

    def pairs(self) -> tuple[list[Pair], list[int], list[Pair], list[int]]:
        """The four fields as DARTS writes them, with "null" for null edges."""
        normal = [(name, source) for name, source, _ in self.normal.edges]
        reduce = [(name, source) for name, source, _ in self.reduce.edges]
        return normal, list(self.normal.output), reduce, list(self.reduce.output)

    def triples(self) -> tuple[list[Triple], list[int], list[Triple], list[int]]:
        """The four fields as NAT writes them."""
        normal, reduce = list(self.normal.edges), list(self.reduce.edges)
        return normal, list(self.normal.output), reduce, list(self.reduce.output)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of the normal cell, then those of the reduction cell."""
        return tuple(name for name, _, _ in (*self.normal.edges, *self.reduce.edges))

    def with_operators(self, operators: Sequence[str]) -> "Genotype":
        """The same cells with these operators, in that order.

        Raises:
            InputError: the number is wrong, or an operator is unknown.
        """
        edges = (*self.normal.edges, *self.reduce.edges)
        if len(operators) != len(edges):
            raise InputError(f"{len(operators)} operators were given for {len(edges)} edges")
        named = zip(operators, edges, strict=True)
        changed = [(name, source, target) for name, (_, source, target) in named]
        normal, reduce = changed[: len(self.normal.edges)], changed[len(self.normal.edges) :]
        return Genotype(
            Cell(tuple(normal), self.normal.output), Cell(tuple(reduce), self.reduce.output)
        )


def _checked_edge(index: int, edge: Any) -> Triple:
    """The edge, its nodes as plain numbers: numpy's are none to JSON."""
    name, source, target = _parts(index, edge, _TRIPLE)
    if not isinstance(name, str) or name not in OPERATORS:
        raise InputError(
            f"edge {index} of the cell: there is no operator {name!r} of cells; choose one of"
            f" {', '.join(OPERATORS)}"
        )
    node = INPUTS + index // _PER_NODE
    if not is_whole(target) or target != node:
        raise InputError(
            f"edge {index} of the cell, {name} from {source!r}, goes to node {target!r}; two"
            f" edges for every node in their order make that {node}"
        )
    if not is_whole(source) or source not in range(node):
        raise InputError(
            f"edge {index} of the cell, {name} from {source!r} to {target}, does not come from an"
            f" earlier node, so there is a cycle or no such node; choose one of 0..{node - 1}"
        )
    return name, int(source), node


def _checked_output(nodes: range, output: tuple[Any, ...]) -> tuple[int, ...]:
    for node in output:
        if not is_whole(node) or node not in nodes:
            raise InputError(
                f"the cell joins node {node!r}; its own nodes are {nodes[0]}..{nodes[-1]}"
            )
    if not output or list(output) != sorted(set(output)):
        raise InputError(
            f"the cell joins the nodes {output}; name at least one, each once, ascending"
        )
    return tuple(map(int, output))


def _listed(what: str, values: Any) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise InputError(f"{what} are given as {values!r}; write them as a list") from None


def _parts(index: int, edge: Any, form: str) -> tuple[Any, ...]:
    """What an edge is made of, as many parts as the form has."""
    if not isinstance(edge, tuple | list) or len(edge) != len(form.split(",")):
        raise InputError(f"edge {index} of the cell is {edge!r}; write it as {form}")
    return tuple(edge)


def _with_targets(pairs: Sequence[Pair]) -> list[Triple]:
    edges = (_parts(index, pair, _PAIR) for index, pair in enumerate(_listed(_EDGES, pairs)))
    return [(name, source, INPUTS + i // _PER_NODE) for i, (name, source) in enumerate(edges)]


def _cell(triples: Sequence[Triple], output: Sequence[int]) -> Cell:
    edges = (_parts(index, each, _TRIPLE) for index, each in enumerate(_listed(_EDGES, triples)))
    named = ((NULL if name == "none" else name, source, to) for name, source, to in edges)
    return Cell(tuple(named), _listed(_OUTPUT, output))
