"""What workers gain, and what the driver of many workers can keep up with.

Two processes against one: evaluations of mobilenetv2_100 on images of 32 pixels, bound by
computation, each process with one thread; both are built beforehand and take turns.

The driver: a search at random on the space of mobilenetv2_100 whose evaluations take no time, each
one asked, dispatched, received, recorded and told. It is measured with two processes, where
messages travel, and with a hundred imagined workers, where only the driver works. The archive waits
for the disk once for all that arrives together, so the disk is measured as well.

Run: OMP_NUM_THREADS=1 python benchmarks/executors.py [FOLDER of the archives]
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from measuring import interleaved, ratio

import prunas
from prunas.eval.scoring import scorer
from prunas.pipeline.networks import create_network
from prunas.search import Archive, Budget, Evaluation, Feasible, Randomly, run_search
from prunas.search.executors import Crew, Processes, Supervisor, Work, in_order
from prunas.search.executors.simulated import Fate, Simulated
from prunas.supernet.elastic import Supernet

ROUNDS = 9
CANDIDATES = 8
EMPTY = 2000
SIDE = 32


def main(place: str | None) -> None:
    torch.set_num_threads(1)
    two_against_one()
    with TemporaryDirectory(dir=place) as folder:
        driver(Path(folder))


def evaluations() -> Work[prunas.Candidate, float]:
    """The recipe of a worker: shared weights, 128 images to calibrate on and 256 to score on."""
    network, space = _network()
    generator = torch.Generator().manual_seed(0)

    def images(batches: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            (
                torch.randn(128, 3, SIDE, SIDE, generator=generator),
                torch.randint(0, 10, (128,), generator=generator),
            )
            for _ in range(batches)
        ]

    score = scorer(Supernet(network, space), images(1), images(2))
    return lambda candidate: next(score([candidate]))


def nothing() -> Work[prunas.Candidate, float]:
    return lambda candidate: 0.5


def _network() -> tuple[torch.nn.Module, prunas.SearchSpace]:
    network = create_network("mobilenetv2_100", classes=10, input_size=(3, SIDE, SIDE), seed=0)
    return network, prunas.trace(network, (3, SIDE, SIDE), genes=("width",))


def two_against_one() -> None:
    _, space = _network()
    feasible = Feasible(space, Budget.parse("macs=40%"), prunas.Cost(space))
    candidates = feasible.sample(np.random.default_rng(0), CANDIDATES)
    with (
        Supervisor(Processes(evaluations, 1)) as one,
        Supervisor(Processes(evaluations, 2)) as two,
    ):
        seconds = interleaved(
            {
                "one": lambda: list(in_order(one, candidates)),
                "two": lambda: list(in_order(two, candidates)),
            },
            ROUNDS,
        )
    print(f"two processes against one, speed: {ratio(seconds, 'one', 'two')}", end="; ")
    print(f"{CANDIDATES} evaluations take {median(seconds['one']):.2f} s with one")


def driver(folder: Path) -> None:
    """Evaluations a second, of a search whose evaluations take no time."""
    crews: dict[str, tuple[Callable[[], Crew[prunas.Candidate, float]], int]] = {
        "two processes, batches of 10": (lambda: Processes(nothing, 2), 10),
        "100 imagined workers, batches of 100": (lambda: Simulated(_at_once, [(0, 100)]), 100),
    }
    for name, (crew, batch) in crews.items():
        rates = [_searched(folder / f"{name}-{at}", crew(), batch) for at in range(3)]
        print(f"driver, {name}: {median(rates):.0f} evaluations a second")
    print(f"the disk alone, one transaction each: {_recorded(folder / 'alone'):.0f} a second")


def _at_once(candidate: prunas.Candidate, worker: int) -> Fate[float]:
    return Fate(0.0, 0.5)


def _searched(file: Path, crew: Crew[prunas.Candidate, float], batch: int) -> float:
    _, space = _network()
    cost = prunas.Cost(space)
    with Supervisor(crew) as executor, Archive(file, fingerprint="") as archive:
        list(in_order(executor, [space.full(), space.smallest()]))  # workers are built
        began = perf_counter()
        run_search(
            Randomly(),
            space,
            Budget.parse("macs=40%"),
            None,
            executor,
            archive,
            cost,
            evaluations=EMPTY,
            batch=batch,
            rng=np.random.default_rng(0),
        )
        return EMPTY / (perf_counter() - began)


def _recorded(file: Path, count: int = 200) -> float:
    with Archive(file, fingerprint="") as archive:
        began = perf_counter()
        for value in range(count):
            archive.record(Evaluation(prunas.Candidate((value,)), 0.5, 1, 1, 0.0, 0))
        return count / (perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:2] or [None])
