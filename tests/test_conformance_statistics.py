"""Likelihoods, fits and intervals against choix, evalica and sacrebleu, where these are installed.

pip install choix==0.4.1 evalica==0.4.2 sacrebleu==2.6.0
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, tensor
from trl_trainers import randn, same

from assent.batch import (
    RankedScores,
    ScorePairs,
)
from assent.functional.statistics import bootstrap, win_rate
from assent.objectives.bradley_terry import BradleyTerry
from assent.objectives.kway import KWay
from assent.objectives.plackett_luce import PlackettLuce

pytestmark = pytest.mark.conformance


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def choix() -> Any:
    return pytest.importorskip("choix", reason="needs choix: pip install choix==0.4.1")


def evalica() -> Any:
    return pytest.importorskip("evalica", reason="needs evalica: pip install evalica==0.4.2")


# Maximum likelihood


def fit_scores(loss: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """Return the scores with mean 0 that minimise a loss."""
    scores = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(scores)
        value.backward()
        return value

    optimizer.step(closure)
    return (scores - scores.mean()).detach()


def sample_games(n: int = 6, rounds: int = 300) -> list[tuple[int, int]]:
    """Return winner and loser of each comparison, of items with slightly different strengths."""
    strength = randn(n)
    players = [torch.randperm(n)[:2].tolist() for _ in range(rounds)]
    wins = torch.rand(rounds).double() < torch.sigmoid(
        strength[[a for a, _ in players]] - strength[[b for _, b in players]]
    )
    return [(a, b) if first_won else (b, a) for (a, b), first_won in zip(players, wins, strict=True)]


def bradley_terry(scores: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Return our loss of comparisons by index."""
    winners, losers = tensor(pairs).T
    ones = torch.ones(len(pairs)).double()
    return BradleyTerry()(ScorePairs(scores[winners], scores[losers], ones, 0 * ones, ones)).value


def rankings(n: int = 6, rounds: int = 60) -> list[list[int]]:
    """Return rankings of two to all items, best first."""
    sizes = torch.randint(2, n + 1, (rounds,)).tolist()
    strength = torch.linspace(-1, 1, n)
    return [torch.multinomial(strength.softmax(0), size).tolist() for size in sizes]


def ranking_batch(scores: Tensor, orders: list[list[int]]) -> RankedScores:
    """Return our padded batch of rankings by index."""
    longest = max(map(len, orders))
    index = tensor([order + [0] * (longest - len(order)) for order in orders])
    tiers = torch.arange(longest).expand(len(orders), longest)
    mask = tiers < tensor([len(order) for order in orders])[:, None]
    return RankedScores(scores[index], tiers, mask, torch.ones(len(orders)).double())


def test_likelihood_of_comparisons_agrees_with_choix() -> None:
    pairs = sample_games()
    scores = randn(6)
    expected = choix().log_likelihood_pairwise(pairs, scores.numpy())
    same(-len(pairs) * bradley_terry(scores, pairs), expected, 1e-10)


def test_likelihood_of_rankings_agrees_with_choix() -> None:
    orders = rankings()
    scores = randn(6)
    expected = choix().log_likelihood_rankings(orders, scores.numpy())
    same(-len(orders) * PlackettLuce()(ranking_batch(scores, orders)).value, expected, 1e-10)


def test_mean_over_the_pairs_of_a_ranking_agrees_with_choix() -> None:
    scores = randn(6)
    for order in rankings(rounds=8):
        pairs = list(combinations(order, 2))
        expected = -choix().log_likelihood_pairwise(pairs, scores.numpy()) / len(pairs)
        same(KWay()(ranking_batch(scores, [order])).value, expected, 1e-10)


def test_plackett_luce_of_a_top_choice_agrees_with_choix() -> None:
    # Our ranking of one item above ties also chooses each tied item from its tier; choix stops after the first choice.
    scores = randn(6)
    tiers = tensor([[0, 1, 1, 1, 1, 1]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    result = PlackettLuce()(RankedScores(scores[None], tiers, mask, torch.ones(1).double())).value
    others = sum(scores[1:].logsumexp(0) - score for score in scores[1:])
    same(result - others, -choix().log_likelihood_top1([(0, [1, 2, 3, 4, 5])], scores.numpy()), 1e-10)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ilsr_pairwise", {"tol": 1e-12}),
        ("opt_pairwise", {"alpha": 0.0, "tol": 1e-10}),
        ("mm_pairwise", {"tol": 1e-12}),
    ],
)
def test_fit_of_comparisons_agrees_with_choix(method: str, options: dict[str, float]) -> None:
    pairs = sample_games()
    expected = getattr(choix(), method)(6, pairs, max_iter=100000, **options)
    same(fit_scores(lambda scores: bradley_terry(scores, pairs), 6), expected - expected.mean(), 1e-7)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ilsr_rankings", {"tol": 1e-12}),
        ("opt_rankings", {"alpha": 0.0, "tol": 1e-10}),
        ("mm_rankings", {"tol": 1e-12}),
    ],
)
def test_fit_of_rankings_agrees_with_choix(method: str, options: dict[str, float]) -> None:
    orders = rankings()
    expected = getattr(choix(), method)(6, orders, max_iter=100000, **options)
    same(
        fit_scores(lambda scores: PlackettLuce()(ranking_batch(scores, orders)).value, 6),
        expected - expected.mean(),
        1e-7,
    )


# Outcomes with ties


@dataclass(frozen=True)
class Contest:
    """Comparisons of items by index: 1 the first won, 1/2 a tie, 0 the second won."""

    first: Tensor  # (N,) long
    second: Tensor  # (N,) long
    outcome: Tensor  # (N,)

    @classmethod
    def random(cls, n: int, rounds: int) -> "Contest":
        players = torch.stack([torch.randperm(n)[:2] for _ in range(rounds)])
        ahead = players[:, 1] - players[:, 0] + 2 * randn(rounds)
        return cls(players[:, 0], players[:, 1], torch.where(ahead.abs() < 1, 0.5, (ahead > 0).double()))

    def scores(self, scores: Tensor) -> ScorePairs:
        ones = torch.ones(len(self.outcome)).double()
        return ScorePairs(scores[self.first], scores[self.second], self.outcome, 0 * ones, ones)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of evalica."""
        winner = evalica().Winner
        names = {1.0: winner.X, 0.5: winner.Draw, 0.0: winner.Y}
        winners = [names[x] for x in self.outcome.tolist()]
        return dict(xs=self.first.tolist(), ys=self.second.tolist(), winners=winners)


def log_scores(scores: Any) -> Tensor:
    """Return the scores of evalica in the order of items, as logarithms with mean 0."""
    logs = tensor(scores.sort_index().to_numpy()).log()
    return logs - logs.mean()


def test_fit_with_ties_as_half_wins_agrees_with_evalica() -> None:
    contest = Contest.random(6, 400)
    expected = evalica().bradley_terry(**contest.arguments, tolerance=1e-13, limit=100000)
    same(fit_scores(lambda scores: BradleyTerry()(contest.scores(scores)).value, 6), log_scores(expected.scores), 1e-7)


def test_fit_with_davidsons_ties_agrees_with_evalica() -> None:
    # Newman's v, which evalica fits along with the scores, is half of Davidson's nu, which is a setting of ours.
    contest = Contest.random(6, 400)
    expected = evalica().newman(**contest.arguments, tolerance=1e-13, limit=100000)

    def fit(nu: float) -> Tensor:
        return fit_scores(lambda scores: BradleyTerry("davidson", nu)(contest.scores(scores)).value, 6)

    same(fit(2 * expected.v), log_scores(expected.scores), 1e-6)
    costs = [
        BradleyTerry("davidson", nu)(contest.scores(fit(nu))).value.item()
        for nu in (2 * expected.v, 2.02 * expected.v, 1.98 * expected.v)
    ]
    assert costs[0] == min(costs)


def test_win_probabilities_agree_with_evalica() -> None:
    scores = randn(6)
    expected = tensor(evalica().pairwise_scores(scores.exp().numpy()))
    losses = [[bradley_terry(scores, [(a, b)]).item() for b in range(6)] for a in range(6)]
    same((-tensor(losses, dtype=torch.float64)).exp(), expected)


def test_win_rate_agrees_with_evalica() -> None:
    contest = Contest.random(2, 50)
    outcomes = torch.where(contest.first == 0, contest.outcome, 1 - contest.outcome)
    result = win_rate(*(int((outcomes == result).sum()) for result in (1.0, 0.5, 0.0)))
    assert min(result.wins, result.ties, result.losses) > 0
    same(result.rate, evalica().average_win_rate(**contest.arguments).scores[0])
    same(result.rate * result.n, evalica().counting(**contest.arguments).scores[0])


def test_mean_of_win_rates_over_opponents_agrees_with_evalica() -> None:
    contest = Contest.random(4, 200)
    expected = evalica().average_win_rate(**contest.arguments).scores
    for item in range(4):
        rates = []
        for opponent in set(range(4)) - {item}:
            forward, backward = (
                (contest.first == x) & (contest.second == y) for x, y in ((item, opponent), (opponent, item))
            )
            outcomes = torch.cat([contest.outcome[forward], 1 - contest.outcome[backward]])
            rates.append(win_rate(*(int((outcomes == result).sum()) for result in (1.0, 0.5, 0.0))).rate)
        same(sum(rates) / 3, expected[item])


def test_bootstrap_of_a_win_rate_agrees_with_evalica() -> None:
    # With one seed both draw the same resamples, so the percentiles are exactly equal.
    contest = Contest.random(2, 60)
    outcomes = torch.where(contest.first == 0, contest.outcome, 1 - contest.outcome).numpy()
    result = bootstrap(outcomes, np.arange(60), 500, seed=7)
    module = evalica()
    expected = module.bootstrap(
        module.average_win_rate,
        **contest.arguments,
        n_resamples=500,
        bootstrap_method="percentile",
        random_state=np.random.default_rng(7),
    )
    same([result.low, result.high], [expected.low[0], expected.high[0]])


def test_clustered_bootstrap_agrees_with_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    # The error rate of a corpus is a mean over words, resampled by sentences; with one seed both draw the same ones.
    # Limits of sacrebleu are resamples, ours are between two: of 1001 both are the 26th from either end.
    module = pytest.importorskip("sacrebleu", reason="needs sacrebleu: pip install sacrebleu==2.6.0")
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    words = ["the", "a", "of", "cat", "dog", "sat", "ran", "on", "mat", "house"]
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(words, rng.integers(3, 12))) for _ in range(40)]
    hypotheses = [" ".join(rng.choice(words) if rng.random() < 0.3 else w for w in line.split()) for line in references]
    metric = module.TER()
    expected = metric.corpus_score(hypotheses, [references], n_bootstrap=1001)
    scores = [
        metric.sentence_score(hypothesis, [line]) for hypothesis, line in zip(hypotheses, references, strict=True)
    ]
    values = np.concatenate([np.full(int(s.ref_length), 100 * s.num_edits / s.ref_length) for s in scores])
    clusters = np.concatenate([np.full(int(s.ref_length), i) for i, s in enumerate(scores)])
    result = bootstrap(values, clusters, 1001, seed=7)
    same(result.rate, expected.score, 1e-9)
    same((result.high - result.low) / 2, expected._ci, 1e-4)
