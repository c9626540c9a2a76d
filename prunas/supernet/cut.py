"""Cut a candidate out of its network: plan first, apply second, never touch the original."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from prunas.errors import InputError, RunError
from prunas.supernet.blocks import Block, leave_out, lies_in
from prunas.supernet.choice import settle
from prunas.supernet.imagined import Imagining
from prunas.supernet.layers import state_sizes
from prunas.supernet.resolution import seen, side_of
from prunas.supernet.scoped import evaluating, set_integers, sizes_of
from prunas.supernet.skeleton import (
    FORWARD_ERRORS,
    called,
    copied,
    describe,
    imagined,
    shapes,
    skeleton,
)
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import modules_of, taken, tensors_of


@torch.inference_mode(False)
def cut(network: nn.Module, space: SearchSpace, candidate: Sequence[int]) -> nn.Module:
    """The candidate as a plain module of the network's class, with the network's weights.

    Of every channel group the first channels stay (see `SearchSpace.reordered` and
    `prunas.permute` for other orders); a block that is left out becomes an identity, and a choice
    the alternative that is chosen, so that the names of all other tensors stay. The network is
    copied and not changed; gradients, hooks and training flags are as in the network. The result,
    which takes images of the side that the candidate sees, has been run on the meta device: its
    outputs have the shapes that those of the network have.

    Args:
        network: the traced network, or one with the same tensors.
        space: its search space.
        candidate: a candidate of the space.

    Raises:
        InputError: network or candidate do not belong to the space.
        RunError: the cut network does not run, although trials at other widths did.
    """
    chosen = space.candidate(candidate)
    require_same(network, space)
    small = copied_with(network, kept_tensors(network, space, chosen))
    set_integers(small, sizes_of(space, space.kept(chosen)))
    state_sizes(owners(small, space.slots))
    gone = space.left_out(chosen)
    leave_out(small, gone)
    settle(small, _left(space, chosen, gone))
    _run_on_meta(small, space, side_of(space, chosen))
    return small


def _left(space: SearchSpace, candidate: Sequence[int], gone: Sequence[Block]) -> dict[str, str]:
    """{path of a choice that is still there: name of its alternative}."""
    paths = {block.path for block in gone}
    return {
        choice.path: choice.names[candidate[gene]]
        for gene, choice in space.alternatives.items()
        if not lies_in(choice.path, paths)
    }


def kept_tensors(
    network: nn.Module, space: SearchSpace, candidate: Sequence[int]
) -> dict[str, torch.Tensor]:
    """The tensors that shrink, cut: {name: new tensor}, sharing no memory with the network."""
    held = tensors_of(network)
    result: dict[str, torch.Tensor] = {}
    places: dict[int, torch.Tensor] = {}
    for name, dimension, indices in space.survivors(candidate):
        source = result.get(name, held[name].detach())
        if id(indices) not in places:
            places[id(indices)] = torch.from_numpy(indices)
        where = places[id(indices)].to(source.device)
        result[name] = _selected(source, dimension, where)
    return result


def _selected(source: torch.Tensor, dimension: int, where: torch.Tensor) -> torch.Tensor:
    """Those entries of a dimension. One number seen at every position stays one, of its own.

    Weights that are not there yet are such tensors; a giant's would fill the memory.
    """
    if source.numel() == 1 or any(source.stride()):
        return taken(source, dimension, where)
    shape = [len(where) if d == dimension else n for d, n in enumerate(source.shape)]
    return source[(0,) * source.ndim].clone().expand(shape)


def copied_with(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """A deep copy of `network` with some tensors replaced; tied tensors stay tied."""
    held = tensors_of(network)
    exchange = {id(held[name]): new for name, new in tensors.items()}

    def exchanged(tensor: torch.Tensor) -> torch.Tensor:
        new = exchange.get(id(tensor))
        return tensor.detach().clone() if new is None else new

    return copied(network, exchanged)


def require_same(network: nn.Module, space: SearchSpace) -> None:
    """Refuse a network that the space was not traced from.

    Raises:
        InputError: a tensor is missing, has another shape, or is not known to the space; or what
            was given is no network.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"a network must be an nn.Module, not {type(network).__name__}")
    held = tensors_of(network)
    found = {name: tuple(held[name].shape) for name in held if name not in space.renewed}
    if found == dict(space.shapes):
        return
    for name, shape in space.shapes.items():
        if found.get(name) != shape:
            raise InputError(
                f"the network is not the one this space was traced from: {name} has shape"
                f" {found.get(name, 'nothing')}, the space knows {shape}; trace the network again"
            )
    extra = sorted(set(found) - set(space.shapes))
    raise InputError(
        f"the network is not the one this space was traced from: it also has {extra[0]};"
        " trace the network again"
    )


def owners(network: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """The modules that hold these tensors."""
    modules = dict(modules_of(network))
    return [modules[path] for path in dict.fromkeys(name.rpartition(".")[0] for name in names)]


def _run_on_meta(network: nn.Module, space: SearchSpace, side: int | None) -> None:
    """Run a copy: what a forward keeps in its modules stays out of the network."""
    bare = skeleton(network)
    floating = (t.dtype for t in tensors_of(bare).values() if t.is_floating_point())
    inputs = imagined(space.inputs, next(floating, None))
    outputs = space.outputs
    if side is not None:
        outputs = space.outputs_at.get(side, outputs)
        inputs = inputs.new_empty(seen(inputs.shape, side))
    with torch.no_grad(), evaluating(bare), Imagining():
        try:
            out = called(bare, inputs)
        except FORWARD_ERRORS as error:
            raise RunError(f"the cut network does not run: {error}; nothing was changed") from error
    found, wanted = shapes(describe(out)), shapes(outputs)
    if found != wanted:
        raise RunError(f"the cut network returns shapes {found}, not {wanted}; nothing was changed")
