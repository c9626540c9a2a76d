"""AMC: an agent walks through the genes and decides one after the other.

He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018. One
episode is one candidate; the action for a gene is its keep ratio. Deep deterministic policy
gradient (Lillicrap et al., ICLR 2016): actor and critic of 300-300, Adam at 1e-4 and 1e-3, batches
of 64 transitions from the last 100 episodes, discount 1, the final reward for every transition,
centred by a moving average, targets that follow at 0.01, one update for each action. The first 100
episodes (of 800 in the paper) are random; then the noise is a truncated normal of sigma 0.5 that
falls by 5 % an episode.

The *action wall*: an action is lowered until the budget can still be met with every later gene at
its smallest choice. So each episode is inside the budget.

What differs here. The state of a gene is what any space knows: place, kind, width, choices, shares
of MACs and parameters that the gene decides, cost saved before, cost still to decide, the action
before; the paper has the sizes of a convolution. The lower bound is the smallest choice instead of
0.2. What an episode leaves of the budget is filled, and the transitions hold the actions as
executed. Rewards are scaled so that an episode's sum has a standard deviation of 1, as scores come
in any unit. The noise never falls below 0.02 and grows with every vain try, because no candidate
is scored twice. With a prior, its allocation is the first candidate and the centre of the random
episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.given_numbers import refuse_below, refuse_outside
from prunas.search.adam import blocks, restored, stored
from prunas.search.budget import Feasible, Positions, as_candidates, as_values
from prunas.search.learnt import Learnt
from prunas.search.method import (
    Scored,
    State,
    allocated,
    allocation,
    begin_informed,
    generator,
    propose,
    told,
)
from prunas.search.mlp import Floats, Mlp
from prunas.search.pending import rewards
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace

_FEATURES: Final = 9
_TRUNCATION_TRIES: Final = 16
Act = Callable[[int, Floats], Floats]
"""(n,) actions in [0, 1] for a gene, by the states (n, features) before it."""

_NETWORKS: Final = ("actor", "critic", "actor target", "critic target")


@dataclass(frozen=True)
class Amc:
    """Ask for the candidates that an agent decides on, gene by gene.

    Attributes:
        warm_up: how many random episodes come first.
        hidden: width of both layers of actor and critic.
        actor_rate: learning rate of the actor.
        critic_rate: learning rate of the critic.
        batch: transitions an update.
        replay: episodes whose transitions are remembered.
        follow: share by which the targets move at an update.
        noise: sigma of the first episode after the random ones.
        decay: of sigma, an episode.
        least_noise: that sigma never falls below.
        average: share of a batch's mean in the moving average of rewards.

    Raises:
        InputError: a setting that no search can be made with.
    """

    warm_up: int = 100
    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    batch: int = 64
    replay: int = 100
    follow: float = 0.01
    noise: float = 0.5
    decay: float = 0.95
    least_noise: float = 0.02
    average: float = 0.5

    def __post_init__(self) -> None:
        refuse_below(0, "AMC", warm_up=self.warm_up)
        refuse_below(1, "AMC", hidden=self.hidden, batch=self.batch, replay=self.replay)
        refuse_outside(
            "[0, inf)",
            "AMC",
            actor_rate=self.actor_rate,
            critic_rate=self.critic_rate,
            noise=self.noise,
            least_noise=self.least_noise,
        )
        refuse_outside("[0, 1]", "AMC", follow=self.follow, decay=self.decay, average=self.average)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        state = begin_informed(budget, prior, rng)
        stream = generator(state)
        actor, critic = (network.drawn(stream).astype(np.float32) for network in self.networks())
        arrays = {"actor": actor, "actor target": actor, "critic": critic, "critic target": critic}
        learnt = state.learnt.changed(**arrays)
        return replace(state, stream=dict(stream.bit_generator.state), learnt=learnt)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        actor = state.learnt["actor"].astype(np.float32)
        network, _ = self.networks()
        walk = Walk(feasible)

        def draw(rng: np.random.Generator, tries: int) -> list[Candidate]:
            wider = (tries / n) ** 3  # the first tries are as wide as in the paper

            def act(gene: int, features: Floats) -> Floats:
                if len(state.told) < self.warm_up:
                    return self._random(state, gene, tries, rng)
                mean = sigmoid(network.forward(actor, features)[0])
                return truncated(mean, wider * self.sigma(state), rng)

            values = feasible.values(walk.episodes(tries, act))
            return as_candidates(feasible.repair(values, rng))

        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        before = max(len(state.told), self.warm_up)
        state = told(state, scored)
        episodes = len(state.told) - before
        if episodes <= 0:
            return state
        rng = generator(state)
        replay = transitions(state, self.replay)
        agent = Agent(self, *self.networks(), state.learnt)
        for _ in range(episodes * len(state.feasible.last)):
            agent.update(replay, rng.integers(len(replay.actions), size=self.batch))
        learnt = agent.learnt(state.learnt)
        return replace(state, stream=dict(rng.bit_generator.state), learnt=learnt)

    def sigma(self, state: State) -> float:
        """Standard deviation of the noise, once the random episodes are over."""
        done = max(len(state.told) - self.warm_up, 0)
        return max(self.noise * self.decay**done, self.least_noise)

    def networks(self) -> tuple[Mlp, Mlp]:
        """Actor and critic."""
        return Mlp(_FEATURES, self.hidden), Mlp(_FEATURES + 1, self.hidden)

    def _random(self, state: State, gene: int, n: int, rng: np.random.Generator) -> Floats:
        for best in allocation(state):
            action = as_actions(state.feasible, state.feasible.positions(as_values([best])))
            return truncated(np.full(n, action[0, gene]), self.noise, rng)
        return rng.random(n)


class Walk:
    """The way of an episode through the genes of a problem."""

    def __init__(self, feasible: Feasible) -> None:
        self.feasible = feasible
        self._full = np.array([feasible.last])
        self._static = self._scaled_features()

    def episodes(self, n: int, act: Act) -> Positions:
        """(n, genes) positions inside the budget, decided by `act` behind the action wall."""
        feasible = self.feasible
        positions = np.zeros((n, len(feasible.last)), dtype=np.int64)
        for gene, last in enumerate(feasible.last.tolist()):
            actions = act(gene, self.features(positions, gene))
            wanted = np.minimum(actions * (last + 1), last).astype(np.int64)
            wall = feasible.largest(positions, np.full(n, gene))  # later genes are at their least
            positions[:, gene] = np.minimum(wanted, wall)
        return positions

    def features(self, positions: Positions, gene: int) -> Floats:
        """(n, features) states before `gene` is decided; only genes before it are looked at."""
        n = len(positions)
        previous = as_actions(self.feasible, positions)[:, gene - 1] if gene > 0 else np.ones(n)
        partly = np.where(np.arange(positions.shape[1]) < gene, positions, self._full)
        columns = [1 - self.feasible.load(partly), previous]
        static = np.tile(self._static[gene], (n, 1))
        return np.column_stack([static, *columns]).astype(np.float32)

    def _scaled_features(self) -> NDArray[np.float64]:
        """(genes, features - 2) of each gene itself, each column between 0 and 1."""
        feasible, cost, genes = self.feasible, self.feasible.cost, len(self.feasible.last)
        without = np.tile(self._full, (genes, 1))
        np.fill_diagonal(without, 0)
        values, full = feasible.values(without), feasible.values(self._full)
        open_after = np.where(np.triu(np.ones((genes, genes), dtype=bool), 1), 0, self._full)
        columns = [
            np.arange(genes),
            [gene.kind != "width" for gene in feasible.space.genes],
            feasible.space.widths,
            feasible.last,
            cost.macs(full) - cost.macs(values),
            cost.params(full) - cost.params(values),
            1 - feasible.load(open_after),
        ]
        table = np.array(columns, dtype=np.float64).T
        low, spread = table.min(axis=0), np.ptp(table, axis=0)
        return np.asarray((table - low) / np.where(spread > 0, spread, 1))


@dataclass(frozen=True)
class Replay:
    """Transitions of the last episodes: states (n, features), the rest (n,)."""

    states: Floats
    actions: Floats
    rewards: Floats
    following: Floats
    open: Floats
    """1 where an action follows, 0 at the end of an episode."""


def transitions(state: State, episodes: int) -> Replay:
    """Of the last `episodes` candidates told, whoever proposed them."""
    feasible = state.feasible
    latest = state.told[-episodes:]
    positions = feasible.positions(as_values([scored.candidate for scored in latest]))
    walk, genes = Walk(feasible), len(feasible.last)
    states = np.stack([walk.features(positions, gene) for gene in range(genes)], axis=1)
    scores = rewards(state)[-episodes:]
    scaled = (scores - scores.mean()) / ((scores.std() or 1.0) * genes)
    last = np.arange(genes) == genes - 1
    return Replay(
        states=states.reshape(-1, _FEATURES),
        actions=as_actions(feasible, positions).ravel().astype(np.float32),
        rewards=np.repeat(scaled, genes).astype(np.float32),
        following=np.roll(states, -1, axis=1).reshape(-1, _FEATURES),
        open=np.tile(~last, len(latest)).astype(np.float32),
    )


class Agent:
    """Actor and critic while they learn; nobody else sees them change."""

    def __init__(self, settings: Amc, actor: Mlp, critic: Mlp, learnt: Learnt) -> None:
        self.settings, self.actor, self.critic = settings, actor, critic
        self.parameters = {name: learnt[name].astype(np.float32) for name in _NETWORKS}
        self.adam = {
            name: restored(learnt, name, self.parameters[name]) for name in ("actor", "critic")
        }
        self.baseline = float(learnt["baseline"]) if "baseline" in learnt else None

    def update(self, replay: Replay, chosen: NDArray[np.int64]) -> None:
        """One step of critic, actor and targets on these transitions."""
        states, mean = replay.states[chosen], float(replay.rewards[chosen].mean())
        before = mean if self.baseline is None else self.baseline
        self.baseline = before + self.settings.average * (mean - before)
        future = replay.open[chosen] * self._value(replay.following[chosen])
        targets = replay.rewards[chosen] - np.float32(self.baseline) + future
        critic = self.parameters["critic"]
        found, cache = self.critic.forward(critic, with_action(states, replay.actions[chosen]))
        slopes = (targets - found) * np.float32(2 / len(chosen))  # of minus the squared error
        self._ascend("critic", self.critic.backward(critic, cache, slopes))
        self._ascend("actor", self._actor_gradient(states))
        self._follow()

    def learnt(self, before: Learnt) -> Learnt:
        """`before` with what was learnt since."""
        result = before.changed(**self.parameters, baseline=self.baseline)
        for name, adam in self.adam.items():
            result = stored(result, name, adam)
        return result

    def _value(self, states: Floats) -> Floats:
        """(n,) what the targets make of these states."""
        actions = sigmoid(self.actor.forward(self.parameters["actor target"], states)[0])
        rows = with_action(states, actions)
        return self.critic.forward(self.parameters["critic target"], rows)[0]

    def _actor_gradient(self, states: Floats) -> Floats:
        """Of the critic's mean value of the actor's actions."""
        actor, critic = self.parameters["actor"], self.parameters["critic"]
        logits, actor_cache = self.actor.forward(actor, states)
        actions = sigmoid(logits)
        _, cache = self.critic.forward(critic, with_action(states, actions))
        even = np.full(len(states), 1 / len(states), dtype=np.float32)
        by_action = self.critic.to_inputs(critic, cache, even)[:, -1]
        return self.actor.backward(actor, actor_cache, by_action * actions * (1 - actions))

    def _ascend(self, name: str, gradient: Floats) -> None:
        rate = self.settings.actor_rate if name == "actor" else self.settings.critic_rate
        self.adam[name].ascend(self.parameters[name], gradient, rate)

    def _follow(self) -> None:
        for name in ("actor", "critic"):
            parameters, target = self.parameters[name], self.parameters[f"{name} target"]
            for part in blocks(len(target)):
                target[part] += self.settings.follow * (parameters[part] - target[part])


def as_actions(feasible: Feasible, positions: Positions) -> NDArray[np.float64]:
    """(n, genes) the middle of the actions that stand for each position."""
    return np.asarray((positions + 0.5) / (feasible.last + 1))


def with_action(states: Floats, actions: Floats) -> Floats:
    """(n, features + 1) what a critic sees."""
    return np.concatenate([states, actions[:, None]], axis=1)


def sigmoid(logits: Floats) -> Floats:
    """Between 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


def truncated(mean: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """(n,) normal draws within [0, 1]: the first of some tries that is, or the nearest end."""
    tries = mean + sigma * rng.standard_normal((_TRUNCATION_TRIES, len(mean)))
    first = ((tries >= 0) & (tries <= 1)).argmax(axis=0)
    return np.asarray(np.clip(tries[first, np.arange(len(mean))], 0, 1))
