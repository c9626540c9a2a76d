"""What generators make, against their equations written out."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunas
from prunas.pruningnet import forms
from prunas.pruningnet.forms import lean_net, published_net
from prunas.pruningnet.generator import key
from prunas.pruningnet.layers import generated_layers, vectors_beside
from prunas.pruningnet.perceptrons import Perceptrons, size_of_perceptrons
from prunas.pruningnet.pruning_net import PruningNet
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY, WidthGrid
from prunas.supernet.space import SearchSpace
from tests.pruningnet.sources import stirred
from tests.supernet.networks import IMAGE, Network, plain_chain


def chain() -> tuple[nn.Module, SearchSpace]:
    network = plain_chain().eval()
    return network, prunas.trace(network, IMAGE, grid=EVERY)


def part(source: PruningNet, name: str) -> dict[str, Tensor]:
    """The parameters behind one tensor."""
    held = source.generator.of[key(name)].named_parameters()  # type: ignore[attr-defined]
    return {inner: parameter.detach() for inner, parameter in held}


def test_a_perceptron_makes_a_weight_entry_by_entry() -> None:
    network, space = chain()
    source = stirred(published_net(network, space, hidden=3, start="random"))
    assert isinstance(source, PruningNet)
    made = source.weights([5, 11])["3.weight"].detach()
    p = part(source, "3.weight")
    ratios = [5 / 8, 11 / 16]
    units = [
        max(0.0, sum(float(p["first"][h, g]) * ratios[g] for g in (0, 1)) + float(p["shift"][h]))
        for h in range(3)
    ]
    assert made.shape == (11, 5, 3, 3)
    for place in ((0, 0, 0, 0), (10, 4, 2, 1), (3, 2, 1, 0)):
        wanted = sum(float(p["second"][(*place, h)]) * units[h] for h in range(3))
        assert float(made[place]) == pytest.approx(wanted + float(p["start"][place]), rel=1e-5)


def test_a_low_rank_change_entry_by_entry() -> None:
    network, space = chain()
    source = stirred(lean_net(network, space, rank=2, hidden=3))
    assert isinstance(source, PruningNet)
    made = source.weights([5, 11])["3.weight"].detach()
    p = part(source, "3.weight")
    ratios = [5 / 8, 11 / 16]
    units = [
        max(
            0.0,
            sum(float(p["map.first"][h, g]) * ratios[g] for g in (0, 1)) + float(p["map.shift"][h]),
        )
        for h in range(3)
    ]
    amounts = [sum(float(p["second"][i, h]) * units[h] for h in range(3)) for i in range(2)]
    own = dict(network.named_parameters())["3.weight"].detach()
    for o, c, x, y in ((0, 0, 0, 0), (10, 4, 2, 1), (3, 2, 1, 0)):
        change = sum(
            amounts[i] * float(p["left"][o, i]) * float(p["right"][i, c, x, y]) for i in range(2)
        )
        assert float(made[o, c, x, y]) == pytest.approx(float(own[o, c, x, y]) + change, rel=1e-4)


def test_patterns_of_any_layer_start_with_a_norm_of_about_one() -> None:
    """Else one rate of learning would suit small layers or large ones, not both."""
    for width in (32, 256):
        network = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 8, 3))
        source = lean_net(network, prunas.trace(network, IMAGE))
        assert isinstance(source, PruningNet)
        for name in ("0.weight", "1.weight"):
            p = part(source, name)
            norms = p["left"].norm(dim=0) * p["right"].flatten(1).norm(dim=1)
            assert 0.5 < float(norms.min()) <= float(norms.max()) < 2


def test_a_vector_is_shifted_channel_by_channel() -> None:
    network, space = chain()
    source = stirred(lean_net(network, space, hidden=3))
    assert isinstance(source, PruningNet)
    made = source.weights([5, 11])["1.weight"].detach()
    p = part(source, "1.weight")
    seen = vectors_beside(space, generated_layers(network, space))["1.weight"]
    ratios = [[5 / 8, 11 / 16][g] for g in seen]
    units = torch.relu(p["map.first"] @ torch.tensor(ratios) + p["map.shift"])
    own = dict(network.named_parameters())["1.weight"].detach()
    for channel in range(5):
        wanted = float(own[channel] + p["second"][channel] @ units)
        assert float(made[channel]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("form", [lean_net, published_net])
def test_training_starts_from_the_network_s_own_weights(form: object) -> None:
    network = Network(["Residual", "Grouped"], seed=2)
    space = prunas.trace(network, IMAGE, grid=EVERY)
    source, plain = form(network, space), Supernet(network, space)  # type: ignore[operator]
    image = torch.randn(2, *IMAGE)
    for candidate in space.sample(np.random.default_rng(1), 4):
        with source.frozen(candidate) as path:
            found = path(image)
        with plain.frozen(candidate) as path:
            torch.testing.assert_close(path(image), found)


def test_what_a_layer_sees() -> None:
    """Its own widths and those of its neighbours, in a chain of three convolutions."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 9, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 5),
    )  # fmt: skip
    space = prunas.trace(network, (3, 12, 12))
    seen = {layer.name: layer.genes for layer in generated_layers(network, space)}
    assert seen == {
        "0.weight": (0, 1),
        "1.weight": (0, 1, 2),
        "2.weight": (0, 1, 2, 3),
        "3.weight": (1, 2, 3),
    }


def test_the_classifier_is_not_generated() -> None:
    network, space = chain()
    assert [layer.name for layer in generated_layers(network, space)] == ["0.weight", "3.weight"]


@pytest.mark.parametrize("hidden", [3, 32, 64])
def test_size_is_known_before_anything_is_made(hidden: int) -> None:
    network = Network(["Grouped", "Attention", "Depthwise"], seed=0)
    space = prunas.trace(network, IMAGE)
    layers = generated_layers(network, space)
    weights = dict(network.named_parameters())
    made = Perceptrons(layers, weights, hidden=hidden, rng=torch.Generator())
    assert sum(p.numel() for p in made.parameters()) == size_of_perceptrons(layers, hidden)


def test_too_large_a_generator_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network, space = chain()
    numbers = size_of_perceptrons(generated_layers(network, space), 32)
    monkeypatch.setattr(forms, "_free", lambda device: 12 * numbers - 1)
    monkeypatch.setattr(forms, "Perceptrons", lambda *a, **k: pytest.fail("made all the same"))
    with pytest.raises(prunas.InputError, match=r"2 layers hold 0\.0 M numbers.*use the\s+lean"):
        published_net(network, space)


def test_free_memory_is_what_the_machine_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    file = tmp_path / "meminfo"  # type: ignore[operator]
    file.write_text("MemTotal:  100 kB\nMemAvailable:   7 kB\n")
    monkeypatch.setattr(forms, "_MEMORY", file)
    assert forms._free(torch.device("cpu")) == 7 * 1024
    file.write_text("MemTotal:  100 kB\n")
    assert forms._free(torch.device("cpu")) is None
    file.unlink()
    assert forms._free(torch.device("cpu")) is None
    assert forms._free(torch.device("meta")) is None


def test_a_network_without_such_layers_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.randn(s)) for s in ((6, 9), (9, 5)))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.one).relu() @ self.two

    network = Bare()
    space = prunas.trace(network, (6,), grid=EVERY)
    with pytest.raises(prunas.InputError, match="no weight to generate; search it with"):
        lean_net(network, space)


def counted(source: PruningNet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    make = source.generator.made

    def made(name: str, *rest: object) -> Tensor:
        calls.append(name)
        return make(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(source.generator, "made", made)
    return calls


def test_weights_are_made_once_for_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    network, space = chain()
    source = lean_net(network, space)
    calls = counted(source, monkeypatch)
    with source.frozen([5, 11]) as path:
        for _ in range(7):
            path(torch.zeros(2, *IMAGE))
    assert sorted(calls) == sorted(source.generator.names)


def test_blocks_that_are_left_out_are_not_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(["Residual", "Residual"], seed=0)
    space = prunas.trace(network, IMAGE, grid=EVERY)
    source = lean_net(network, space)
    calls = counted(source, monkeypatch)
    gene, block = next(iter(space.blocks.items()))
    candidate = list(space.full())
    candidate[gene] = 0
    with source.running(candidate) as path:
        path(torch.zeros(2, *IMAGE))
    assert calls
    assert not any(block.holds(name) for name in calls)


@pytest.mark.parametrize("form", [lean_net, published_net])
def test_small_memory_computes_the_same_gradients(
    form: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(["Depthwise", "Attention", "Shared", "Tied"], seed=3)
    space = prunas.trace(network, IMAGE, grid=EVERY)
    image, gradients = torch.randn(2, *IMAGE), []
    candidate = space.sample(np.random.default_rng(1), 1)[0]
    for small in (False, True):
        source = stirred(form(network, space, small_memory=small))  # type: ignore[operator]
        assert isinstance(source, PruningNet)
        calls = counted(source, monkeypatch)
        for parameter in source.learnt.parameters():
            parameter.grad = None
        with source.running(candidate) as path:
            path(image).square().sum().backward()
        gradients.append({n: p.grad for n, p in source.learnt.named_parameters()})
        twice = [n for n in set(calls) if calls.count(n) > 1]
        assert bool(twice) == small  # made again for the gradient
        network = Network(["Depthwise", "Attention", "Shared", "Tied"], seed=3)
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-5)


def test_norms_of_a_width_remember_that_width_only() -> None:
    network = Network(["Residual"], seed=0)
    space = prunas.trace(network, IMAGE, grid=WidthGrid((0.5, 1.0)), genes=("width",))
    source = published_net(network, space, width_norms=())
    assert source.norms is not None
    network.train()
    before = {n: t.clone() for n, t in source.norms.state_dict().items()}
    with source.running(space.smallest()) as path:
        path(torch.randn(8, *IMAGE))
    after = source.norms.state_dict()
    changed = {n for n, t in after.items() if not torch.equal(t, before[n])}
    assert changed
    full = {f"{key(path)}.{width}." for path, width in source.norms.full.items()}
    assert not any(name.removeprefix("of.").startswith(tuple(full)) for name in changed)
    assert all(t == 0 or t == 1 for n, t in after.items() if n.endswith("tracked"))
