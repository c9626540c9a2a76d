"""What a network costs, what of it can be searched, and why thop's figure may be another."""

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from prunas.eval.cost import variables
from prunas.eval.prices import Prices
from prunas.pipeline.report.wording import THIN, amount
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.costs import COSTS
from prunas.supernet.skeleton import FORWARD_ERRORS
from prunas.supernet.space import Candidate, SearchSpace, Size

_NAMED = 3  # how many layer classes a sentence names
_LAYERED = ("convolution", "linear")


@dataclass(frozen=True)
class Price:
    """Multiply-accumulates of one image, and parameters."""

    macs: int
    params: int


@dataclass(frozen=True)
class Thop:
    """thop's figure for the full network; None with the reason where thop cannot run it."""

    macs: int | None
    sentence: str


@dataclass(frozen=True)
class Profile:
    """What `prunas profile` shows.

    Attributes:
        space: what can be searched.
        full: of the network as it came.
        half: of the candidate with every gene at half.
        smallest: of the candidate with every gene at its smallest choice.
        decided: for each gene, the MACs that go when it alone takes its smallest choice.
        thop: another counter's figure.
        limits: the budget in absolute terms, empty without one.
        whole: what the full network takes of each limited cost.
    """

    space: SearchSpace
    full: Price
    half: Price
    smallest: Price
    decided: tuple[int, ...]
    thop: Thop
    limits: Mapping[str, int]
    whole: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "macs": self.full.macs,
            "params": self.full.params,
            "half": asdict(self.half),
            "smallest": asdict(self.smallest),
            "size": str(self.space.size),  # may have thousands of digits
            "genes": [asdict(gene) for gene in self.space.genes],
            "pinned": [asdict(entry) for entry in self.space.pinned],
            "notes": list(self.space.notes),
            "thop": asdict(self.thop),
            "budget": dict(self.limits),
        }


def profile(
    network: nn.Module, space: SearchSpace, input_size: Sequence[int], budget: Budget | None = None
) -> Profile:
    """Price `network` and its `space`; nothing is changed.

    Args:
        network: the traced network.
        space: its search space.
        input_size: (channels, height, width) of the images it was traced with.
        budget: to be resolved into absolute limits.

    Raises:
        InputError: the budget is out of reach; the message names the smallest reachable figure.
    """
    cost = Prices(network, space)
    limits = {} if budget is None else dict(Feasible(space, budget, cost).limits)
    full = space.full()
    shrunk = [
        Candidate((*full[:index], gene.choices[0], *full[index + 1 :]))
        for index, gene in enumerate(space.genes)
    ]
    priced = [full, space.uniform(0.5), space.smallest(), *shrunk]
    macs, params = cost.macs(priced).tolist(), cost.params(priced).tolist()
    whole, half, smallest = (Price(m, p) for m, p in zip(macs[:3], params[:3], strict=True))
    decided = tuple(macs[0] - less for less in macs[3:])
    thop = compare_with_thop(network, space, input_size)
    values = as_values([full])
    unlimited = {name: int(COSTS[name].price(cost, values)[0]) for name in limits}
    return Profile(space, whole, half, smallest, decided, thop, limits, unlimited)


def compare_with_thop(network: nn.Module, space: SearchSpace, input_size: Sequence[int]) -> Thop:
    """thop's count of the full network, and from which layers a difference to ours comes."""
    layers, between = _by_layer(space)
    try:
        theirs = _thop_by_layer(network, input_size)
    except FORWARD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return Thop(None, f"thop cannot run the network: {reason}")
    more, less = Counter[str](), Counter[str]({"products of two activations": between})
    for name in dict.fromkeys((*layers, *theirs)):
        difference = theirs[name] - layers[name]
        side = more if difference > 0 else less
        side[type(network.get_submodule(name)).__name__] += abs(difference)
    total = theirs.total()
    return Thop(total, _sentence(total, +more, +less))


def _sentence(total: int, more: Counter[str], less: Counter[str]) -> str:
    figure = f"thop counts {total:,} MACs"
    if not more and not less:
        return f"{figure}, the same."
    parts = []
    if more:
        parts.append(f"it adds {_listed(more)}, which prunas does not count")
    if less:
        parts.append(f"it leaves out {_listed(less)}, which it does not know")
    return f"{figure}: {'; '.join(parts)}."


def _listed(macs: Counter[str]) -> str:
    named = macs.most_common(_NAMED)
    rest = macs.total() - sum(count for _, count in named)
    texts = [f"{_amount(count)} for {kind}" for kind, count in named]
    return ", ".join([*texts, f"{_amount(rest)} elsewhere"] if rest else texts)


def _amount(macs: int) -> str:
    return amount(macs).replace(THIN, " ")  # a terminal may not have the thin space


def _by_layer(space: SearchSpace) -> tuple[Counter[str], int]:
    """Our MACs of the full network: by the layer whose weights are multiplied, and the rest."""
    layers, between = Counter[str](), 0
    chosen = np.array([space.full()], dtype=np.int64)
    full = variables(chosen, space.conditions)[0].tolist()
    for contraction in space.contractions:
        lengths = (_length(size, full) for size in contraction.sizes)
        macs = contraction.constant * prod(lengths)
        if contraction.operator in _LAYERED:
            layers[contraction.module] += macs
        else:
            between += macs
    return layers, between


def _length(size: Size, full: Sequence[int]) -> int:
    return sum(coefficient * prod(full[v] for v in factors) for coefficient, factors in size)


def _thop_by_layer(network: nn.Module, input_size: Sequence[int]) -> Counter[str]:
    """thop's count for one image, by layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop compares versions in a way Python has given up
        from thop import profile as count

        twin = copy.deepcopy(network).cpu()
        images = torch.zeros(1, *input_size)
        _, _, layers = count(twin, (images,), verbose=False, ret_layer_info=True)
    counted = Counter[str]()
    for name, macs in _leaves(layers, ""):
        counted[name] += round(macs)
    return counted


def _leaves(
    layers: Mapping[str, tuple[float, float, Mapping[str, Any]]], path: str
) -> Iterator[tuple[str, float]]:
    """(module name, count) of the modules in thop's tree that contain no others."""
    for name, (macs, _, inner) in layers.items():
        if inner:
            yield from _leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", macs
