"""The paper's networks against the numbers of its released code.

Golden numbers: docs of the released code and of its threads, as listed in our notes on the method;
where they are multiply-accumulates they are those of convolutions and linear layers.
"""

from functools import cache

import numpy as np
import pytest
import timm
import torch
from torch import nn

import prunas
from prunas.pipeline.spaces import space_of
from prunas.pruningnet.forms import lean_net
from prunas.pruningnet.layers import generated_layers
from prunas.pruningnet.perceptrons import size_of_perceptrons
from prunas.pruningnet.published import PUBLISHED
from prunas.pruningnet.width_norms import WidthNorms
from prunas.search import Budget, Feasible
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace

RATIOS = [0.10 + 0.03 * k for k in range(31)]


@cache
def traced(name: str) -> tuple[nn.Module, SearchSpace]:
    with torch.device("meta"):
        network = PUBLISHED[name].network()
    return network, PUBLISHED[name].space(network)


def by_ids(space: SearchSpace, ids: dict[str, int]) -> Candidate:
    """The candidate of the paper's ids: widths are int(base * ratio)."""
    widths = [int(g.choices[-1] * RATIOS[ids[g.name]] + 1e-9) for g in space.genes]
    return space.candidate(widths)


@pytest.mark.parametrize(
    ("name", "genes", "size", "macs", "params"),
    [
        # 13 outputs: of the stem and of twelve blocks; 30 and not 31 widths of 32 channels
        ("mobilenetv1", 13, 30 * 31**12, 568_740_352, 4_231_976),
        # 8 outputs of stages and 17 inner widths; 21 widths of 22 channels
        ("mobilenetv2", 25, 21 * 31**24, 569_521_240, 5_313_198),
        # 4 outputs and 16 inner widths
        ("resnet50", 20, 31**20, 4_089_184_256, 25_557_032),
    ],
)
def test_spaces(name: str, genes: int, size: int, macs: int, params: int) -> None:
    _, space = traced(name)
    cost = prunas.Cost(space)
    assert (len(space.genes), space.size) == (genes, size)
    assert cost.macs([space.full()]) == macs
    assert cost.params([space.full()]) == params


@pytest.mark.parametrize(
    ("name", "millions"), [("mobilenetv1", 106.3), ("mobilenetv2", 242.0), ("resnet50", 776.1)]
)
def test_size_of_the_pruning_net(name: str, millions: float) -> None:
    """Perceptrons of every convolution, the classifier, and the scales of MobileNetV1's norms."""
    network, space = traced(name)
    published = PUBLISHED[name]
    perceptrons = size_of_perceptrons(generated_layers(network, space), published.hidden)
    norms = WidthNorms(network, space, scaled=published.scaled)
    (*_, classifier) = (m for m in network.modules() if isinstance(m, nn.Linear))
    parts = sum(p.numel() for module in (norms, classifier) for p in module.parameters())
    assert round((perceptrons + parts) / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "convolutions"), [("mobilenetv1", 27), ("mobilenetv2", 53)])
def test_every_convolution_and_nothing_else_is_generated(name: str, convolutions: int) -> None:
    network, space = traced(name)
    layers = {layer.name.removesuffix(".weight") for layer in generated_layers(network, space)}
    assert layers == {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    assert len(layers) == convolutions


def test_mobilenetv2_of_the_released_code() -> None:
    _, space = traced("mobilenetv2")
    outputs = (14, 12, 11, 8, 7, 8, 14, 8)
    inner = (6, 5, 2, 15, 7, 17, 14, 5, 11, 12, 12, 11, 6, 16, 14, 13, 14)
    names = ["stem.0", *(f"blocks.{k}.project" for k in (0, 1, 3, 6, 10, 13, 16))]
    ids = dict(zip(names, outputs, strict=True))
    ids |= {f"blocks.{k}.expand": i for k, i in enumerate(inner)}
    macs = prunas.Cost(space).macs([by_ids(space, ids)])[0]
    assert round(macs / 1e6, 1) == 104.9


def test_mobilenetv1_of_the_released_code() -> None:
    """313.2 M in the order of its search; its evaluation shifts the vector by one: 311.7 M."""
    _, space = traced("mobilenetv1")
    vector = [28, 18, 10, 23, 23, 22, 22, 13, 17, 28, 17, 25, 29]
    names = [gene.name for gene in space.genes]
    table = [
        by_ids(space, dict(zip(names, ids, strict=True)))
        for ids in (vector, vector[-1:] + vector[:-1])
    ]
    assert (prunas.Cost(space).macs(table) / 1e6).round(1).tolist() == [313.2, 311.7]


@pytest.mark.parametrize(
    ("vector", "macs", "params"),
    [
        ((19, 9, 15, 13, 10, 9, 10, 6, 9, 13, 11, 12, 7, 18, 7, 13, 12, 10, 19, 18), 1027.6, 10.57),
        (
            (23, 17, 16, 17, 16, 16, 18, 20, 18, 25, 11, 29, 22, 18, 13, 27, 17, 23, 23, 20),
            1989.9,
            15.71,
        ),
    ],
)
def test_resnet50_of_the_released_code(vector: tuple[int, ...], macs: float, params: float) -> None:
    _, space = traced("resnet50")
    outputs = ["conv1", *(f"layer{stage}.0.conv3" for stage in (1, 2, 3))]
    inner = [g.name for g in space.genes if g.name.endswith(".conv1")]
    ids = dict(zip([*outputs, *inner], vector, strict=True))
    cost, candidate = prunas.Cost(space), by_ids(space, ids)
    assert round(cost.macs([candidate])[0] / 1e6, 1) == macs
    assert round(cost.params([candidate])[0] / 1e6, 2) == params


def test_norms_of_every_width() -> None:
    """A batch norm for each width of each of 27 convolutions, 837 ids of which some are equal."""
    network, space = traced("mobilenetv1")
    norms = WidthNorms(network, space, scaled=())
    assert len(norms.of) == 27
    assert len([n for n in norms.state_dict() if n.endswith("running_mean")]) == 805
    assert not list(norms.parameters())


def test_a_tight_budget_is_reached_at_once() -> None:
    """45 M of 570 M, which none of 20,000 uniform candidates meets."""
    _, space = traced("mobilenetv2")
    cost = prunas.Cost(space)
    rng = np.random.default_rng(0)
    assert (cost.macs(space.sample(rng, 20_000)) > 45e6).all()
    drawn = Feasible(space, Budget.parse("macs=45M"), cost).sample(rng, 50)
    assert len(set(drawn)) == 50
    macs = cost.macs(drawn)
    assert ((macs <= 45e6) & (macs >= 0.98 * 45e6)).all()


def test_the_lean_generator_takes_no_more_than_the_network() -> None:
    network = timm.create_model("mobilenetv2_100")
    space = prunas.trace(network, (3, 224, 224))
    source = lean_net(network, space)
    own = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in source.learnt.parameters()) <= 2 * own


@pytest.mark.parametrize("name", ["metapruning_mobilenetv1", "metapruning_mobilenetv2"])
def test_the_networks_are_timm_s_to_make(name: str) -> None:
    network = timm.create_model(name, num_classes=7, in_chans=1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    with pytest.raises(prunas.InputError, match="no pretrained weights of this form"):
        timm.create_model(name, pretrained=True)


def test_the_spaces_go_with_the_names_of_the_networks() -> None:
    for name, published in PUBLISHED.items():
        network, wanted = traced(name)
        found = space_of(published.name, network, (3, 224, 224), genes=("width",))
        assert found == wanted
        other = space_of(published.name, network, (3, 224, 224), grid=EVERY, genes=("width",))
        assert len(other.genes) == len(wanted.genes)
        assert other.size > wanted.size
