"""Searches of transformations where the best is known, and what a step of the policy costs.

Regret: a small cell whose every transformation is scored by a made-up table, another one for each
seed: a term for what each living edge carries and one for every two of them that share a node.
Regret is the best score of the table less that of the network chosen, as a share of what the best
is above the source; after so many evaluations, each of them paid once.

Step: one ask, the forward passes of the candidates asked, and one tell, against the same forward
passes alone; a batch of digits-sized images through cell networks, built before the clock starts.

Run: OMP_NUM_THREADS=1 python benchmarks/transformation_policies.py [regret] [step]
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from statistics import mean, median

import numpy as np
import torch
from measuring import interleaved, ratio

from prunas.eval.statistics import paired
from prunas.supernet.space import Candidate
from prunas.transformer_nat.cell_network import CellNetwork
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.method import Scored, Transformer, chosen
from prunas.transformer_nat.methods import TRANSFORMERS
from prunas.transformer_nat.operator_cost import Place
from prunas.transformer_nat.published_cells import PUBLISHED
from prunas.transformer_nat.skeleton import cell_graph, cifar_skeleton
from prunas.transformer_nat.transformation import TransformationSpace, transformations

SEEDS = 20
EVALUATIONS = (30, 100)
ASKED = 4
IMAGES = 512
ROUNDS = 5

Table = Mapping[Candidate, float]


def main(parts: Sequence[str]) -> None:
    torch.set_num_threads(1)
    if "regret" in parts:
        regrets()
    if "step" in parts:
        step()


def regrets() -> None:
    space = small_space()
    tables = [table(space, np.random.default_rng(seed)) for seed in range(SEEDS)]
    print(f"{space.size} candidates, {len(tables[0])} connected, {SEEDS} tables", flush=True)
    for evaluations in EVALUATIONS:
        found = {
            name: [regret(method, space, t, evaluations, seed) for seed, t in enumerate(tables)]
            for name, method in TRANSFORMERS.items()
        }
        for name, values in found.items():
            print(f"{evaluations} evaluations, {name}: {mean(values):.3f}", flush=True)
        for name in list(found)[1:]:
            pairs = paired(found[name], found["policy"])
            print(f"{evaluations} evaluations, {name} - policy: {pairs.sentence}", flush=True)


def small_space() -> TransformationSpace:
    """Two inputs, three nodes, six edges."""
    place = (Place(16, 16, 16, 16),)
    rows = [
        ("sep_conv_3x3", "0", "2"),
        ("sep_conv_3x3", "1", "2"),
        ("dil_conv_3x3", "0", "3"),
        ("skip_connect", "2", "3"),
        ("conv_3x3", "2", "4"),
        ("max_pool_3x3", "3", "4"),
    ]
    edges = tuple(Edge(name, source, target, place) for name, source, target in rows)
    nodes = tuple("01234")
    return transformations(OperatorGraph(nodes, ("0", "1"), (("2", "3", "4"),), edges))


def table(space: TransformationSpace, rng: np.random.Generator) -> Table:
    """The score of every candidate that cuts nothing off."""
    edges, most = len(space.options), max(map(len, space.options))
    alone = rng.normal(0, 0.01, (edges, most))
    pairs = {pair: rng.normal(0, 0.005, (most, most)) for pair in neighbours(space)}
    candidates = product(*(range(len(names)) for names in space.options))
    connected = (Candidate(each) for each in candidates if space.connected(each))
    return {each: score(space, each, alone, pairs) for each in connected}


def neighbours(space: TransformationSpace) -> list[tuple[int, int]]:
    """The pairs of edges that share a node."""
    ends = [{edge.source, edge.target} for edge in space.graph.edges]
    return [(a, b) for a, b in combinations(range(len(ends)), 2) if ends[a] & ends[b]]


def score(
    space: TransformationSpace,
    candidate: Candidate,
    alone: np.ndarray,
    pairs: Mapping[tuple[int, int], np.ndarray],
) -> float:
    live = set(space.graph.live(space.operators(candidate)))
    total = 0.9 + sum(alone[edge, candidate[edge]] for edge in live)
    for (a, b), values in pairs.items():
        if a in live and b in live:
            total += values[candidate[a], candidate[b]]
    return float(total)


def regret(
    method: Transformer, space: TransformationSpace, scores: Table, evaluations: int, seed: int
) -> float:
    state = method.start(space, np.random.default_rng(seed))
    while len(state.asked) < evaluations:
        state, asked = method.ask(state, min(ASKED, evaluations - len(state.asked)))
        if not asked:
            break
        state = method.tell(state, [Scored(each, scores[each]) for each in asked])
    best, source = max(scores.values()), scores[space.source]
    return (best - scores[chosen(state)]) / max(best - source, 1e-12)


def step() -> None:
    genotype = PUBLISHED["DARTS_V2"]
    skeleton = cifar_skeleton(channels=8, layers=6, size=8)
    space = transformations(cell_graph(genotype, skeleton))
    images = torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in ("policy", "lstm"):
        method = TRANSFORMERS[name]
        start, _ = method.ask(method.start(space, np.random.default_rng(0)), 1)
        start = method.tell(start, [Scored(space.source, 0.5)])
        _, asked = method.ask(start, ASKED)
        networks = [
            CellNetwork(genotype.with_operators(space.operators(each)), skeleton).eval()
            for each in asked
        ]

        def forwards(networks: Sequence[CellNetwork] = networks) -> list[float]:
            with torch.inference_mode():
                return [float(network(images).std()) for network in networks]

        def whole(method: Transformer = method, start=start, forwards=forwards) -> None:
            state, found = method.ask(start, ASKED)
            scored = [Scored(c, s) for c, s in zip(found, forwards(), strict=True)]
            method.tell(state, scored)

        seconds = interleaved({"forwards": forwards, "step": whole}, ROUNDS)
        extra = 1000 * (median(seconds["step"]) - median(seconds["forwards"]))
        print(f"{name}: step / forwards {ratio(seconds, 'step', 'forwards')}, {extra:.1f} ms more")


if __name__ == "__main__":
    main(sys.argv[1:] or ["regret", "step"])
