"""Every search on offer, by the name that the command line takes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prunas.search.evolution import Evolution
from prunas.search.method import Search
from prunas.search.nsga2 import Nsga2
from prunas.search.randomly import Randomly
from prunas.search.uniform import Uniform

SEARCHES: Final[Mapping[str, Search]] = MappingProxyType(
    {"evolution": Evolution(), "nsga2": Nsga2(), "random": Randomly(), "uniform": Uniform()}
)
