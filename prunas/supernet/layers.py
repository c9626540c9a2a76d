"""One small rule per layer type: the sizes a layer states about itself, after its tensors changed.

Most of these integers are never read again by `forward` (those that are, the trace watches); they
are what people print, and what other tools look at, so they must be true.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from prunas.supernet.scoped import evaluating

Rule = Callable[[Any], None]
RULES: Final[dict[type[nn.Module], Rule]] = {}


def layer_rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule for layers of these types and their subclasses."""

    def register(function: Rule) -> Rule:
        for kind in types:
            if kind in RULES:
                raise AssertionError(f"layer {kind.__name__} has two rules")
            RULES[kind] = function
        return function

    return register


def state_sizes(layers: Iterable[nn.Module]) -> None:
    """Make the stated sizes of these layers those of their tensors."""
    for layer in layers:
        for kind in type(layer).__mro__:
            rule = RULES.get(kind)
            if rule is not None:
                rule(layer)
                break


@contextmanager
def stated(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block the stated sizes of these layers are those of their tensors."""
    before = [(layer.__dict__, dict(layer.__dict__)) for layer in layers]
    state_sizes(layers)
    changed = [
        (store, name, value)
        for store, held in before
        for name, value in held.items()
        if store[name] is not value
    ]
    try:
        yield
    finally:
        for store, name, value in changed:
            store[name] = value


def _shape(layer: nn.Module, name: str, rank: int) -> Sequence[int] | None:
    """Of a layer's tensor; None where there is none of that rank.

    Subclasses may lay their weights out in ways of their own: nothing can be told from those.
    """
    computed = layer._modules.get("parametrizations")
    if isinstance(computed, nn.ModuleDict) and name in computed:
        tensor = _computed(computed[name])
    else:
        tensor = getattr(layer, name, None)
    return tensor.shape if isinstance(tensor, Tensor) and tensor.dim() == rank else None


def _computed(parametrization: nn.Module) -> Any:
    """A tensor that is computed from others, such as a weight with spectral norm.

    In training mode reading it would be a step of the power iteration.
    """
    with torch.no_grad(), evaluating(parametrization):
        return parametrization()


@layer_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: Any) -> None:
    shape = _shape(layer, "weight", 2 + len(layer.kernel_size))
    if shape is not None:
        layer.out_channels = shape[0]
        layer.in_channels = shape[1] * layer.groups


@layer_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution(layer: Any) -> None:
    shape = _shape(layer, "weight", 2 + len(layer.kernel_size))
    if shape is not None:
        layer.in_channels = shape[0]
        layer.out_channels = shape[1] * layer.groups


@layer_rule(nn.Linear)
def _linear(layer: Any) -> None:
    shape = _shape(layer, "weight", 2)
    if shape is not None:
        layer.out_features, layer.in_features = shape


@layer_rule(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
def _batch_norm(layer: Any) -> None:
    shape = _shape(layer, "weight", 1) or _shape(layer, "running_mean", 1)
    if shape is not None:
        layer.num_features = shape[0]


@layer_rule(nn.GroupNorm)
def _group_norm(layer: Any) -> None:
    shape = _shape(layer, "weight", 1)
    if shape is not None:
        layer.num_channels = shape[0]


@layer_rule(nn.LayerNorm)
def _layer_norm(layer: Any) -> None:
    shape = _shape(layer, "weight", len(layer.normalized_shape))
    if shape is not None:
        layer.normalized_shape = tuple(shape)


@layer_rule(nn.Embedding)
def _embedding(layer: Any) -> None:
    shape = _shape(layer, "weight", 2)
    if shape is not None:
        layer.num_embeddings, layer.embedding_dim = shape


@layer_rule(nn.MultiheadAttention)
def _attention(layer: Any) -> None:
    shape = _shape(layer.out_proj, "weight", 2)
    if shape is None:
        return
    layer.embed_dim = shape[0]
    layer.head_dim = layer.embed_dim // layer.num_heads
    if layer._qkv_same_embed_dim:
        layer.kdim = layer.vdim = layer.embed_dim


_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@layer_rule(nn.RNNBase)
def _recurrent(layer: Any) -> None:
    shape = _shape(layer, "weight_ih_l0", 2)
    if shape is None:
        return
    layer.hidden_size = shape[0] // _GATES[layer.mode]
    layer.input_size = shape[1]
    projection = _shape(layer, "weight_hr_l0", 2)
    if projection is not None:
        layer.proj_size = projection[0]


@layer_rule(nn.RNNCellBase)
def _recurrent_cell(layer: Any) -> None:
    inner, given = _shape(layer, "weight_hh", 2), _shape(layer, "weight_ih", 2)
    if inner is not None and given is not None:
        layer.hidden_size, layer.input_size = inner[1], given[1]


@layer_rule(nn.PReLU)
def _prelu(layer: Any) -> None:
    shape = _shape(layer, "weight", 1)
    if shape is not None:
        layer.num_parameters = shape[0]
