"""The prior of the gradient-based contender: what learnt indicators make of every width."""

from functools import partial

import torch
from torch import nn

from prunas.eval.batches import Loader
from prunas.eval.criteria.indicators import dais
from prunas.eval.criteria.selection import di_prior
from prunas.search.prior import Prior
from prunas.supernet.space import SearchSpace

_SHARE = 0.4  # of the multiply-accumulates, that the indicators are drawn to


def indicator_prior(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Prior:
    """Worth of every width by differentiable annealed indicators (`dais`), on sorted channels.

    The k best channels of a gene are worth the sum of their indicators; which ones they are is
    not used, because shared weights keep the channels in another order. Indicators are learnt for
    40 % of the multiply-accumulates, whatever the budget.

    Args:
        network: the trained network, in the order of the space's channels.
        space: its search space.
        batches: images and labels that it was trained on.
        device: where to compute.

    Raises:
        InputError: as `dais`.
    """
    found = di_prior(network, space, batches, device=device, criterion=partial(dais, share=_SHARE))
    orders = tuple(tuple(range(width)) for width in space.widths)
    return Prior(orders, found.values)
