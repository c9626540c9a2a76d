"""Every search on offer, by the name that the command line takes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prunas.search.aging import AgingEvolution
from prunas.search.amc import Amc
from prunas.search.di_greedy import DiGreedy
from prunas.search.evolution import Evolution
from prunas.search.hill_climbing import HillClimbing
from prunas.search.method import Search
from prunas.search.netadapt import NetAdapt
from prunas.search.nsga2 import Nsga2
from prunas.search.policy_gradient import PolicyGradient
from prunas.search.published_evolution import METAPRUNING, SPOS
from prunas.search.randomly import Randomly
from prunas.search.regression import Regression
from prunas.search.reinforce import Reinforce
from prunas.search.uniform import Uniform

SEARCHES: Final[Mapping[str, Search]] = MappingProxyType(
    {
        "evolution": Evolution(),
        "regression": Regression(),
        "nsga2": Nsga2(),
        "random": Randomly(),
        "uniform": Uniform(),
        "hill-climbing": HillClimbing(),
        "aging-evolution": AgingEvolution(),
        "metapruning": METAPRUNING,
        "spos": SPOS,
        "reinforce": Reinforce(),
        "policy-gradient": PolicyGradient(),
        "amc": Amc(),
        "netadapt": NetAdapt(),
        "di-greedy": DiGreedy(),
    }
)
