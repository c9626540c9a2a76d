"""Laws that every criterion keeps, on networks of every kind of group."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.criteria.table import CRITERIA, criterion_named
from prunas.eval.criteria.verdict import Verdict, scores_of, width_genes
from prunas.supernet.permute import permute
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import IMAGE, Conv1dNet, Network, Shifted

NETWORKS = {
    "residual": ["Residual", "Concatenated"],
    "depthwise": ["Depthwise", "SqueezeExcite"],
    "grouped": ["Grouped", "Transposed"],
    "attention": ["Attention"],
}
NO_LEAST = {
    "fpgm": "a filter of zeros is far from the others",
    "geometric-median": "a filter of zeros is far from the median",
    "random": "it looks at nothing",
    "dais": "a channel that does harm is pushed harder than one that does nothing",
    "apoz": "a channel without weights may carry its bias",
}
"""Criteria for which a channel of zeros need not be the least, and why."""


@cache
def traced(name: str) -> tuple[Network, SearchSpace]:
    network = Network(NETWORKS[name])
    return network, prunas.trace(network, IMAGE)


def batches(count: int = 96, classes: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=generator)
    images = torch.randn(count, *IMAGE, generator=generator)
    images[:, 0] += labels[:, None, None]
    return list(zip(images.split(32), labels.split(32), strict=True))


def judged(name: str, network: nn.Module, space: SearchSpace) -> Verdict:
    return criterion_named(name)(network, space, batches(), device="cpu")


CASES = pytest.mark.parametrize("kind", NETWORKS)
ALL = pytest.mark.parametrize("name", CRITERIA)


@ALL
@CASES
def test_every_gene_is_judged_or_there_is_a_reason(name: str, kind: str) -> None:
    network, space = traced(kind)
    verdict = judged(name, network, space)
    assert len(verdict.eliminations) == len(space.genes)
    found = 0
    for gene in width_genes(space):
        elimination = verdict.eliminations[gene]
        if elimination is None:
            assert len(verdict.reasons[gene]) > 20
            continue
        found += 1
        assert sorted(elimination.order) == list(range(space.widths[gene]))
        assert all(math.isfinite(drop) and drop >= -1e-12 for drop in elimination.drops)
    assert found or (name, kind) == ("hrank", "attention")  # tokens are no maps


@ALL
@CASES
def test_equal_arguments_give_equal_verdicts_and_leave_the_network(name: str, kind: str) -> None:
    network, space = traced(kind)
    network = copy.deepcopy(network)
    frozen = next(iter(network.parameters()))
    frozen.requires_grad_(False)
    network[1].train()
    state = copy.deepcopy(network.state_dict())
    first = judged(name, network, space)
    torch.manual_seed(1)
    assert judged(name, network, space) == first
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert network[1].training
    assert not network[2].training
    assert not frozen.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    hooks = [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - {"random"}))
@CASES
def test_permuting_channels_permutes_scores(name: str, kind: str) -> None:
    network, space = traced(kind)
    rng = np.random.default_rng(3)
    orders = [rng.permutation(width).tolist() for width in space.widths]
    before, after = (judged(name, n, space) for n in (network, permute(network, space, orders)))
    assert before.reasons == after.reasons
    for gene in width_genes(space):
        one, two = before.eliminations[gene], after.eliminations[gene]
        if one is not None and two is not None:
            expected = scores_of(one)[orders[gene]]
            # a sum in another order may fall into the next bin of a histogram
            rtol = 2e-2 if name == "entropy" else 1e-3
            np.testing.assert_allclose(scores_of(two), expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - NO_LEAST.keys()))
@CASES
def test_a_channel_of_zeros_is_the_least(name: str, kind: str) -> None:
    network, space = traced(kind)
    network = copy.deepcopy(network)
    for gene in width_genes(space):
        _clear(network, space, gene, space.widths[gene] // 2)
    verdict = judged(name, network, space)
    for gene in width_genes(space):
        elimination = verdict.eliminations[gene]
        if elimination is not None:
            scores = scores_of(elimination)
            assert scores[space.widths[gene] // 2] <= scores.min() + 1e-9, space.genes[gene].name


@torch.no_grad()
def _clear(network: nn.Module, space: SearchSpace, gene: int, channel: int) -> None:
    """Zero in every slot of the channel; variances stay one."""
    tensors = dict(network.state_dict(keep_vars=True))
    atom = space.offsets[gene] + channel
    for tensor, dimensions in space.slots.items():
        for dimension, factors in dimensions.items():
            places = [torch.from_numpy(np.flatnonzero(atoms == atom)) for atoms in factors]
            value = 1.0 if tensor.endswith("running_var") else 0.0
            tensors[tensor].index_fill_(dimension, torch.cat(places), value)


@ALL
def test_one_dimensional_networks(name: str) -> None:
    network = Conv1dNet().eval()
    space = prunas.trace(network, (2, 10))
    rows = [(torch.randn(8, 2, 10), torch.arange(8) % 4)]
    verdict = criterion_named(name)(network, space, rows, device="cpu")
    for gene in width_genes(space):
        assert verdict.eliminations[gene] is not None or verdict.reasons[gene]


NEEDS_IMAGES = (
    *(name for name in CRITERIA if name.startswith("di")), "reconstruction", "hsic", "taylor",
    "taylor-absolute", "taylor-gate", "taylor-activation", "fisher", "snip", "synflow", "apoz",
    "mean-activation", "entropy", "hrank", "wanda", "flap", "zero-channel",
)  # fmt: skip
NEEDS_LABELS = ("di", "di-single", "di-loo", "di-diff", "di-flat", "taylor", "taylor-absolute",
                "taylor-gate", "taylor-activation", "fisher", "snip")  # fmt: skip


@pytest.mark.parametrize("name", NEEDS_IMAGES)
def test_refuses_no_images(name: str) -> None:
    network, space = traced("residual")
    with pytest.raises(InputError, match="no images"):
        criterion_named(name)(network, space, [], device="cpu")


@pytest.mark.parametrize("name", NEEDS_LABELS)
def test_refuses_images_without_labels(name: str) -> None:
    network, space = traced("residual")
    with pytest.raises(InputError, match="no targets"):
        criterion_named(name)(network, space, [torch.randn(4, *IMAGE)], device="cpu")


@pytest.mark.parametrize("name", NEEDS_LABELS)
def test_refuses_labels_of_no_class(name: str) -> None:
    network, space = traced("residual")
    with pytest.raises(InputError, match="labels run from 0 to 9"):
        criterion_named(name)(
            network, space, [(torch.randn(2, *IMAGE), torch.tensor([0, 9]))], device="cpu"
        )


@pytest.mark.parametrize("name", sorted({*NEEDS_IMAGES, "dais"} - {"synflow"}))
def test_refuses_activations_that_are_nan(name: str) -> None:
    network, space = traced("residual")
    images = torch.full((4, *IMAGE), torch.nan)
    with pytest.raises(InputError, match="NaN"):
        criterion_named(name)(network, space, [(images, torch.tensor([0, 1, 2, 3]))], device="cpu")


OF_ACTIVATIONS = frozenset(
    ("apoz", "di", "di-diff", "di-loo", "di-single", "entropy", "hrank", "mean-activation",
     "zero-channel")
)  # fmt: skip
"""What these see of a channel does not depend on the layers after it."""


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - OF_ACTIVATIONS - {"random"}))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_refuses_weights_that_are_not_finite(name: str, value: float) -> None:
    """Those of the last layer, so that no layer is given NaN."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()  # fmt: skip
    space = prunas.trace(network, IMAGE)
    with torch.no_grad():
        network.get_parameter("5.weight")[2].fill_(value)
    with pytest.raises(InputError, match="NaN or infinite"):
        criterion_named(name)(network, space, batches(), device="cpu")


@pytest.mark.parametrize("name", NEEDS_IMAGES)
@pytest.mark.parametrize(
    ("device", "words"),
    [("meta", "images are sent to meta, but .* is on cpu"), ("gpu0", "no device 'gpu0'")],
)
def test_refuses_a_device_where_the_network_is_not(name: str, device: str, words: str) -> None:
    network, space = traced("residual")
    with pytest.raises(InputError, match=words):
        criterion_named(name)(network, space, batches(), device=device)


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - {"random"}))
def test_refuses_a_network_without_weights(name: str) -> None:
    network, space = traced("residual")
    with pytest.raises(InputError, match="has no values yet"):
        criterion_named(name)(copy.deepcopy(network).to("meta"), space, batches(), device="cpu")


@pytest.mark.parametrize(
    "name",
    ["taylor", "taylor-absolute", "taylor-gate", "taylor-activation", "fisher", "snip", "dais",
     "di-output", "hsic"],
)  # fmt: skip
def test_refuses_a_network_of_one_answer(name: str) -> None:
    """Cross-entropy over one class is 0, and so would be every score."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 1),
    ).eval()  # fmt: skip
    space = prunas.trace(network, IMAGE)
    for targets in (torch.zeros(32, dtype=torch.long), torch.rand(32, 1)):
        rows = [(images, targets) for images, _ in batches()]
        with pytest.raises(InputError, match=r"one number, .*; choose reconstruction, or di with"):
            criterion_named(name)(network, space, rows, device="cpu")
    verdict = criterion_named("di")(network, space, rows, device="cpu")
    assert verdict.eliminations[0] is not None
    assert max(verdict.eliminations[0].drops) > 0


@pytest.mark.parametrize(
    "name", ["taylor", "taylor-absolute", "taylor-gate", "taylor-activation", "fisher", "snip",
             "dais"]
)  # fmt: skip
def test_refuses_negative_targets_for_cross_entropy(name: str) -> None:
    network, space = traced("residual")
    rows = [(images, torch.linspace(-1, 1, 160).reshape(32, 5)) for images, _ in batches()]
    with pytest.raises(InputError, match="targets fall to -1, so they are no probabilities"):
        criterion_named(name)(network, space, rows, device="cpu")


@pytest.mark.parametrize("name", [*NEEDS_IMAGES, "dais"])
def test_refuses_a_network_of_two_inputs(name: str) -> None:
    network = Shifted().eval()
    space = prunas.trace(network, example=[torch.zeros(1, *IMAGE), torch.zeros(1, *IMAGE)])
    with pytest.raises(InputError, match=r"Shifted takes 2 inputs \(images, offsets\), and only"):
        criterion_named(name)(network, space, batches(), device="cpu")


@ALL
@pytest.mark.parametrize("count", [1, 2])
def test_a_sample_or_one_class_gives_finite_scores(name: str, count: int) -> None:
    network, space = traced("residual")
    rows = [(torch.randn(count, *IMAGE), torch.zeros(count, dtype=torch.long))]
    verdict = criterion_named(name)(network, space, rows, device="cpu")
    for elimination in verdict.eliminations:
        assert elimination is None or np.isfinite(elimination.drops).all()


@ALL
def test_loaders_of_dictionaries(name: str) -> None:
    network, space = traced("residual")
    pairs = batches()
    named = [{"pixel_values": images, "labels": labels} for images, labels in pairs]
    ends_early = iter(named)
    assert criterion_named(name)(network, space, ends_early, device="cpu") == criterion_named(name)(
        network, space, pairs, device="cpu"
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'magic'; choose one of di, "):
        criterion_named("magic")
