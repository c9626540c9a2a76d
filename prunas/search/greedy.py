"""What the greedy searches share: from the full network down, one gene at a time.

An iteration proposes the present network with one gene shrunk, once for each gene, and goes on
from the proposal that scores best, until the network is inside the budget. A method says how far a
gene is shrunk at once.

All that is scored here is inside the budget, while the greedy searches that were published score
networks on their way down. So a proposal is completed: the network that it shrank is scaled into
the window, and that is scored. What a question has room for beyond the proposals of an iteration,
and everything once the budget is reached, are local exchanges: of the best candidate so far, then
of the ten best, one gene takes its next smaller choice and another one the largest that fits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from deap import tools

from prunas.search.budget import Feasible, Positions, as_candidates, as_values
from prunas.search.hill_climbing import summit
from prunas.search.method import Draw, State, allocated, begin_informed, propose
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate

Step = Callable[[State, Positions, int], Positions]
"""(proposals, genes) of a state for a present network (genes,) in an iteration; perhaps none."""

_CENTRES: Final = 10


def begin_greedy(budget: Feasible, prior: Prior | None, rng: np.random.Generator) -> State:
    """The state of a search that starts from the full network."""
    state = begin_informed(budget, prior, rng)
    return replace(state, learnt=state.learnt.changed(present=budget.last, iteration=0))


def ask_greedily(state: State, n: int, step: Step) -> tuple[State, list[Candidate]]:
    """Up to `n` candidates: open proposals first, then exchanges."""
    feasible = state.feasible
    state, proposals = advanced(state, step)
    draws = exchanges(state, 1), exchanges(state, _CENTRES), feasible.sample, window(feasible)
    return propose(state, n, allocated(state), lambda rng, n: proposals, *draws)


def advanced(state: State, step: Step) -> tuple[State, list[Candidate]]:
    """The state in its present iteration, and the completed proposals; none when all is done."""
    feasible = state.feasible
    scores = {scored.candidate: scored.score for scored in state.told}
    present, iteration = present_network(state), int(state.learnt["iteration"])
    completed: list[Candidate] = []
    while not feasible.contains(feasible.values(present[None]))[0]:
        proposals = step(state, present, iteration)
        completed = completions(feasible, proposals)
        if not all(candidate in scores for candidate in completed) or not completed:
            break
        present = proposals[np.argmax([scores[candidate] for candidate in completed])]
        iteration, completed = iteration + 1, []
    learnt = state.learnt.changed(present=present, iteration=iteration)
    return replace(state, learnt=learnt), completed


def present_network(state: State) -> Positions:
    """(genes,) positions of the network that the next proposals shrink."""
    return state.learnt["present"].astype(np.int64)


def completions(feasible: Feasible, proposals: Positions) -> list[Candidate]:
    """The proposals moved into the window, always in the same way."""
    if len(proposals) == 0:
        return []
    return as_candidates(feasible.repair(feasible.values(proposals), np.random.default_rng(0)))


def exchanges(state: State, centres: int) -> Draw:
    """Local exchanges around the best candidates so far."""
    feasible = state.feasible
    best = tools.selBest(state.told, centres, fit_attr="score")
    centre = as_values([scored.candidate for scored in best] or [summit(state)])
    places, count = feasible.positions(centre), len(feasible.last)

    def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
        positions, rows = places[rng.integers(len(places), size=n)], np.arange(n)
        shrunk = rng.integers(count, size=n)
        grown = (shrunk + 1 + rng.integers(max(count - 1, 1), size=n)) % count
        positions[rows, shrunk] = np.maximum(positions[rows, shrunk] - 1, 0)
        positions[rows, grown] = feasible.largest(positions, grown)
        return as_candidates(feasible.repair(feasible.values(positions), rng))

    return draw
