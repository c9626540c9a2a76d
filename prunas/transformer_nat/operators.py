"""The operators that an edge can carry, by the names of DARTS and NAT.

Guo et al., "NAT: Neural Architecture Transformer for Accurate and Compact Architectures", NeurIPS
2019, and "Towards Accurate and Compact Architectures via Neural Architecture Transformer", TPAMI
2021 (NAT++), with the vocabularies of the code that came with them. Networks that were traced carry
others besides (`OF_NETWORKS`): their blocks are not those of cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from prunas.errors import InputError


class Kind(Enum):
    """What an operator computes.

    In cells all convolutions are without bias, ReLU before and norm behind; in traced networks they
    are what stands there.
    """

    CONVOLUTION = "conv"
    """One k x k convolution."""
    PAIR = "pair"
    """A 1 x k convolution and then a k x 1 one."""
    SEPARABLE = "sep"
    """Twice: depthwise k x k, then 1 x 1. The first depthwise one has the stride."""
    DILATED = "dil"
    """Once: depthwise k x k with dilation 2, then 1 x 1."""
    MAX_POOL = "max"
    AVERAGE_POOL = "avg"
    """The padding is not counted."""
    SKIP = "skip"
    """The input itself; at stride 2 or where widths differ the cheapest 1 x 1 convolution."""
    NULL = "null"
    """Zeros: the edge is as good as absent."""
    DEPTHWISE = "dw"
    """One k x k convolution of each channel by itself. In traced networks alone, as the next."""
    FACTORED = "ds"
    """Once: depthwise k x k, which has the stride, then 1 x 1."""
    BRANCH = "branch"
    """What a residual block adds to its input, apart from operators with edges of their own."""
    GATE = "gate"
    """What multiplies its input, such as squeeze-and-excitation."""
    FIXED = "fixed"
    """Whatever stands between two nodes and nothing may take the place of."""


POOLS: Final = frozenset({Kind.MAX_POOL, Kind.AVERAGE_POOL})


@dataclass(frozen=True)
class Operator:
    """One operator; `kernel` is 0 where there is none."""

    name: str
    kind: Kind
    kernel: int = 0


NULL: Final = "null"
SKIP: Final = "skip_connect"

_ALL: Final = (
    Operator("max_pool_2x2", Kind.MAX_POOL, 2),
    Operator("max_pool_3x3", Kind.MAX_POOL, 3),
    Operator("max_pool_5x5", Kind.MAX_POOL, 5),
    Operator("avg_pool_2x2", Kind.AVERAGE_POOL, 2),
    Operator("avg_pool_3x3", Kind.AVERAGE_POOL, 3),
    Operator("avg_pool_5x5", Kind.AVERAGE_POOL, 5),
    Operator(SKIP, Kind.SKIP),
    Operator("sep_conv_3x3", Kind.SEPARABLE, 3),
    Operator("sep_conv_5x5", Kind.SEPARABLE, 5),
    Operator("sep_conv_7x7", Kind.SEPARABLE, 7),
    Operator("dil_conv_3x3", Kind.DILATED, 3),
    Operator("dil_conv_5x5", Kind.DILATED, 5),
    Operator("conv_1x1", Kind.CONVOLUTION, 1),
    Operator("conv_3x3", Kind.CONVOLUTION, 3),
    Operator("conv_5x5", Kind.CONVOLUTION, 5),
    Operator("conv_1x3_3x1", Kind.PAIR, 3),
    Operator("conv_1x7_7x1", Kind.PAIR, 7),
    Operator("conv_7x1_1x7", Kind.PAIR, 7),
    Operator(NULL, Kind.NULL),
)

OPERATORS: Final[Mapping[str, Operator]] = MappingProxyType({each.name: each for each in _ALL})
"""Every operator of cells by name."""

BRANCH: Final = "branch"
GATE: Final = "gate"
FIXED: Final = "fixed"
OTHER_CONVOLUTION: Final = "other_conv"
OTHER_DEPTHWISE: Final = "other_dw_conv"
_OTHER_KERNEL: Final = 99  # larger than any that has a name: every smaller one is a step down

_OF_NETWORKS: Final = (
    *(Operator(f"conv_{k}x{k}", Kind.CONVOLUTION, k) for k in (7, 9, 11)),
    Operator(OTHER_CONVOLUTION, Kind.CONVOLUTION, _OTHER_KERNEL),
    *(Operator(f"dw_conv_{k}x{k}", Kind.DEPTHWISE, k) for k in (3, 5, 7, 9, 11)),
    Operator(OTHER_DEPTHWISE, Kind.DEPTHWISE, _OTHER_KERNEL),
    *(Operator(f"ds_conv_{k}x{k}", Kind.FACTORED, k) for k in (3, 5, 7, 9, 11)),
    Operator(BRANCH, Kind.BRANCH),
    Operator(GATE, Kind.GATE),
    Operator(FIXED, Kind.FIXED),
)

KNOWN: Final[Mapping[str, Operator]] = MappingProxyType(
    {**OPERATORS, **{each.name: each for each in _OF_NETWORKS}}
)
"""Those of cells, and those that only traced networks carry."""

Vocabulary = tuple[str, ...]

EVERY_OPERATOR: Final[Vocabulary] = tuple(OPERATORS)
"""All operators of cells."""

NAT_FULLY_CONCAT: Final[Vocabulary] = (
    "max_pool_3x3", "avg_pool_3x3", SKIP, "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
    "dil_conv_5x5", "conv_3x3", NULL,
)  # fmt: skip
"""The 9 operators of NAT for cells that join all their nodes, such as those of DARTS."""

NAT_LOOSE_END: Final[Vocabulary] = (
    "max_pool_3x3", "avg_pool_3x3", SKIP, "sep_conv_3x3", "sep_conv_5x5", "conv_1x1", "conv_3x3",
    "conv_5x5", NULL,
)  # fmt: skip
"""The 9 operators of NAT for cells that join the nodes nobody else uses, such as those of ENAS."""

NAT_PLUS: Final[Vocabulary] = (
    "max_pool_3x3", "max_pool_5x5", "avg_pool_3x3", "avg_pool_5x5", SKIP, "sep_conv_3x3",
    "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "conv_1x1", "conv_3x3", "conv_5x5", NULL,
)  # fmt: skip
"""The 13 operators of NAT++."""

OF_NETWORKS: Final[Vocabulary] = (
    "max_pool_3x3", "max_pool_5x5", "avg_pool_3x3", "avg_pool_5x5", SKIP, "conv_1x1", "conv_3x3",
    "conv_5x5", NULL, *(each.name for each in _OF_NETWORKS),
)  # fmt: skip
"""What the edges of traced networks carry, and what may take its place."""


def operator(name: str) -> Operator:
    """The operator of that name.

    Raises:
        InputError: there is none.
    """
    if name not in KNOWN:
        raise InputError(
            f"there is no operator {name!r}; those that are known are {', '.join(KNOWN)}"
        )
    return KNOWN[name]
