"""Networks by name: timm's, in the form that fits the picture, and able to be built again."""

import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.data import Data
from prunas.pipeline.seeding import seeded
from prunas.pipeline.small_images import (
    Size,
    check_runs,
    keep_reduction,
    positions,
    smallest_map,
    wanted_reduction,
)
from prunas.pipeline.weights import load_weights
from prunas.supernet.skeleton import FORWARD_ERRORS

Origin = dict[str, Any]

_BUILD_ERRORS = (*FORWARD_ERRORS, OSError)
_LARGEST_SIZE = 10**6  # classes, channels, sides of pictures
_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
_DEPTHS = ("layers", "depth", "blocks")
_MOST_BLOCKS = 500  # the deepest networks of timm have fewer than 150
_NOT_OF_LAYERS = frozenset(
    ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)


def create_network(
    name: str,
    *,
    classes: int,
    input_size: Size,
    pretrained: bool = False,
    weights: str | Path | None = None,
    small_images: Literal["auto", "never"] = "auto",
    seed: int = 0,
) -> nn.Module:
    """Create a timm network for pictures of `input_size` (channels, height, width).

    The network gets one plain attribute, `prunas_origin`, a JSON-able dict from which `rebuild`
    makes the same structure again:

        {"kind": "timm", "name": str, "arguments": {...}, "input_size": [C, H, W],
         "small_images": {"stride_kept": int | None, "sentence": str} | None,
         "weights": str | None}

    `weights` there says what given weights left random, and `stride_kept` is None where the form
    is in the arguments (the patch size of a vision transformer). A network of the hub
    ("hf-hub:...") or of a folder ("local-dir:...") is named there by its architecture and arguments
    in timm.

    Args:
        pretrained: download timm's pretrained weights.
        weights: a file to load, see `weights.load_weights`.
        small_images: "auto" keeps resolution for small pictures (see `small_images`).
        seed: of the initial weights; torch's global generator is left as found.

    Raises:
        InputError: unknown name, weights that do not fit, or a picture the network refuses.
    """
    architecture, given = _known_as(name)
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": input_size[0]}
    form = None
    if _has_fixed_size(name, input_size):
        fixed, form = _fixed_size_arguments(name, arguments, input_size, small_images == "auto")
        arguments |= fixed
    network = _built(name, arguments, seed, pretrained=pretrained)
    if small_images == "auto" and (wanted := wanted_reduction(network, input_size)) is not None:
        sentence = keep_reduction(network, input_size, wanted)
        sentences = [form["sentence"], sentence] if form else [sentence]
        form = {"stride_kept": wanted, "sentence": " ".join(sentences)}
    check_runs(network, input_size)
    network.prunas_origin = {  # type: ignore[assignment]
        "kind": "timm",
        "name": architecture,
        "arguments": {**given, **arguments},
        "input_size": list(input_size),
        "small_images": form,
        "weights": _left_random(network, name, classes, pretrained, weights),
    }
    return network


def _left_random(
    network: nn.Module, name: str, classes: int, pretrained: bool, weights: str | Path | None
) -> str | None:
    """Load the file, if there is one; what of a network with given weights stays random."""
    if weights is not None:
        return load_weights(network, weights)
    config = timm.get_pretrained_cfg(name) if pretrained and timm.is_model(name) else None
    if config is None or config.num_classes == classes:
        return None
    return (
        f"Timm's classifier is for {config.num_classes} classes, not {classes}; the new one has"
        " random weights."
    )


def untrained(network: nn.Module, *, given: bool) -> str | None:
    """What of a network of `create_network` has random weights, in a sentence.

    Args:
        given: there are weights that it was made with.
    """
    if not given:
        return "The network has random weights; give --pretrained or --weights."
    origin: Any = network.prunas_origin
    note: str | None = origin["weights"]
    return note


def network_for(
    data: Data | None,
    model: str,
    side: int | None,
    classes: int | None,
    pretrained: bool,
    weights: str | None,
    *,
    device: torch.device,
) -> tuple[nn.Module, Size]:
    """A network with the weights asked for, on the device, and the size of its images.

    Args:
        data: what it sees, at this side; None for images and classes of its own.
        model: name of a timm network.
        side: of images; None for that of the data, or of the network.
        classes: how many; None for those of the data, or of the network.
        pretrained: as in `create_network`, and so is `weights`.
        device: where it goes.

    Raises:
        InputError: it cannot be made.
    """
    if pretrained and weights is not None:
        raise InputError(f"give either pretrained weights or the weights file {weights}, not both")
    size, count = pictures_of(model, data, None if side is None else str(side), classes)
    network = create_network(
        model, classes=count, input_size=size, pretrained=pretrained, weights=weights
    )
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, size


def pictures_of(
    model: str, data: Data | None, text: str | None, classes: int | None
) -> tuple[Size, int]:
    """The image size and the number of classes of a network for these data, or of its own.

    Args:
        model: name of a timm network.
        data: what it sees; None for images of its own.
        text: "224", "1,28,28" or "3x224x224"; None for the size of the data, or of the network.
        classes: how many; those of the data, if there are data.

    Raises:
        InputError: the size is not understood, or the data have another number of classes.
    """
    if data is not None:
        count = len(data.classes)
        if classes not in (None, count):
            raise InputError(f"{data.name} has {count} classes, not {classes}; leave out --classes")
        return _size(text, data.input_size), count
    _known_as(model)  # refused here if it is not
    config: Any = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    own_size: Size = tuple(config.input_size) if config else (3, 224, 224)
    own_classes = config.num_classes if config else 0
    return _size(text, own_size), classes or own_classes or 1000


def _size(text: str | None, own: Size) -> Size:
    """None is `own`, a single side takes its channels."""
    if text is None:
        return own
    parts = text.replace("x", ",").split(",")
    numbers = all(part.strip().isdecimal() and int(part) for part in parts)
    if not numbers or len(parts) not in (1, 3):
        raise InputError(f"input size {text!r} is not understood; write 224 or 3,224,224")
    sides = [int(part) for part in parts]
    return (own[0], sides[0], sides[0]) if len(sides) == 1 else (sides[0], sides[1], sides[2])


def rebuild(origin: Mapping[str, Any]) -> nn.Module:
    """Build the structure that `prunas_origin` describes; its weights are to be loaded.

    Raises:
        InputError: the origin is of another kind, or names a network that timm no longer has, or
            would have to fetch.
    """
    if origin.get("kind") != "timm":
        raise InputError(
            f"a network of origin {origin.get('kind')!r} cannot be rebuilt; use 'timm'"
        )
    _require_own(origin["name"])
    _check_arguments(origin["arguments"])
    network = _built(origin["name"], origin["arguments"], seed=0, pretrained=False)
    form = origin["small_images"]
    if form is not None and form["stride_kept"] is not None:
        channels, height, width = origin["input_size"]
        keep_reduction(network, (channels, height, width), form["stride_kept"])
    network.prunas_origin = dict(origin)  # type: ignore[assignment]
    return network


def _known_as(name: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments in timm of what a user names.

    Raises:
        InputError: there is no such network.
    """
    if not name.startswith(_ELSEWHERE):
        _require_own(name)
        return name, {}
    source, _, place = name.partition(":")
    read = load_model_config_from_path if source == "local-dir" else load_model_config_from_hf
    try:
        _, architecture, arguments = read(place)
    except _BUILD_ERRORS as error:
        raise InputError(f"timm finds no network at {name!r}: {_first_line(error)}") from None
    return architecture, dict(arguments or {})


def _require_own(name: str) -> None:
    """Refuse what timm would have to look for elsewhere, or has not."""
    if name.startswith(_ELSEWHERE):
        raise InputError(
            f"a saved network is not looked for at {name!r}; make it yourself and pass it:"
            " prunas.load(folder, network=...)"
        )
    if not timm.is_model(name):
        raise InputError(f"timm has no network {name!r}; {_advice(name, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # it has no weights of this tag
        architecture, _, tag = name.partition(".")
        tagged = timm.list_pretrained(f"{architecture}.*")
        advice = _advice(name, tagged) if tagged else f"leave out .{tag}"
        raise InputError(f"timm has no network {name!r}; {advice}") from None


def _advice(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names them all"


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what would load a file, or take all memory or time: they come out of an artifact."""
    for name, value in arguments.items():
        sizes = list(_numbers(value))
        large = any(size > _LARGEST_SIZE for size in sizes)
        deep = any(word in name for word in _DEPTHS) and sum(sizes) > _MOST_BLOCKS
        if large or deep or name in _NOT_OF_LAYERS:
            shown = repr(value)[:40]
            raise InputError(f"a saved network cannot have been built with {name}={shown}")


def _numbers(value: object) -> Iterator[float]:
    """All that are in a value of JSON."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))


def _built(name: str, arguments: Mapping[str, Any], seed: int, *, pretrained: bool) -> nn.Module:
    try:
        with seeded(seed):
            network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except _BUILD_ERRORS as error:
        wanted = "with its pretrained weights" if pretrained else f"with {dict(arguments)}"
        raise InputError(f"timm cannot create {name} {wanted}: {_first_line(error)}") from None
    return network


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# --- networks of one picture size (vision transformers, mixers ...) ---------------------------


def _has_fixed_size(name: str, input_size: Size) -> bool:
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return bool(
        config and config.fixed_input_size and tuple(config.input_size[1:]) != input_size[1:]
    )


def _fixed_size_arguments(
    name: str, arguments: Mapping[str, Any], input_size: Size, smaller_patches: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The (arguments, small-image form) to build the network for this size, by trying.

    Of timm's own patch size and its halves, the first that leaves a map large enough.
    """
    size: dict[str, Any] = {"img_size": list(input_size[1:])}
    own = _patch_size(name)
    halves = [own // 2**i for i in range(1, own.bit_length())] if smaller_patches else []
    choices = [size] if own <= min(input_size[1:]) else []
    choices += [{**size, "patch_size": patch} for patch in halves if patch <= min(input_size[1:])]
    fit = list(_that_run(name, arguments, choices, input_size))
    if not fit:
        raise InputError(
            f"{name} is made for one picture size and cannot be built for"
            f" {input_size[1]} x {input_size[2]}; choose another network or input size"
        )
    enough = (choice for choice, count in fit if count >= smallest_map(input_size) ** 2)
    chosen = next(enough, fit[-1][0])
    if "patch_size" not in chosen:
        return chosen, None
    sentence = (
        f"For pictures of {input_size[1]} x {input_size[2]}, patches were made"
        f" {chosen['patch_size']} x {chosen['patch_size']} instead of {own} x {own}."
    )
    return chosen, {"stride_kept": None, "sentence": sentence}


def _patch_size(name: str) -> int:
    """The width of timm's own patches, 1 for a network without them."""
    with torch.device("meta"):
        network = timm.create_model(name)
    size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    return max(size) if isinstance(size, tuple) else size or 1


def _that_run(
    name: str,
    arguments: Mapping[str, Any],
    choices: list[dict[str, Any]],
    input_size: Size,
) -> Iterator[tuple[dict[str, Any], int]]:
    """The choices whose network takes the picture, with the positions of its last map."""
    for choice in choices:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a trial may make empty tensors
                network = timm.create_model(name, **arguments, **choice)
            yield choice, positions(network, input_size)
        except _BUILD_ERRORS:
            continue
