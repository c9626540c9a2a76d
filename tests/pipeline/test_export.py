import copy
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunas  # first: it declares what the imports of timm need
from prunas.errors import InputError, RunError
from prunas.pipeline import export
from prunas.pipeline.export import TOLERANCE, Exported, export_onnx, export_timm, export_torch
from prunas.pipeline.networks import create_network

SIZE = (1, 16, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A cut network: squeeze-excite, depthwise and residual sums, widths off the grid."""
    full = create_network("test_efficientnet", classes=3, input_size=SIZE)
    space = prunas.trace(full, SIZE)
    return prunas.cut(full, space, space.uniform(0.5)).eval()


class Scaled(nn.Module):
    """Mean colours times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.factor


class Branching(nn.Module):
    """Reads values to decide, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class Conditional(nn.Module):
    """A kernel for each image: as many groups as images, which ONNX wants to know beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(3, 6)

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, *size = images.shape
        kernels = self.kernels(images.mean((2, 3))).view(batch * 2, channels, 1, 1)
        out = F.conv2d(images.reshape(1, batch * channels, *size), kernels, groups=batch)
        return out.view(batch, 2, *size).mean((2, 3))


def random_images(batch: int) -> Tensor:
    return torch.randn(batch, *SIZE, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def test_onnx_runs_at_every_batch_size(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "there" / "net.onnx"
    exported = export_onnx(network, SIZE, file)
    assert exported == Exported("onnx", file, file.stat().st_size, exported.difference)
    assert exported.difference <= TOLERANCE
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape) == ("images", ["batch", *SIZE])
    for batch in (1, 2, 7):
        (found,) = session.run(None, {"images": random_images(batch).numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), network(random_images(batch)), rtol=1e-4, atol=1e-4
        )
    assert [entry.name for entry in file.parent.iterdir()] == ["net.onnx"]


@torch.no_grad()
def test_torch_program_runs_at_every_batch_size(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    exported = export_torch(network, SIZE, file)
    assert exported.size == file.stat().st_size
    program = torch.export.load(file).module()
    for batch in (1, 2, 7):
        expected = network(random_images(batch))
        torch.testing.assert_close(program(random_images(batch)), expected, rtol=1e-4, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pt2"]


def test_the_network_is_left_as_found(network: nn.Module, tmp_path: Path) -> None:
    network = copy.deepcopy(network).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stem = network.get_parameter("conv_stem.weight")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    export_torch(network, SIZE, tmp_path / "net.pt2")
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert network.get_parameter("conv_stem.weight") is stem
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_export_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: bytes) -> object:
        def run(images: Tensor) -> Sequence[Tensor]:
            return [images.mean((2, 3)) + 1e-3]

        return run

    monkeypatch.setattr(export, "_in_onnxruntime", wrong)
    with pytest.raises(RunError, match="exported to onnx differs from the network by"):
        export_onnx(Scaled(), (3, 4, 4), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_network_without_finite_outputs_is_not_written(tmp_path: Path, wrong: float) -> None:
    with pytest.raises(RunError, match="differs from the network by nan"):
        export_torch(Scaled(wrong), (3, 4, 4), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^Branching cannot be exported to torch.export: \S+"):
        export_torch(Branching(), (3, 4, 4), tmp_path / "net.pt2")
    with pytest.raises(InputError) as refused:
        export_onnx(Conditional(), (3, 4, 4), tmp_path / "net.onnx")
    first, reason = str(refused.value).split("; ")
    assert first.startswith("Conditional cannot be exported to ONNX: Failed to convert")
    assert "Unsupported attribute type" in reason  # and not the exporter's advice, in colours
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        export_torch(Scaled(), (3, 4, 4), tmp_path / "file" / "net.pt2")


def test_the_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"needs onnxscript; run: pip install 'prunas\[export\]'"):
        export_onnx(Scaled(), (3, 4, 4), tmp_path / "net.onnx")


class Several(nn.Module):
    """Gives more than one tensor of numbers."""

    def forward(self, images: Tensor) -> tuple[Tensor, None, int, Tensor]:
        means = images.mean((2, 3))
        return means, None, 3, means > 0


def test_outputs_that_are_no_numbers_are_compared_as_well(tmp_path: Path) -> None:
    exported = export_torch(Several(), (3, 4, 4), str(tmp_path / "net.pt2"))
    assert exported.file == tmp_path / "net.pt2"
    assert exported.difference <= TOLERANCE
    assert exported.file.is_file()


def test_a_network_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weight has no values yet \(device meta\)"):
        export_torch(nn.Conv2d(3, 4, 1).to("meta"), (3, 4, 4), tmp_path / "net.pt2")


# -- timm's own form -------------------------------------------------------------------------------


def _cut(name: str, size: tuple[int, int, int]) -> nn.Module:
    full = create_network(name, classes=3, input_size=size)
    space = prunas.trace(full, size)
    return prunas.cut(full, space, space.uniform(0.5)).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [("test_efficientnet", (3, 64, 64)), ("resnet18", (3, 64, 64)), ("mobilenetv2_050", SIZE)],
)
def test_timm_builds_the_network_from_its_shapes(
    name: str, size: tuple[int, int, int], tmp_path: Path
) -> None:
    small = _cut(name, size)
    exported = export_timm(small, size, tmp_path / "model.txt")
    parent = create_network(name, classes=3, input_size=size)
    built = timm.models.adapt_model_from_string(parent, exported.file.read_text())
    built.load_state_dict(small.state_dict())
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(built.eval()(images), small(images))


@pytest.mark.parametrize("name", ["regnetx_002", "test_vit"])
def test_shapes_that_timm_cannot_express_are_refused(name: str, tmp_path: Path) -> None:
    size = (3, 160, 160)
    with pytest.raises(InputError, match="timm's mechanism for pruned models cannot express"):
        export_timm(_cut(name, size), size, tmp_path / "model.txt")
    assert not list(tmp_path.iterdir())


def test_shapes_of_a_class_of_the_users_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no such network"):
        export_timm(Scaled(), SIZE, tmp_path / "model.txt")
