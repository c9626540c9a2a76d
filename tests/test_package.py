"""The package as it is installed: what it can be imported beside, and what it is made of."""

import ctypes
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import prunas
from prunas import torchvision_schemas
from prunas.allocator import keep_freed_memory
from tests.import_every_module import import_every_module

ROOT = Path(__file__).parent.parent
ROOMS = ("supernet", "search", "pruningnet", "transformer_nat", "eval")
NMS = "torch.ops.torchvision.nms"
DECLARE_NMS = (
    "theirs = torch.library.Library('torchvision', 'FRAGMENT');"
    "theirs.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor');"
)


SCHEMAS = str(Path(prunas.__file__).with_name("torchvision_schemas.py"))
"""Run by path: the package around it imports timm, and so torchvision."""


def run(code: str) -> str:
    """Output of the code in a Python of its own, where nothing is imported yet."""
    command = [sys.executable, "-W", "error", "-c", f"import sys, torch; {code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_torchvision_and_timm_import_after_prunas() -> None:
    code = "import prunas, torchvision, timm; print(len(timm.list_models()) > 900)"
    assert run(code) == "True\n"


KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "16384"), ({KERNELS: "7"}, "7"), ({"DNNL_PRIMITIVE_CACHE_CAPACITY": "7"}, "None")],
)
def test_kernels_of_many_candidates_are_kept_unless_the_user_says_otherwise(
    before: dict[str, str], after: str
) -> None:
    file = Path(prunas.__file__).with_name("kernel_cache.py")
    code = (
        f"import os, runpy; os.environ.pop({KERNELS!r}, None); os.environ.update({before!r});"
        f"runpy.run_path({str(file)!r}); print(os.environ.get({KERNELS!r}))"
    )
    assert run(code) == f"{after}\n"


TRIM, MAP = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"


def faults_of_a_reused_tensor(*, kept: bool) -> int:
    """Pages mapped while 32 tensors of 16 MiB are made and freed one after the other."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    code = f"""
import resource, torch
from prunas.allocator import keep_freed_memory
assert not {kept} or keep_freed_memory()
torch.ones(2**22)
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = count()
for _ in range(32):
    torch.ones(2**22), torch.ones(2**23)
print(count() - before)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_memory_is_kept() -> None:
    assert faults_of_a_reused_tensor(kept=True) < faults_of_a_reused_tensor(kept=False) / 4


@pytest.mark.parametrize("chosen", [TRIM, MAP, "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_the_users_choice_of_allocator_stays(chosen: str) -> None:
    environment = {chosen: "7"}
    assert not keep_freed_memory(environment)
    assert environment == {chosen: "7"}


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_windows(_: None) -> None:
        raise TypeError("no library without a name")

    for opened in (on_windows, lambda _: SimpleNamespace()):
        monkeypatch.setattr(ctypes, "CDLL", opened)
        environment: dict[str, str] = {}
        assert not keep_freed_memory(environment)
        assert not environment


def test_processes_that_are_started_keep_theirs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    library = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda *a: asked.append(a))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    environment: dict[str, str] = {}
    assert keep_freed_memory(environment)
    assert environment == {TRIM: str(2**31 - 1), MAP: str(2**28)}
    assert asked == [(-1, 2**31 - 1), (-3, 2**28)]  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


FOLDER = Path(prunas.__file__).parent
CTRL_C = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def interrupted(program: str, before: str) -> subprocess.CompletedProcess[str]:
    """A program that has run the module, and then `before`, gets Ctrl-C."""
    code = (
        f"import sys; sys.argv = [{program!r}]; sys.path.insert(0, {str(FOLDER)!r});"
        f"import interruption; {before}; {CTRL_C}"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_ctrl_c_while_the_program_is_loaded() -> None:
    ended = interrupted("/somewhere/bin/prunas", "pass")
    assert ended.stderr == "prunas: stopped; nothing had been made yet\n"
    assert ended.returncode == 130


@pytest.mark.parametrize("stream", ["None", "open('/dev/full', 'w')"])
def test_ctrl_c_where_nothing_can_be_said(stream: str) -> None:
    ended = interrupted("prunas", f"sys.stderr = {stream}")
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize(
    ("program", "before"), [("/somewhere/mine.py", "pass"), ("prunas", "interruption.loaded()")]
)
def test_ctrl_c_is_left_to_others(program: str, before: str) -> None:
    assert "KeyboardInterrupt" in interrupted(program, before).stderr


def test_finding_torchvision_does_not_import_it() -> None:
    code = f"import runpy; runpy.run_path({SCHEMAS!r}); print('torchvision' in sys.modules)"
    assert run(code) == "False\n"


def test_a_missing_operator_is_declared_without_a_kernel() -> None:
    broken = "def no(path): raise OSError('cannot load')\n"
    code = (
        f"\n{broken}torch.ops.load_library = no\nfrom prunas import torchvision_schemas as ours\n"
    )
    call = f"""
try:
    {NMS}(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NotImplementedError:
    print("declared, no kernel", hasattr(torch.ops.torchvision, "qnms"))
"""
    assert run(code + call) == "declared, no kernel True\n"


def test_nothing_is_declared_where_the_library_loads() -> None:
    code = (
        "torch.ops.load_library = lambda path: None;"  # a load that works declares nothing here
        f"import runpy; ours = runpy.run_path({SCHEMAS!r});"
        "print(ours['_owner'], hasattr(torch.ops.torchvision, 'nms'))"
    )
    assert run(code) == "None False\n"


@pytest.mark.skipif(
    torchvision_schemas._owner is None,
    reason="torchvision's library loads, and ends a process that declared its operators",
)
def test_what_somebody_declared_before_is_left_alone() -> None:
    code = (
        f"{DECLARE_NMS} import prunas, torchvision; print({NMS}.default._schema.name);"
        "print(hasattr(torch.ops.torchvision, 'qnms'))"
    )
    assert run(code) == "torchvision::nms\nTrue\n"


def test_every_module_imports_from_where_prunas_is_installed(tmp_path: Path) -> None:
    home = Path(prunas.__file__).parent.parent
    names = import_every_module(home)
    assert "prunas.pipeline.report.page" in names
    assert len(names) == len(set(names)) > 20
    with pytest.raises(ImportError, match="was imported from"):
        import_every_module(tmp_path)


@pytest.mark.parametrize("room", ROOMS)
def test_the_links_at_the_root_lead_to_the_rooms(room: str) -> None:
    link = ROOT / room
    if not link.exists():
        pytest.skip("this copy of the sources carries no links")
    assert link.resolve() == ROOT / "prunas" / room
    assert (link / "__init__.py").is_file()


def test_constraints_pin_every_dependency_inside_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + extras["dev"] + extras["export"] + extras["photos"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    version = {canonicalize_name(pin.name): str(pin.specifier).lstrip("=") for pin in pins}
    for requirement in map(Requirement, asked):
        if requirement.name != "prunas":
            pinned = version[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pinned), requirement


def memory_kept_of_freed_tensors(*, handed_back: bool) -> int:
    """MiB of data by which a process is larger for four tensors of 64 MiB that it freed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    code = f"""
import torch
from prunas.allocator import hand_back_large_tensors, keep_freed_memory

def data():
    with open("/proc/self/status") as opened:
        (size,) = (line.split()[1] for line in opened if line.startswith("VmData"))
    return int(size) // 1024

assert keep_freed_memory()
if {handed_back}:
    hand_back_large_tensors()
before = data()
tensors = [torch.empty(2**24) for _ in range(4)]
held = data()
del tensors
assert held - before >= 200
print(data() - before)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(result.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/status").exists(),
    reason="asks glibc and Linux",
)
def test_large_tensors_are_handed_back_where_memory_is_limited() -> None:
    assert memory_kept_of_freed_tensors(handed_back=False) >= 200
    assert memory_kept_of_freed_tensors(handed_back=True) < 56
