"""What several processes do together in tests: `python -m tests.pipeline.together FOLDER`.

Each process leaves its results in FOLDER. The same functions run in one process for comparison.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunas.errors import InputError, RunError
from prunas.pipeline.checkpoints import Every
from prunas.pipeline.crew import Crew
from prunas.pipeline.data import load_data
from prunas.pipeline.progress import Progress
from prunas.pipeline.ranks import Ranks, begun, ended
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.source_training import learn
from prunas.pipeline.sources import made_source
from prunas.pipeline.splits import Split
from prunas.pipeline.stages import Job
from prunas.pipeline.training import train
from prunas.supernet.schedules.sandwich import Sandwich
from prunas.supernet.training import stratified
from tests.pipeline.pictures import bright_pictures

Result = dict[str, Any]


def digits(count: int) -> Split:
    data = load_data("digits", seed=0).train
    return Split(data.fetch, data.indices[:count], data.labels[:count], data.preparation)


def network(seed: int, *layers: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        end = (nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, *end)


def trained(net: nn.Module, ranks: Ranks, recipe: Recipe, **options: Any) -> Result:
    epochs = train(net, digits(64), recipe, seed=3, ranks=ranks, **options)
    return {"epochs": epochs, "state": dict(net.state_dict())}


def without_norms(ranks: Ranks, folder: Path) -> Result:
    """Batches of 15, which two processes share unevenly, and begin with other weights."""
    recipe = Recipe(2, 15, 0.05, accumulate=2, ema=0.9)
    teacher = network(7 + ranks.index)
    return trained(network(ranks.index), ranks, recipe, teacher=teacher)


def with_norms(ranks: Ranks, folder: Path) -> Result:
    net = network(0, nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False, momentum=None))
    return trained(net, ranks, Recipe(2, 15, 0.05))


def uninterrupted(ranks: Ranks, folder: Path) -> Result:
    return trained(network(0, nn.BatchNorm2d(4), nn.Dropout(0.2)), ranks, Recipe(2, 16, 0.05))


def interrupted(ranks: Ranks, folder: Path) -> Result:
    """Stopped after step 6 of 8, when that has not been written; taken up from step 5."""
    net, file = network(0, nn.BatchNorm2d(4), nn.Dropout(0.2)), folder / "steps.safetensors"

    def stop(done: int, steps: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    recipe, options = Recipe(2, 16, 0.05), {"checkpoint": file, "every": Every(steps=1)}
    with suppress(KeyboardInterrupt):
        trained(net, ranks, recipe, on_step=stop, **options)
    return trained(network(1, nn.BatchNorm2d(4), nn.Dropout(0.2)), ranks, recipe, **options)


def refused(ranks: Ranks, folder: Path) -> Result:
    """Of a damaged checkpoint the others hear from the first process."""
    file = folder / "damaged.safetensors"
    file.write_bytes(b"damaged")
    try:
        trained(network(0), ranks, Recipe(1), checkpoint=file if ranks.first else None)
    except InputError as error:
        return {"said": str(error)}
    return {}


def gradients(ranks: Ranks, folder: Path) -> Result:
    """Process i has a gradient of parameter i alone, and nobody one of the last."""
    parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(3)]
    parameters[ranks.index].grad = torch.full((2, 3), 1.0 + ranks.index)
    measures = ranks.summed(parameters, torch.tensor([1.0, float(ranks.index)]))
    return {"measures": measures, "gradients": [each.grad for each in parameters]}


def shared(name: str, ranks: Ranks, folder: Path) -> Result:
    """One step of shared or generated weights: rounding grows from step to step."""
    data = bright_pictures(folder) if ranks.first else folder / "bright.npz"
    ranks.told(None)  # the data are there
    request = Request(
        "test_resnet", str(data), "macs=50%", source=name, supernet_epochs=1,
        batch_size=48, learning_rate=0.02, prior=False, accumulate=2,
    )  # fmt: skip
    run = RunFolder.create(folder / f"{name}-{ranks.count}-{ranks.index}", request, resume=False)
    job = Job(run, torch.device("cpu"), Progress(), crew=Crew(ranks))
    net = job.untrained(ranks.index)
    ranks.hand_out(net)
    source = made_source(job.request, name, net, job.space)
    paths = partial(stratified, job.space)
    learn(job, source, Sandwich(job.space.full(), paths) if ranks.first else None)
    return {"epochs": [], "state": dict(source.learnt.state_dict())}


def supernet(ranks: Ranks, folder: Path) -> Result:
    return shared("supernet", ranks, folder)


def pruningnet(ranks: Ranks, folder: Path) -> Result:
    return shared("pruningnet", ranks, folder)


def dying(ranks: Ranks, folder: Path) -> Result:
    """The second process is killed in the middle of an epoch; the first one says so."""

    def die(done: int, steps: int) -> None:
        if done == 2 and not ranks.first:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        return trained(network(0), ranks, Recipe(1, 16), on_step=die)
    except RunError as error:
        sys.exit(str(error))


CASES: dict[str, Callable[[Ranks, Path], Result]] = {
    each.__name__: each
    for each in (
        without_norms,
        with_norms,
        supernet,
        pruningnet,
        uninterrupted,
        interrupted,
        refused,
        gradients,
    )
}


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    ranks = begun()
    if names == ("dying",):
        dying(ranks, folder)
    results = {name: case(ranks, folder) for name, case in CASES.items()}
    torch.save(results, folder / f"{ranks.index}.pt")
    ended()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
