"""Ray: the laws of executors on real actors, and what it must not do to a machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from socket import create_server
from time import monotonic

import pytest

from prunas.errors import InputError
from prunas.search.executors import (
    Done,
    OnRay,
    Patience,
    Supervisor,
    in_order,
    on_ray,
    require_ray,
)
from prunas.search.executors.crew import News, Placed, Ready
from prunas.search.executors.supervisor import scored
from tests.search.recipes import Job, moody, refusing, stillborn

pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning")

PATIENCE = Patience(first=60.0, factor=0.0, least=8.0)


def test_without_ray_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        InputError, match=r"Ray is not installed; pip install 'prunas\[distributed\]'"
    ):
        OnRay(stillborn)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "h:99999"])
def test_nobody_at_an_address_is_told_within_seconds(address: str) -> None:
    pytest.importorskip("ray")
    began = monotonic()
    with pytest.raises(InputError) as caught:
        require_ray(address)
    assert str(caught.value).startswith(f"there is no Ray cluster to join at '{address}' (")
    assert str(caught.value).endswith("; give the address that `ray start` has printed")
    assert monotonic() - began < 30


def test_who_listens_may_be_a_cluster() -> None:
    pytest.importorskip("ray")
    with create_server(("127.0.0.1", 0)) as listening:
        require_ray(f"127.0.0.1:{listening.getsockname()[1]}")
    for address in (None, "auto", "local"):  # nobody can be asked
        require_ray(address)


@pytest.fixture(scope="module")
def cluster() -> Iterator[OnRay[Job, float]]:
    """One on this machine for all tests: it takes seconds to begin."""
    pytest.importorskip("ray")
    crew: OnRay[Job, float] = OnRay(stillborn, 2)
    yield crew
    crew.close()


@pytest.mark.usefixtures("cluster")
def test_actors_that_die_or_hang_are_replaced(tmp_path: Path) -> None:
    jobs = [Job(0.0), Job(1.0, "dies", 1), Job(2.0, "hangs", 1), Job(3.0)]
    crew: OnRay[Job, float] = OnRay(partial(moody, str(tmp_path)), 2)
    with Supervisor(crew, patience=PATIENCE, refused=scored) as executor:
        found = list(in_order(executor, jobs))
    assert [outcome.result for outcome in found if isinstance(outcome, Done)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("cluster")
def test_a_mistake_of_the_user_comes_back_from_an_actor() -> None:
    crew: OnRay[Job, float] = OnRay(refusing, 1)
    with pytest.raises(InputError, match="this is no run"), Supervisor(crew) as executor:
        list(in_order(executor, [Job(1.0)]))


@pytest.mark.usefixtures("cluster")
def test_more_accelerators_than_there_are() -> None:
    with pytest.raises(
        InputError, match=r"a worker needs 1 CPU and 5000 GPU, but this machine has"
    ):
        OnRay(stillborn, 1, accelerators=5000)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_room_is_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crew: OnRay[Job, float] = OnRay(stillborn, 1, address="auto", accelerators=5000)
    assert crew.wanted() == 0
    sentence = r"a worker needs 1 CPU and 5000 GPU; the cluster has \d+ CPU.*; waiting for room"
    with pytest.warns(UserWarning, match=sentence + "$"):
        crew.heard(0.0)
    crew.heard(0.0)  # warnings are errors: it is said once
    later = monotonic() + 2 * 3600
    monkeypatch.setattr(on_ray, "monotonic", lambda: later)
    with pytest.warns(UserWarning, match=sentence + ", for 2 h now$"):
        crew.heard(0.0)
    crew.heard(0.0)
    crew.close()


@pytest.mark.usefixtures("cluster")
def test_actors_wait_for_their_turn_where_others_use_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second: OnRay[Job, float] = OnRay(partial(moody, str(tmp_path)), 1)
    there = sum(machine["CPU"] for machine in second._machines())
    first: OnRay[Job, float] = OnRay(partial(moody, str(tmp_path)), 1, processors=there)
    assert first.begin(0) is False
    assert heard(first, 2) == [Placed(0), Ready(0)]
    assert second.begin(0) is False
    assert second.heard(0.0) == []
    later = monotonic() + 70
    with monkeypatch.context() as patched:
        patched.setattr(on_ray, "monotonic", lambda: later)
        with pytest.warns(UserWarning, match=r"a worker needs 1 CPU; .*free are 0 CPU; waiting"):
            assert second.heard(0.0) == []
    first.close()
    assert heard(second, 2) == [Placed(0), Ready(0)]
    second.close()


def heard(crew: OnRay[Job, float], count: int) -> list[News[float]]:
    """The next news."""
    found: list[News[float]] = []
    while len(found) < count:
        found += crew.heard(60.0)
    return found


@pytest.mark.usefixtures("cluster")
def test_nothing_listens_beyond_loopback() -> None:
    addresses = {address for pid in below(os.getpid()) for address in listening(pid)}
    assert addresses, "Ray's own servers, at least"
    assert all(address.startswith("127.") or address == "::1" for address in addresses)


def below(pid: int) -> list[int]:
    """The processes that this one has begun, and theirs."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    children = [int(word) for word in found.stdout.split()]
    return [*children, *(each for child in children for each in below(child))]


def listening(pid: int) -> list[str]:
    """The addresses of the sockets on which a process waits for others."""
    try:
        files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []
    inodes = {name.removeprefix("socket:[").rstrip("]") for name in files}
    sockets = [line.split() for table in tables for line in table.splitlines()[1:]]
    return [
        _readable(words[1].split(":")[0])
        for words in sockets
        if words[3] == "0A" and words[9] in inodes
    ]


def _readable(kernel: str) -> str:
    """The address that the kernel writes as words in its own order of bytes."""
    words = [bytes.fromhex(kernel[at : at + 8])[::-1] for at in range(0, len(kernel), 8)]
    raw = b"".join(words)
    if len(raw) == 4 or raw[:12] == bytes(10) + b"\xff\xff":
        return ".".join(map(str, raw[-4:]))
    return "::1" if raw == bytes(15) + b"\x01" else raw.hex(":")
