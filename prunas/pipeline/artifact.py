"""The artifact: a network as arch.json and weights.safetensors, without pickle.

arch.json says where the network's class comes from, which alternatives of the parent were chosen,
which blocks it does without, what stands in the place of layers and which plain attributes of its
modules differ from the parent's (all of them, if the parent is not timm's, and then also of which
classes and functions it is made); the tensors carry their own shapes. Loading builds the parent,
gives it these attributes and tensors, and returns a plain module: no search code is involved.
Checksums say whether both files are what was written. An artifact decides nothing that is imported
or called: a class that is not timm's is built if the program has imported it already.
"""

import copy
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.adapted import adapted
from prunas.pipeline.attributes import (
    differing,
    loose_tensors,
    made_of,
    plain_attributes,
    require_made_of,
    restore,
    unlike,
)
from prunas.pipeline.files import (
    aside_of,
    in_place,
    linked,
    replace_folder,
    require_elsewhere,
    require_text,
    writing,
)
from prunas.pipeline.networks import rebuild
from prunas.pipeline.sealed import read_sealed, write_sealed
from prunas.pipeline.substituted import Row, put_in, substituted
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.pipeline.weightless import weightless
from prunas.supernet.blocks import Block, identities, leave_out, left_out_of
from prunas.supernet.choice import settle, settled
from prunas.supernet.layers import state_sizes
from prunas.supernet.tensors import require_values, tensors_of

FORMAT: Final = 3
_ARCH, _WEIGHTS = "arch.json", "weights.safetensors"


def save(network: nn.Module, folder: str | Path) -> Path:
    """Write `network` as an artifact: `folder`/arch.json and `folder`/weights.safetensors.

    The artifact is written aside, read back, compared, and only then put in place; an artifact
    that was there before is replaced. Of a link, what it names is.

    Args:
        network: a network cut by `prunas.cut`, or any other. timm networks are known by the name
            in their `pretrained_cfg`. Of one that neither its name in timm (with its classes and
            its image size) nor its class without arguments builds again, `load` must be given the
            parent.
        folder: where; made if missing.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, the network has no values yet, or it cannot
            be rebuilt from what an artifact can say (the message says why).
        RunError: the folder cannot be written.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"a network must be an nn.Module, not {type(network).__name__}")
    require_values(network)
    folder = _place(folder)
    require_replaceable(folder)
    origin = _origin(network)
    parent = _parent(origin)
    if parent is not None:
        settle(parent, settled(network))
        put_in(parent, _placed(parent, substituted(network)))
        gone = left_out_of(parent, network)
        leave_out(parent, gone)
        kept = list(differing(parent, network))
    if parent is None or unlike(parent, network):  # whoever loads it has to give one
        origin, parent = {"kind": "given"}, copy.deepcopy(network)
    if origin["kind"] != "timm":  # the parent may be built with other arguments then
        gone, kept = identities(network), list(plain_attributes(network))
    arch = {
        "format": FORMAT,
        "class": _class_name(network),
        "origin": origin,
        "chosen": settled(network),
        "left_out": [[block.path, block.alone] for block in gone],
        "attributes": kept,
        **({"substituted": rows} if (rows := substituted(network)) else {}),
        **({"loose": loose} if (loose := [*map(list, loose_tensors(network))]) else {}),
        **({"made_of": made_of(network)} if origin["kind"] != "timm" else {}),
    }
    place = linked(folder)
    aside = aside_of(place)
    try:
        with writing(folder):
            aside.mkdir(parents=True)
        digest = write_tensors(aside / _WEIGHTS, _stored(network), {})
        write_sealed(aside / _ARCH, {**arch, "weights": digest})
        _compare(network, load(aside, parent))
        replace_folder(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def require_replaceable(folder: Path) -> None:
    """Refuse the place of an artifact where something else would be lost.

    Raises:
        InputError: there is a file, or a folder that holds anything besides an artifact or that
            this process works in, or the name is no text.
    """
    require_text(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder; give another one")
    require_elsewhere(folder)
    others = _others(folder)
    if others:
        raise InputError(
            f"{folder} holds something else than an artifact, {others[0]}; move it away, or give"
            " another folder"
        )


def load(folder: str | Path, network: nn.Module | None = None, **arguments: Any) -> nn.Module:
    """The network that `save` wrote, as a plain module in eval mode, on the CPU.

    Args:
        folder: the artifact.
        network: the parent, built with the arguments it once had, where it cannot be built
            without them; it is changed into the saved network and returned.
        arguments: of `timm.create_model`, for timm networks: num_classes (a new classifier),
            in_chans (a converted stem), features_only and out_indices (the feature extractor that
            timm makes of the parent), and what else leaves the layers what they are.

    Raises:
        InputError: the folder is no artifact, is damaged, of another version, or its parent
            cannot be built, or does not fit, or does not take the arguments.
    """
    folder = in_place(_place(folder))
    arch = _read_arch(folder)
    if arguments:
        if arch["origin"]["kind"] != "timm" or network is not None:
            raise InputError(
                f"{', '.join(arguments)} can be given for timm networks alone, and {folder} holds a"
                f" {arch['class']}; build it as you want it and pass it as network"
            )
        return adapted(load(folder), arguments)
    tensors, _ = read_tensors(
        folder / _WEIGHTS, advice="save the network again", digest=arch.get("weights")
    )
    parent = network if network is not None else _parent(arch["origin"])
    if parent is None:
        raise InputError(
            f"{folder} holds a {arch['class']}, which cannot be built without its arguments"
            f"{_unless_imported(arch['origin'])}; pass one: prunas.load(folder,"
            " network=TheClass(...))"
        )
    try:
        settle(parent, arch.get("chosen", {}))
        put_in(parent, arch.get("substituted", ()))
        leave_out(parent, [Block(path, alone) for path, alone in arch["left_out"]])
        require_made_of(parent, arch.get("made_of") or made_of(parent))
        rows = arch.get("loose") or ()
        loose = [(path, name, tensors.pop(f"{path}.{name}")) for path, name in rows]
        _fit(parent, tensors, folder)
        restore(parent, [*arch["attributes"], *loose])
        state_sizes(parent.modules())
    except InputError:
        raise
    except _MISFITS as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder} does not fit {type(parent).__name__}: {reason}") from None
    return parent.eval()


def _place(folder: object) -> Path:
    if not isinstance(folder, str | Path) or not str(folder) or "\0" in str(folder):
        raise InputError(f"{folder!r} is no folder; give the name of one")
    return Path(folder)


_MISFITS: Final = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)


# -- where a network comes from --------------------------------------------------------------------


def _origin(network: nn.Module) -> dict[str, Any]:
    known = getattr(network, "prunas_origin", None)
    if known is not None:
        return dict(known)
    name = _timm_name(network)
    if name is not None:
        arguments = _visible_arguments(network)
        return {"kind": "timm", "name": name, "arguments": arguments, "small_images": None}
    kind = type(network)
    return {"kind": "class", "module": kind.__module__, "name": kind.__qualname__}


def _visible_arguments(network: Any) -> dict[str, Any]:
    """Those arguments of `timm.create_model` that can be read off the network."""
    arguments: dict[str, Any] = {}
    if (classes := getattr(network, "num_classes", None)) is not None:
        arguments["num_classes"] = int(classes)
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if network.pretrained_cfg.get("fixed_input_size") and size is not None:
        arguments["img_size"] = list(size)
    return arguments


def _timm_name(network: nn.Module) -> str | None:
    config = getattr(network, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    return name if name is not None and timm.is_model(name) else None


def _parent(origin: Mapping[str, Any]) -> nn.Module | None:
    """The network before cutting, with weights of no meaning; None if it needs the user's help."""
    if origin["kind"] == "timm":
        try:
            with weightless():  # they come from the artifact, and a parent may be too large for us
                return rebuild(origin)
        except InputError:
            raise
        except (*_MISFITS, MemoryError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{origin['name']} cannot be built again: {reason}") from None
    if origin["kind"] == "given":
        return None
    found: Any = sys.modules.get(origin["module"])
    for part in origin["name"].split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return None
    try:
        return found()
    except TypeError:
        return None


def _unless_imported(origin: Mapping[str, Any]) -> str:
    """What else may be missing: an artifact must not decide what is imported."""
    module = origin.get("module")
    return "" if module is None or module in sys.modules else f", or until {module} is imported"


def _placed(parent: nn.Module, rows: list[Row]) -> list[Row]:
    """Those whose place there is in the parent; of another parent `unlike` will tell."""
    paths = {path for path, _ in parent.named_modules()}
    return [row for row in rows if row[0] in paths]


def _class_name(network: nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


# -- tensors ---------------------------------------------------------------------------------------


def _stored(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, contiguous, on the CPU; what timm rebuilds is included.

    So are tensors that are neither.
    """
    loose = {f"{path}.{name}": tensor for (path, name), tensor in loose_tensors(network).items()}
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in (tensors_of(network) | loose).items()
    }


def _fit(parent: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put the tensors in the place of the parent's, whatever their shapes were; tied ones too."""
    held = tensors_of(parent)
    missing, extra = sorted(held.keys() - tensors.keys()), sorted(tensors.keys() - held.keys())
    if missing or extra:
        odd = (missing or extra)[0]
        raise InputError(
            f"{folder} does not fit {type(parent).__name__}: tensor {odd} is in one of them only"
        )
    exchange: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        new = tensor.clone()
        old = held[name]
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        exchange[id(old)] = new
    for module in parent.modules():
        for store in (module._parameters, module._buffers):
            for key, value in store.items():
                if value is not None:
                    store[key] = exchange[id(value)]  # type: ignore[assignment]


# -- reading ---------------------------------------------------------------------------------------


def _others(folder: Path) -> list[str]:
    """What is in a folder that no artifact has."""
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    return sorted(names - {_ARCH, _WEIGHTS})


def _read_arch(folder: Path) -> dict[str, Any]:
    try:
        arch = read_sealed(folder / _ARCH, ("format", FORMAT))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no artifact ({_ARCH} is missing)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _ARCH} cannot be read: {error}") from None
    for name, fits in _FIELDS.items():
        if not fits(arch.get(name)):
            found = repr(arch.get(name))[:80]
            raise InputError(f"{folder / _ARCH} cannot be read: its {name!r} is {found}")
    return arch


def _is_origin(value: Any) -> bool:
    """Whether a network may be built of it; nothing in it can name code, or a file to load."""
    if not isinstance(value, dict):
        return False
    known = {"timm": ("name",), "class": ("module", "name"), "given": ()}
    texts = known.get(str(value.get("kind")))
    return texts is not None and all(isinstance(value.get(name), str) for name in texts)


_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "class": lambda value: isinstance(value, str),
    "origin": _is_origin,
    "chosen": lambda value: value is None or isinstance(value, dict),
    "left_out": lambda value: _is_list_of(value, str, bool),
    "attributes": lambda value: _is_list_of(value, str, str, object),
    "weights": lambda value: value is None or isinstance(value, str),
    "loose": lambda value: value is None or _is_list_of(value, str, str),
    "made_of": lambda value: value is None or isinstance(value, dict),
}


def _is_list_of(value: Any, *kinds: type) -> bool:
    """Whether it is a list of lists of these kinds."""
    return isinstance(value, list) and all(
        isinstance(each, list) and len(each) == len(kinds) and all(map(isinstance, each, kinds))
        for each in value
    )


def _compare(network: nn.Module, loaded: nn.Module) -> None:
    expected, found = _stored(network), _stored(loaded)
    for name, tensor in expected.items():
        if not torch.equal(tensor, found[name]):
            raise InputError(f"the network was not restored from its artifact: {name} differs")
    for path, name, _ in differing(loaded, network):
        raise InputError(f"the network was not restored from its artifact: {path}.{name} differs")
