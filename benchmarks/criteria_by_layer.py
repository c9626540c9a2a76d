"""Why one criterion cuts better than another: every layer narrowed alone, all others whole.

Of networks that criteria_accuracy.py trained: each gene alone at half its width, by the order of
several criteria, batch norms recalibrated or layers solved anew; how far the network's answers on
test images then are from those of the full network (KL, nats), and what each criterion's own values
had said about it. Finished networks are kept in a .jsonl file beside this script.

Run: OMP_NUM_THREADS=1 python benchmarks/criteria_by_layer.py [first seed] [seeds]
"""

import json
import sys
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from criteria_accuracy import CPU, FIRST_SEED, IMAGES, NETWORKS, trained
from pinned import pinned
from torch import nn

import prunas
from prunas.eval.criteria.measured import measured_values
from prunas.eval.criteria.selection import di_prior
from prunas.eval.criteria.table import CRITERIA
from prunas.eval.ranking import spearman
from prunas.eval.statistics import spread
from prunas.pipeline.pruning import Adaptation, cut_adapted
from prunas.pipeline.stages import Fixed, fixed

ORDERS: Final = ("di", "di-curvature", "taylor", "l1", "random")
HALF: Final = 0.5
ROWS: Final = Path(__file__).with_suffix(".jsonl")


def main(first: int, seeds: int) -> None:
    done = {(row["data"], row["model"], row["seed"]) for row in rows()}
    work = [
        (data, model, seed)
        for seed in range(first, first + seeds)
        for data, models in NETWORKS.items()
        for model in models
        if (data, model, seed) not in done
    ]
    for found in pinned(one_network, work):
        with ROWS.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
    for data, models in NETWORKS.items():
        for model in models:
            report(data, model)


def rows() -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def one_network(name: str, model: str, seed: int) -> list[dict[str, Any]]:
    """A row for every gene and order."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network, data = trained(name, model, seed)
    space = prunas.trace(network, data.input_size, genes=("width",))
    images = fixed(data.train, data.input_size, CPU, limit=IMAGES)
    test = fixed(data.test, data.input_size, CPU)
    found = []
    for order in ORDERS:
        ranking = di_prior(network, space, images, device=CPU, criterion=CRITERIA[order])
        losses = {
            adaptation: losses_at_half(network, space, ranking.orders, images, test, adaptation)
            for adaptation in get_args(Adaptation)
        }
        for gene, known in enumerate(space.genes):
            worth, half = ranking.values[gene], _half(known.choices)
            found.append(
                {
                    "data": name,
                    "model": model,
                    "seed": seed,
                    "gene": known.name,
                    "order": order,
                    "said": worth[-1] - worth[half],
                    **{adaptation: each[gene] for adaptation, each in losses.items()},
                }
            )
    return found


def losses_at_half(
    network: nn.Module,
    space: prunas.SearchSpace,
    orders: Sequence[Sequence[int]],
    images: Fixed,
    test: Fixed,
    adaptation: Adaptation,
) -> list[float]:
    """Per gene the divergence, on `test`, of the network with that gene alone at half its width."""

    def cutting(ordered: nn.Module, candidate: prunas.Candidate) -> nn.Module:
        return cut_adapted(ordered, space, candidate, images, adaptation, CPU)

    worth = measured_values(network, space, orders, test, cutting, device=CPU, shares=(HALF,))
    return [curve[-1] for curve in worth]


def _half(choices: Sequence[int]) -> int:
    return min(choices, key=lambda choice: abs(choice - HALF * choices[-1]))


def report(data: str, model: str) -> None:
    """Mean losses over genes, and how well each criterion's values foretell them."""
    chosen = [row for row in rows() if (row["data"], row["model"]) == (data, model)]
    if not chosen:
        return
    seeds = sorted({row["seed"] for row in chosen})
    print(f"\n{data}, {model}, {len(seeds)} networks")
    for order, adaptation in product(ORDERS, get_args(Adaptation)):
        means, agreements = [], []
        for seed in seeds:
            mine = [row for row in chosen if (row["seed"], row["order"]) == (seed, order)]
            lost = np.array([row[adaptation] for row in mine])
            means.append(lost.mean())
            agreements.append(spearman(np.array([row["said"] for row in mine]), lost))
        print(
            f"  {order:8} {adaptation:12} mean loss {spread(means).mean:.3f} nats;"
            f" Spearman of its values with the losses {spread(agreements).mean:.2f}"
            f" ({', '.join(f'{a:.2f}' for a in agreements)})"
        )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else FIRST_SEED, given[1] if len(given) > 1 else 3)
