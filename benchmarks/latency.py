"""Latency tables: how long one takes to build, and how well it predicts networks it has not seen.

Run: python benchmarks/latency.py mobilenetv2_100 onnxruntime

One network and one backend at a time, on a machine that does nothing else. The check measures
candidates that are not in the table: two thirds drawn like those of the table, from small to full,
and one third with independent choices for every gene, which all take about as long and are hard to
rank. The figures asked for are Spearman >= 0.97 and a median error <= 5 % over all of them, and a
table in at most 180 seconds on two cores for mobilenetv2_100.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

import prunas  # before timm: see prunas/torchvision_schemas.py

# isort: split
import timm

from prunas.allocator import keep_freed_memory
from prunas.eval.latency.backends import BACKENDS, backend_of
from prunas.eval.latency.design import designed
from prunas.eval.latency.table import NETWORKS, LatencyTable, built
from prunas.eval.latency.timing import Plan, Timed
from prunas.eval.latency.whole import measured
from prunas.pipeline.latency_file import save_table
from prunas.supernet.space import Candidate, SearchSpace

keep_freed_memory()  # as the program does

CHECKED = ("mobilenetv2_100", "efficientnet_b0", "resnet18", "vit_tiny_patch16_224")
"""The networks of the target."""

Values = NDArray[np.float64]


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    network = timm.create_model(given.network).eval()
    space = prunas.trace(network, network.default_cfg["input_size"])
    backend = backend_of(given.backend)
    plan = Plan(widest=given.widest, seconds=given.seconds)
    rng = np.random.default_rng(given.seed)
    print(f"{given.network}, {len(space.genes)} genes; {backend.device.sentence}")

    start = perf_counter()
    table = built(network, space, backend, rng, networks=given.networks, plan=plan, told=complain)
    predictor = table.predictor(network, space)
    seconds = perf_counter() - start
    if given.table is not None:
        save_table(table, given.table)

    fresh = held_out(space, table, given.check, rng)
    now, *times = measured(
        network, space, [space.full(), *fresh], backend, rng, plan=plan, told=complain
    )
    slower = now.milliseconds / table.full.milliseconds
    wall = np.array([time.milliseconds for time in times]) / slower
    predicted = predictor.milliseconds(fresh)
    alike = 2 * len(fresh) // 3
    print(f"table of {len(table.times)} networks: {seconds:.0f} s, {spread(table.times)}")
    print(f"full network {table.full.milliseconds:.3f} ms, and {slower - 1:+.1%} in the check, by")
    print(f"which its times are divided; check: {spread(times)}")
    print(f"expected error (cross-validation) {predictor.error:.1%}")
    print("\n| candidates | n | ms | Spearman | median error | 90 % below | bias |")
    print("|---|---|---|---|---|---|---|")
    print(row("all", predicted, wall))
    print(row("like those of the table", predicted[:alike], wall[:alike]))
    print(row("independent choices", predicted[alike:], wall[alike:]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("network", help=f"a timm model; those of the target are {CHECKED}")
    parser.add_argument("backend", choices=sorted(BACKENDS))
    parser.add_argument("--networks", type=int, default=NETWORKS, help="in the table")
    parser.add_argument("--check", type=int, default=60, help="candidates that are predicted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widest", type=float, default=Plan.widest, help="spread of a busy device")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="of timing, an attempt")
    parser.add_argument("--table", type=Path, help="where to write the table")
    return parser.parse_args()


def held_out(
    space: SearchSpace, table: LatencyTable, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """`n` candidates that are not in the table: 2/3 designed ones, then 1/3 independent ones."""
    alike = 2 * n // 3
    drawn = designed(space, 2 * alike + 1, rng)[1:]
    spread_out = unseen(drawn, table)[:alike]
    independent = unseen(space.sample(rng, 2 * (n - alike)), table)[: n - alike]
    return [*spread_out, *independent]


def unseen(candidates: Sequence[Candidate], table: LatencyTable) -> list[Candidate]:
    return [each for each in dict.fromkeys(candidates) if each not in table.candidates]


def spread(times: Sequence[Timed]) -> str:
    wide = np.median([time.spread for time in times])
    rounds = np.median([time.rounds for time in times])
    return f"typical interquartile range {wide:.1%} of the median over {rounds:.0f} rounds"


def row(name: str, predicted: Values, wall: Values) -> str:
    error = predicted / wall - 1
    rank = spearmanr(predicted, wall).statistic
    return (
        f"| {name} | {len(wall)} | {wall.min():.2f} to {wall.max():.2f} | {rank:.3f}"
        f" | {np.median(np.abs(error)):.1%} | {np.quantile(np.abs(error), 0.9):.1%}"
        f" | {np.median(error):+.1%} |"
    )


def complain(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
