"""From a network to its search space: label one run, solve, name the channel groups, try them."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any, Final

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.supernet.choice import run_together
from prunas.supernet.choosing import with_choices, without_unchosen
from prunas.supernet.depth import with_blocks
from prunas.supernet.draft import Draft
from prunas.supernet.grid import DEFAULT, WidthGrid, as_grid
from prunas.supernet.kernels import with_kernels
from prunas.supernet.labelled import labelled
from prunas.supernet.labels import BATCH
from prunas.supernet.probe import blamed
from prunas.supernet.recorder import Record
from prunas.supernet.resolution import seen, stride_of, with_resolutions
from prunas.supernet.skeleton import skeleton, with_batch
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import tensors_of

KINDS: Final = ("width", "depth", "operator", "kernel")
"""What a gene can be about."""

_CAREFUL_ROUNDS = 24  # so often few genes are blamed; after that all that meet, to come to an end


@torch.inference_mode(False)  # which runs other operators, and makes tensors that cannot learn
def trace(
    network: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Any = None,
    grid: WidthGrid | str = DEFAULT,
    keep: Sequence[str] = (),
    genes: Collection[str] = ("width", "depth"),
    resolutions: Collection[int] = (),
) -> SearchSpace:
    """Find all that `network` can do without: channels, with what goes together, blocks, kernels.

    The network runs once on the meta device (no weights are read, nothing is computed); labels
    are propagated through the ATen operators that really run, so residual sums, concatenations,
    shared modules, tied weights and parameters used bare all come out as what they are. The
    result is tried: a network cut at random widths must produce every intermediate result in the
    predicted shape, and a gene that stands in the way is pinned with the reason.

    Args:
        network: any module; it is not modified.
        input_size: (channels, height, width) of one image, or the shape of one input without the
            batch.
        example: instead, the tensors that `forward` takes (a tensor, a tuple for positional or a
            dict for keyword arguments), batch first; only shapes and types are used.
        grid: which widths a channel group may take, or the name of a grid: "default" (sixteenths,
            multiples of 8 above 16), "metapruning" (its 31 ratios), "every" (from 1 up).
        keep: patterns of parameter or module names that stay untouched (`"stages.3.*"`).
        genes: the kinds of genes to offer.
            "width": channel groups.
            "depth": blocks may be left out, modules that compute y = x + f(x), perhaps with an
            activation or a normalisation after it, in which input and output are the same
            channels. Blocks without a shortcut are never offered, since their input and output
            would have to be tied, and with them the widths of all layers of a plain stage.
            "operator": gates may be left out, modules that compute y = x * g(x) with layers of
            their own, such as squeeze-and-excitation; of a `prunas.Choice` one alternative runs.
            "kernel": depthwise kernels of side 5 and more may be smaller; see `with_kernels`.
        resolutions: further sides that images may have, in pixels of the shorter one; that of
            `input_size` is always offered. The largest of all is the full one.

    Returns:
        The search space.

    Raises:
        InputError: neither or both of input_size and example are given, the network does not run
            on them, a pattern matches nothing, a kind of gene is unknown, a resolution is below
            the network's stride, or nothing in the network can be pruned.
    """
    if resolutions:
        sizes = _sizes(network, input_size, resolutions)
        return with_resolutions(
            {
                side: trace(network, size, grid=grid, keep=keep, genes=genes)
                for side, size in sizes.items()
            }
        )
    wanted = kinds_of(genes)
    bare = _bare(network)
    fixed = _fixed(network, keep)
    inputs = _inputs(network, input_size, example)
    was_training = [module for module in bare.modules() if module.training]
    for module in was_training:
        module.training = False
    run_together(bare)
    inputs, found, solution = labelled(bare, inputs, fixed)
    widths = as_grid(grid)
    draft = Draft(network, inputs, found, solution, widths)
    dropped = {} if "width" in wanted else draft.all_classes("widths are not searched")
    space = draft.space(dropped)
    rounds = 0
    while space.genes:
        blame = draft.turned(bare, space)
        if not blame:
            blame = blamed(bare, inputs, draft, space, sparing=rounds < _CAREFUL_ROUNDS)
            rounds += 1
        if not blame:
            break
        dropped |= blame
        space = draft.space(dropped)
    space = with_blocks(space, found, wanted, draft.hands_on, bare, inputs, fixed)
    if "kernel" in wanted:
        space = with_kernels(space, bare, inputs, fixed)
    if "operator" in wanted:
        space = with_choices(space, found, bare, fixed)
    space = without_unchosen(space, found, bare)
    if not space.genes:
        raise InputError(_nothing(network, space, found))
    return space


def kinds_of(genes: Collection[str]) -> frozenset[str]:
    """These kinds of genes.

    Raises:
        InputError: one is unknown, or there is none.
    """
    if isinstance(genes, str):
        genes = (genes,)
    if not isinstance(genes, Collection):
        raise InputError(f"genes are kinds, not {genes!r}; choose from {', '.join(KINDS)}")
    for kind in genes:
        if kind not in KINDS:
            raise InputError(f"no kind of gene is called {kind!r}; choose from {', '.join(KINDS)}")
    if not genes:
        raise InputError(f"no kind of gene was given; choose from {', '.join(KINDS)}")
    return frozenset(genes)


def _bare(network: nn.Module) -> nn.Module:
    for wrapper in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        if isinstance(network, wrapper):
            raise InputError(f"the network is wrapped in {wrapper.__name__}; pass network.module")
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError("a scripted network has no Python code to trace; pass the original module")
    if hasattr(network, "_orig_mod"):
        raise InputError("the network is compiled; pass the module that torch.compile was given")
    if not isinstance(network, nn.Module):
        raise InputError(f"a network must be an nn.Module, not {type(network).__name__}")
    for name, module in network.named_modules():
        if ".quantized" in type(module).__module__:
            raise InputError(
                f"{name or 'the network'} is a quantised {type(module).__name__}, whose weights"
                " cannot be cut; prune first and quantise the result"
            )
    return skeleton(network)


def _fixed(network: nn.Module, keep: Sequence[str]) -> frozenset[str]:
    if not keep:
        return frozenset()
    if not isinstance(keep, Iterable):
        raise InputError(f"keep is a list of patterns, such as ['head.*'], not {keep!r}")
    names = tensors_of(network)
    fixed: set[str] = set()
    for pattern in keep:
        if not isinstance(pattern, str):
            raise InputError(f"keep pattern {pattern!r} is no text; give one such as 'head.*'")
        matched = [
            name
            for name in names
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        ]
        if not matched:
            raise InputError(f"keep pattern {pattern!r} matches no parameter of the network")
        fixed.update(matched)
    return frozenset(fixed)


def _inputs(network: nn.Module, input_size: Sequence[int] | None, example: Any) -> Any:
    if (input_size is None) == (example is None):
        raise InputError("give either input_size=(3, 224, 224) or example=tensors, one of the two")
    if input_size is None:
        for leaf in tree_leaves(example):
            if not isinstance(leaf, torch.Tensor | bool | int | float | str | None):
                raise InputError(
                    f"the example holds a {type(leaf).__name__}; give tensors, plain numbers, words"
                    " and None, in tuples, lists and dicts"
                )
        return with_batch(example, BATCH)
    if not _is_shape(input_size):
        raise InputError(
            f"input_size {input_size!r} is not a shape of positive lengths; give one such as"
            " (3, 224, 224)"
        )
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    return torch.empty((BATCH, *map(int, input_size)), dtype=dtype, device="meta")


def _sizes(
    network: nn.Module, input_size: Sequence[int] | None, resolutions: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """Side -> the shape of an image, of two sides or more."""
    if input_size is None or not _is_shape(input_size) or len(input_size) != 3:
        raise InputError(
            "resolutions are of images, so give input_size=(channels, height, width) with them"
        )
    if not _are_sides(resolutions):
        raise InputError(
            f"resolutions are sides in whole pixels, such as (160, 192), not {resolutions!r}"
        )
    own = min(input_size[-2:])
    sizes = {int(side): seen(input_size, int(side)) for side in {own, *resolutions}}
    least = stride_of(network, seen(input_size, max(sizes)))
    for side in sizes:
        if side < max(least, 1):
            raise InputError(
                f"images of side {side} are smaller than the network's stride, {least}; give"
                f" resolutions from {max(least, 1)} up"
            )
    if len(sizes) == 1:
        raise InputError(f"{own} is the only resolution; give another one beside it")
    return sizes


def _are_sides(value: Any) -> bool:
    return isinstance(value, Iterable) and all(isinstance(side, Integral) for side in value)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(size, Integral) and int(size) > 0 for size in value)
    )


def _nothing(network: nn.Module, space: SearchSpace, found: Record) -> str:
    reasons = [*space.notes, *sorted({entry.reason for entry in space.pinned})][:3]
    because = "; ".join(reasons) or "it has no parameters"
    return f"nothing in {type(network).__name__} can be pruned: {because}"
