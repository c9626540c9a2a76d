"""The costs that a budget can limit: how candidates are priced, and how people write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError

Values = NDArray[np.int64]
"""Candidates as an array (n, genes) of chosen values."""

Prices = NDArray[np.int64]
"""(n,) what each candidate costs."""


class Costs(Protocol):
    """What candidates cost: each method maps (n, genes) chosen values to n exact integers.

    Costs are monotone: they never fall when a gene takes a larger choice. (Where that is another
    alternative they may, and so may latency; see `Feasible`.)
    """

    def macs(self, candidates: Values, /) -> Prices: ...
    def params(self, candidates: Values, /) -> Prices: ...


@runtime_checkable
class WithMemory(Protocol):
    """Costs that know the peak memory of a candidate's activations, in bytes for one image."""

    def memory(self, candidates: Values, /) -> Prices: ...


@runtime_checkable
class WithLatency(Protocol):
    """Costs that know how long a candidate takes, in nanoseconds."""

    def latency(self, candidates: Values, /) -> Prices: ...


def _memory(cost: Costs, values: Values) -> Prices:
    if not isinstance(cost, WithMemory):
        raise InputError(
            "the memory of candidates is not known here; limit it where there is a network, in a"
            " search, or limit macs and params"
        )
    return cost.memory(values)


def _latency(cost: Costs, values: Values) -> Prices:
    if not isinstance(cost, WithLatency):
        raise InputError(
            "the latency of candidates is not known here; limit it where networks are measured, in"
            " a search, or limit macs and params"
        )
    return cost.latency(values)


@dataclass(frozen=True)
class Limitable:
    """One cost.

    Attributes:
        price: what candidates cost.
        counted: what is counted, in the plural.
        units: how many of them a unit is, by how it is written in lower case.
        written: an amount in words.
        monotone: no larger choice costs less.
    """

    price: Callable[[Costs, Values], Prices]
    counted: str
    units: Mapping[str, int]
    written: Callable[[int], str] = "{:,}".format
    monotone: bool = True


def _milliseconds(nanoseconds: int) -> str:
    """Three digits or more.

    >>> _milliseconds(5_000_000), _milliseconds(1_234_567), _milliseconds(81_400)
    ('5 ms', '1.235 ms', '0.081 ms')
    """
    return f"{round(nanoseconds / 1e6, 3):,g} ms"


_THOUSANDS: Final = MappingProxyType({"": 1, "k": 10**3, "m": 10**6, "g": 10**9})
_TIMES: Final = MappingProxyType({"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9})

COSTS: Final[Mapping[str, Limitable]] = MappingProxyType(
    {
        "macs": Limitable(lambda cost, values: cost.macs(values), "macs", _THOUSANDS),
        "params": Limitable(lambda cost, values: cost.params(values), "params", _THOUSANDS),
        "memory": Limitable(_memory, "bytes", _THOUSANDS),
        "latency": Limitable(_latency, "nanoseconds", _TIMES, _milliseconds, monotone=False),
    }
)
"""By name. A new one is one row here and one method of what prices."""
