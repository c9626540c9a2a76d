"""Transformed networks against their sources, and against random transformation.

For every network, data set and seed: the source is trained from random weights; weights that it
shares with all its transformations are trained, and the policy asks for scores on held-out images
meanwhile; random transformation has as many scores, on the trained weights. The three networks
that either gives (`entrants`) are trained as the source was, from random weights of the same seed,
on the same images in the same order, without a teacher. The arm's network is the cheapest that is
right on held-out images as often as the source, which may be the source itself (`preferred`). The
test set is read at the end. A seed changes everything: splits, weights, search. The picture goes
to docs/.

Finished rows are kept in a .jsonl file beside this script, one for each network, data set, seed and
arm, and sources and found networks in a folder, so that an interrupted study goes on where it was.

Run: OMP_NUM_THREADS=1 python benchmarks/transformation_accuracy.py [NETWORK ...] [--data NAME]
     [--seeds N]
"""

import argparse
import fcntl
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np
import torch
from forest import Mark, Panel, forest
from pinned import pinned
from torch import nn

from prunas.eval.accuracy import accuracy
from prunas.eval.cost import Cost
from prunas.eval.statistics import Paired, paired, spread
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.networks import create_network
from prunas.pipeline.progress import Progress
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.seeking import Seeking, Settings, entrants
from prunas.pipeline.shared_weights import Course, SharedWeights, Transformable
from prunas.pipeline.small_images import Size
from prunas.pipeline.stages import Job, fixed
from prunas.pipeline.training import train
from prunas.pipeline.transformation import preferred
from prunas.supernet.cut import cut
from prunas.supernet.space import Candidate
from prunas.transformer_nat import (
    PUBLISHED,
    CellNetwork,
    Skeleton,
    cell_transformations,
    network_cost,
    replaced,
    traced_transformations,
)

ROWS: Final = Path(__file__).with_suffix(".jsonl")
KEPT: Final = Path(__file__).with_name("trained") / "transformation_accuracy"
DOCS: Final = Path(__file__).parents[1] / "docs"
COSTS: Final = ("macs", "params")
ARMS: Final = ("source", "policy", "random")
CPU: Final = torch.device("cpu")
EPOCHS: Final = {"digits": 20, "photos": 10}
SIDES: Final = {"digits": None, "photos": 16}  # half of what photographs have, for time
SHARED_EPOCHS: Final = {"digits": 10, "photos": 5}
EVALUATIONS: Final = 80
FINALISTS: Final = 4
RATE: Final = 0.05


# -- networks --------------------------------------------------------------------------------------


class Basic(nn.Module):
    """The block of ResNet-20: two convolutions, and a 1 x 1 one beside them where shapes change."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        same = before == after and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.short(x))


def resnet20(size: Size, classes: int) -> nn.Module:
    """He et al., CVPR 2016, section 4.2, at half width."""
    layers: list[nn.Module] = [nn.Conv2d(size[0], 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)]
    layers.append(nn.ReLU(inplace=True))
    before = 8
    for after in (8, 16, 32):
        for block in range(3):
            layers.append(Basic(before, after, 2 if block == 0 and after > 8 else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


def vgg(size: Size, classes: int) -> nn.Module:
    """As VGG with batch norms: 3 x 3 convolutions, pools, one linear layer."""
    layers: list[nn.Module] = []
    before = size[0]
    for width, count in ((16, 2), (32, 3), (64, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU(inplace=True))
            before = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


MODULES: Final[Mapping[str, Callable[[Size, int], nn.Module]]] = {"vgg": vgg, "resnet20": resnet20}
MODELS: Final = {"mobilenetv2": "mobilenetv2_050"}
CELLS: Final = {"darts": "DARTS_V2", "enas": "ENAS"}
FOUND: Final[dict[str, dict[str, Any]]] = {
    "found-mobilenetv2": {"model": "mobilenetv2_050", "budget": "macs=40%"},
    "found-efficientnet": {"model": "test_efficientnet", "budget": "macs=40%"},
}
NETWORKS: Final = (*MODULES, *MODELS, *CELLS, *FOUND)


class Case(Protocol):
    """A network of the study."""

    def built(self, seed: int) -> nn.Module:
        """The source, with random weights of this seed."""
        ...

    def transformable(self, trained: nn.Module) -> Transformable:
        """What may become of it, with the weights of the trained source."""
        ...

    def changed(self, found: Transformable, positions: Candidate, seed: int) -> nn.Module:
        """A transformation, with random weights of this seed."""
        ...

    def costs(self, found: Transformable, positions: Candidate) -> tuple[int, int]:
        """Multiply-accumulates and parameters of a transformation."""
        ...


@dataclass(frozen=True)
class Traced:
    """A plain module."""

    size: Size
    build: Callable[[int], nn.Module]

    def built(self, seed: int) -> nn.Module:
        return self.build(seed)

    def transformable(self, trained: nn.Module) -> Transformable:
        return traced_transformations(trained, self.size)

    def changed(self, found: Any, positions: Candidate, seed: int) -> nn.Module:
        return replaced(self.build(seed), found.replacements(positions), fresh=seed)

    def costs(self, found: Any, positions: Candidate) -> tuple[int, int]:
        cost, candidate = Cost(found.space), found.candidate(positions)
        return int(cost.macs([candidate])[0]), int(cost.params([candidate])[0])


@dataclass(frozen=True)
class Cells:
    """A network of published cells."""

    name: str
    skeleton: Skeleton

    def built(self, seed: int) -> nn.Module:
        return CellNetwork(PUBLISHED[self.name], self.skeleton, seed=seed)

    def transformable(self, trained: Any) -> Transformable:
        return cell_transformations(PUBLISHED[self.name], self.skeleton, trained=trained)

    def changed(self, found: Any, positions: Candidate, seed: int) -> nn.Module:
        return CellNetwork(found.transformed(positions), self.skeleton, seed=seed)

    def costs(self, found: Any, positions: Candidate) -> tuple[int, int]:
        cost = network_cost(found.transformed(positions), self.skeleton)
        return cost.macs, cost.params


def case_of(name: str, data: Data) -> Case:
    size, classes = data.input_size, len(data.classes)
    if name in CELLS:
        skeleton = Skeleton("cifar", 8, 6, classes, min(size[1:]), in_channels=size[0])
        return Cells(CELLS[name], skeleton)
    if name in MODULES:
        return Traced(size, lambda seed: _seeded(MODULES[name], size, classes, seed))
    if name in MODELS:
        model = MODELS[name]
        return Traced(
            size, lambda seed: create_network(model, classes=classes, input_size=size, seed=seed)
        )
    job = _searched(name, data.name)
    candidate = Candidate(job.folder.read()["result"]["candidate"])
    return Traced(size, lambda seed: cut(job.untrained(seed), job.space, candidate))


def _seeded(
    build: Callable[[Size, int], nn.Module], size: Size, classes: int, seed: int
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(size, classes)


def _searched(name: str, data: str) -> Job:
    """The run in which this network is found, once for all seeds."""
    request = Request(
        data=data, input_size=SIDES[data], epochs=EPOCHS[data], supernet_epochs=10,
        evaluations=60, finalists=1, calibration=256, **FOUND[name],
    )  # fmt: skip
    folder = KEPT / f"{name}-{data}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # another process may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = Job(RunFolder.create(folder / "run", request, resume=True), CPU, Progress())
        if "result" not in job.folder.read():
            run_search_stages(job)
    return job


# -- one seed --------------------------------------------------------------------------------------


def one_seed(name: str, data_name: str, seed: int) -> int:
    """Write the rows of one seed that are missing; returns how many there were."""
    torch.set_num_threads(1)
    missing = [arm for arm in ARMS if (name, data_name, seed, arm) not in done()]
    data = load_data(data_name, seed=seed, input_size=SIDES[data_name])
    case = case_of(name, data)
    recipe = Recipe(epochs=EPOCHS[data_name], learning_rate=RATE)
    source = case.built(seed)
    file = KEPT / f"{name}-{data_name}-{seed}.safetensors"
    train(source, data.train, recipe, seed=seed, checkpoint=file)
    found = case.transformable(source)
    entered = {found.moves.source: _entrant(case, found, found.moves.source, source, data)}
    weights = SharedWeights(found, course(data, seed))
    for arm in missing:
        began = perf_counter()
        wanted = [found.moves.source]
        if arm != "source":
            settings = Settings(arm, EVALUATIONS, SHARED_EPOCHS[data_name], FINALISTS, seed)
            seeking = Seeking(found.moves, weights, settings, {}, lambda: None, Progress())
            ranked = seeking.ranked()
            wanted = [row.candidate for row in entrants(found.moves, ranked, settings)]
        for positions in wanted:
            if positions not in entered:
                network = case.changed(found, positions, seed)
                train(network, data.train, recipe, seed=seed)
                entered[positions] = _entrant(case, found, positions, network, data)
        chosen = preferred([entered[positions] for positions in wanted])[0]
        row = {
            "network": name, "data": data_name, "seed": seed, "arm": arm,
            "accuracy": chosen["test"], "macs": chosen["macs"], "params": chosen["params"],
            "macs_source": entered[found.moves.source]["macs"],
            "params_source": entered[found.moves.source]["params"],
            "replaced": chosen["replaced"],
            "finalists": [_figures(entered[positions]) for positions in wanted],
            "seconds": round(perf_counter() - began, 1),
        }  # fmt: skip
        with ROWS.open("a") as rows_file:
            rows_file.write(json.dumps(row) + "\n")
    return len(missing)


def course(data: Data, seed: int) -> Course:
    return Course(
        train=data.train,
        calibration=fixed(data.train, data.input_size, CPU, limit=256),
        held_out=_all(data.held_out, data),
        recipe=Recipe(epochs=SHARED_EPOCHS[data.name], learning_rate=RATE / 2),
        device=CPU,
        seed=seed,
        paths=Settings().paths,
    )


def _entrant(
    case: Case, found: Transformable, positions: Candidate, network: nn.Module, data: Data
) -> dict[str, Any]:
    """A trained network. Nobody looks at its test accuracy before all is chosen."""
    macs, params = case.costs(found, positions)
    return {
        "held_out": accuracy(network, _all(data.held_out, data)),
        "test": accuracy(network, _all(data.test, data)),
        "macs": macs,
        "params": params,
        "replaced": _changes(found, positions),
    }


def _figures(entrant: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entrant.items() if name != "replaced"}


def _all(split: Any, data: Data) -> Any:
    return fixed(split, data.input_size, CPU)


def _changes(found: Transformable, positions: Candidate) -> list[str]:
    names = zip(found.moves.graph.edges, found.moves.operators(positions), strict=True)
    return [f"{e.target}: {e.operator} > {name}" for e, name in names if e.operator != name]


# -- the study -------------------------------------------------------------------------------------


def rows(file: Path = ROWS) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def done() -> set[tuple[str, str, int, str]]:
    return {(row["network"], row["data"], row["seed"], row["arm"]) for row in rows()}


def main(networks: Sequence[str], data: Sequence[str], seeds: int) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    known = done()
    work = [
        (name, kind, seed)
        for seed in range(seeds)
        for kind in data
        for name in networks
        if any((name, kind, seed, arm) not in known for arm in ARMS)
    ]
    for _ in pinned(one_seed, work):
        pass
    for kind in data:
        for name in networks:
            report(name, kind)
        if drawn := picture(kind):
            (DOCS / f"transformation_{kind}.svg").write_text(drawn, encoding="utf-8")


def report(name: str, data: str) -> None:
    by_arm = _whole(name, data)
    if len(by_arm["source"]) < 2:
        return
    print(f"{name} on {data}, {len(by_arm['source'])} seeds:")
    for arm, chosen in by_arm.items():
        found = spread([100 * row["accuracy"] for row in chosen])
        shares = [np.mean([row[f] / row[f"{f}_source"] for row in chosen]) for f in COSTS]
        print(
            f"  {arm:<7}{found.mean:.1f} ± {found.deviation:.1f} % right at {shares[0]:.3f} of the"
            f" MACs, {shares[1]:.3f} of the parameters"
        )
    for one, other in (("policy", "source"), ("random", "source"), ("policy", "random")):
        print(f"  {one} - {other}: {_compared(by_arm, one, other).sentence_in_points}")
    ours, theirs = (
        [row["macs"] / row["macs_source"] for row in by_arm[arm]] for arm in ("policy", "random")
    )
    print(f"  share of the MACs, policy - random: {paired(ours, theirs).sentence_in_points}")


def _whole(name: str, data: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of each arm, of the seeds that have them all, in the same order."""
    known = [row for row in rows() if (row["network"], row["data"]) == (name, data)]
    by_arm = {arm: {r["seed"]: r for r in known if r["arm"] == arm} for arm in ARMS}
    seeds = sorted(set.intersection(*(set(each) for each in by_arm.values())))
    return {arm: [by_arm[arm][seed] for seed in seeds] for arm in ARMS}


def _compared(by_arm: Mapping[str, list[dict[str, Any]]], one: str, other: str) -> Paired:
    ours, theirs = ([row["accuracy"] for row in by_arm[arm]] for arm in (one, other))
    return paired(ours, theirs)


def picture(data: str) -> str | None:
    """An SVG document of what is known so far; None if that is nothing."""
    known = {name: _whole(name, data) for name in NETWORKS}
    known = {name: by_arm for name, by_arm in known.items() if len(by_arm["source"]) > 1}
    if not known:
        return None
    labels, marks = [], []
    for name, by_arm in known.items():
        shares = [
            np.mean([row["macs"] / row["macs_source"] for row in by_arm[arm]]) for arm in ARMS[1:]
        ]
        told = " and ".join(f"{100 * share:.0f} %" for share in shares)
        labels.append(f"{name}, at {told} of the MACs")
        pairs = [_compared(by_arm, arm, "source") for arm in ARMS[1:]]
        marks.append([Mark(100 * p.mean, 100 * (p.low or 0), 100 * (p.high or 0)) for p in pairs])
    counts = sorted({len(by_arm["source"]) for by_arm in known.values()})
    seeds = f"{' or '.join(map(str, counts))} seeds, 95 % intervals"
    panel = Panel(f"Test accuracy, {data}", seeds, marks)
    return forest(labels, [panel], unit="points, less the source", names=ARMS[1:], zero=True)


def asked(description: str | None) -> tuple[list[str], list[str], int]:
    """Networks, data sets and the number of seeds, of the command line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    every = [*NETWORKS, []]  # argparse looks for the empty list among the choices too
    parser.add_argument("networks", nargs="*", choices=every, metavar="NETWORK")
    parser.add_argument("--data", choices=list(EPOCHS), action="append")
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    return given.networks or list(NETWORKS), given.data or list(EPOCHS), given.seeds


if __name__ == "__main__":
    main(*asked(__doc__))
