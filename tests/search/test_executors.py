"""The laws of executors, on every crew; and of their supervisor, under a clock of its own."""

import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError, RunError
from prunas.search.executors import (
    ENDLESS,
    Crew,
    Done,
    Executor,
    Failed,
    Here,
    Patience,
    Processes,
    Recipe,
    Supervisor,
    as_finished,
    in_order,
    processes,
    settled,
)
from prunas.search.executors.crew import Answer, Lost, News, Ready, Refused
from prunas.search.executors.simulated import FAR, Fate, Simulated
from prunas.search.executors.supervisor import scored
from tests.search.recipes import Job, moody, refusing, stillborn, threads_and_environment

BUILDING = 5.0
PATIENCE = Patience(start=100.0, first=50.0, factor=4.0, least=20.0)

Crews = Callable[[Recipe[Job, float]], Crew[Job, float]]
CREWS: dict[str, Crews] = {
    "here": Here,
    "one process": lambda recipe: Processes(recipe, 1),
    "three processes": lambda recipe: Processes(recipe, 3),
}


# -- every crew ------------------------------------------------------------------------------------


@pytest.fixture(params=CREWS)
def crew(request: pytest.FixtureRequest) -> Crews:
    return CREWS[request.param]


def outcomes(
    crew: Crew[Job, float], jobs: list[Job], patience: Patience = PATIENCE
) -> dict[Job, float | tuple[str, ...]]:
    """The result of every job, or the reasons why it has none."""
    with Supervisor(crew, patience=patience, refused=scored) as executor:
        found = list(in_order(executor, jobs))
        assert [each.task for each in found] == jobs
        assert executor.finished() == []
        assert all(each.seconds >= 0 for each in found)
    return {each.task: each.result if isinstance(each, Done) else each.reasons for each in found}


def test_results_come_in_order(crew: Crews, tmp_path: Path) -> None:
    jobs = [Job(float(value)) for value in range(20)]
    found = outcomes(crew(partial(moody, str(tmp_path))), jobs)
    assert found == {job: job.value for job in jobs}
    assert len(list(tmp_path.iterdir())) == 20  # each was tried once


def test_work_is_repeated_and_given_up_in_the_end(crew: Crews, tmp_path: Path) -> None:
    jobs = [Job(0.0), Job(1.0, "raises", 2), Job(2.0, "NaN", 2), Job(3.0), Job(4.0, "raises", 3)]
    jobs += [Job(5.0, "NaN", 9), Job(6.0)]
    found = outcomes(crew(partial(moody, str(tmp_path))), jobs)
    for job in jobs:
        if job.times < 3:
            assert found[job] == job.value
    raised, refused = found[jobs[4]], found[jobs[5]]
    assert isinstance(raised, tuple)
    for reason in raised:  # what it was, and where
        assert re.fullmatch(r"MemoryError: no room for 3 TB \(recipes.py:\d+, in _raises\)", reason)
    assert len(raised) == 3
    assert refused == ("its score is not a number",) * 3


@pytest.mark.parametrize("mood", ["wrong input", "wrong run"])
def test_a_mistake_of_the_user_ends_it_at_once(mood: str, crew: Crews, tmp_path: Path) -> None:
    error, sentence = {
        "wrong input": (InputError, "these are no pictures"),
        "wrong run": (RunError, "the loss diverges"),
    }[mood]
    with pytest.raises(error, match=sentence):
        outcomes(crew(partial(moody, str(tmp_path))), [Job(1.0, mood, 1), Job(2.0)])  # type: ignore[arg-type]
    assert multiprocessing.active_children() == []


def test_workers_that_cannot_be_built(crew: Crews) -> None:
    with pytest.raises(RunError, match="no worker can be built: OSError: there is no data"):
        outcomes(crew(stillborn), [Job(1.0)])
    with pytest.raises(InputError, match="this is no run"):
        outcomes(crew(refusing), [Job(1.0)])


def test_nothing_to_do_builds_nobody(crew: Crews) -> None:
    assert outcomes(crew(stillborn), []) == {}


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_that_die_or_hang_are_replaced(workers: int, tmp_path: Path) -> None:
    jobs = [Job(0.0), Job(1.0, "dies", 2), Job(2.0, "hangs", 1), Job(3.0), Job(4.0, "dies", 3)]
    patience = Patience(first=10.0, factor=0.0, least=3.0)  # a limit that idle machines know
    found = outcomes(Processes(partial(moody, str(tmp_path)), workers), jobs, patience)
    assert [found[job] for job in jobs[:4]] == [0.0, 1.0, 2.0, 3.0]
    assert found[jobs[4]] == ("its process ended with code 7",) * 3
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("limit", [1e8, 1e300, math.inf])
def test_a_limit_may_be_longer_than_the_system_can_wait(limit: float, tmp_path: Path) -> None:
    patience = Patience(start=limit, first=limit, factor=0.0, least=limit)
    found = outcomes(Processes(partial(moody, str(tmp_path)), 1), [Job(1.0)], patience)
    assert found == {Job(1.0): 1.0}


def test_a_wait_that_was_cut_short_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LONGEST_WAIT", 0.001)
    found = outcomes(Processes(partial(moody, str(tmp_path)), 1), [Job(1.0), Job(2.0)])
    assert found == {Job(1.0): 1.0, Job(2.0): 2.0}


def test_a_process_killed_from_outside() -> None:
    crew: Processes[str, tuple[int, str | None]] = Processes(threads_and_environment, 1)
    with Supervisor(crew) as executor:
        executor.submit(["HOME"])
        assert isinstance(executor.finished()[0], Done)
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        executor.submit(["HOME"])  # whether it is noticed before or after this
        assert isinstance(executor.finished()[0], Done)


@pytest.mark.parametrize("method", sorted({*multiprocessing.get_all_start_methods()} - {"fork"}))
def test_a_process_ends_with_its_driver_whatever_it_is_doing(method: str, tmp_path: Path) -> None:
    """It would go on for hours otherwise, beside the run that was resumed."""
    os.mkfifo(tmp_path / "held")  # the worker has it open as long as it lives
    reading = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, method, str(tmp_path / "held")])
    worker = 0
    try:
        assert wait([reading], 120), "the worker never began"
        worker = int(os.read(reading, 100))
        driver.kill()
        assert wait([reading], 120), "the worker goes on"
        assert os.read(reading, 100) == b""
    finally:
        driver.kill()
        driver.wait()
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(worker or driver.pid, signal.SIGKILL)


DRIVER = """
import multiprocessing, sys
from functools import partial
from prunas.search.executors import Processes, Supervisor
from tests.search.recipes import holding
multiprocessing.get_all_start_methods = lambda: sys.argv[1:2]
with Supervisor(Processes(partial(holding, sys.argv[2]), 1)) as executor:
    executor.submit(["it"])
    executor.finished()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file descriptors are counted in /proc")
@pytest.mark.parametrize("spare", [0, 2])
def test_too_few_file_descriptors_for_a_process(spare: int) -> None:
    crew: Processes[Job, float] = Processes(stillborn, 2)
    crew.begin(0)  # so that the server that forks is there
    opened = descriptors()
    most = sorted(set(range(1000)) - opened)[spare]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        with pytest.raises(RunError, match=r"worker 2 of 2 cannot be begun \(.*Too many open"):
            crew.begin(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert descriptors() == opened
        crew.close()


def descriptors() -> set[int]:
    """The open ones of this process, without that of looking."""
    files = Path("/proc/self/fd")
    return {int(name) for name in os.listdir(files) if os.path.lexists(files / name)}


def test_threads_and_accelerators_of_processes() -> None:
    crew: Processes[str, tuple[int, str | None]] = Processes(
        threads_and_environment, 2, threads=1, accelerators=["4", "7"]
    )
    with Supervisor(crew) as executor:
        (found,) = in_order(executor, ["CUDA_VISIBLE_DEVICES"])
    assert isinstance(found, Done)
    assert found.result in ((1, "4"), (1, "7"))


# -- the supervisor, under a clock of its own ------------------------------------------------------


def fated(
    fates: dict[str, list[Fate[float]]], workers: list[tuple[float, int]]
) -> Simulated[str, float]:
    """A crew in which the n-th try of a task has its n-th fate."""
    left = {task: iter(rows) for task, rows in fates.items()}
    return Simulated(lambda task, worker: next(left[task]), workers, building=BUILDING)


def well(result: float, seconds: float = 10.0) -> Fate[float]:
    return Fate(seconds, result)


class Watched:
    """A crew whose workers are noted as they are begun."""

    def __init__(self, crew: Simulated[str, float]) -> None:
        self.crew = crew
        self.begun: list[int] = []

    def now(self) -> float:
        return self.crew.now()

    def wanted(self) -> int:
        return self.crew.wanted()

    def begin(self, worker: int) -> bool:
        self.begun.append(worker)
        return self.crew.begin(worker)

    def give(self, worker: int, number: int, task: str) -> None:
        self.crew.give(worker, number, task)

    def heard(self, patience: float) -> Sequence[News[float]]:
        return self.crew.heard(patience)

    def end(self, worker: int) -> None:
        self.crew.end(worker)

    def close(self) -> None:
        self.crew.close()


DEATH: Fate[float] = Fate(3.0, None)


def late(result: float) -> Fate[float]:
    """Longer than anybody waits, but not for ever."""
    return Fate(150.0, result)


def played(crew: Crew[str, float], tasks: str) -> dict[str, Done[str, float] | Failed[str]]:
    with Supervisor(crew, patience=PATIENCE, refused=scored) as executor:
        return {each.task: each for each in in_order(executor, tasks)}


def test_the_time_that_work_takes() -> None:
    crew = fated({task: [well(1.0)] for task in "abcde"}, [(0, 2)])
    assert all(isinstance(each, Done) for each in played(crew, "abcde").values())
    assert crew.now() == BUILDING + 30  # two workers, five tasks of 10 s
    assert crew.useful == 50
    assert crew.available == 2 * crew.now()


def test_who_hangs_is_replaced_in_time() -> None:
    crew = fated({"a": [well(1.0)], "b": [Fate(FAR, 9.0), well(2.0)]}, [(0, 1)])
    found = played(crew, "ab")
    assert found["b"] == Done("b", 2.0, 10.0)
    # 4 times the usual 10 s before it is replaced
    assert crew.now() == BUILDING + 10 + 40 + BUILDING + 10


def test_before_anything_is_known_patience_is_longer() -> None:
    crew = fated({"a": [Fate(FAR, 9.0), well(1.0, seconds=1.0)]}, [(0, 1)])
    played(crew, "a")
    assert crew.now() == BUILDING + 50 + BUILDING + 1


def test_work_of_very_different_lengths_is_waited_for_if_patience_is_endless() -> None:
    """A resumed run: the first training is seconds from its end, the others take 20 minutes."""
    fates = {"a": [well(1.0, seconds=5.0)], "b": [well(2.0, seconds=1200.0)]}
    fates["c"] = [well(3.0, seconds=20 * 3600.0)]
    crew = fated(fates, [(0, 2)])
    with Supervisor(crew, patience=ENDLESS) as executor:
        found = list(in_order(executor, "abc"))
    assert [each.seconds for each in found if isinstance(each, Done)] == [5.0, 1200.0, 72000.0]


def test_late_duplicates_are_ignored() -> None:
    """The first answer of a task counts, and an old one is not taken for that of a newer task."""
    fates = {"a": [well(1.0)], "b": [late(9.0), well(2.0)]}
    fates |= {str(task): [well(float(task))] for task in range(10)}
    crew = fated(fates, [(0, 2)])
    found = played(crew, "ab0123456789")
    assert found["b"] == Done("b", 2.0, 10.0)
    assert [found[str(task)] for task in range(10)] == [
        Done(str(task), float(task), 10.0) for task in range(10)
    ]


def test_three_deaths_and_the_rest_goes_on() -> None:
    fates = {"a": [well(1.0)], "b": [DEATH, well(math.nan), Fate(FAR, 1.0)], "c": [well(3.0)]}
    found = played(fated(fates, [(0, 1)]), "abc")
    assert found["b"] == Failed(
        "b", ("it died", "its score is not a number", "it took more than 40 s"), 3.0 + 10.0 + 40.0
    )
    assert found["c"] == Done("c", 3.0, 10.0)


def test_if_everything_fails_it_is_not_the_tasks() -> None:
    fates = {task: [DEATH] * 3 for task in "abcdefghijklmnopqrst"}
    with pytest.raises(RunError, match="10 tasks after one another failed with 3 workers each"):
        played(fated(fates, [(0, 1)]), "abcdefghij")
    found = played(fated(fates | {"j": [well(1.0)]}, [(0, 1)]), "abcdefghijklmnopqrs")
    assert sum(isinstance(each, Failed) for each in found.values()) == 18


@pytest.mark.parametrize("ordered", [as_finished, in_order])
def test_failures_are_settled_when_somebody_succeeds_or_all_is_done(
    ordered: Callable[[Executor[str, float], str], Iterator[Done[str, float] | Failed[str]]],
) -> None:
    """Before that, it may be the machine and not the tasks."""
    fates = {task: [well(2.0) if task in "cC" else DEATH] * 3 for task in "abcdefghijklmnopABCD"}
    with Supervisor(fated(fates, [(0, 1)]), patience=PATIENCE) as executor:
        found = settled(ordered(executor, "abcdABCD"))
        assert [each.task for each in found] == list("abcdABCD")
    with Supervisor(fated(fates, [(0, 1)]), patience=PATIENCE) as executor:
        arriving = settled(ordered(executor, "abcdefghijklmnop"))
        assert [next(arriving).task for _ in "abc"] == list("abc")
        with pytest.raises(RunError, match="10 tasks after one another"):
            next(arriving)


class Told:
    """A crew that tells what it is told to; afterwards, that all work that was given is done."""

    def __init__(self, workers: int, *script: Sequence[News[float]]) -> None:
        self.workers = workers
        self.script = list(script)
        self.begun: list[int] = []
        self.given: list[News[float]] = []

    def now(self) -> float:
        return 0.0

    def wanted(self) -> int:
        return self.workers

    def begin(self, worker: int) -> bool:
        self.begun.append(worker)
        return True

    def give(self, worker: int, number: int, task: str) -> None:
        self.given.append(Answer(worker, number, float(number), 1.0))

    def heard(self, patience: float) -> Sequence[News[float]]:
        if self.script:
            return self.script.pop(0)
        given, self.given = self.given, []
        assert given, "everybody waits, and nothing will ever happen"
        return given

    def end(self, worker: int) -> None: ...

    def close(self) -> None: ...


def test_what_arrives_beside_an_error_comes_first() -> None:
    """Two trainings of a night, say, and one that found the disk full."""
    error = RunError("the disk is full")
    ready = [Ready(worker) for worker in range(3)]
    news: list[News[float]] = [Answer(0, 0, 0.5, 1.0), Refused(error), Answer(2, 2, 2.5, 1.0)]
    crew = Told(3, ready, news)
    with Supervisor(crew) as executor:
        executor.submit("abcdef")
        assert executor.finished() == [Done("a", 0.5, 1.0), Done("c", 2.5, 1.0)]
        given = len(crew.given)
        executor.submit("ghi")
        assert len(crew.given) == given  # nothing new is begun
        for _ in range(2):
            with pytest.raises(RunError, match="the disk is full"):
                executor.finished()


def test_a_worker_that_cannot_be_begun_takes_nothing_along() -> None:
    class Full(Told):
        def begin(self, worker: int) -> bool:
            if worker == 2:
                raise RunError("there is no room for a worker")
            return super().begin(worker)

    crew = Full(2, [Ready(0), Ready(1)], [Answer(0, 0, 0.5, 1.0), Lost(1, "it died")])
    with Supervisor(crew) as executor:
        executor.submit("abc")
        assert executor.finished() == [Done("a", 0.5, 1.0)]
        with pytest.raises(RunError, match="there is no room for a worker"):
            executor.finished()


def test_repeated_work_comes_before_new_work() -> None:
    """So what fails again and again does so early, and nothing waits for it at the end."""
    order = []
    fates = {"b": iter([DEATH, DEATH, well(2.0)])}

    def fate(task: str, worker: int) -> Fate[float]:
        order.append(task)
        return next(fates[task]) if task in fates else well(1.0)

    played(Simulated(fate, [(0, 1)], building=BUILDING), "abcd")
    assert "".join(order) == "abbbcd"


def test_workers_join_and_leave() -> None:
    fates = {task: [well(1.0)] * 2 for task in "abcdefgh"}
    alone = fated(fates, [(0, 1)])
    played(alone, "abcdefgh")
    assert alone.now() == BUILDING + 80
    # three join at 15 (ready at 20); two leave at 27, with 7 s of work each that is repeated
    crew = fated(fates, [(0, 1), (15, 4), (27, 2)])
    found = played(crew, "abcdefgh")
    assert all(isinstance(each, Done) for each in found.values())
    assert crew.now() == 55
    nobody = fated(fates, [(0, 2), (12, 0), (100, 1)])  # the cluster is away for a while
    played(nobody, "abcdefgh")
    assert nobody.now() == 100 + BUILDING + 80


def test_no_more_workers_than_work() -> None:
    crew = Watched(fated({"a": [well(1.0)], "b": [well(2.0)]}, [(0, 1000)]))
    played(crew, "ab")
    assert crew.begun == [0, 1]


def test_a_worker_that_is_never_ready() -> None:
    crew: Simulated[str, float] = Simulated(lambda task, worker: well(1.0), [(0, 1)], building=FAR)
    with pytest.raises(RunError, match="no worker can be built: it took more than 100 s"):
        played(crew, "a")
    assert crew.now() == 300


def test_waiting_for_a_place_counts_against_nobody() -> None:
    """A cluster is busy for longer than a worker may take to be built."""
    crew: Simulated[str, float] = Simulated(
        lambda task, worker: well(1.0), [(0, 2)], building=90.0, placing=3000.0
    )
    assert all(isinstance(each, Done) for each in played(crew, "ab").values())
    assert crew.now() == 3000 + 90 + 10


def test_a_worker_that_is_placed_and_never_ready() -> None:
    crew: Simulated[str, float] = Simulated(
        lambda task, worker: well(1.0), [(0, 1)], building=FAR, placing=3000.0
    )
    with pytest.raises(RunError, match="no worker can be built: it took more than 100 s"):
        played(crew, "a")
    assert crew.now() == 3 * (3000 + 100)


def test_early_deaths_while_others_are_being_built() -> None:
    """Sixteen processes begin, and memory is short until three of them are killed."""
    killed = [Lost(worker, "it was killed") for worker in range(3)]
    crew = Told(16, *([each] for each in killed), [Ready(worker) for worker in range(3, 16)])
    with Supervisor(crew) as executor:
        found = list(in_order(executor, "abcdefghijklmnopqrst"))
    assert len(found) == 20
    assert all(isinstance(each, Done) for each in found)


def test_who_cannot_be_built_beside_others_is_no_reason_to_give_up() -> None:
    """Neither then, nor when the other one dies in its turn."""
    beside = [[Lost(worker, "it was killed")] for worker in range(1, 5)]
    crew = Told(2, [Ready(0)], *beside, [Lost(0, "it died")], [Ready(6)])
    with Supervisor(crew) as executor:
        found = list(in_order(executor, "abc"))
    assert all(isinstance(each, Done) for each in found)


def test_all_die_early() -> None:
    """Nobody is begun in vain while it is open if the others come to life."""
    crew = Told(16, *([Lost(worker, "it was killed")] for worker in range(16)))
    with (
        Supervisor(crew) as executor,
        pytest.raises(RunError, match="no worker can be built: it was killed"),
    ):
        list(in_order(executor, "abcdefghijklmnopqrst"))
    assert crew.script == []
    assert crew.begun == list(range(18))


@given(data=st.data(), workers=st.integers(1, 6), tasks=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_every_task_has_its_outcome(
    data: st.DataObject, workers: int, tasks: int
) -> None:
    """Any deaths, hangs, NaN and raises, workers coming and going: the outcome is the same."""
    kinds = st.sampled_from(["well", "dies", "hangs", "NaN", "late"])
    tries = data.draw(st.lists(st.lists(kinds, max_size=3), min_size=tasks, max_size=tasks))
    seconds = data.draw(st.lists(st.floats(0.1, 15), min_size=tasks, max_size=tasks))
    changes = data.draw(st.lists(st.tuples(st.floats(1, 200), st.integers(0, 6)), max_size=5))
    named = {
        task: iter(
            [
                {
                    "well": Fate(took, float(task)),
                    "dies": Fate(took, None),
                    "hangs": Fate(FAR, -1.0),
                    "NaN": Fate(took, math.nan),
                    "late": late(-2.0),
                }[kind]
                for kind in row
            ]
        )
        for task, (row, took) in enumerate(zip(tries, seconds, strict=True))
    }

    def fate(task: int, worker: int) -> Fate[float]:
        return next(named[task], Fate(seconds[task], float(task)))

    crew = Simulated(fate, [(0, workers), *sorted(changes), (FAR / 2, 1)], building=BUILDING)
    with Supervisor(crew, patience=PATIENCE, refused=scored) as executor:
        found = list(in_order(executor, range(tasks)))
    assert [each.task for each in found] == list(range(tasks))
    for each in found:
        assert isinstance(each, Failed) or each.result == float(each.task)
        if isinstance(each, Failed):
            assert len(each.reasons) == 3
