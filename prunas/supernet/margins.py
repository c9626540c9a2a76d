"""Memory whose size depends on the side of a kernel.

A smaller depthwise kernel returns an image of the same size. But a layer that pads its image by an
operator of its own, because the margins differ or mirror the image, holds the padded image too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from prunas.errors import InputError
from prunas.supernet.kernels import kernels_of, shrunk
from prunas.supernet.recorder import Record, record
from prunas.supernet.space import SearchSpace

Lengths = tuple[int, ...]
"""Of the dimensions of some memory."""


@dataclass(frozen=True)
class Margins:
    """Memory whose size depends on the side of a kernel, such as an image with its margins.

    Attributes:
        of_place: place in `Record.memory` -> gene, and {side: lengths of its dimensions}.
        conditions: that those genes take those values.
        genes: how many the space has.
    """

    of_place: Mapping[int, tuple[int, Mapping[int, Lengths]]]
    conditions: tuple[tuple[int, int], ...]
    genes: int

    @classmethod
    def of(cls, bare: nn.Module, space: SearchSpace, inputs: Any, found: Record) -> "Margins":
        """Read from runs with smaller kernels: first of all together, and of each if need be.

        Args:
            bare: the network on the meta device, in eval mode; left as found.
            space: its search space.
            inputs: meta tensors that it takes.
            found: a run with the full kernels.

        Raises:
            InputError: other operators run with a smaller kernel, or one size depends on two.
        """
        trial = _Trial(bare, space, inputs, found)
        choices = {gene: space.genes[gene].choices for gene in kernels_of(space)}
        matter = any(trial.lengths(sides) != trial.full for sides in _together(choices))
        of_place: dict[int, tuple[int, Mapping[int, Lengths]]] = {}
        for gene, sides in choices.items() if matter else ():
            for place, lengths in trial.changes(gene, sides):
                if place in of_place:
                    raise unknown(space, gene)
                of_place[place] = gene, lengths
        genes = dict.fromkeys(gene for gene, _ in of_place.values())
        conditions = tuple((gene, side) for gene in genes for side in choices[gene])
        return cls(of_place, conditions, len(space.genes))

    def variable(self, gene: int, side: int) -> int:
        """The number of the variable that is 1 where the gene takes this side."""
        return self.genes + self.conditions.index((gene, side))


@dataclass(frozen=True)
class _Trial:
    """Records runs with smaller kernels."""

    bare: nn.Module
    space: SearchSpace
    inputs: Any
    found: Record

    @cached_property
    def full(self) -> list[Lengths]:
        return _lengths(self.found)

    def lengths(self, sides: Mapping[int, int]) -> list[Lengths]:
        """Of all memory, in order, with kernels of these sides."""
        with shrunk(self.bare, self.space, sides):
            again = record(self.bare, self.inputs, frozenset())
        if _operators(again) != _operators(self.found):
            raise unknown(self.space, *sides)
        return _lengths(again)

    def changes(
        self, gene: int, sides: Sequence[int]
    ) -> Iterator[tuple[int, Mapping[int, Lengths]]]:
        """(place, lengths at each side) of the memory that depends on one kernel."""
        *smaller, largest = sides
        runs = {side: self.lengths({gene: side}) for side in smaller} | {largest: self.full}
        for place in range(len(self.full)):
            lengths = {side: run[place] for side, run in runs.items()}
            if len(set(lengths.values())) > 1:
                yield place, lengths


def _together(choices: Mapping[int, Sequence[int]]) -> Iterator[dict[int, int]]:
    """Sides of all kernels such that each takes all of its own at least once."""
    for limit in sorted({side for sides in choices.values() for side in sides[:-1]}):
        fitting = {gene: [s for s in sides if s <= limit] for gene, sides in choices.items()}
        yield {gene: max(sides, default=choices[gene][0]) for gene, sides in fitting.items()}


def _operators(found: Record) -> list[str]:
    return [operation.name for operation in found.operations]


def _lengths(found: Record) -> list[Lengths]:
    return [tuple(map(len, memory.dims)) for memory in found.memory.values()]


def unknown(space: SearchSpace, *genes: int) -> InputError:
    """Why the sizes of a network with genes of kernels are not known."""
    names = ", ".join(repr(space.genes[gene].name) for gene in genes)
    return InputError(
        f"with a smaller kernel ({names}) {space.network} computes other intermediate results than"
        " with the full one, whose sizes are not known in closed form; trace it without genes of"
        " kernels"
    )
