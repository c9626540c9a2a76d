"""The found network for other runtimes, each form compared with it before it is kept."""

import copy
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError, RunError
from prunas.pipeline.files import replacing
from prunas.pipeline.networks import rebuild
from prunas.supernet.skeleton import FORWARD_ERRORS
from prunas.supernet.tensors import require_values

TOLERANCE: Final = 1e-4
"""Largest difference from the network's outputs, relative to the largest of them, in float32."""

_TRACED_BATCH = 2  # a batch of 1 would be read as "always 1"
_COMPARED_BATCHES = (1, 5)  # neither is the traced one, so that a batch held fixed shows
_ONNX_EXTRA = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Tensor], Sequence[Tensor]]
"""The outputs of an exported network for images (N, C, H, W)."""


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        format: "onnx", "torch" or "timm".
        file: where it is.
        size: in bytes.
        difference: from the network's outputs, relative; the larger of two batch sizes.
    """

    format: str
    file: Path
    size: int
    difference: float


def export_onnx(network: nn.Module, input_size: Sequence[int], file: str | Path) -> Exported:
    """Write `network` as one ONNX file that takes any batch size.

    What is written has been run by onnxruntime on two batch sizes, against the network, within
    `TOLERANCE`. Input "images" is float32 (batch, *input_size).

    Args:
        network: any module with one image tensor as input; it is left as found.
        input_size: (channels, height, width).
        file: usually *.onnx; its folder is made, an earlier file replaced.

    Raises:
        InputError: the extra is not installed, or the network cannot be exported.
        RunError: the exported network computes something else, or cannot be written.
    """
    missing = [name for name in _ONNX_EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the export to ONNX needs {', '.join(missing)}; run: pip install 'prunas[export]'"
        )
    file, twin = Path(file), _twin(network)
    with _exporting(network, "ONNX"):
        program = torch.onnx.export(
            twin,
            (_images(input_size, _TRACED_BATCH),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            dynamic_shapes=({0: "batch"},),
            external_data=False,  # one file, and no second one to lose
        )
        assert program is not None, "with dynamo=True the exporter returns a program"
        content = program.model_proto.SerializeToString()
    return _kept("onnx", content, _in_onnxruntime(content), twin, input_size, file)


def export_torch(network: nn.Module, input_size: Sequence[int], file: str | Path) -> Exported:
    """Write `network` as a program of torch.export that takes any batch size.

    What is written has been read back and run on two batch sizes, against the network, within
    `TOLERANCE`. `torch.export.load(file).module()` gives a module that needs none of the code the
    network came from.

    Args:
        network: any module with one image tensor as input; it is left as found.
        input_size: (channels, height, width).
        file: usually *.pt2; its folder is made, an earlier file replaced.

    Raises:
        InputError: the network cannot be exported, or has no values.
        RunError: the exported network computes something else, or cannot be written.
    """
    file, twin = Path(file), _twin(network)
    buffer = io.BytesIO()
    with _exporting(network, "torch.export"):
        images = _images(input_size, _TRACED_BATCH)
        shapes = ({0: Dim("batch", min=1)},)
        program: ExportedProgram = torch.export.export(twin, (images,), dynamic_shapes=shapes)
        torch.export.save(program, buffer)
        reloaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return _kept(
        "torch", buffer.getvalue(), lambda x: tree_leaves(reloaded(x)), twin, input_size, file
    )


def export_timm(network: nn.Module, input_size: Sequence[int], file: str | Path) -> Exported:
    """Write the shapes of `network` in the form that timm keeps those of its pruned models in.

    `timm.models.adapt_model_from_string(parent, text)` makes a network of these shapes from the
    parent; the weights are those of the artifact. That has been done, and compared, before the
    text is written. timm's mechanism knows convolutions that are plain or depthwise, batch norms
    and the classifier, and nothing else that changes its width.

    Args:
        network: a timm network, as cut or as loaded; it is left as found.
        input_size: (channels, height, width).
        file: usually *.txt; its folder is made, an earlier file replaced.

    Raises:
        InputError: the network is not timm's, or timm's mechanism cannot express its shapes.
        RunError: the file cannot be written, or timm's network computes something else.
    """
    origin: Any = getattr(network, "prunas_origin", None)
    if origin is None or origin.get("kind") != "timm":
        raise InputError(
            f"the shapes of a {type(network).__name__} cannot be written for timm, which has no"
            " such network; export it as onnx or torch"
        )
    weights = {n: t for n, t in network.state_dict().items() if n.endswith(".weight")}
    text = "***".join(f"{name}:{list(tensor.shape)}" for name, tensor in weights.items())
    try:
        built: nn.Module = timm.models.adapt_model_from_string(rebuild(origin), text)
        built.load_state_dict({n: t.cpu() for n, t in network.state_dict().items()})
        built.eval()(_images(input_size, 1))
    except FORWARD_ERRORS as error:
        reason = str(error).strip().replace("\n", " ")[:200]
        raise InputError(
            f"timm's mechanism for pruned models cannot express the shapes of this"
            f" {origin['name']} ({reason}); export it as onnx or torch"
        ) from error
    return _kept(
        "timm",
        text.encode(),
        lambda x: tree_leaves(built(x)),
        _twin(network),
        input_size,
        Path(file),
    )


def _twin(network: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode, in plain memory layout."""
    require_values(network)
    twin = copy.deepcopy(network).cpu().eval()
    return twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def _images(input_size: Sequence[int], batch: int) -> Tensor:
    return torch.randn(batch, *input_size, generator=torch.Generator().manual_seed(batch))


@contextmanager
def _exporting(network: nn.Module, form: str) -> Iterator[None]:
    """Turns an exporter's refusal into a sentence; its own deprecations are of no use to anyone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FORWARD_ERRORS as error:
        raise InputError(
            f"{type(network).__name__} cannot be exported to {form}: {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    """What an exporter says first, and what was behind it; its advice is for its developers."""
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    said = []
    for each in (error, deepest):
        line = _COLOURS.sub("", str(each)).strip().partition("\n")[0]
        said.append(line.partition(". ")[0].removesuffix(".") or type(each).__name__)
    return "; ".join(dict.fromkeys(said))


_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


def _in_onnxruntime(content: bytes) -> Run:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: [torch.from_numpy(out) for out in session.run(None, {name: x.numpy()})]


@torch.no_grad()
def _kept(
    form: str, content: bytes, run: Run, network: nn.Module, input_size: Sequence[int], file: Path
) -> Exported:
    """Compare, then write aside and rename."""
    batches = [_images(input_size, batch) for batch in _COMPARED_BATCHES]
    difference = max(_difference(_tensors(tree_leaves(network(x))), run(x)) for x in batches)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the network exported to {form} differs from the network by {difference:.2g}"
            f" (relative); {file} was not written"
        )
    with replacing(file) as aside:
        aside.write_bytes(content)
    return Exported(form, file, len(content), difference)


def _tensors(leaves: Sequence[Any]) -> list[Tensor]:
    """Those of them that are tensors: an exported network may have no others."""
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _widened(out: Tensor) -> Tensor:
    """Flags and whole numbers as numbers that can be subtracted."""
    return out if out.is_complex() else out.double()


def _difference(expected: Sequence[Tensor], found: Sequence[Any]) -> float:
    """Largest absolute difference over the largest absolute value; NaN where either is NaN."""
    expected, found = (list(map(_widened, _tensors(outs))) for outs in (expected, found))
    if not expected:
        raise InputError("the network gives no tensor that an export could be compared by")
    if [tuple(out.shape) for out in expected] != [tuple(out.shape) for out in found]:
        return float("inf")
    scale = torch.stack([out.abs().max() for out in expected]).max()
    pairs = zip(expected, found, strict=True)
    worst = torch.stack([(a - b).abs().max() for a, b in pairs]).max()
    return float(worst / scale.clamp(min=1e-30))
