"""What tracing finds: golden groups, reasons, refusals, and the network left as found."""

import copy
import warnings
from collections import UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify
from tests.supernet.networks import IMAGE, Network, Plain, plain_chain

GENES: dict[str, list[tuple[str, int]]] = {
    # the stem's 8 channels and the last block's 8 are one group where a sum ties them
    "Plain": [("0", 8), ("3.0", 12), ("3.3", 8)],
    "Residual": [("0", 8), ("3.body.0", 12)],
    "Concatenated": [("0", 8), ("3.left", 6), ("3.right", 10), ("3.last", 8)],
    # chunk needs equal halves, and those see other layers: two groups of equal size, tied
    "Chunked": [("0", 8), ("3.first", 8), ("3.last", 8), ("3.middle", 8)],
    # 4 of the 12 meet one layer, 6 another one's outputs, 2 nothing else
    "Split": [("0", 8), ("3.first", 4), ("3.first[2]", 6), ("3.first[3]", 2), ("3.last", 8)],
    "Sliced": [("0", 8), ("3.first", 5), ("3.first[2]", 7), ("3.one", 8)],
    # (2 x 6) before and (6 x 2) after the shuffle are both made of 2 x 3 x 2: the 2 groups, with
    # which the last layer's go, and 3 positions
    "Shuffled": [("0", 4), ("3.first", 2), ("3.first[2]", 3), ("3.last", 4)],
    "SqueezeExcite": [("0", 8), ("3.down", 6)],
    # 16 inputs in 4 groups of 4; 12 outputs in the same 4 groups, of 3
    "Grouped": [("0", 8), ("3.0", 4), ("3.0[2]", 4), ("3.1", 3), ("3.3", 8)],
    # 10 depthwise groups, and 2 outputs in each
    "Depthwise": [("0", 8), ("3.0", 10), ("3.1", 2), ("3.3", 8)],
    "PixelShuffled": [("0", 8), ("3.0", 6), ("3.3", 8)],
    "Shared": [("0", 8), ("3.conv", 8), ("3.narrow.0", 12)],
    "Tied": [("0", 8), ("3.one", 10), ("3.last", 8)],
    "Bare": [("0", 8), ("3", 10), ("3.last", 8)],
    "ChannelsLast": [("0", 8), ("3.up", 14)],
    "GroupNormed": [("0", 8), ("3.0", 4), ("3.0[2]", 3), ("3.3", 8)],
    # 3 heads of width 4
    "Attention": [("0", 8), ("3.qkv", 4), ("3.qkv[2]", 3)],
    "Renormed": [("0", 8), ("3.last", 8)],
}


def genes_of(space: SearchSpace) -> list[tuple[str, int]]:
    return [(gene.name, gene.choices[-1]) for gene in space.genes if gene.kind == "width"]


@pytest.mark.parametrize("block", GENES)
def test_the_groups_of_each_kind_of_coupling(block: str) -> None:
    space = trace(Network([block]), IMAGE, grid=EVERY)
    assert genes_of(space) == GENES[block]
    assert space.widths[: len(GENES[block])] == tuple(width for _, width in GENES[block])


@pytest.mark.parametrize("block", ["Plain", "Depthwise", "Attention"])
def test_a_flattened_head_finds_the_same_groups(block: str) -> None:
    assert genes_of(trace(Network([block], flatten=True), IMAGE, grid=EVERY)) == GENES[block]


def test_normalised_genes_are_recorded() -> None:
    space = trace(Network(["GroupNormed", "ChannelsLast"]), IMAGE)
    names = {space.genes[index].name for index in space.normalised}
    # over the 4 channels of each group, and over the channels that the layer norm sees
    assert names == {"3.0", "3.3"}


def test_an_unknown_operator_pins_and_is_named() -> None:
    space = trace(Network(["Renormed"]), IMAGE)
    assert any("aten.renorm" in note and "(1 times)" in note for note in space.notes)
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert "operator aten.renorm has no rule" in reasons["3.first.weight[0]"]
    assert "3.first" not in {gene.name for gene in space.genes}


def test_inputs_and_outputs_are_pinned() -> None:
    space = trace(plain_chain(), IMAGE)
    assert {entry.name for entry in space.pinned} == {"0.weight[1]", "7.weight[0]"}
    reasons = " ".join(entry.reason for entry in space.pinned)
    assert "it is an output of the network" in reasons


class OneAsked(nn.Module):
    """One channel, addressed by its number, decides about all."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.number = slice(number, number + 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        out: Tensor = self.last((y * y[:, self.number].sigmoid()).mean((2, 3)))
        return out


def test_a_channel_that_is_addressed_by_number_is_none_of_the_others() -> None:
    network = OneAsked(0).eval()
    space = trace(network, IMAGE, grid=EVERY)
    assert genes_of(space) == [("body", 7)]
    assert 0 not in space.removed(space.smallest())["body.weight"][0]
    verify(network, space)


def test_a_channel_whose_number_changes_without_the_others_pins_them() -> None:
    with pytest.raises(InputError, match=r"after cutting it, operator aten\.slice gives"):
        trace(OneAsked(2).eval(), IMAGE, grid=EVERY)


def test_what_resists_is_pinned_and_the_rest_is_not() -> None:
    """Padding by fixed amounts cannot follow; the channels that are padded still can go."""
    space = trace(Network(["Padded"]), IMAGE, grid=EVERY)
    assert ("0", 8) in genes_of(space)
    assert any("constant_pad_nd" in entry.reason for entry in space.pinned)


class SizeTwice(nn.Module):
    """Reshapes by an integer of its own that no rule follows: width * 2."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(4, 3)
        self.width = 4

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.one(self.free(x).relu()).reshape(-1, self.width * 2)
        out: Tensor = self.two(pairs.reshape(-1, 2, 4).sum(1))
        return out


def test_a_size_that_does_not_follow_is_blamed_alone() -> None:
    space = trace(SizeTwice(), (4,), grid=EVERY)
    assert ("free", 6) in genes_of(space)
    assert all(width != 8 for _, width in genes_of(space))


def test_keep_leaves_matching_modules_alone() -> None:
    network = Network(["Residual", "Plain"])
    space = trace(network, IMAGE, keep=["3.*", "4.0"])
    kept = {"3", "3.body.0", "4.0"}
    assert not kept & {gene.name for gene in space.genes}
    everything = {gene.name for gene in trace(network, IMAGE).genes}
    assert {gene.name for gene in space.genes} == everything - kept - {"0"}
    assert any("asked to be left alone" in entry.reason for entry in space.pinned)


def test_keep_must_match_something() -> None:
    with pytest.raises(InputError, match=r"keep pattern 'head\.\*' matches no parameter"):
        trace(plain_chain(), IMAGE, keep=["head.*"])


def test_an_example_and_an_input_size_find_the_same() -> None:
    network = plain_chain()
    space = trace(network, IMAGE)
    assert trace(network, example=torch.randn(1, *IMAGE)) == space
    assert trace(network, example=(torch.randn(5, *IMAGE),)).genes == space.genes


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 10), nn.Linear(3, 10)
        self.last = nn.Linear(10, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": self.last(self.one(left) + self.two(right))}


def test_several_inputs_by_name_and_a_dictionary_of_outputs() -> None:
    example = {"left": torch.randn(1, 4), "right": torch.randn(1, 3)}
    space = trace(Keywords(), example=example)
    assert genes_of(space) == [("one", 10)]


def test_tracing_twice_gives_the_same_space() -> None:
    network = Network(["Attention", "Chunked", "Grouped"])
    assert trace(network, IMAGE).to_json() == trace(copy.deepcopy(network), IMAGE).to_json()


def _numpy_state() -> tuple[int, ...]:
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return tuple(state["state"]["key"].tolist())


def test_the_network_is_left_as_found() -> None:
    network = Network(["Residual", "Depthwise"])
    network[3].train()
    network[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    attributes = [dict(module.__dict__) for module in network.modules()]
    generator = torch.random.get_rng_state()
    numpy_state = _numpy_state()
    trace(network, IMAGE)
    assert [module.training for module in network.modules()] == flags
    for module, old in zip(network.modules(), attributes, strict=True):
        assert module.__dict__.keys() == old.keys()
        assert all(vars(module)[name] is value for name, value in old.items())
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not network[0].weight.requires_grad
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert _numpy_state() == numpy_state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_weights_does_not_matter(dtype: torch.dtype) -> None:
    network = Network(["Residual", "GroupNormed"])
    space = trace(network, IMAGE)
    assert trace(copy.deepcopy(network).to(dtype), IMAGE).genes == space.genes


def test_frozen_and_meta_networks_are_traced() -> None:
    network = Network(["Residual", "Attention"])
    space = trace(network, IMAGE)
    assert trace(copy.deepcopy(network).requires_grad_(False), IMAGE).genes == space.genes
    assert trace(copy.deepcopy(network).to("meta"), IMAGE).genes == space.genes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "give either input_size"),
        ({"input_size": IMAGE, "example": torch.zeros(1, *IMAGE)}, "give either input_size"),
        ({"input_size": ()}, "is not a shape of positive lengths"),
        ({"input_size": (3, 0, 8)}, r"input_size \(3, 0, 8\) is not a shape"),
        ({"input_size": (3, 8.5, 8)}, r"input_size \(3, 8.5, 8\) is not a shape"),
        ({"input_size": "3x8x8"}, "input_size '3x8x8' is not a shape"),
        ({"input_size": 224}, "input_size 224 is not a shape"),
        ({"input_size": IMAGE, "genes": None}, "genes are kinds, not None; choose from width"),
        ({"input_size": IMAGE, "keep": (0,)}, "keep pattern 0 is no text"),
        ({"input_size": IMAGE, "keep": 1}, r"keep is a list of patterns, .* not 1"),
        ({"input_size": IMAGE, "resolutions": 16}, r"sides in whole pixels, .* not 16"),
        ({"input_size": IMAGE, "resolutions": ("a",)}, r"sides in whole pixels, .* not \('a',\)"),
        ({"input_size": IMAGE, "resolutions": (7.5,)}, r"sides in whole pixels, .* not \(7\.5,\)"),
        ({"input_size": (4, 8, 8)}, r"does not run on inputs of shape \[\(2, 4, 8, 8\)\]"),
    ],
)
def test_wrong_inputs_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        trace(plain_chain(), **arguments)  # type: ignore[arg-type]


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("no copies")


def test_what_is_no_plain_module_is_refused() -> None:
    chain = plain_chain()
    with pytest.raises(InputError, match=r"wrapped in DataParallel; pass network\.module"):
        trace(nn.DataParallel(chain), IMAGE)
    with pytest.raises(InputError, match=r"must be an nn\.Module, not str"):
        trace("resnet", IMAGE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lazy parameters"):
        trace(nn.Sequential(nn.LazyConv2d(4, 3)), IMAGE)
    with pytest.raises(InputError, match="Uncopyable cannot be copied: no copies"):
        trace(Uncopyable(3, 4), (3,))
    compiled: Any = torch.compile(chain, backend="eager")
    with pytest.raises(InputError, match="the network is compiled"):
        trace(compiled, IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(chain)
    with pytest.raises(InputError, match="scripted network has no Python code"):
        trace(scripted, IMAGE)


def test_a_network_without_anything_to_prune_is_an_error() -> None:
    with pytest.raises(InputError, match=r"nothing in Linear can be pruned: .*output"):
        trace(nn.Linear(4, 3), (4,))
    with pytest.raises(InputError, match="nothing in ReLU can be pruned: it has no parameters"):
        trace(nn.ReLU(), (4,))


def test_a_failing_network_leaves_no_trace() -> None:
    block = Plain(8)
    with pytest.raises(InputError):
        trace(block, IMAGE)
    assert type(vars(block[0])["in_channels"]) is int


class Refused(Exception):  # noqa: N818 - people call theirs as they like
    pass


@pytest.mark.parametrize("kind", [Refused, NameError, ZeroDivisionError, OSError, StopIteration])
def test_whatever_a_forward_raises_is_a_sentence(kind: type[Exception]) -> None:
    def refuse(*_: object) -> None:
        raise kind("not so")

    chain = plain_chain()
    chain[0].register_forward_hook(refuse)
    with pytest.raises(InputError, match=r"does not run on inputs of shape .* \(not so\)"):
        trace(chain, IMAGE)


class WithTrainingHead(nn.Module):
    """A head that only training runs, as googlenet's auxiliary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 12)
        self.head = nn.Linear(12, 3)
        self.extra = nn.Linear(12, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.trunk(x)
        result: torch.Tensor = (
            self.head(x) + self.extra(x).mean() if self.training else self.head(x)
        )
        return result


def test_what_does_not_run_is_pinned_and_said() -> None:
    space = trace(WithTrainingHead(), (6,))
    assert [gene.name for gene in space.genes] == ["trunk"]
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert reasons["extra.weight[0]"].startswith("it is not used when the network runs in eval")


class AskedByAParameter(nn.Module):
    """A learnt question, the same for every image, attends to the positions with three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.question = nn.Parameter(torch.randn(1, 1, 12))
        self.query, self.key, self.value = (nn.Linear(12, 15) for _ in range(3))
        self.out = nn.Linear(15, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(image).flatten(2).transpose(1, 2)
        question = self.question.expand(len(image), -1, -1)
        parts = (self.query(question), self.key(tokens), self.value(tokens))
        heads = [part.reshape(len(image), part.shape[1], 3, -1).transpose(1, 2) for part in parts]
        found = nn.functional.scaled_dot_product_attention(*heads)
        result: torch.Tensor = self.out(found.transpose(1, 2).flatten(2))
        return result[:, 0]


def test_a_question_expanded_over_the_batch_is_batched() -> None:
    network = AskedByAParameter()
    space = trace(network, (3, 16, 16), grid=EVERY)
    verify(network, space)
    cost = Cost(space)
    stem, positions = 12 * 3 * 16 * 16, 16
    linears = 15 * 12 * (1 + 2 * positions) + 15 * 5
    assert cost.macs([space.full()])[0] == stem + linears + 2 * 15 * positions
    assert {tuple(gene.choices)[-1] for gene in space.genes} >= {12, 5}


_ELSEWHERE = torch.zeros(8, 1, 1)


class Elsewhere(nn.Module):
    """Tensors that a forward takes from where no device can be given."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.kind, self.held = kind, {"shift": torch.zeros(8, 1, 1)}

    def forward(self, x: Tensor) -> Tensor:
        tensors = {"global": _ELSEWHERE, "held": self.held["shift"]}
        y = self.body(x) + tensors.get(self.kind, torch.tensor([[[0.0]]] * 8))
        out: Tensor = self.last(y.mean((2, 3)))
        return out


@pytest.mark.parametrize("kind", ["global", "held", "made here"])
def test_a_tensor_on_another_device_is_named_as_such(kind: str) -> None:
    with pytest.raises(InputError, match=r"make it a buffer, or create it on x\.device"):
        trace(Elsewhere(kind).eval(), IMAGE)


class Features:
    def __init__(self, maps: Tensor, scores: Tensor) -> None:
        self.all = [maps, scores]
        self.owner = self


@dataclass
class Maps:
    maps: Tensor


@dataclass(slots=True)
class Slotted:
    maps: Maps
    scores: Tensor


class Answers(dict[str, Tensor]):
    pass


OUTPUTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "an object with a list": Features,
    "a dictionary of its own kind": lambda maps, scores: Answers(maps=maps, scores=scores),
    "what behaves like one": lambda maps, scores: UserDict(maps=maps, scores=scores),
    "nested dataclasses with slots": lambda maps, scores: Slotted(Maps(maps), scores),
    "a set": lambda maps, scores: {maps, scores},
    "a queue": lambda maps, scores: deque([maps, scores]),
    "with a type": lambda maps, scores: {"maps": maps, "scores": scores, "type": maps.dtype},
    "with words": lambda maps, scores: {"maps": maps, "scores": scores, "words": {"a", "b"}},
    "with a length": lambda maps, scores: (maps, scores, scores.shape[1], maps.shape),
    "a distribution": lambda maps, scores: (maps, torch.distributions.Categorical(logits=scores)),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_are_found_wherever_they_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Any:
            maps = self.one(x)
            return OUTPUTS[kind](maps, self.last(self.two(maps).mean((2, 3))))

    network = Telling().eval()
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    space = trace(network, IMAGE, grid=EVERY)
    assert torch.distributions.Distribution._validate_args
    assert genes_of(space) == [("two", 6)]
    cut(network, SearchSpace.from_json(space.to_json()), [3])
    if kind not in ("a set", "a distribution"):  # has no order; checks the values it is given
        verify(network, space)


def test_an_example_is_made_of_tensors() -> None:
    with pytest.raises(InputError, match="the example holds a ndarray; give tensors"):
        trace(nn.Linear(4, 4), example=np.zeros((2, 4), np.float32))
