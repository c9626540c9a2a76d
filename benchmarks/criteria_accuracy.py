"""Accuracy right after cutting, by every criterion: nothing is trained after the cut.

For every data set, network and seed one network is trained on a split of its own; then every
criterion prunes that very network to each budget, with widths allocated by its own values and with
uniform ones, batch norms recalibrated or (some criteria) layers solved anew, and Torch-Pruning
1.6.1 does so by magnitude, Taylor and Hessian, layer by layer alike and globally. All see the same
training images; test accuracy is compared within seeds. Rows are kept in a .jsonl file beside this
script as they are finished; docs/criteria_accuracy.md and .svg are made of them.

Run: OMP_NUM_THREADS=1 python benchmarks/criteria_accuracy.py [digits|photos] [seeds]
"""

import copy
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import chain, product
from pathlib import Path
from typing import Any, Final, get_args

import prunas

import torch  # isort: skip - prunas declares what imports of torchvision need
import numpy as np
import torch_pruning
from forest import Mark, Panel, forest
from pinned import pinned
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F

from prunas.eval.accuracy import accuracy
from prunas.eval.criteria.selection import di_prior
from prunas.eval.criteria.table import CRITERIA
from prunas.eval.recalibration import recalibrate_
from prunas.eval.statistics import LEVEL, Paired, paired
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.networks import create_network
from prunas.pipeline.pruning import Adaptation, cut_to
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.stages import Fixed, fixed
from prunas.pipeline.training import train
from prunas.search import Budget, Feasible

BUDGETS: Final = (0.5, 0.3)
IMAGES: Final = 512
"""Training images that criteria look at and networks are adapted on."""
REFIT: Final = (
    "di", "di-output", "di-curvature", "reconstruction", "taylor", "fisher", "flap", "l1", "random",
)  # fmt: skip
"""Criteria whose cut networks are also solved anew instead of recalibrated."""
NETWORKS: Final[dict[str, dict[str, Recipe]]] = {
    "digits": {
        "mobilenetv2_050": Recipe(epochs=40, learning_rate=0.05),
        "test_resnet": Recipe(epochs=20),
    },
    "photos": {
        "mobilenetv2_035": Recipe(epochs=10),
        "test_resnet": Recipe(epochs=6),
    },
}
WIDTHS: Final = ("allocated", "uniform")
FIRST_SEED: Final = 5
"""Seeds 0 and 1 served while methods were chosen, 2 to 4 were looked at before the last of them."""
SIDES: Final = {"mobilenetv2_035": 16}
"""Smaller photographs, which leave time for more steps: deep thin networks need them."""
ROWS: Final = Path(__file__).with_suffix(".jsonl")
PAGE: Final = Path(__file__).parents[1] / "docs" / "criteria_accuracy.md"
PICTURE: Final = PAGE.with_suffix(".svg")
OURS: Final = "di-curvature, allocated"
SHOWN: Final = (
    "di-curvature, allocated, refit",
    "reconstruction, allocated, refit",
    "taylor, allocated, refit",
    "flap, allocated, refit",
    "fisher, allocated, refit",
    "di, allocated, refit",
    "l1, uniform, refit",
    "random, uniform, refit",
    "di-curvature, allocated",
    "taylor, allocated",
    "fisher, uniform",
    "di, allocated",
    "l1, uniform",
    "torch-pruning taylor, uniform",
    "torch-pruning magnitude, uniform",
    "torch-pruning hessian, uniform",
    "random, uniform",
)
PREFACE: Final = """# Accuracy right after cutting

Written by `OMP_NUM_THREADS=1 python benchmarks/criteria_accuracy.py`. {seeds} trained networks a
column, each on a split of its own; nothing is trained after the cut. Mean test accuracy in per
cent, and in parentheses the 95 % interval of the difference from *{ours}* adapted alike, in
points, paired by network. **Bold**: shares the first place of its table, that is, Wilcoxon's
signed-rank test does not tell it from the best mean (p >= 0.05, not corrected for the many
methods). All methods see the same 512 training images; nine criteria were also cut with layers
solved anew. Torch-Pruning's ratios are found by bisection.
"""
TRAINED: Final = Path(__file__).with_name("trained")
CPU: Final = torch.device("cpu")

Importance = Callable[[nn.Module], Any]
"""Makes one of Torch-Pruning's importances, ready for a copy of the network."""


def main(names: list[str], seeds: int) -> None:
    work = [
        (data, model, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for data in names
        for model in NETWORKS[data]
    ]
    for _ in pinned(one_network, work):
        pass
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"wrote {PAGE} and {PICTURE}")


def rows() -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def one_network(name: str, model: str, seed: int) -> None:
    """Append the rows of one trained network that are not there yet, each as it is finished."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network, data = trained(name, model, seed)
    test = fixed(data.test, data.input_size, CPU)
    about = {"data": name, "model": model, "seed": seed, "full": accuracy(network, test)}
    known = [
        row for row in rows() if (row["data"], row["model"], row["seed"]) == (name, model, seed)
    ]
    if any(row["full"] != about["full"] for row in known):
        raise RuntimeError(
            f"the rows of {name}, {model}, seed {seed} are of a network trained elsewhere, and the"
            " same recipe gave another one here; take them out of the file"
        )
    done = {(row["method"], row["budget"]) for row in known}
    for method, budget, macs, small in chain(
        by_prunas(network, data, done), by_torch_pruning(network, data, done)
    ):
        row = {"method": method, "budget": budget, "macs": macs, "test": accuracy(small, test)}
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about | row) + "\n")


def trained(name: str, model: str, seed: int) -> tuple[nn.Module, Data]:
    """A network trained on a split of its own, kept beside this script; and the split."""
    data = load_data(name, seed=seed, input_size=SIDES.get(model))
    network = create_network(
        model, classes=len(data.classes), input_size=data.input_size, seed=seed
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    file = TRAINED / f"{name}-{model}-{seed}.safetensors"
    if file.exists():
        load_model(network, file)
    else:
        train(network, data.train, NETWORKS[name][model], seed=seed, device=CPU)
        file.parent.mkdir(exist_ok=True)
        save_model(network, str(file))
    return network.eval(), data


def by_prunas(
    network: nn.Module, data: Data, done: Set[tuple[str, float]]
) -> Iterator[tuple[str, float, float, nn.Module]]:
    """(method, budget, share of MACs, small network), of what is not done."""
    space = prunas.trace(network, data.input_size, genes=("width",))
    images = fixed(data.train, data.input_size, CPU, limit=IMAGES)
    for name, judge in CRITERIA.items():
        adaptations = get_args(Adaptation) if name in REFIT else ("recalibrate",)
        wanted = {
            (f"{name}, {widths}" + (", refit" if adaptation == "refit" else ""), budget): (
                widths == "uniform",
                adaptation,
            )
            for budget, widths, adaptation in product(BUDGETS, WIDTHS, adaptations)
        }
        if wanted.keys() <= done:
            continue
        ranking = di_prior(network, space, images, device=CPU, criterion=judge)
        for (method, budget), (uniform, adaptation) in wanted.items():
            if (method, budget) not in done:
                feasible = Feasible(space, Budget.parse(f"macs={budget}"), prunas.Cost(space))
                found = cut_to(
                    network,
                    feasible,
                    ranking,
                    batches=images,
                    uniform=uniform,
                    adaptation=adaptation,
                )
                yield method, budget, found.macs[0] / found.macs[1], found.network


def by_torch_pruning(
    network: nn.Module, data: Data, done: Set[tuple[str, float]]
) -> Iterator[tuple[str, float, float, nn.Module]]:
    """The same for Torch-Pruning, one step each; its ratio is found by bisection."""
    images = fixed(data.train, data.input_size, CPU, limit=IMAGES)
    for name, prepare in IMPORTANCES.items():
        scopes = {f"torch-pruning {name}, uniform": False, f"torch-pruning {name}, global": True}
        wanted = [each for each in product(scopes, BUDGETS) if each not in done]
        if not wanted:
            continue
        ready = copy.deepcopy(network)
        gradients = prepare(ready, images)
        for method, budget in wanted:
            share, small = _bisected(ready, gradients, data, budget, scopes[method])
            recalibrate_(small, images)
            yield method, budget, share, small


def _bisected(
    network: nn.Module, prepared: Importance, data: Data, budget: float, together: bool
) -> tuple[float, nn.Module]:
    """The mildest of its ratios, to 0.015, that meets the budget."""
    example = torch.zeros(1, *data.input_size)
    whole, _ = torch_pruning.utils.count_ops_and_params(network, example)
    mild, strong, best = 0.0, 0.95, None
    while strong - mild > 0.015:
        ratio = (mild + strong) / 2
        small = copy.deepcopy(network)
        classifier = [m for m in small.modules() if isinstance(m, nn.Linear)][-1:]
        pruner = torch_pruning.pruner.BasePruner(
            small,
            example,
            prepared(small),
            global_pruning=together,
            pruning_ratio=ratio,
            max_pruning_ratio=0.95,
            ignored_layers=classifier,
        )
        pruner.step()
        share = torch_pruning.utils.count_ops_and_params(small, example)[0] / whole
        if share <= budget:
            strong, best = ratio, (share, small.eval())
        else:
            mild = ratio
    if best is None:
        raise RuntimeError(f"Torch-Pruning does not reach {budget:.0%} of the MACs")
    return best


def _magnitude(network: nn.Module, images: Fixed) -> Importance:
    return lambda _: torch_pruning.importance.GroupMagnitudeImportance()


def _taylor(network: nn.Module, images: Fixed) -> Importance:
    """The gradient over all images."""
    network.eval().zero_grad()
    for pictures, labels in images:
        F.cross_entropy(network(pictures), labels).backward()
    gradients = [parameter.grad for parameter in network.parameters()]

    def prepared(small: nn.Module) -> Any:
        for parameter, gradient in zip(small.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        return torch_pruning.importance.GroupTaylorImportance()

    return prepared


def _hessian(network: nn.Module, images: Fixed) -> Importance:
    """As its documentation says: squared gradients of single samples, here of 16.

    More would not help: its accumulator keeps the last one only.
    """
    pictures, labels = next(iter(images))

    def prepared(small: nn.Module) -> Any:
        importance = torch_pruning.importance.GroupHessianImportance()
        small.eval()
        losses = F.cross_entropy(small(pictures[:16]), labels[:16], reduction="none")
        for loss in losses:
            small.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(small)
        return importance

    return prepared


IMPORTANCES: Final[dict[str, Callable[[nn.Module, Fixed], Importance]]] = {
    "magnitude": _magnitude,
    "taylor": _taylor,
    "hessian": _hessian,
}


# -- what the rows say -----------------------------------------------------------------------------

Accuracies = Mapping[str, Mapping[int, float]]
"""Method -> seed -> test accuracy."""


def accuracies(data: str, model: str, budget: float) -> Accuracies:
    """Of one data set, network and budget; under "full" those of the full networks."""
    found: dict[str, dict[int, float]] = {"full": {}}
    for row in rows():
        if (row["data"], row["model"], row["budget"]) == (data, model, budget):
            found.setdefault(row["method"], {})[row["seed"]] = row["test"]
            found["full"][row["seed"]] = row["full"]
    return found


def against(found: Accuracies, method: str, other: str) -> Paired:
    """Method minus other, seed by seed."""
    seeds = sorted(found[method].keys() & found[other].keys())
    return paired([found[method][s] for s in seeds], [found[other][s] for s in seeds])


def adaptation_of(method: str) -> str:
    return ", refit" if method.endswith(", refit") else ""


def cells(found: Accuracies) -> dict[str, str]:
    """Method -> its mean accuracy and its difference from `OURS` adapted alike, in points.

    Bold: no method adapted alike is better, as far as these seeds can tell.
    """
    means = {m: float(np.mean(list(by_seed.values()))) for m, by_seed in found.items()}
    told = {"full": f"{100 * means['full']:.1f}"}
    for method in found.keys() - {"full"}:
        adaptation = adaptation_of(method)
        alike = [m for m in found if m != "full" and adaptation_of(m) == adaptation]
        best = max(alike, key=lambda m: means[m])
        lead = against(found, method, best)
        shares_first = method == best or lead.p_value >= LEVEL
        mean = f"**{100 * means[method]:.1f}**" if shares_first else f"{100 * means[method]:.1f}"
        ours = OURS + adaptation
        told[method] = (
            mean if method == ours else f"{mean} ({interval(against(found, method, ours))})"
        )
    return told


def interval(compared: Paired) -> str:
    if compared.low is None or compared.high is None:
        return "one seed"
    return f"{100 * compared.low:+.1f} to {100 * compared.high:+.1f}".replace("-", "−")


def page() -> str:
    """All methods in all settings, as Markdown."""
    settings = [(d, m, b) for d, models in NETWORKS.items() for m in models for b in BUDGETS]
    found = [accuracies(*setting) for setting in settings]
    columns = [cells(each) for each in found]
    parts = [PREFACE.format(seeds=len(found[0]["full"]), ours=OURS)]
    for adaptation, title in ((", refit", "Solved anew"), ("", "Batch norms recalibrated only")):
        methods = [m for m in found[0] if m != "full" and adaptation_of(m) == adaptation]
        total = {m: sum(np.mean(list(each[m].values())) for each in found) for m in methods}
        header = ["method", *(f"{d}, {m}, {b:.0%}" for d, m, b in settings)]
        lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for method in ("full", *sorted(methods, key=lambda m: -total[m])):
            row = [method.removesuffix(", refit"), *(column[method] for column in columns)]
            lines.append(f"| {' | '.join(row)} |")
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def picture() -> str:
    """What some methods lose, against the full network."""
    panels = []
    for data, models in NETWORKS.items():
        for model in models:
            found = [accuracies(data, model, budget) for budget in BUDGETS]
            panels.append(
                Panel(data, model, [[lost(each, method) for each in found] for method in SHOWN])
            )
    names = [f"{budget:.0%} of the MACs" for budget in BUDGETS]
    return forest(list(SHOWN), panels, unit="points, against the full network", names=names)


def lost(found: Accuracies, method: str) -> Mark:
    compared = against(found, method, "full")
    low, high = (compared.mean if end is None else end for end in (compared.low, compared.high))
    return Mark(100 * compared.mean, 100 * low, 100 * high)


if __name__ == "__main__":
    main([sys.argv[1]] if len(sys.argv) > 1 else list(NETWORKS), int((sys.argv[2:] or ["10"])[0]))
