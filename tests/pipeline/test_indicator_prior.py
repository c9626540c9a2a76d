"""The prior that learnt indicators make."""

import numpy as np
import torch

import prunas
from prunas.eval.criteria.indicators import dais
from prunas.eval.criteria.verdict import scores_of
from prunas.pipeline.comparison.indicators import indicator_prior
from tests.supernet.networks import IMAGE, Network


def test_widths_are_worth_their_largest_indicators() -> None:
    network = Network(["Residual"]).eval()
    space = prunas.trace(network, IMAGE, genes=("width",))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, *IMAGE, generator=generator)
    labels = torch.randint(5, (64,), generator=generator)
    batches = list(zip(images.split(32), labels.split(32), strict=True))
    prior = indicator_prior(network, space, batches, device="cpu")
    verdict = dais(network, space, batches, device="cpu", share=0.4)
    for gene, elimination in enumerate(verdict.eliminations):
        assert elimination is not None
        largest = np.sort(scores_of(elimination))[::-1]
        assert np.allclose(prior.values[gene], [0, *np.cumsum(largest)])
        assert prior.orders[gene] == tuple(range(space.widths[gene]))
