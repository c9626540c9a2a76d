"""Every form of a weights source, with numbers in its generator that change every weight."""

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from prunas.pruningnet.forms import lean_net, published_net
from prunas.supernet.elastic import Elastic, Supernet
from prunas.supernet.space import SearchSpace

Source = Callable[[nn.Module, SearchSpace], Elastic]


def stirred(source: Elastic) -> Elastic:
    """The source with noise on all that is learnt: nothing is zero or one by its start."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in source.learnt.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng).to(parameter), alpha=0.05)
    return source


GENERATED: Final[dict[str, Source]] = {
    "lean": lambda network, space: stirred(lean_net(network, space)),
    "lean, small memory": lambda n, s: stirred(lean_net(n, s, small_memory=True)),
    "published": lambda n, s: stirred(published_net(n, s, hidden=3, start="random")),
    "published, from the network": lambda n, s: stirred(published_net(n, s, hidden=3)),
    "published, width norms": lambda n, s: stirred(
        published_net(n, s, hidden=3, width_norms=("*1*",))
    ),
    "published, small memory": lambda n, s: stirred(
        published_net(n, s, hidden=3, small_memory=True)
    ),
}
SOURCES: Final[dict[str, Source]] = {"supernet": lambda n, s: stirred(Supernet(n, s)), **GENERATED}
