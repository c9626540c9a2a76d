"""Model-based search: evolution breeds many children, a regression chooses which to score.

An ensemble of extremely randomised trees (Geurts, Ernst and Wehenkel, "Extremely randomized
trees", Machine Learning 63, 2006; scikit-learn's) learns the scores told so far from the widths
and, with a prior, from what they are worth. Trees need no scale, take genes of any kind, and learn
from a few dozen scores. Of every brood the candidates of highest expected score are asked; each
one by the mean of a few trees of its own, so that a batch does not ask for the same thing n times:
what trees disagree on is what is not known yet. (A small committee that is drawn for each choice
is the bootstrap's form of Thompson sampling: Osband et al., "Deep exploration via bootstrapped
DQN", 2016, section 4; here trees differ by random splits, not by resampled scores.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.tree import ExtraTreeRegressor

from prunas.given_numbers import refuse_below
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.costs import Values
from prunas.search.evolution import Evolution
from prunas.search.method import Scored, State, allocated, begin_informed, propose, told
from prunas.search.pending import HUGE
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Search for the best score on the budget, led by a regression on all scores.

    Attributes:
        breeder: how children come about; its `population` is asked before the first regression.
        brood: children that are bred for each one that is asked.
        trees: of the ensemble; each learns from all scores, and splits at random.
        committee: trees whose mean chooses one candidate.

    Raises:
        InputError: a setting that no search can be made with.
    """

    breeder: Evolution = field(default_factory=lambda: Evolution(population=20))
    brood: int = 30
    trees: int = 30
    committee: int = 6

    def __post_init__(self) -> None:
        refuse_below(
            1, "the regression", brood=self.brood, trees=self.trees, committee=self.committee
        )

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        scores = _finite([scored.score for scored in state.told])
        if len(state.asked) < self.breeder.population or scores is None:
            return self.breeder.ask(state, n)
        feasible = state.feasible

        def draw(rng: np.random.Generator, missing: int) -> list[Candidate]:
            bred = self.breeder.children(state, rng, self.brood * missing)
            values = feasible.repair(as_values(bred), rng)
            fresh = {each for each in as_candidates(values) if not state.asked.has(each)}
            if not fresh:
                return []
            brood = as_values(sorted(fresh))
            most = self.expected(state, scores, brood, rng, missing)
            return as_candidates(brood[_best_of_each(most)])

        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def expected(
        self, state: State, scores: Array, brood: Values, rng: np.random.Generator, n: int
    ) -> Array:
        """(n, brood) scores that n committees expect."""
        known = as_values([scored.candidate for scored in state.told])
        told_features = _features(known, state.prior)
        asked_features = _features(brood, state.prior)
        each = np.empty((self.trees, len(brood)))
        with config_context(assume_finite=True, skip_parameter_validation=True):
            for row, seed in enumerate(rng.integers(2**31, size=self.trees).tolist()):
                tree = ExtraTreeRegressor(max_features=None, random_state=seed)
                tree.fit(told_features, scores, check_input=False)
                each[row] = tree.predict(asked_features, check_input=False)
        members = rng.integers(self.trees, size=(n, self.committee))
        return np.asarray(each[members].mean(axis=1))


def _features(values: Values, prior: Prior | None) -> NDArray[np.float32]:
    """(n, features) the choices, and with a prior what all of them are worth together."""
    if prior is None:
        return values.astype(np.float32)
    worth = np.zeros(len(values))
    for column, known in zip(values.T, prior.values, strict=True):
        worth += np.array(known)[column]
    return np.column_stack([values, worth]).astype(np.float32)


def _finite(scores: Sequence[float]) -> Array | None:
    """Scores that can be learnt from: where there is none it is the worst of the others.

    None if there are no two different ones.
    """
    array = np.array(scores)
    finite = array[np.isfinite(array)]
    if len(finite) < 2 or finite.min() == finite.max():
        return None
    return np.asarray(np.clip(np.clip(array, finite.min(), finite.max()), -HUGE, HUGE))


def _best_of_each(expected: Array) -> list[int]:
    """For each row in turn its largest column that no row before it has taken."""
    open_, taken = expected.copy(), []
    for row in range(min(expected.shape)):
        taken.append(int(open_[row].argmax()))
        open_[:, taken[-1]] = -np.inf
    return taken
