"""One small rule per layer type: the sizes a layer states about itself, after its tensors changed.

Most of these integers are never read again by `forward` (those that are, the trace watches); they
are what people print, and what other tools look at, so they must be true.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from torch import nn

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


@layer_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: Any) -> None:
    layer.out_channels = layer.weight.shape[0]
    layer.in_channels = layer.weight.shape[1] * layer.groups


@layer_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution(layer: Any) -> None:
    layer.in_channels = layer.weight.shape[0]
    layer.out_channels = layer.weight.shape[1] * layer.groups


@layer_rule(nn.Linear)
def _linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


@layer_rule(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
def _batch_norm(layer: Any) -> None:
    held = [t for t in (layer.weight, layer.running_mean) if t is not None]
    if held:
        layer.num_features = held[0].shape[0]


@layer_rule(nn.GroupNorm)
def _group_norm(layer: Any) -> None:
    if layer.weight is not None:
        layer.num_channels = layer.weight.shape[0]


@layer_rule(nn.LayerNorm)
def _layer_norm(layer: Any) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


@layer_rule(nn.Embedding)
def _embedding(layer: Any) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


@layer_rule(nn.MultiheadAttention)
def _attention(layer: Any) -> None:
    layer.embed_dim = layer.out_proj.weight.shape[0]
    layer.head_dim = layer.embed_dim // layer.num_heads
    if layer._qkv_same_embed_dim:
        layer.kdim = layer.vdim = layer.embed_dim


@layer_rule(nn.RNNBase)
def _recurrent(layer: Any) -> None:
    layer.hidden_size = layer.weight_hh_l0.shape[1]
    layer.input_size = layer.weight_ih_l0.shape[1]


@layer_rule(nn.PReLU)
def _prelu(layer: Any) -> None:
    layer.num_parameters = layer.weight.shape[0]
