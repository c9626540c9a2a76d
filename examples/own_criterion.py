"""A criterion of one's own beside those of prunas.

A channel is worth the largest absolute weight that leaves with it. `judge` turns a score for every
channel into an order of removal; a criterion that cannot judge a group says why instead.

Run: python examples/own_criterion.py
"""

import numpy as np
import torch
from own_network import SIZE, digits, network, right, train
from torch import nn

import prunas
from prunas.eval.criteria.slices import checked_parameters, joined, slices_of
from prunas.eval.criteria.verdict import Verdict, judge
from prunas.supernet.space import SearchSpace


def largest_weight(
    model: nn.Module, space: SearchSpace, batches: object, *, device: torch.device | str
) -> Verdict:
    """max |w| over all parameters that leave with a channel."""
    held = checked_parameters(model, space)
    return judge(space, (np.abs(joined(s.all, held)).max(1) for s in slices_of(model, space)))


def main() -> None:
    torch.manual_seed(0)
    batches, unseen = digits()
    full = network()
    train(full, batches, epochs=4, rate=0.05)
    space = prunas.trace(full, SIZE)
    print(f"full network   {right(full, *unseen):.3f}; at a quarter of its work, not trained:")
    for criterion in (largest_weight, "l1", "di-curvature"):
        found = prunas.prune(full, space, "macs=25%", criterion=criterion, batches=batches)
        name = criterion if isinstance(criterion, str) else criterion.__name__
        print(f"{name:<15}{right(found.network, *unseen):.3f}")


if __name__ == "__main__":
    main()
