"""Pictures: resampled, sampled at computed places, taken apart into patches."""

from math import prod
from typing import Any, Final

from prunas.supernet.operators.call import RULES, Call, Dims, Rule, rule

_SPATIAL: Final = {
    1: "avg_pool1d _adaptive_avg_pool1d upsample_nearest1d upsample_linear1d reflection_pad1d "
    "replication_pad1d _upsample_nearest_exact1d",
    2: "avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices max_pool2d adaptive_max_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa _upsample_nearest_exact2d reflection_pad2d replication_pad2d "
    "adaptive_avg_pool2d fractional_max_pool2d",
    3: "avg_pool3d _adaptive_avg_pool3d max_pool3d_with_indices adaptive_max_pool3d "
    "upsample_nearest3d upsample_trilinear3d replication_pad3d reflection_pad3d",
}


def _spatial(positions: int) -> Rule:
    """Resampling over the last dimensions: channels pass, positions are pinned."""

    def resample(call: Call) -> Any:
        dims = call.dims(call.args[0])
        for nodes in dims[-positions:]:
            call.pin(nodes, f"{call.name} resamples it")
        first = call.out[0] if isinstance(call.out, tuple | list) else call.out
        spatial = tuple(call.labels.zeros(size) for size in first.shape[-positions:])
        result = (*dims[:-positions], *spatial)
        return [result] * len(call.out) if isinstance(call.out, tuple | list) else result

    return resample


for _positions, _names in _SPATIAL.items():
    for _name in _names.split():
        RULES[f"aten.{_name}"] = _spatial(_positions)


@rule("aten.grid_sampler_2d", "aten.grid_sampler_3d", "aten.cudnn_grid_sampler")
def _grid_sampler(call: Call) -> Dims:
    batch, channels, *spatial = call.dims(call.args[0])
    images, *places = call.dims(call.args[1])
    call.tie(batch, images)
    for nodes in (*spatial, *places):
        call.pin(nodes, "it is a position, or a coordinate")
    return (batch, channels, *(call.labels.zeros(size) for size in call.out.shape[2:]))


@rule("aten.affine_grid_generator")
def _affine_grid(call: Call) -> Dims:
    batch, *matrix = call.dims(call.args[0])
    for nodes in matrix:
        call.pin(nodes, "it belongs to an affine map")
    return (batch, *(call.labels.zeros(size) for size in call.out.shape[1:]))


@rule("aten.im2col")
def _patches(call: Call) -> Dims:
    """(..., C, H, W) -> (..., C * entries of a patch, patches), the channels outermost."""
    *batch, channels, height, width = call.dims(call.args[0])
    for nodes in (height, width):
        call.pin(nodes, "patches are taken from it")
    entries = prod(call.args[1])
    rows = call.labels.merge([channels, call.labels.zeros(entries)])
    return (*batch, rows, call.labels.zeros(call.out.shape[-1]))


@rule("aten.col2im")
def _from_patches(call: Call) -> Dims:
    """The sum of overlapping patches: (..., C * entries, patches) -> (..., C, H, W)."""
    *batch, rows, patches = call.dims(call.args[0])
    channels, entries = call.labels.split(rows, (call.out.shape[-3], prod(call.args[2])))
    for nodes in (entries, patches):
        call.pin(nodes, "a picture is put together from it")
    return (*batch, channels, *(call.labels.zeros(size) for size in call.out.shape[-2:]))
