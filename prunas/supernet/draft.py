"""A search space in the making: classes of channels that vary together, and what they decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunas.supernet.blocks import Seen
from prunas.supernet.comparisons import turned
from prunas.supernet.grid import WidthGrid
from prunas.supernet.labels import FIRST_IMAGE, SECOND_IMAGE, Nodes, Solution
from prunas.supernet.recorder import Record
from prunas.supernet.rows import distinct_rows
from prunas.supernet.scoped import Place
from prunas.supernet.skeleton import describe
from prunas.supernet.space import (
    Attribute,
    Contraction,
    Factors,
    Gene,
    Pinned,
    SearchSpace,
    Size,
    Tap,
    size_polynomial,
)
from prunas.supernet.tensors import aliases_of, parameters_of, tensors_of

_SEED: Final = 20190  # any fixed number: names of sets only have to be the same each time


@dataclass(frozen=True)
class Groups:
    """Channel classes of the solution, gathered into genes."""

    names: list[str]
    widths: list[int]
    atom: Nodes  # class -> atom number, 0 = pinned

    @cached_property
    def gene_of_atom(self) -> Nodes:
        """(1 + atoms,) the gene of each atom; -1 for what is always kept."""
        owners = np.repeat(np.arange(len(self.widths)), self.widths)
        return np.concatenate([np.array([-1]), owners]).astype(np.int64)


class Draft:
    """Turns one solved record into search spaces, with fewer and fewer genes if need be."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        found: Record,
        solution: Solution,
        grid: WidthGrid,
    ) -> None:
        self.network = network
        self.held = tensors_of(network)
        self.aliases = aliases_of(network)
        self.parameters = frozenset(parameters_of(network).keys() & self.held.keys())
        self.inputs = inputs
        self.found = found
        self.grid = grid
        self.reasons = solution.reasons
        self.plain = solution.component
        self.classes = self._without_batch(solution.atoms)
        self.second_image = solution.second_image
        self.slots = [
            (name, dimension, nodes)
            for name, dims in found.tensors.items()
            for dimension, nodes in enumerate(dims)
            if name not in found.renewed and self.classes[nodes].any()
        ]
        self.signature = self._signatures()
        self._factors: dict[int, Factors] = {}
        self._equal: dict[bytes, Factors] = {}
        self.groups = Groups([], [], np.zeros(0, dtype=np.int64))

    # -- classes -------------------------------------------------------------------------------

    @staticmethod
    def _images(atoms: Nodes) -> Nodes:
        return np.unique(atoms[[FIRST_IMAGE, SECOND_IMAGE]])

    def _without_batch(self, atoms: Nodes) -> Nodes:
        """Classes of each node, the images of the batch aside: they are never pruned."""
        classes = np.where(np.isin(atoms, self._images(atoms)), 0, atoms)
        columns = np.flatnonzero(classes.any(axis=0))
        return classes[:, columns] if len(columns) else classes[:, :1]

    def _observed(self) -> list[Nodes]:
        """Every label array whose length must be a polynomial in the genes."""
        arrays = [nodes for _, _, nodes in self.slots]
        arrays += [nodes for product in self.found.products for nodes in product.dims]
        arrays += [nodes for _, _, nodes in self.found.sizes]
        arrays += [consumption.nodes for consumption in self.found.consumptions]
        unique = {id(nodes): nodes for nodes in (*arrays, *self.found.labels.families)}
        return list(unique.values())

    def _signatures(self) -> NDArray[np.uint64]:
        """(classes,) hash of how often each class occurs in each observed dimension.

        Classes with equal signatures are interchangeable, and form one channel group. Channels
        that the code tells apart, by splitting or slicing, are not.
        """
        total = int(self.classes.max()) + 1
        signature = np.zeros(total, dtype=np.uint64)
        draw = np.random.default_rng(_SEED)
        for nodes in (*self._observed(), *self.found.pieces):
            np.add.at(signature, self.classes[nodes], draw.integers(1, 2**63, dtype=np.uint64))
        signature[0] = 0
        return signature

    # -- genes ---------------------------------------------------------------------------------

    def space(self, dropped: dict[int, str]) -> SearchSpace:
        """The space without the classes in `dropped` ({class: why it was pinned})."""
        while True:
            self._factors.clear()
            self._equal.clear()
            self.groups = self._grouped(dropped)
            broken = self._not_a_rectangle()
            if broken is None:
                break
            dropped = dropped | broken
        genes = tuple(
            Gene(name, "width", self.grid.widths(width))
            for name, width in zip(self.groups.names, self.groups.widths, strict=True)
        )
        renewed = self.found.renewed
        return SearchSpace(
            genes=genes,
            widths=tuple(self.groups.widths),
            pinned=self._pinned(dropped),
            network=type(self.network).__name__,
            inputs=describe(self.inputs),
            outputs=describe(self.found.outputs),
            shapes={name: tuple(t.shape) for name, t in self.held.items() if name not in renewed},
            parameters=self.parameters,
            aliases=self.aliases,
            renewed=renewed,
            slots=self._slots(),
            attributes=self._attributes(),
            contractions=self._contractions(),
            taps=self._taps(),
            normalised=self._normalised(),
            notes=tuple(
                f"operator {name} has no rule and pinned what it touched ({count} times)"
                for name, count in sorted(self.found.unknown.items())
            ),
        )

    def _grouped(self, dropped: Mapping[int, str]) -> Groups:
        classes, names = self._classes_in_slots(dropped)
        _, first, group, sizes = np.unique(
            self.signature[classes], return_index=True, return_inverse=True, return_counts=True
        )
        appearance = np.argsort(first)
        kept = appearance[sizes[appearance] > 1]
        rank = np.full(len(sizes), len(kept))
        rank[kept] = np.arange(len(kept))
        by_group = np.argsort(rank[group], kind="stable")[: int(sizes[kept].sum())]
        atom = np.zeros(len(self.signature), dtype=np.int64)
        atom[classes[by_group]] = np.arange(1, len(by_group) + 1)
        return Groups(_distinct([names[i] for i in first[kept]]), sizes[kept].tolist(), atom)

    def _classes_in_slots(self, dropped: Mapping[int, str]) -> tuple[Nodes, list[str]]:
        """Prunable classes in order of appearance, with the module that appears first."""
        seen = np.zeros(len(self.signature), dtype=bool)
        seen[0] = True
        seen[list(dropped)] = True
        classes: list[Nodes] = [np.zeros(0, dtype=np.int64)]
        names: list[str] = []
        for name, _, nodes in sorted(self.slots, key=lambda slot: slot[1] != 0):
            for column in self.classes[nodes].T:
                fresh = column[~seen[column]]
                if len(fresh):
                    _, first = np.unique(fresh, return_index=True)
                    numbers = fresh[np.sort(first)]
                    seen[numbers] = True
                    classes.append(numbers)
                    names += [name.rpartition(".")[0] or name] * len(numbers)
        return np.concatenate(classes), names

    def _not_a_rectangle(self) -> dict[int, str] | None:
        """Classes of a gene whose product with another does not fill all cells equally."""
        gene = self.groups.gene_of_atom
        different = {id(factors): factors for factors in map(self.factors, self._observed())}
        for factors in different.values():
            if len(factors) < 2:
                continue
            bad = _uneven(factors, gene, self.groups.widths)
            if bad is not None:
                atoms = np.flatnonzero(gene == bad)
                numbers = np.flatnonzero(np.isin(self.groups.atom, atoms)).tolist()
                return dict.fromkeys(numbers, "it is not a full rectangle with its partner")
        return None

    # -- parts of the space --------------------------------------------------------------------

    def factors(self, nodes: Nodes) -> Factors:
        """Atoms of each index of a label array, the arrays without any atom left out.

        Equal ones are the same object.
        """
        if id(nodes) not in self._factors:
            table = self.groups.atom[self.classes[nodes]]
            columns = [np.ascontiguousarray(column) for column in table.T if column.any()]
            key = b"|".join(column.tobytes() for column in columns)
            self._factors[id(nodes)] = self._equal.setdefault(key, tuple(columns))
        return self._factors[id(nodes)]

    def _slots(self) -> dict[str, dict[int, Factors]]:
        slots: dict[str, dict[int, Factors]] = {}
        for name, dimension, nodes in self.slots:
            factors = self.factors(nodes)
            if factors:
                slots.setdefault(name, {})[dimension] = factors
        return slots

    def _size(self, nodes: Nodes) -> Size:
        counted = nodes[~self.second_image[nodes]]
        if len(counted) != len(nodes):
            factors = tuple(self.groups.atom[self.classes[counted]].T)
        else:
            factors = self.factors(nodes)
        if not factors:
            return ((len(counted), ()),)
        return size_polynomial(factors, self.groups.gene_of_atom, self.groups.widths)

    def _contractions(self) -> tuple[Contraction, ...]:
        sizes: dict[int, Size] = {}
        result = []
        for product in self.found.products:
            constant, polynomials = product.constant, []
            for nodes in product.dims:
                if id(nodes) not in sizes:
                    sizes[id(nodes)] = self._size(nodes)
                size = sizes[id(nodes)]
                if all(not genes for _, genes in size):
                    constant *= sum(count for count, _ in size)
                else:
                    polynomials.append(size)
            row = Contraction(product.module, product.operator, constant, tuple(polynomials))
            result.append(row)
        return tuple(result)

    def _attributes(self) -> tuple[Attribute, ...]:
        found: dict[Place, Attribute] = {}
        for place, full, nodes in self.found.sizes:
            factors = self.factors(nodes)
            if factors:
                row = Attribute(place.module, place.name, place.position, full, factors)
                found.setdefault(place, row)
        return tuple(found.values())

    def _taps(self) -> tuple[Tap, ...]:
        found: dict[str, Tap] = {}
        for consumption in self.found.consumptions:
            factors = self.factors(consumption.nodes)
            module = consumption.weight.rpartition(".")[0]
            if factors and module:
                found.setdefault(module, Tap(module, factors, consumption.depthwise))
        return tuple(found.values())

    def _normalised(self) -> frozenset[int]:
        gene = self.groups.gene_of_atom
        arrays = {id(nodes): nodes for nodes in self.found.normalised}
        genes = [gene[np.unique(f)] for nodes in arrays.values() for f in self.factors(nodes)]
        return frozenset(int(g) for block in genes for g in np.unique(block) if g >= 0)

    def _pinned(self, dropped: Mapping[int, str]) -> tuple[Pinned, ...]:
        """One entry per channel group that is no gene, named by the first tensor that holds it."""
        entries: dict[tuple[str, int], list[str]] = {}
        owner: dict[int, tuple[str, int]] = {}
        for name, dims in self.found.tensors.items():
            for dimension, nodes in enumerate(dims[:2]):
                atoms = self.groups.atom[self.classes[nodes]]
                stuck = nodes[~atoms.any(axis=1)]
                if not stuck.any():
                    continue
                where = f"{name}[{dimension}]"
                first = int(self.plain[stuck[0]])
                key = owner.get(first, (self._reason(stuck, dropped), first))
                entries.setdefault(key, []).append(where)
                owner.update(dict.fromkeys(self.plain[stuck].tolist(), key))
        return tuple(
            Pinned(places[0], f"{reason}{_more(places)}") for (reason, _), places in entries.items()
        )

    def _reason(self, nodes: Nodes, dropped: Mapping[int, str]) -> str:
        for number in np.unique(self.classes[nodes]).tolist():
            if number in dropped:
                return dropped[number]
        for number in self.plain[nodes].tolist():
            if number in self.reasons:
                return self.reasons[number]
        return "it has a single channel, or none like it to choose from"

    def classes_of(self, gene: int) -> list[int]:
        """The classes that a gene of the latest space is made of."""
        atoms = np.flatnonzero(self.groups.gene_of_atom == gene)
        return np.flatnonzero(np.isin(self.groups.atom, atoms)).tolist()

    def turned(self, bare: nn.Module, space: SearchSpace) -> dict[int, str]:
        """{class: reason} of a gene that decides about what the forward does; see `turned`."""
        found = turned(self.found.comparisons.values(), space, bare, self.factors)
        if found is None:
            return {}
        gene, reason = found
        return dict.fromkeys(self.classes_of(gene), reason)

    def all_classes(self, reason: str) -> dict[int, str]:
        """{class: reason} of everything that could be a channel."""
        return dict.fromkeys(range(1, len(self.signature)), reason)

    def hands_on(self, seen: Seen) -> bool:
        """Whether a block's output has the channels of its input."""
        pairs = zip(seen.before, seen.after, strict=True)
        return all(np.array_equal(self.classes[one], self.classes[two]) for one, two in pairs)

    def alive(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(nodes,) which labels survive, given which atoms of the latest space do."""
        alive: NDArray[np.bool_] = np.logical_and.reduce(
            kept[self.groups.atom[self.classes]], axis=1
        )
        return alive


def _more(places: list[str]) -> str:
    return f" (with {len(places) - 1} more tensors)" if len(places) > 1 else ""


def _distinct(names: list[str]) -> list[str]:
    """A second group of the same module is called module[2], and so on."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}[{seen[name]}]")
    return result


def _uneven(factors: Factors, gene: Nodes, widths: Sequence[int]) -> int | None:
    """A gene to drop because its cells with another gene are not filled equally; None if fine."""
    table = np.sort(np.stack(factors, axis=1), axis=1)
    table = table[np.count_nonzero(table, axis=1) > 1]
    if not len(table):
        return None
    first, _, counts = distinct_rows(table)
    owners = gene[table[first]]
    one, group, _ = distinct_rows(owners + 1)  # -1 means no gene
    for index, row in enumerate(owners[one].tolist()):
        mine = counts[group == index]
        genes = [g for g in row if g >= 0]
        full = len(set(genes)) == len(genes) and len(mine) == prod(widths[g] for g in genes)
        if not full or (mine != mine[0]).any():
            return int(min(genes, key=lambda g: (widths[g], g)))
    return None
