"""Which operator may take another's place: the rules of NAT and NAT++, and what makes one legal.

A *rule* says what is offered for an operator wherever it stands. NAT offers to keep it, to skip or
to cut. NAT++ has two levels besides: the type goes down, conv -> sep -> dil -> pool (one pool for
the other is no step), and the kernel does not grow.

A rule alone does not keep the costs: at stride 2 a skip is a convolution, so that a pool may become
something dearer, and in narrow layers a separable convolution costs more than a plain one. So
*legality* looks at the edge:

    legal(e, b)  <=>  params(b) <= params(a)  and  macs(b) <= macs(a)   at every place of edge e

with a the operator that e carries, multiply-accumulates counted both as everywhere in prunas and as
in the papers. The code of NAT has no such test; `as_published` reproduces that.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prunas.transformer_nat.graph import Edge
from prunas.transformer_nat.operators import (
    KNOWN,
    NAT_PLUS,
    NULL,
    OF_NETWORKS,
    SKIP,
    Kind,
    Operator,
    operator,
)

Rule = Callable[[str], tuple[str, ...]]
"""Operator -> what may take its place, itself left out."""

Legality = Callable[[Edge, str], bool]
"""(edge, operator) -> whether the operator may take the place of the one that the edge carries."""

_RANK: Final[Mapping[Kind, int]] = {
    Kind.CONVOLUTION: 3,
    Kind.SEPARABLE: 2,
    Kind.FACTORED: 2,
    Kind.DILATED: 1,
    Kind.DEPTHWISE: 1,
    Kind.MAX_POOL: 0,
    Kind.AVERAGE_POOL: 0,
}


def keep_skip_null(name: str) -> tuple[str, ...]:
    """NAT: a skip or nothing in the place of any operator; a skip in the place of nothing.

    Raises:
        InputError: there is no such operator.
    """
    operator(name)
    return tuple(target for target in (SKIP, NULL) if target != name)


def two_level(name: str) -> tuple[str, ...]:
    """NAT++: types down and kernels not up, among its 13 operators; and all that NAT allows.

    Pairs of convolutions have no place on the ladder of types.

    Raises:
        InputError: there is no such operator.
    """
    found = operator(name)
    steps = [each for each in NAT_PLUS if each != name and _steps_down(found, KNOWN[each])]
    return (*steps, *keep_skip_null(name))


def two_level_of_networks(name: str) -> tuple[str, ...]:
    """NAT++ for traced networks: types down, conv -> factored -> pool or depthwise -> pool.

    The kernel does not grow, and all that NAT allows is on offer too. A convolution does not become
    a depthwise one alone, which would mix no channels.

    Raises:
        InputError: there is no such operator.
    """
    found = operator(name)
    steps = [
        each
        for each in OF_NETWORKS
        if each != name
        and _steps_down(found, KNOWN[each])
        and not (KNOWN[each].kind is Kind.DEPTHWISE and found.kind is not Kind.DEPTHWISE)
    ]
    return (*steps, *keep_skip_null(name))


def never_dearer(edge: Edge, name: str) -> bool:
    """Whether nothing grows at any place of the edge, not even by the adds of an identity."""
    if not edge.takes(name):
        return False
    pairs = zip(edge.costs_of(name), edge.costs_of(edge.operator), strict=True)
    return not any(after.exceeds(before) for after, before in pairs)


def never_dearer_but_identity(edge: Edge, name: str) -> bool:
    """As `never_dearer`; an identity may also take the place of nothing.

    The named exception: null -> skip where the skip is an identity, at stride 1 between equal
    widths. It has neither parameters nor multiply-accumulates; the papers count its adds.
    """
    identity = name == SKIP and all(place.keeps_shape for place in edge.places)
    return (identity and edge.operator == NULL) or never_dearer(edge, name)


def as_published(edge: Edge, name: str) -> bool:
    """Whatever the rule offers, at any cost, for reproducing published searches only.

    In a traced network it still has to be one that can be there; in cells everything can.
    """
    return edge.takes(name)


def _steps_down(source: Operator, target: Operator) -> bool:
    if source.kind not in _RANK or target.kind not in _RANK:
        return False
    return _RANK[target.kind] <= _RANK[source.kind] and target.kernel <= source.kernel
