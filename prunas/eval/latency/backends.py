"""What runs a network: eager torch, compiled torch, ONNX Runtime, or torch on a graphics card."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, Protocol, final

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from prunas.errors import InputError
from prunas.eval.latency.timing import Work
from prunas.supernet.skeleton import FORWARD_ERRORS, copied

_ONNX_EXTRA: Final = ("onnx", "onnxruntime", "onnxscript")
_LAST_OPSET_OF_THE_OLD_EXPORTER: Final = 20


@dataclass(frozen=True)
class Device:
    """What times hold for, and nothing else.

    Attributes:
        processor: its model name.
        threads: how many threads it uses; 0 on a graphics card.
        backend: name of what runs the network.
        versions: of what takes part in that, as (name, version).
    """

    processor: str
    threads: int
    backend: str
    versions: tuple[tuple[str, str], ...]

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        one = ", 1 thread" if self.threads == 1 else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        return f"{self.backend} on {self.processor}{threads}{one} ({versions})"


class Backend(Protocol):
    """Prepares networks to be run on one device. A new one is a class here and a row of `BACKENDS`.

    It runs with as many threads as torch has at that moment (`torch.set_num_threads`).
    """

    @property
    def device(self) -> Device:
        """Where and with what it runs."""
        ...

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        """A function that runs `network` on `images` and returns when the result is there.

        Args:
            network: in eval mode, on the CPU; it is not changed, and may be released afterwards.
            images: float32 on the CPU, batch first.

        Raises:
            InputError: the backend cannot run this network; the message says why.
        """
        ...


@final
@dataclass(frozen=True)
class Eager:
    """Torch on the CPU, operator by operator."""

    @property
    def device(self) -> Device:
        return Device(processor(), torch.get_num_threads(), "eager", _versions("torch"))

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        return _inferring(copied(network, torch.Tensor.detach), images)


@final
@dataclass(frozen=True)
class Compiled:
    """Torch on the CPU, compiled; the compilation, half a minute or so, is not timed."""

    @property
    def device(self) -> Device:
        return Device(processor(), torch.get_num_threads(), "compile", _versions("torch"))

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        with _quietly():
            try:
                # code of its own: of one class's code torch compiles eight networks and no more
                own = torch.export.export(copied(network, torch.Tensor.detach), (images,)).module()
                work = _inferring(torch.compile(own, dynamic=False), images)
                work()
            except (*FORWARD_ERRORS, TorchDynamoException) as error:
                raise _refused(network, "torch.compile", error) from error
        return work


@final
@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime on the CPU, with all of its graph optimisations.

    Networks are exported by torch's older exporter, which takes a tenth of the time of the newer
    one; both give graphs that run equally fast after ONNX Runtime has optimised them. What the
    older one cannot export the newer one does.

    Raises:
        InputError: a package of the extra is missing.
    """

    def __post_init__(self) -> None:
        missing = [name for name in _ONNX_EXTRA if find_spec(name) is None]
        if missing:
            raise InputError(
                f"timing on ONNX Runtime needs {', '.join(missing)}; run: pip install"
                " 'prunas[export]'"
            )

    @property
    def device(self) -> Device:
        versions = _versions("torch", "onnxruntime")
        return Device(processor(), torch.get_num_threads(), "onnxruntime", versions)

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        import onnxruntime  # an extra

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # or its threads go on to spin, for longer than a visit, on the cores of the next network
        options.add_session_config_entry("session.force_spinning_stop", "1")
        content = _exported(network, images)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: images.numpy()}
        return lambda: session.run(None, given)


@final
@dataclass(frozen=True)
class Cuda:
    """Torch on the current CUDA device, operator by operator, until the device is done.

    Raises:
        InputError: there is no CUDA device.
    """

    def __post_init__(self) -> None:
        if not torch.cuda.is_available():
            raise InputError(
                "there is no CUDA device that torch can use; time on eager, compile or onnxruntime"
            )

    @property
    def device(self) -> Device:
        name = torch.cuda.get_device_name()
        versions = (*_versions("torch"), ("cuda", str(torch.version.cuda)))
        return Device(name, 0, "cuda", versions)

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        there = copied(network, lambda tensor: tensor.detach().cuda())
        work = _inferring(there, images.cuda())

        def waited() -> None:
            work()
            torch.cuda.synchronize()

        return waited


BACKENDS: Final[Mapping[str, Callable[[], Backend]]] = MappingProxyType(
    {"eager": Eager, "compile": Compiled, "onnxruntime": OnnxRuntime, "cuda": Cuda}
)
"""Every backend by name."""


def backend_of(name: str) -> Backend:
    """The backend of that name.

    Raises:
        InputError: there is none, or it cannot be used here.
    """
    if name not in BACKENDS:
        raise InputError(f"{name!r} is not a backend; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]()


def processor() -> str:
    """Model name of the CPU, as the system tells it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(models, "") or platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cores)"


def _versions(*packages: str) -> tuple[tuple[str, str], ...]:
    from importlib.metadata import version

    return tuple((name, version(name)) for name in packages)


def _inferring(network: Callable[..., Any], images: torch.Tensor) -> Work:
    def work() -> None:
        with torch.inference_mode():
            network(images)

    return work


def _exported(network: nn.Module, images: torch.Tensor) -> bytes:
    """The network as ONNX, for images of this one shape."""
    with _quietly():
        try:
            return _exported_by_tracing(network, images)
        except FORWARD_ERRORS:  # an operator that the older exporter does not know
            pass
        try:
            return _exported_by_dynamo(network, images)
        except FORWARD_ERRORS as error:
            raise _refused(network, "ONNX", error) from error


def _exported_by_tracing(network: nn.Module, images: torch.Tensor) -> bytes:
    opset = _LAST_OPSET_OF_THE_OLD_EXPORTER
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (images,), file, dynamo=False, opset_version=opset)
        return file.read_bytes()


def _exported_by_dynamo(network: nn.Module, images: torch.Tensor) -> bytes:
    program = torch.onnx.export(network, (images,), dynamo=True, verbose=False, external_data=False)
    assert program is not None, "with dynamo=True the exporter returns a program"
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' deprecations of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refused(network: nn.Module, where: str, error: BaseException) -> InputError:
    first = (str(error).strip() or type(error).__name__).partition("\n")[0]
    return InputError(f"{type(network).__name__} cannot be run by {where}: {first}")
