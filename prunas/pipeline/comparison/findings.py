"""What a comparison says, in sentences."""

from collections.abc import Iterator, Mapping

from prunas.eval.contest import CLEAR, Duel, Ranks, Verdict
from prunas.eval.statistics import LEVEL
from prunas.pipeline.comparison.contenders import RANDOM
from prunas.pipeline.comparison.results import Contest, Figure, Results

RULE = (
    "One contender is better than another if the paired Wilcoxon test over seeds gives p <"
    f" {LEVEL} after Holm's correction over all pairs of a space and budget, and a run of it is"
    f" better than one of the other with a chance of {CLEAR} or more (a tie is half); otherwise"
    " there is no evidence of a difference. The rule was fixed before any result was seen."
)

_FEW = 6  # pairs that are told one by one
_SAID = {
    "better": "better than",
    "worse": "worse than",
    "no evidence": "no evidence of a difference from",
}


def findings(results: Results) -> list[str]:
    """What the figures say after all evaluations, and what they cannot say."""
    sentences = [each for contest in results.contests for each in _of_contest(contest)]
    if results.ranks is not None:
        sentences.append(_of_ranks(results.ranks))
    return sentences


def told(duel: Duel) -> str:
    """One pair in words."""
    return (
        f"{duel.one}: {_SAID[duel.verdict]} {duel.other} (corrected p = {duel.adjusted:.2g}, chance"
        f" of being better {duel.chance:.2f})"
    )


def in_points(figure: Figure) -> str:
    """Of a share, in percentage points, with its interval.

    >>> in_points(Figure(0.0123, 0.01, 0.0151))
    '1.23 (1.00 to 1.51)'
    """
    return f"{100 * figure.value:.2f} ({100 * figure.low:.2f} to {100 * figure.high:.2f})"


def verdicts_of(contest: Contest, name: str, at: int) -> dict[str, Verdict]:
    """What is said of `name` beside each other contender."""
    turned: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    result: dict[str, Verdict] = {}
    for duel in contest.duels[at]:
        if duel.one == name:
            result[duel.other] = duel.verdict
        elif duel.other == name:
            result[duel.one] = turned.get(duel.verdict, duel.verdict)
    return result


def _of_contest(contest: Contest) -> Iterator[str]:
    at = contest.points[-1]
    where = f"{contest.problem.space}, {contest.problem.budget}, {at} evaluations"
    last = {each.contender: each for each in contest.summaries if each.at == at}
    best = min(contest.names, key=lambda name: last[name].mean.value)
    yield (
        f"{where}: {best} has the least regret, {in_points(last[best].mean)} points"
        f"{_beside_others(verdicts_of(contest, best, at))}."
    )
    if len(contest.duels[at]) <= _FEW:
        yield from (f"{where}: {told(duel)}." for duel in contest.duels[at])
    elif RANDOM in contest.names:
        yield f"{where}: {_beside_random(contest, at)}."
    yield from _too_few(contest, where)
    yield from _ended_early(contest, where)


def _beside_others(verdicts: Mapping[str, Verdict]) -> str:
    level = [other for other, said in verdicts.items() if said != "better"]
    if not level:
        return ", better than all"
    if len(level) == len(verdicts):
        return "; no evidence that it is better than any other"
    return f"; no evidence that it is better than {', '.join(level)}"


def _beside_random(contest: Contest, at: int) -> str:
    parts = (
        ("better", _names(contest, RANDOM, at, "worse")),
        ("worse", _names(contest, RANDOM, at, "better")),
        ("no evidence of a difference", _names(contest, RANDOM, at, "no evidence")),
    )
    told_parts = "; ".join(f"{said}: {names}" for said, names in parts if names)
    return f"beside random search, {told_parts}"


def _names(contest: Contest, name: str, at: int, verdict: Verdict) -> str:
    found = verdicts_of(contest, name, at)
    return ", ".join(other for other, each in found.items() if each == verdict)


def _too_few(contest: Contest, where: str) -> Iterator[str]:
    pairs = contest.duels[contest.points[-1]]
    smallest = pairs[0].regret.smallest_p * len(pairs)
    if smallest >= LEVEL:
        yield (
            f"{where}: {pairs[0].regret.n} seeds cannot show a difference among {len(pairs)} pairs"
            " whatever they are; use more seeds."
        )


def _ended_early(contest: Contest, where: str) -> Iterator[str]:
    made = dict(zip(contest.names, contest.made.mean(axis=1), strict=True))
    short = {name: count for name, count in made.items() if count < contest.points[-1]}
    if short:
        listed = ", ".join(f"{name} after {count:.0f}" for name, count in short.items())
        yield (
            f"{where}: some ended early, since they found no further candidate ({listed}"
            " evaluations on average); their best score stands for the rest."
        )


def _of_ranks(ranks: Ranks) -> str:
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ordered)
    test = f"Friedman's test in Iman and Davenport's form, p = {ranks.p_value:.2g}"
    if ranks.p_value >= LEVEL:
        return (
            f"Over {ranks.blocks} problems (a space, a budget, a set of scores) average ranks do"
            f" not differ ({test}): {listed}."
        )
    return (
        f"Over {ranks.blocks} problems (a space, a budget, a set of scores) average ranks differ"
        f" ({test}): {listed}; two are told apart from {ranks.difference:.2f} on (Nemenyi)."
    )
