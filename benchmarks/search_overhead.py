"""What asking and telling cost, per candidate: every search on a large space.

The space is that of mobilenetv2_100 at 40 % of its multiply-accumulates, scores are made up. Times
are medians over rounds; in each round every search makes 500 evaluations, 50 at a time as in a run
and 10 at a time as in a comparison.

Run: OMP_NUM_THREADS=1 python benchmarks/search_overhead.py [NAME ...]
"""

import sys
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from measuring import interleaved

import prunas
from prunas.pipeline.networks import create_network
from prunas.search import SEARCHES, Budget, Feasible, Scored, Search

ROUNDS = 3
EVALUATIONS = 500
BATCHES = (50, 10)


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    network = create_network("mobilenetv2_100", classes=10, input_size=(3, 32, 32))
    space = prunas.trace(network, (3, 32, 32), genes=("width",))
    feasible = Feasible(space, Budget.parse("macs=40%"), prunas.Cost(space))
    for batch in BATCHES:
        work = {name: searching(SEARCHES[name], feasible, batch) for name in names}
        for name, seconds in interleaved(work, ROUNDS).items():
            each = 1000 * median(seconds) / EVALUATIONS
            print(f"{name}, {batch} at a time: {each:.3f} ms a candidate", flush=True)


def searching(method: Search, feasible: Feasible, batch: int) -> Callable[[], None]:
    full = np.array(feasible.space.full())

    def run() -> None:
        state = method.start(feasible.space, feasible, None, np.random.default_rng(0))
        for _ in range(EVALUATIONS // batch):
            state, asked = method.ask(state, batch)
            shares = np.array(asked).reshape(-1, len(full)) / full
            scores = np.log(shares).mean(axis=1).tolist()
            scored = [Scored(c, s) for c, s in zip(asked, scores, strict=True)]
            state = method.tell(state, scored)

    return run


if __name__ == "__main__":
    main(sys.argv[1:] or list(SEARCHES))
