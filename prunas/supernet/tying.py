"""Fewer genes: some that take the same width together, some that stay whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from prunas.errors import InputError
from prunas.supernet.blocks import Block
from prunas.supernet.space import (
    Atoms,
    Contraction,
    Factors,
    Gene,
    Pinned,
    SearchSpace,
    Size,
)


def tied(
    space: SearchSpace,
    together: Sequence[Sequence[str]] = (),
    whole: Sequence[str] = (),
) -> SearchSpace:
    """The same space with fewer free choices.

    Channel i of every gene in a group stays or goes with channel i of its first gene, under whose
    name they go on: one width, one order, one cost. MetaPruning (ICCV 2019) ties so the two inner
    widths of a bottleneck. Genes of `whole` keep all their channels and are no genes any more.

    Args:
        space: as `prunas.trace` makes it.
        together: groups of names of genes, each of equal widths and choices.
        whole: names of genes that are not to be cut.

    Raises:
        InputError: a name that no gene, or more than one, has; a gene named twice; genes of other
            widths or kinds; genes that decide the same dimension of a tensor.
    """
    numbers = _numbers(space, [*chain(*together), *whole])
    leaders = {numbers[name]: numbers[group[0]] for group in together for name in group[1:]}
    kept = {numbers[name] for name in whole}
    for gene in kept & {gene for gene, _ in space.conditions}:
        raise InputError(
            f"gene {space.genes[gene].name!r} is one of {space.genes[gene].kind}, which is left out"
            " by tracing without it"
        )
    for follower, leader in leaders.items():
        _require_alike(space, leader, follower)
    change = _Renumbering.of(space, leaders, kept)
    result = change.applied(space)
    for name, dimensions in result.slots.items():
        for factors in dimensions.values():
            _require_apart(result, name, factors)
    return result


def _numbers(space: SearchSpace, names: Sequence[str]) -> Mapping[str, int]:
    known = [gene.name for gene in space.genes]
    for name in names:
        if known.count(name) != 1:
            raise InputError(
                f"{known.count(name)} genes are called {name!r}; name one of {', '.join(known)}"
            )
        if list(names).count(name) > 1:
            raise InputError(f"gene {name!r} is named twice; each can be tied or kept once")
    return {name: known.index(name) for name in names}


def _require_alike(space: SearchSpace, leader: int, follower: int) -> None:
    one, two = space.genes[leader], space.genes[follower]
    if (one.kind, one.choices, space.widths[leader]) != (
        two.kind,
        two.choices,
        space.widths[follower],
    ):
        raise InputError(
            f"genes {one.name!r} ({one.kind} up to {one.choices[-1]}) and {two.name!r}"
            f" ({two.kind} up to {two.choices[-1]}) cannot be tied; tie genes of equal choices"
        )
    if one.kind != "width":
        raise InputError(f"gene {two.name!r} is one of {two.kind}; only widths can be tied")


def _require_apart(space: SearchSpace, name: str, factors: Factors) -> None:
    owners = [set(space.gene_of_atom[factor].tolist()) - {-1} for factor in factors]
    if len(factors) > 1 and len(set().union(*owners)) < sum(map(len, owners)):
        raise InputError(
            f"a dimension of {name} is decided by both of the tied genes, as rows and as columns;"
            " leave them apart"
        )


@dataclass(frozen=True, eq=False)
class _Renumbering:
    """Where genes and atoms go: `gene[g]` is the new number, -1 for one that is no more."""

    gene: tuple[int, ...]
    atom: Atoms
    free: tuple[int, ...]
    kept: frozenset[int]

    @classmethod
    def of(cls, space: SearchSpace, leaders: Mapping[int, int], kept: set[int]) -> "_Renumbering":
        free = tuple(g for g in range(len(space.genes)) if g not in leaders and g not in kept)
        place = {gene: number for number, gene in enumerate(free)}
        gene = tuple(place.get(leaders.get(g, g), -1) for g in range(len(space.genes)))
        first = 1 + np.concatenate([[0], np.cumsum([space.widths[g] for g in free])])
        atom = np.zeros(sum(space.widths) + 1, dtype=np.int64)
        for old, (offset, width) in enumerate(zip(space.offsets, space.widths, strict=True)):
            if gene[old] >= 0:
                atom[offset : offset + width] = first[gene[old]] + np.arange(width)
        return cls(gene, atom, free, frozenset(kept))

    def applied(self, space: SearchSpace) -> SearchSpace:
        memo: dict[int, Atoms] = {}

        def changed(factors: Factors) -> Factors:
            return tuple(memo.setdefault(id(f), self.atom[f]) for f in factors)

        return replace(
            space,
            genes=tuple(space.genes[g] for g in self.free),
            widths=tuple(space.widths[g] for g in self.free),
            pinned=(*space.pinned, *(_kept_whole(space.genes[g]) for g in sorted(self.kept))),
            slots={
                name: left
                for name, dimensions in space.slots.items()
                if (left := {d: f for d, o in dimensions.items() if _is_free(f := changed(o))})
            },
            attributes=tuple(
                replace(a, factors=f) for a in space.attributes if _is_free(f := changed(a.factors))
            ),
            contractions=tuple(self._contraction(c, space) for c in space.contractions),
            taps=tuple(replace(tap, atoms=changed(tap.atoms)) for tap in space.taps),
            conditions=tuple((self.gene[g], value) for g, value in space.conditions),
            blocks=self._blocks(space.blocks),
            alternatives={self.gene[g]: choice for g, choice in space.alternatives.items()},
            normalised=frozenset(self.gene[g] for g in space.normalised) - {-1},
        )

    def _contraction(self, contraction: Contraction, space: SearchSpace) -> Contraction:
        return replace(
            contraction, sizes=tuple(self._size(size, space) for size in contraction.sizes)
        )

    def _size(self, size: Size, space: SearchSpace) -> Size:
        terms: dict[tuple[int, ...], int] = {}
        for coefficient, genes in size:
            for gene in genes:
                if gene in self.kept:
                    coefficient *= space.widths[gene]
            left = tuple(sorted(self._variable(g) for g in genes if g not in self.kept))
            terms[left] = terms.get(left, 0) + coefficient
        return tuple((coefficient, genes) for genes, coefficient in sorted(terms.items()))

    def _variable(self, number: int) -> int:
        genes = len(self.gene)
        return self.gene[number] if number < genes else number - genes + len(self.free)

    def _blocks(self, blocks: Mapping[int, Block]) -> dict[int, Block]:
        return {self.gene[g]: block for g, block in blocks.items() if g not in self.kept}


def _is_free(factors: Factors) -> bool:
    return any(factor.any() for factor in factors)


def _kept_whole(gene: Gene) -> Pinned:
    return Pinned(gene.name, "it was to be kept whole")
