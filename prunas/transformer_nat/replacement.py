"""What is to be replaced in a network, as data, and the network after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from prunas.errors import InputError
from prunas.supernet.blocks import Bypass, lies_in
from prunas.supernet.cut import copied_with
from prunas.transformer_nat.operators import BRANCH, GATE, NULL, SKIP, operator
from prunas.transformer_nat.substitutes import (
    Substitute,
    carried,
    is_hooked,
    renew,
    require_finite,
    substitute,
)

_LEFT_OUT: Final = ((BRANCH, NULL), (GATE, SKIP))


@dataclass(frozen=True)
class Replacement:
    """One module of a network, and what takes its place.

    Attributes:
        path: of the module.
        source: the operator that it is.
        operator: the operator that takes its place: "null" in that of a residual block's branch,
            "skip_connect" in that of a gate or a layer, others in that of a layer.
        alone: the module is called with its input and nothing else.

    Raises:
        InputError: one of the first three is no text, or empty.
    """

    path: str
    source: str
    operator: str
    alone: bool = True

    def __post_init__(self) -> None:
        for name in ("path", "source", "operator"):
            value: Any = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InputError(
                    f"the {name} of a replacement is {value!r}; give the {_WANTED[name]}"
                )

    @classmethod
    def from_json(cls, data: Any) -> "Replacement":
        """Read what JSON made of `dataclasses.asdict`.

        Raises:
            InputError: that is no replacement.
        """
        try:
            return cls(data["path"], data["source"], data["operator"], bool(data["alone"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"{data!r} is no replacement of an operator ({error})") from None


_WANTED: Final[Mapping[str, str]] = {
    "path": "path of a module inside the network, such as 'layer1.0.conv1'",
    "source": "name of the operator that is there, such as 'conv_3x3'",
    "operator": "name of the operator that takes its place, such as 'conv_1x1'",
}


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
        InputError: the network has no such module, or no longer, since what is around it was
            replaced; it is another operator; it has hooks, or weights that are not finite; or the
            operator cannot take its place.
    """
    result = copied_with(network, {})
    for index, each in enumerate(replacements):
        new = _in_place_of(_module(result, each), each)
        if fresh is not None:
            renew(new, fresh + index)
        result.set_submodule(each.path, new)
    return result


def _module(network: nn.Module, each: Replacement) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if each.path not in modules:
        raise InputError(
            f"the network has no module {each.path!r} to replace; the replacements belong to"
            " another network, or another one of them took it away"
        )
    if lies_in(each.path, {p for p, m in modules.items() if isinstance(m, Substitute)}):
        raise InputError(
            f"{each.path!r} is, or is part of, what was put in the place of a layer; replace that"
            " layer in the network as it was"
        )
    return modules[each.path]


def _in_place_of(module: nn.Module, each: Replacement) -> nn.Module:
    if (each.source, operator(each.operator).name) in _LEFT_OUT and type(module) is not nn.Conv2d:
        return nn.Identity() if each.alone else Bypass()
    if not isinstance(module, nn.Conv2d):
        raise _misplaced(module, each)
    if each.source != (found := carried(module)):
        raise InputError(
            f"{each.path!r} is no {each.source} but a {found}; the replacements belong to another"
            " network"
        )
    if is_hooked(module):
        raise InputError(
            f"{each.path!r} has hooks, which would be lost with it; remove them, or leave the layer"
        )
    require_finite(module, each.path)
    new = substitute(module, each.operator)
    if new is None:
        raise _misplaced(module, each)
    return new.train(module.training)


def _misplaced(module: nn.Module, each: Replacement) -> InputError:
    return InputError(
        f"{each.operator} cannot take the place of {each.path!r}, a {type(module).__name__};"
        " replace it by what traced_transformations offers, or leave it"
    )
