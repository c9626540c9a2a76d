"""What a policy finds on shared weights, and what such a find tells of trained networks.

For every network, data set and seed (others than those of `transformation_accuracy`), weights that
the network shares with its transformations are trained, and give as many scores to the policy, as
the program does it (half of them in the course of the training), to the policy with all scores on
the trained weights, and to random transformation. The better search has the higher worth (score
and thrift) on the trained weights. Then some of what was scored on these, drawn at random, is
trained alone as the source was: how scores and the accuracies on test images go together tells what
there is to gain by searching well.

Finished rows are kept in a .jsonl file beside this script, one for each network, data set and seed.

Run: OMP_NUM_THREADS=1 python benchmarks/transformation_search.py [NETWORK ...] [--data NAME]
     [--seeds N]
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pinned import pinned
from transformation_accuracy import (
    CPU,
    EPOCHS,
    EVALUATIONS,
    KEPT,
    RATE,
    SHARED_EPOCHS,
    SIDES,
    asked,
    case_of,
    course,
    fixed,
    rows,
)

from prunas.eval.accuracy import accuracy
from prunas.eval.ranking import kendall
from prunas.eval.statistics import paired, spread
from prunas.pipeline.data import load_data
from prunas.pipeline.progress import Progress
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.seeking import Seeking, Settings, worth
from prunas.pipeline.shared_weights import SharedWeights
from prunas.pipeline.training import train
from prunas.supernet.space import Candidate

ROWS: Final = Path(__file__).with_suffix(".jsonl")
FIRST: Final = 200  # seed
TRAINED: Final = 12  # transformations
COLUMNS: Final = ("score", "saved", "accuracy")
LOW: Final = 0.3  # score
THRIFTS: Final = (0.2, 1.0, 2.0)  # on shared weights; between trained networks it is the first one
WAYS: Final = {"policy": "policy", "policy, all in the end": "policy", "random": "random"}

Scores = dict[Candidate, float]


@dataclass(frozen=True)
class Finished:
    """Shared weights whose training is over: all scores are on the same ones."""

    weights: SharedWeights
    done: int = 0

    def train(self, epochs: int) -> None:
        """Nothing is left to do."""

    def score(self, positions: Candidate) -> float:
        return self.weights.score(positions)


def one_seed(name: str, data_name: str, seed: int) -> None:
    """Write the row of this seed."""
    torch.set_num_threads(1)
    data = load_data(data_name, seed=seed, input_size=SIDES[data_name])
    case, test = case_of(name, data), fixed(data.test, data.input_size, CPU)
    recipe = Recipe(epochs=EPOCHS[data_name], learning_rate=RATE)
    source = case.built(seed)
    train(source, data.train, recipe, seed=seed)
    found = case.transformable(source)
    weights, epochs = SharedWeights(found, course(data, seed)), SHARED_EPOCHS[data_name]
    scores: Scores = {}
    best = {}
    for way, method in WAYS.items():
        planned = way == "policy"
        settings = Settings(method, EVALUATIONS, epochs if planned else 0, seed=seed)
        known = {settings.epochs: scores}
        on = weights if planned else Finished(weights)
        first = Seeking(found.moves, on, settings, known, lambda: None, Progress()).ranked()[0]
        best[way] = worth(found.moves, first, settings.thrift)
    whole = found.moves.cost(found.moves.source).macs
    trained = []
    for positions in _some(scores, found.moves.source, seed):
        network = case.changed(found, positions, seed)
        train(network, data.train, recipe, seed=seed)
        saved = 1 - found.moves.cost(positions).macs / whole
        trained.append(
            {"score": scores[positions], "saved": saved, "accuracy": accuracy(network, test)}
        )
    row = {"network": name, "data": data_name, "seed": seed, "best": best, "trained": trained}
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _some(scores: Scores, source: Candidate, seed: int) -> list[Candidate]:
    """Of what has a score; not the source, which the shared weights have seen most."""
    others = sorted(each for each, s in scores.items() if each != source and math.isfinite(s))
    rng = np.random.default_rng([seed, 11])
    drawn = rng.choice(len(others), min(TRAINED, len(others)), replace=False)
    return [others[index] for index in drawn]


def main(networks: Sequence[str], data: Sequence[str], seeds: int) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    known = {(row["network"], row["data"], row["seed"]) for row in rows(ROWS)}
    work = [
        (name, kind, seed)
        for seed in range(FIRST, FIRST + seeds)
        for kind in data
        for name in networks
        if (name, kind, seed) not in known
    ]
    for _ in pinned(one_seed, work):
        pass
    for kind in data:
        for name in networks:
            report([row for row in rows(ROWS) if (row["network"], row["data"]) == (name, kind)])


def report(of_one: Sequence[Mapping[str, Any]]) -> None:
    if not of_one:
        return
    print(f"{of_one[0]['network']} on {of_one[0]['data']}, {len(of_one)} seeds:")
    best = {way: [row["best"][way] for row in of_one] for way in WAYS}
    for way, worths in best.items():
        against = "" if way == "random" else f"; - random: {_against(worths, best['random'])}"
        print(f"  {way:<23}worth {spread(worths).mean:.3f}{against}")
    planned, late, _ = best.values()
    print(f"  all in the end - as planned: {_against(late, planned)}")
    tables = [_table(row) for row in of_one]
    taus = [kendall(scores, accuracies) for scores, _, accuracies in tables]
    print(f"  tau of score and accuracy: {_mean(taus)}")
    for thrift in THRIFTS:
        taus = [
            kendall(s + thrift * saved, a + Settings().thrift * saved) for s, saved, a in tables
        ]
        print(f"  tau of worth at thrift {thrift:g} and worth of trained networks: {_mean(taus)}")
    scores, _, accuracies = np.concatenate(tables, axis=1)
    for name, some in (("under", scores < LOW), ("from", scores >= LOW)):
        right = f"{100 * accuracies[some].mean():.1f} % right" if some.any() else ""
        print(f"  {some.sum()} with scores {name} {100 * LOW:.0f} %; when trained {right}")
    score, saved = _slopes(tables)
    print(f"  accuracy of trained networks: {score:.2f} x score {saved:+.2f} x share of MACs saved")


def _against(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return paired(ours, theirs).sentence_in_points


def _mean(taus: Sequence[float]) -> str:
    return paired(taus, [0.0] * len(taus)).sentence


def _table(row: Mapping[str, Any]) -> NDArray[np.float64]:
    """(3, trained) scores on shared weights, share of the MACs saved, accuracies when trained."""
    return np.array([[each[name] for name in COLUMNS] for each in row["trained"]]).T


def _slopes(tables: Sequence[NDArray[np.float64]]) -> list[float]:
    """Least squares of accuracy on score and on the share saved, within seeds."""
    centred = [table - table.mean(axis=1, keepdims=True) for table in tables]
    *known, accuracies = np.concatenate(centred, axis=1)
    return list(np.linalg.lstsq(np.stack(known, axis=1), accuracies, rcond=None)[0])


if __name__ == "__main__":
    main(*asked(__doc__))
