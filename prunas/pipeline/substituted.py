"""What stands in the place of layers in a transformed network, as data for its artifact."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from prunas.transformer_nat.substitutes import Substitute

_ARGUMENTS: Final[Mapping[type[nn.Module], tuple[str, ...]]] = MappingProxyType(
    {
        nn.Conv2d: (
            "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
        ),
        nn.AvgPool2d: ("kernel_size", "stride", "padding", "count_include_pad"),
        nn.MaxPool2d: ("kernel_size", "stride", "padding"),
    }
)  # fmt: skip

Row = tuple[str, list[list[Any]]]
"""The path of a substitute, and class and arguments of each layer in it."""


def substituted(network: nn.Module) -> list[Row]:
    """The substitutes in a network."""
    return [
        (path, [_described(layer) for layer in module])
        for path, module in network.named_modules()
        if isinstance(module, Substitute)
    ]


def put_in(network: nn.Module, rows: Sequence[Sequence[Any]]) -> None:
    """Put such substitutes in the place of the modules that are there.

    Raises:
        AttributeError: a module is missing.
        KeyError: a layer is of a class that no substitute has.
    """
    classes = {kind.__name__: kind for kind in _ARGUMENTS}
    for path, layers in rows:
        built = [classes[name](**_tuples(arguments)) for name, arguments in layers]
        network.get_submodule(path)
        network.set_submodule(path, Substitute(*built))


def _described(layer: nn.Module) -> list[Any]:
    arguments = {name: getattr(layer, name) for name in _ARGUMENTS[type(layer)]}
    if isinstance(layer, nn.Conv2d):
        arguments["bias"] = layer.bias is not None
    return [type(layer).__name__, arguments]


def _tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
