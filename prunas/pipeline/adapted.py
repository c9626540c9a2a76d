"""A loaded network with other classes or input channels, or as a feature extractor.

timm gives a pretrained network another head, stem or wrapper through the arguments of
`create_model`. Here the parent is built with such arguments, and what the cut network has in
common with it is carried over: its tensors, its sizes, and the strides of its small-image form.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from numbers import Integral
from typing import Any

import torch
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.attributes import differing, restore
from prunas.pipeline.networks import rebuild
from prunas.supernet.blocks import Block, leave_out, left_out_of
from prunas.supernet.layers import state_sizes
from prunas.supernet.tensors import tensors_of


def adapted(small: nn.Module, arguments: Mapping[str, Any]) -> nn.Module:
    """What `timm.create_model(parent, pretrained=True, **arguments)` is to the parent, to `small`.

    Tensors that the arguments do not touch are those of `small`. A classifier for another number
    of classes is new, as wide as the features of `small`. Stems for other input channels are
    converted as timm does: one channel takes the sum of all, more of them repeat what is there,
    scaled by the ratio. Feature extractors report the channels that they give.

    Args:
        small: a cut timm network, as `prunas.load` returns it; not changed.
        arguments: num_classes, in_chans, features_only, out_indices, or any others that leave the
            layers what they are.

    Raises:
        InputError: timm refuses the arguments, or they make a network of other layers.
    """
    for name in {"num_classes", "in_chans"} & arguments.keys():
        least = 1 if name == "in_chans" else 0
        if not isinstance(arguments[name], Integral) or arguments[name] < least:
            raise InputError(f"{name} is a whole number from {least} up, not {arguments[name]!r}")
    origin: Any = small.prunas_origin
    before = rebuild(origin)
    after = rebuild({**origin, **_changes(origin, arguments), "small_images": None})
    names = _Correspondence(before, after)
    gone = left_out_of(before, small)
    if origin["small_images"] is not None:
        _carry_strides(before, after, names)
    image = torch.zeros(1, *_input_size(origin, arguments))
    full = _features(after, image)
    leave_out(after, names.among(after, gone))
    leave_out(before, gone)
    after.prunas_origin = {**origin, **_changes(origin, arguments)}  # type: ignore[assignment]
    _carry_tensors(small, before, after, names)
    _carry_attributes(small, before, after, names)
    _report_channels(after, full, _features(after, image))
    return after.eval()


def _changes(origin: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    size = origin.get("input_size")
    return {
        "arguments": {**origin["arguments"], **arguments},
        "input_size": size and list(_input_size(origin, arguments)),
    }


def _input_size(origin: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    parent: Any = rebuild(origin)
    known: list[int] = origin.get("input_size") or parent.pretrained_cfg["input_size"]
    channels: int = origin["arguments"].get("in_chans", known[0])
    return arguments.get("in_chans", channels), known[1], known[2]


# -- which module is which -------------------------------------------------------------------------


class _Correspondence:
    """Modules and tensors of a network and of a feature extractor made of the same parts.

    timm's extractors hold the parts under the same names, behind "model." or with the first dots
    turned into underscores ("blocks.0" is "blocks_0").
    """

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        self._paths = {_flat(path): path for path, _ in before.named_modules()}
        self._same_root = type(before) is type(after)

    def path(self, name: str) -> str | None:
        """The path, in the network before, of a module of the one after."""
        if name == "":
            return "" if self._same_root else None
        flat = _flat(name)
        found = self._paths.get(flat)
        if found is None and not self._same_root and f"{flat}_".startswith("model_"):
            found = self._paths.get(flat.removeprefix("model").removeprefix("_"))
        return found

    def among(self, after: nn.Module, blocks: Sequence[Block]) -> list[Block]:
        """These blocks of the network before, as the one after calls them."""
        known = {block.path: block for block in blocks}
        pairs = ((name, known.get(self.path(name) or "")) for name, _ in after.named_modules())
        return [Block(name, block.alone) for name, block in pairs if block is not None]

    def tensor(self, name: str) -> str | None:
        """The name, in the network before, of a tensor of the one after."""
        module, _, last = name.rpartition(".")
        path = self.path(module)
        if path is None:
            path = "" if not self._same_root and module == "" else None
        return None if path is None else f"{path}.{last}".removeprefix(".")


def _flat(name: str) -> str:
    return name.replace(".", "_")


# -- what is carried over --------------------------------------------------------------------------


def _carry_strides(before: nn.Module, after: nn.Module, names: _Correspondence) -> None:
    for name, layer in list(after.named_modules()):
        path = names.path(name)
        if not path:
            continue
        known = before.get_submodule(path)
        if isinstance(known, nn.Identity) and not isinstance(layer, nn.Identity):
            after.set_submodule(name, nn.Identity())
        elif next(layer.children(), None) is None:
            for setting in {"stride", "padding"} & known.__dict__.keys():
                layer.__dict__[setting] = known.__dict__[setting]


def _carry_tensors(
    small: nn.Module, before: nn.Module, after: nn.Module, names: _Correspondence
) -> None:
    cut, full = tensors_of(small), tensors_of(before)
    stems = _stems(before)
    exchange: dict[int, torch.Tensor] = {}
    for name, new in tensors_of(after).items():
        source = names.tensor(name)
        if source is None or source not in cut:
            raise InputError(
                f"with these arguments the network has {name}, which the saved one has not;"
                " give arguments that leave its layers what they are, such as num_classes"
            )
        value = _fitted(new.detach(), full[source], cut[source].detach(), source in stems)
        if isinstance(new, nn.Parameter):
            value = nn.Parameter(value, requires_grad=new.requires_grad)
        exchange[id(new)] = value
    for module in after.modules():
        for store in (module._parameters, module._buffers):
            for key, held in store.items():
                if held is not None:
                    store[key] = exchange[id(held)]  # type: ignore[assignment]


def _stems(network: nn.Module) -> set[str]:
    """Names of the weights that see the picture."""
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    first = config.get("first_conv") or ()
    return {f"{name}.weight" for name in ((first,) if isinstance(first, str) else first)}


def _fitted(
    new: torch.Tensor, full: torch.Tensor, cut: torch.Tensor, is_stem: bool
) -> torch.Tensor:
    """`cut` where the arguments change nothing, else a `new` tensor of the width of `cut`."""
    if new.shape == full.shape:
        return cut.clone()
    if new.dim() != full.dim():
        raise InputError("with these arguments the network has layers of another kind")
    if is_stem and new.dim() == 4 and full.shape[1] == cut.shape[1]:
        return _other_channels(cut, new.shape[1])
    for dimension, (wanted, known) in enumerate(zip(new.shape, full.shape, strict=True)):
        if wanted == known:
            new = new.narrow(dimension, 0, cut.shape[dimension])
    return new.clone()


def _other_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """A stem (out, in, height, width) for other input channels, as timm converts it."""
    known = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, ceil(channels / known), 1, 1)[:, :channels]
    return repeated * (known / channels)


def _carry_attributes(
    small: nn.Module, before: nn.Module, after: nn.Module, names: _Correspondence
) -> None:
    """Sizes and the like that the cut changed, except where the arguments did."""
    known = dict(before.named_modules())
    changed: dict[str, list[tuple[str, Any]]] = {}
    for place, attribute, value in differing(before, small):
        changed.setdefault(place, []).append((attribute, value))
    for name, module in after.named_modules():
        path = names.path(name)
        for attribute, value in changed.get(path, ()) if path is not None else ():
            if module.__dict__.get(attribute) == known[path].__dict__.get(attribute):
                restore(after, [(name, attribute, value)])
    state_sizes(after.modules())


# -- feature extractors ----------------------------------------------------------------------------


@torch.no_grad()
def _features(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """What a feature extractor returns; nothing for any other network."""
    if not hasattr(getattr(network, "feature_info", None), "out_indices"):
        return []
    return list(network.eval()(image))


def _report_channels(network: nn.Module, full: list[torch.Tensor], cut: list[torch.Tensor]) -> None:
    """Make the channels that `feature_info` states those that the network gives."""
    if not cut:
        return
    info: Any = network.feature_info
    for index, before, after in zip(info.out_indices, full, cut, strict=True):
        stated = info.info[index]["num_chs"]
        dimension = 1 if before.shape[1] == stated else before.dim() - 1
        info.info[index]["num_chs"] = after.shape[dimension]
