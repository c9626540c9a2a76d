"""Ground truth: small networks of which every candidate is evaluated, for `prunas compare`.

For each of three seeds the network is trained, its channels are sorted by discriminant
information, shared weights are trained over the whole space, and every candidate is scored on
held-out and on test images as in a search. Candidates are run in an order in which neighbours
share their first layers, whose activations are kept; the scores are those of candidates run one
by one (checked on some of them).

Run: OMP_NUM_THREADS=1 python benchmarks/tables.py [NAME ...]
writes prunas/search/tables/NAME.npz; finished seeds are kept in build/tables and not made again.
"""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pinned import pinned
from torch import Tensor, nn

import prunas
from prunas.eval.accuracy import accuracy, evaluating
from prunas.eval.criteria.selection import di_prior
from prunas.eval.scoring import scorer
from prunas.pipeline.comparison.contenders import PRIORS
from prunas.pipeline.comparison.indicators import indicator_prior
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.files import replacing
from prunas.pipeline.recipe import Recipe, optimizer_for
from prunas.pipeline.seeding import seeded
from prunas.pipeline.splits import Batch, Split
from prunas.pipeline.stages import fixed
from prunas.pipeline.training import train
from prunas.search.budget import as_candidates
from prunas.search.enumeration import enumerated
from prunas.search.prior import Prior
from prunas.search.table import Counts, Table, write_table
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import WidthGrid
from prunas.supernet.permute import permute
from prunas.supernet.schedules.sandwich import Sandwich
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.training import PlainDescent, stratified, train_supernet
from prunas.supernet.tying import tied

# timm after prunas, which makes torchvision's Python side importable
from timm.models._efficientnet_blocks import ConvBnAct, InvertedResidual  # isort: skip
from timm.models.resnet import BasicBlock, downsample_conv  # isort: skip

SEEDS: Final = (0, 1, 2)
CALIBRATION: Final = 256
MOST: Final = 600  # images that a candidate is scored on
CHECKED: Final = 40  # candidates that are scored one by one as well
GRID: Final = WidthGrid((1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1))
PARTS: Final = Path("build/tables")
TABLES: Final = Path(prunas.__file__).parent / "search" / "tables"


class Stages(nn.Sequential):
    """A sequence that can keep what its stages gave for the images seen last.

    `decided` says of each stage which genes have acted up to its end; while `candidate` is set, a
    stage runs only if one of them has changed since it ran on these images.
    """

    candidate: Candidate | None = None
    decided: Sequence[Sequence[int]] = ()

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__(*stages)
        self._kept: dict[tuple[int, int], tuple[tuple[int, ...], Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        if self.candidate is None:
            result: Tensor = super().forward(images)
            return result
        result = images
        for index, stage in enumerate(self):
            genes = tuple(self.candidate[gene] for gene in self.decided[index])
            place = (images.data_ptr(), index)
            if place not in self._kept or self._kept[place][0] != genes:
                self._kept[place] = (genes, stage(result))
            result = self._kept[place][1]
        return result

    def forget(self) -> None:
        self._kept.clear()


def mobilenetv2_shaped(classes: int, channels: int, width: int) -> nn.Module:
    """Inverted residuals of w, 4/3 w and 2 w channels that expand four times."""
    middle, last = width * 4 // 3, width * 2
    return Stages(
        ConvBnAct(channels, width, 3),
        InvertedResidual(width, width, exp_ratio=4),
        InvertedResidual(width, middle, stride=2, exp_ratio=4),
        InvertedResidual(middle, middle, exp_ratio=4),
        InvertedResidual(middle, last, stride=2, exp_ratio=4),
        ConvBnAct(last, 4 * width, 1),
        *_classifier(4 * width, classes),
    )


def resnet_shaped(classes: int, channels: int, width: int) -> nn.Module:
    """Basic blocks of w, 2 w, 2 w and 4 w channels."""
    return Stages(
        ConvBnAct(channels, width, 3),
        BasicBlock(width, width),
        BasicBlock(width, 2 * width, stride=2, downsample=_shortcut(width, 2 * width)),
        BasicBlock(2 * width, 2 * width),
        BasicBlock(2 * width, 4 * width, stride=2, downsample=_shortcut(2 * width, 4 * width)),
        *_classifier(4 * width, classes),
    )


def _shortcut(inputs: int, outputs: int) -> nn.Module:
    return downsample_conv(inputs, outputs, 1, stride=2)


def _classifier(width: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


@dataclass(frozen=True)
class Setting:
    """One table.

    Attributes:
        network: makes the network, from the numbers of classes, of image channels, and `width`.
        width: channels of its first layer.
        data: name of the data set.
        side: of the images.
        whole: genes that keep all their channels.
        epochs: of the full network.
        supernet_epochs: of the shared weights.
        learning_rate: peak rate.
    """

    network: Callable[[int, int, int], nn.Module]
    width: int
    data: str
    side: int
    whole: tuple[str, ...]
    epochs: int
    supernet_epochs: int
    learning_rate: float


SETTINGS: Final = {
    "mobilenetv2-digits": Setting(
        mobilenetv2_shaped, 6, "digits", 8, ("0.conv", "5.conv"), 40, 60, 0.1
    ),
    "resnet-digits": Setting(resnet_shaped, 4, "digits", 8, ("0.conv",), 40, 60, 0.1),
    "mobilenetv2-photos": Setting(
        mobilenetv2_shaped, 12, "photos", 16, ("0.conv", "5.conv"), 20, 30, 0.1
    ),
    "resnet-photos": Setting(resnet_shaped, 12, "photos", 16, ("0.conv",), 20, 30, 0.1),
}


def main(names: Sequence[str]) -> None:
    work = [(name, seed) for seed in SEEDS for name in names if not part(name, seed).exists()]
    for name, seed, said in pinned(one_seed, work):
        print(f"{name}, seed {seed}: {said}", flush=True)
    for name in names:
        with replacing(TABLES / f"{name}.npz") as aside, aside.open("wb") as file:
            write_table(joined(name), file)


def part(name: str, seed: int) -> Path:
    return PARTS / f"{name}-{seed}.npz"


def one_seed(name: str, seed: int) -> tuple[str, int, str]:
    """Train, and score every candidate; writes the part of the table."""
    torch.set_num_threads(1)
    setting = SETTINGS[name]
    data = data_of(setting, seed)
    with seeded(seed, torch.device("cpu")):
        network = setting.network(len(data.classes), data.input_size[0], setting.width)
    network.to(memory_format=torch.channels_last)
    space = space_of(setting, network, data)
    recipe = Recipe(setting.epochs, learning_rate=setting.learning_rate)
    train(network, data.train, recipe, seed=seed)
    ranking = di_prior(network, space, fixed(data.train, data.input_size, CPU), device=CPU)
    ordered = permute(network, space, ranking.orders)
    learnt = indicator_prior(ordered, space, fixed(data.train, data.input_size, CPU), device=CPU)
    source = Supernet(ordered, space)
    train_shared(source, data, setting, seed)
    held_out, test, worst = scores(source, data)
    full = [
        accuracy(network, fixed(split, data.input_size, CPU))
        for split in (data.held_out, data.test)
    ]
    rest = {
        "space": space.to_json(),
        "priors": {"di": ranking.values, "dais": learnt.values},
        "images": min(MOST, len(data.held_out)),
        "test_images": min(MOST, len(data.test)),
        "full": full,
    }
    with replacing(part(name, seed)) as aside, aside.open("wb") as file:
        np.savez_compressed(file, held_out=held_out, test=test, rest=np.array(json.dumps(rest)))
    ends = " to ".join(
        f"{count / rest['images']:.3f}" for count in (held_out.min(), held_out.max())
    )
    return name, seed, f"full network {full[0]:.3f}, {full[1]:.3f}; candidates {ends}; {worst}"


CPU: Final = torch.device("cpu")


def data_of(setting: Setting, seed: int) -> Data:
    return load_data(setting.data, seed=seed, input_size=setting.side, held_out=0.4, test=0.3)


def space_of(setting: Setting, network: nn.Module, data: Data) -> SearchSpace:
    traced = prunas.trace(network, data.input_size, grid=GRID, genes=("width",))
    return tied(traced, whole=setting.whole)


def train_shared(source: Supernet, data: Data, setting: Setting, seed: int) -> None:
    """Over the whole space, evenly: the table serves all budgets."""
    recipe = Recipe(setting.supernet_epochs, learning_rate=setting.learning_rate)
    steps = recipe.epochs * (len(data.train) // recipe.batch_size)
    everywhere = partial(stratified, source.space, spread=8.0)
    train_supernet(
        source,
        _epochs(data.train, recipe, seed),
        Sandwich(source.space.full(), everywhere, paths=2),
        steps=steps,
        descent=PlainDescent(
            optimizer_for(source.learnt, recipe), lambda step: recipe.rate_at(step, steps)
        ),
        label_smoothing=recipe.label_smoothing,
        rng=np.random.default_rng([seed, 1]),
    )


def _epochs(split: Split, recipe: Recipe, seed: int) -> Iterator[Batch]:
    for epoch in range(recipe.epochs):
        shuffle = np.random.default_rng([seed, 2, epoch])
        yield from split.batches(
            recipe.batch_size, shuffle=shuffle, augment=True, device=CPU, channels_last=True
        )


def scores(source: Supernet, data: Data) -> tuple[Counts, Counts, str]:
    """Right answers of every candidate on held-out and test images, in the order of a table."""
    space, network = source.space, source.network
    calibration = whole_split(data.train.first(CALIBRATION))
    parts = [whole_split(split.first(MOST)) for split in (data.held_out, data.test)]
    images = torch.cat([each[0] for each in parts]).contiguous(memory_format=torch.channels_last)
    labels = torch.cat([each[1] for each in parts])
    first = len(parts[0][0])
    candidates = enumerated(space)
    network.decided = decided(network, space)
    order = np.lexsort([candidates[:, gene] for gene in reversed(by_depth(network.decided))])
    held_out, test = (np.zeros(len(candidates), dtype=np.uint16) for _ in range(2))
    with evaluating(network):
        norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
        for place in order:
            network.candidate = Candidate(candidates[place].tolist())
            with source.frozen(network.candidate):
                _calibrate(norms, network, calibration[0])
                hits = network(images).argmax(1) == labels
            held_out[place], test[place] = hits[:first].sum(), hits[first:].sum()
    network.candidate = None
    network.forget()
    score = scorer(source, [calibration], [parts[0]])
    chosen = np.random.default_rng(0).choice(len(candidates), CHECKED, replace=False)
    slow = [round(share * first) for share in score(as_candidates(candidates[chosen]))]
    worst = int(np.abs(np.array(slow) - held_out[chosen]).max())
    return held_out, test, f"one by one differs by {worst} images at most"


def _calibrate(norms: Sequence[nn.BatchNorm2d], network: nn.Module, images: Tensor) -> None:
    """The statistics of these images; as `recalibrated`, for one batch and without undoing it."""
    for norm in norms:
        width = len(norm.weight)
        norm._buffers["running_mean"] = torch.zeros(width)
        norm._buffers["running_var"] = torch.ones(width)
        norm.momentum, norm.training = 1.0, True
    network(images)
    for norm in norms:
        norm.training = False


def whole_split(split: Split) -> Batch:
    (batch,) = split.batches(len(split), device=CPU, channels_last=True)
    return batch


def decided(network: nn.Module, space: SearchSpace) -> list[list[int]]:
    """Per stage the genes that have acted up to its end."""
    acting: dict[int, set[int]] = {index: set() for index in range(len(network))}
    for name, dimensions in space.slots.items():
        for factors in dimensions.values():
            atoms = np.concatenate(factors)
            acting[int(name.split(".")[0])] |= set(space.gene_of_atom[atoms[atoms > 0]].tolist())
    return [sorted(set().union(*(acting[i] for i in range(index + 1)))) for index in acting]


def by_depth(genes_of: Sequence[Sequence[int]]) -> list[int]:
    """Genes in the order in which they begin to act."""
    return list(dict.fromkeys(gene for genes in genes_of for gene in genes))


def joined(name: str) -> Table:
    """The table of all seeds."""
    parts = [np.load(part(name, seed)) for seed in SEEDS]
    rests: list[dict[str, Any]] = [json.loads(str(each["rest"])) for each in parts]
    setting = asdict(SETTINGS[name]) | {"network": SETTINGS[name].network.__doc__}
    about = {
        "setting": setting,
        "full": [rest["full"] for rest in rests],
        "command": f"python benchmarks/tables.py {name}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return Table(
        name,
        about,
        SearchSpace.from_json(rests[0]["space"]),
        np.stack([each["held_out"] for each in parts]),
        np.stack([each["test"] for each in parts]),
        rests[0]["images"],
        rests[0]["test_images"],
        {prior: tuple(_prior(rest["priors"][prior]) for rest in rests) for prior in PRIORS},
    )


def _prior(values: Sequence[Sequence[float]]) -> Prior:
    """Channels are sorted already, as in the shared weights."""
    orders = tuple(tuple(range(len(worth) - 1)) for worth in values)
    return Prior(orders, tuple(map(tuple, values)))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
