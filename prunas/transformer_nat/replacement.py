"""What is to be replaced in a network, as data, and the network after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunas.errors import InputError
from prunas.supernet.blocks import Block, leave_out
from prunas.supernet.cut import copied_with
from prunas.transformer_nat.operators import NULL, SKIP, operator
from prunas.transformer_nat.substitutes import renew, substitute


@dataclass(frozen=True)
class Replacement:
    """One module of a network, and what takes its place.

    Attributes:
        path: of the module.
        source: the operator that it is.
        operator: the operator that takes its place: "null" in that of a residual block's branch,
            "skip_connect" in that of a gate or a layer, others in that of a layer.
        alone: the module is called with its input and nothing else.
    """

    path: str
    source: str
    operator: str
    alone: bool = True

    @classmethod
    def from_json(cls, data: Any) -> "Replacement":
        """Read what JSON made of `dataclasses.asdict`.

        Raises:
            InputError: that is no replacement.
        """
        try:
            return cls(str(data["path"]), data["source"], data["operator"], bool(data["alone"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"{data!r} is no replacement of an operator ({error})") from None


def replaced(
    network: nn.Module, replacements: Sequence[Replacement], *, fresh: int | None = None
) -> nn.Module:
    """A copy of the network with these replacements; the names of all other tensors stay.

    Residual blocks, gates and layers that go leave an identity. What takes the place of a layer has
    weights made from those of the layer; see `substitute`.

    Args:
        network: stays as it is.
        replacements: what to replace.
        fresh: seed of random weights for what is new, where the network's own are random.

    Raises:
        InputError: the network has no such module, or the operator cannot take its place.
    """
    result = copied_with(network, {})
    modules = dict(result.named_modules())
    for index, each in enumerate(replacements):
        if each.path not in modules:
            raise InputError(
                f"the network has no module {each.path!r} to replace; the replacements belong to"
                " another network"
            )
        if operator(each.operator).name in (NULL, SKIP):
            leave_out(result, [Block(each.path, each.alone)])
            continue
        layer = modules[each.path]
        new = substitute(layer, each.operator) if isinstance(layer, nn.Conv2d) else None
        if new is None:
            raise InputError(
                f"{each.operator} cannot take the place of {each.path!r}, a"
                f" {type(layer).__name__}; replace it by {SKIP} or leave it"
            )
        new.train(layer.training)
        if fresh is not None:
            renew(new, fresh + index)
        result.set_submodule(each.path, new)
    return result
