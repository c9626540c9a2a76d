"""One-shot pruning: a criterion, a budget, and no training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.batches import Loader, images_at, require_batches
from prunas.eval.criteria.absorb import absorbed
from prunas.eval.criteria.measured import measured_values
from prunas.eval.criteria.selection import Ranking, di_prior
from prunas.eval.criteria.table import DEFAULT, criterion_named
from prunas.eval.criteria.verdict import Criterion
from prunas.eval.device import require_on
from prunas.eval.prices import Prices
from prunas.eval.recalibration import recalibrate_
from prunas.eval.refit import refit_
from prunas.pipeline.stages import fair_uniform
from prunas.search.budget import Budget, Feasible
from prunas.search.prior import allocate
from prunas.supernet.cut import copied_with, cut
from prunas.supernet.permute import permute
from prunas.supernet.resolution import side_of
from prunas.supernet.space import Candidate, SearchSpace

Widths = Literal["allocated", "measured", "uniform"]
"""Widths by the worth of their channels, by what narrowing each gene alone does to the network's
answers (`measured_values`), or the same share of every gene."""

Adaptation = Literal["refit", "recalibrate"]
"""Solve the layers that are left anew, or only take new statistics for their batch norms."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """A network inside a budget, and how it was chosen.

    Attributes:
        network: the small network; a plain module, for images of the side that the candidate has
            where that is a gene (`prunas.supernet.resolution.side_of`).
        candidate: its widths.
        ranking: order and worth of all channels.
        macs: multiply-accumulates, of the small network and of the full one.
        params: parameters, of the small network and of the full one.
    """

    network: nn.Module
    candidate: Candidate
    ranking: Ranking
    macs: tuple[int, int]
    params: tuple[int, int]


@torch.inference_mode(False)
def prune(
    network: nn.Module,
    space: SearchSpace,
    budget: str | Budget,
    *,
    criterion: str | Criterion = DEFAULT,
    batches: Loader | None = None,
    widths: Widths = "allocated",
    adaptation: Adaptation = "refit",
    device: torch.device | str = "cpu",
) -> Pruned:
    """Cut a trained network to a budget at once, by what a criterion says of its channels.

    Channels are ordered by the criterion, widths are chosen by `allocate` (or uniformly), and
    with images the small network is adapted to what it lost: its layers are solved anew by least
    squares (`refit_`), or the mean of what was removed moves into the biases and batch norms are
    recalibrated. The given network is not changed.

    Args:
        network: the traced network, with the weights that matter, on `device`.
        space: its search space.
        budget: such as "macs=50%" or "macs=120M,params=2M".
        criterion: one of `prunas.eval.criteria.table.CRITERIA` by name, or a function of that form.
        batches: pairs (images, labels), iterated more than once; needed by criteria that look at
            more than weights.
        widths: how the budget is spent.
        adaptation: what is done with images after the cut.
        device: where to compute.

    Raises:
        InputError: the budget is out of reach, the criterion lacks what it looks at, or a choice is
            not known; batches that can be iterated only once, or a network that takes more than
            images while there are some.
    """
    _require_one_of("widths", widths, get_args(Widths))
    _require_one_of("adaptation", adaptation, get_args(Adaptation))
    judge = _judging(criterion, images=batches is not None)
    if batches is not None:
        _require_repeatable(batches)
        require_on(network, device)
    wanted = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(wanted, Budget):
        raise InputError(f"{budget!r} is not a budget; give one such as 'macs=50%'")
    prices = Prices(network, space)
    feasible = Feasible(space, wanted, prices)  # refuses a budget out of reach at once
    ranking = di_prior(network, space, batches, device=device, criterion=judge)
    if widths == "measured":
        seen = () if batches is None else batches  # refused for lack of images
        ranking = measured(network, space, ranking, seen, adaptation, device=device)
    return cut_to(
        network,
        feasible,
        ranking,
        batches=batches,
        uniform=widths == "uniform",
        adaptation=adaptation,
        device=device,
    )


def _require_one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} cannot be {value!r}; choose one of {', '.join(known)}")


def _require_repeatable(batches: Loader) -> None:
    require_batches(batches)
    if isinstance(batches, Iterator):
        raise InputError(
            f"the batches are iterated more than once, and a {type(batches).__name__} is empty"
            " after the first time; give a list or a loader"
        )


def _judging(criterion: str | Criterion, *, images: bool) -> Criterion:
    if isinstance(criterion, str):
        return criterion_named(criterion, images=images)
    if not callable(criterion):
        raise InputError(f"{criterion!r} is no criterion; give a name, or a function that judges")
    return criterion


def measured(
    network: nn.Module,
    space: SearchSpace,
    ranking: Ranking,
    batches: Loader,
    adaptation: Adaptation = "refit",
    *,
    device: torch.device | str = "cpu",
) -> Ranking:
    """The same orders, with `measured_values` of networks cut and adapted as `cut_to` does."""

    def cutting(ordered: nn.Module, candidate: Candidate) -> nn.Module:
        return cut_adapted(ordered, space, candidate, batches, adaptation, device)

    values = measured_values(network, space, ranking.orders, batches, cutting, device=device)
    return replace(ranking, values=values)


def cut_to(
    network: nn.Module,
    feasible: Feasible,
    ranking: Ranking,
    *,
    batches: Loader | None = None,
    uniform: bool = False,
    adaptation: Adaptation = "refit",
    device: torch.device | str = "cpu",
) -> Pruned:
    """Cut a trained network into a budget by what is known of its channels; see `prune`.

    Args:
        network: the network that was ranked, on `device`; not changed.
        feasible: the candidates inside the budget.
        ranking: order and worth of its channels.
        batches: images that the small network is adapted on, if there are any.
        uniform: give every gene the same share instead of what its channels are worth.
        adaptation: what is done with the images.
        device: where to compute.
    """
    space = feasible.space
    candidate = fair_uniform(feasible) if uniform else allocate(ranking.values, feasible)
    ordered = permute(network, space, ranking.orders)
    small = cut_adapted(ordered, space, candidate, batches, adaptation, device)
    both = np.array([candidate, space.full()])
    macs, full_macs = feasible.cost.macs(both).tolist()
    params, full_params = feasible.cost.params(both).tolist()
    return Pruned(small, candidate, ranking, (macs, full_macs), (params, full_params))


def cut_adapted(
    ordered: nn.Module,
    space: SearchSpace,
    candidate: Candidate,
    batches: Loader | None,
    adaptation: Adaptation,
    device: torch.device | str,
) -> nn.Module:
    """Cut a network whose channels are in order; adapt what is left to the images, if any.

    A candidate of smaller images is adapted on such images, and to the network with batch norms
    recalibrated on them, since statistics of whole images do not fit (`answers_left` does so too).

    Args:
        ordered: the full network, channels in order, on `device`; not changed.
        space: its search space.
        candidate: the widths to keep.
        batches: images, iterated more than once.
        adaptation: what is done with them.
        device: where to compute.
    """
    if batches is None:
        return cut(ordered, space, candidate).eval()
    side = side_of(space, candidate)
    whole = ordered
    if side != side_of(space, space.full()):
        whole = copied_with(ordered, {})
        _recalibrate_at(side, whole, batches, device)
    if adaptation == "refit":
        small = cut(whole, space, candidate).eval()
        refit_(small, whole, space, candidate, batches, device=device)
        return small
    shifted = absorbed(whole, space, candidate, batches, device=device)
    small = cut(shifted, space, candidate).eval()
    _recalibrate_at(side, small, batches, device)
    return small


def _recalibrate_at(
    side: int | None, network: nn.Module, batches: Loader, device: torch.device | str
) -> None:
    images = images_at(side, batches, device=device)
    recalibrate_(network, ((batch, batch) for batch in images))
