"""Ratings by hand, against other implementations, and on simulated votes with known strengths."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from public_data import read_llmfao_votes

from assent.functional.ratings import POINTS, BradleyTerryFit, bradley_terry

Array = NDArray[Any]


def fit_two_players(wins: int, losses: int, ties: int = 0, copies: int = 1) -> BradleyTerryFit:
    """Fit two players; each vote has its own prompt and is repeated `copies` times."""
    outcomes = np.repeat([1.0] * wins + [0.0] * losses + [0.5] * ties, copies)
    n = len(outcomes)
    prompts = np.arange(n) // copies if copies > 1 else None
    return bradley_terry([0] * n, [1] * n, outcomes, 2, prompts=prompts, baseline=1)


class SimulatedVotes(NamedTuple):
    """Comparisons by index, with labels."""

    first: Array
    second: Array
    outcomes: Array
    prompts: Array
    annotators: Array

    @classmethod
    def random(
        cls,
        seed: int,
        of_prompt: float = 1.0,
        of_annotator: float = 0.0,
        *,
        players: int = 6,
        prompts: int = 250,
        votes: int = 4,
        annotators: int = 50,
        tied: float = 0.0,
    ) -> "SimulatedVotes":
        """Sample `votes` votes on one pair per prompt; prompt and annotator effects have these standard deviations."""
        random = np.random.default_rng(seed)
        theta = np.linspace(-1, 1, players)
        prompt = np.repeat(np.arange(prompts), votes)
        first = random.integers(players, size=prompts)[prompt]
        second = (first + 1 + random.integers(players - 1, size=prompts)[prompt]) % players
        annotator = random.integers(annotators, size=len(prompt))
        utility = of_prompt * random.normal(size=(prompts, players))[prompt]
        utility += of_annotator * random.normal(size=(annotators, players))[annotator] + theta
        rows = np.arange(len(prompt))
        chance = 1 / (1 + np.exp(utility[rows, second] - utility[rows, first]))
        outcomes = (random.random(len(prompt)) < chance).astype(float)
        outcomes[random.random(len(prompt)) < tied] = 0.5
        return cls(first, second, outcomes, prompt, annotator)

    def rated(self, *sides: str, players: int = 6, **settings: Any) -> BradleyTerryFit:
        labels = {side: getattr(self, side) for side in sides}
        return bradley_terry(self.first, self.second, self.outcomes, players, **labels, **settings)


# Ratings


def test_three_wins_of_four_are_odds_of_three_to_one() -> None:
    fit = fit_two_players(3, 1)
    assert fit.connected
    assert fit.theta == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-5)
    assert fit.ratings == pytest.approx([1000 + 173.72 * math.log(3), 1000], abs=0.01)
    assert fit.votes.tolist() == [4, 4]


def test_odds_of_ten_to_one_are_400_rating_points() -> None:
    assert fit_two_players(10, 1).contrast(0, 1).value == pytest.approx(400, abs=1e-3)
    # POINTS = 400 / ln 10.
    assert pytest.approx(173.72, abs=0.005) == POINTS


def test_tie_of_equals_changes_no_rating() -> None:
    assert fit_two_players(0, 0, ties=7).ratings == pytest.approx([1000, 1000])


def test_tie_is_half_a_win_for_each() -> None:
    assert fit_two_players(30, 10, ties=20).theta == pytest.approx(fit_two_players(40, 20).theta)


def test_repeated_vote_equals_double_weight() -> None:
    twice = bradley_terry([0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0.5], 2)
    weighed = bradley_terry([0, 1, 1], [1, 0, 0], [1, 1, 0.5], 2, [2, 1, 1])
    assert weighed.theta == pytest.approx(twice.theta)
    assert weighed.votes.tolist() == [4, 4]


@given(st.permutations(range(6)), st.integers(0, 99))
def test_ratings_do_not_depend_on_names_order_or_sides(names: list[int], seed: int) -> None:
    world = SimulatedVotes.random(seed, prompts=60)
    named = np.array(names)
    order = np.random.default_rng(seed).permutation(len(world.outcomes))
    another = SimulatedVotes(
        named[world.second[order]],
        named[world.first[order]],
        1 - world.outcomes[order],
        world.prompts[order],
        world.annotators[order],
    )
    single = world.rated("prompts", "annotators")
    two = another.rated("prompts", "annotators")
    assert two.theta[named] == pytest.approx(single.theta, abs=1e-8)
    assert two.covariance[np.ix_(named, named)] == pytest.approx(single.covariance, abs=1e-8)


def test_origin_of_ratings_changes_no_difference() -> None:
    world = SimulatedVotes.random(0)
    mean, third = world.rated(), world.rated(baseline=3)
    assert mean.ratings.mean() == pytest.approx(1000)
    assert third.rating(3) == (1000, 1000, 1000)
    assert mean.contrast(5, 0) == pytest.approx(third.contrast(5, 0))
    assert third.contrast(5, 0).value == pytest.approx(third.ratings[5] - third.ratings[0])
    assert third.contrast(0, 5) == pytest.approx([-x for x in (third.contrast(5, 0)[i] for i in (0, 2, 1))])


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_ratings_do_not_depend_on_the_unit_of_weights(scale: float) -> None:
    fit = bradley_terry([0] * 4, [1] * 4, [1, 1, 1, 0], 2, [scale] * 4)
    assert fit.theta[0] == pytest.approx(0 if scale == 1e-12 else math.log(3) / 2, abs=1e-5)


# Players with few comparisons


def test_unbeaten_player_is_disconnected_with_a_wide_interval() -> None:
    fit = fit_two_players(20, 0)
    assert not fit.connected
    gap = fit.contrast(0, 1)
    # The derivative of 20 log s(d) - 0.1 d^2 / 4, for theta is +- d / 2, is 0.
    d = gap.value / POINTS
    assert 20 / (1 + math.exp(d)) == pytest.approx(0.1 * d / 2, rel=1e-6)
    # Wilson's lower limit for 20 of 20 is 20 / (20 + 1.96^2) = .839: 173.72 log(.839 / .161) = 287 points.
    assert gap.low < 287 < gap.value < gap.high


def test_player_without_games_has_the_interval_of_the_prior() -> None:
    fit = bradley_terry([0, 1] * 50, [1, 0] * 50, [1, 0.5] * 50, 3)
    assert (fit.connected, fit.votes[2], fit.theta[2]) == (False, 0, pytest.approx(0))
    width = fit.rating(2).high - fit.rating(2).low
    # Each is N(0, 10) beforehand, so a third of them against the mean of all has the variance 10 * 2/3.
    assert width == pytest.approx(2 * 1.959964 * POINTS * math.sqrt(20 / 3), rel=1e-4)
    assert fit.contrast(0, 1).high - fit.contrast(0, 1).low < width / 4


def test_disconnected_players_are_rated_with_a_warning() -> None:
    fit = bradley_terry([0, 1, 2, 3] * 20, [1, 0, 3, 2] * 20, [1, 1, 1, 1] * 20, 4)
    assert not fit.connected
    assert fit.contrast(0, 2).high - fit.contrast(0, 2).low > 4 * (fit.contrast(0, 1).high - fit.contrast(0, 1).low)


def test_ratings_without_comparisons_are_equal() -> None:
    fit = bradley_terry([], [], [], 3)
    assert (fit.ratings.tolist(), fit.connected, fit.clusters) == ([1000, 1000, 1000], False, {})
    low, high = fit.rating(0).low, fit.rating(0).high
    assert (low, high) == pytest.approx((1000 - 879.1, 1000 + 879.1), abs=0.1)  # 1.96 * 173.72 * sqrt(10 * 2/3)


def test_single_player_has_the_mean_rating() -> None:
    fit = bradley_terry([], [], [], 1)
    assert (fit.rating(0), fit.connected) == ((1000, 1000, 1000), True)


def test_single_vote_has_a_wide_interval() -> None:
    for fit in (fit_two_players(1, 0), fit_two_players(0, 0, ties=1)):
        assert fit.contrast(0, 1).low < -200
        assert fit.contrast(0, 1).high > 200


# Intervals


def test_independent_votes_have_the_variance_of_a_logit() -> None:
    # P(1 - P) n = 60 * 40 / 100: the variance of the log-odds is 1/60 + 1/40, times G / (G - 1) = 100 / 99.
    fit = fit_two_players(60, 40)
    half = 1.959964 * POINTS * math.sqrt((1 / 60 + 1 / 40) * 100 / 99)
    assert fit.clusters == {}
    assert fit.contrast(0, 1).high - fit.contrast(0, 1).value == pytest.approx(half, rel=1e-5)


def test_identical_clustered_votes_count_as_one() -> None:
    fit, single = fit_two_players(24, 16, copies=4), fit_two_players(24, 16)
    assert fit.clusters == {"prompts": 40}
    assert fit.contrast(0, 1) == pytest.approx(single.contrast(0, 1), rel=1e-6)
    unclustered = bradley_terry([0] * 160, [1] * 160, [1.0] * 96 + [0.0] * 64, 2)
    clustered = fit.contrast(0, 1)
    narrow = unclustered.contrast(0, 1)
    ratio = (clustered.high - clustered.low) / (narrow.high - narrow.low)
    # Four copies have twice the standard error of 160 single votes, times sqrt(G / (G - 1)) of G = 40 and G = 160.
    assert ratio == pytest.approx(2 * math.sqrt(40 / 39 * 159 / 160), rel=1e-5)


@pytest.mark.parametrize(("prompts", "used"), [(29, ["annotators"]), (30, ["prompts", "annotators"])])
def test_fewer_than_thirty_clusters_are_not_used(prompts: int, used: list[str]) -> None:
    world = SimulatedVotes.random(0, prompts=prompts, votes=40, annotators=31)
    both = world.rated("prompts", "annotators")
    assert list(both.clusters) == used
    assert both.clusters["annotators"] == 31
    single = world.rated("annotators")
    assert (np.abs(both.covariance - single.covariance).max() < 1e-12) == (used == ["annotators"])


def sandwich_by_definition(world: SimulatedVotes, theta: Array, weights: Array) -> Array:
    """Return the two-way sandwich by its definition, with one row of x per comparison."""
    rows = np.arange(len(theta))
    n = len(world.outcomes)
    x = (world.first[:, None] == rows).astype(float) - (world.second[:, None] == rows)
    p = 1 / (1 + np.exp(-x @ theta))
    j = np.ones((len(theta), len(theta)))
    h = sum(w * q * (1 - q) * np.outer(row, row) for w, q, row in zip(weights, p, x, strict=True))
    inverse = np.linalg.inv(h + j / len(theta)) - j / len(theta)
    scores = (weights * (world.outcomes - p))[:, None] * x

    def v(labels: Array) -> Array:
        groups = [scores[labels == label].sum(0) for label in set(labels.tolist())]
        meat = sum(np.outer(s, s) for s in groups) * len(groups) / (len(groups) - 1)
        return np.asarray(inverse @ meat @ inverse)

    values, vectors = np.linalg.eigh(v(world.prompts) + v(world.annotators) - v(np.arange(n)))
    return np.asarray(vectors @ np.diag(np.maximum(values, 0)) @ vectors.T)


@pytest.mark.parametrize(("seed", "prompts", "votes", "annotators"), [(0, 60, 4, 40), (1, 30, 2, 31), (2, 31, 1, 60)])
def test_covariance_equals_the_two_way_sandwich(seed: int, prompts: int, votes: int, annotators: int) -> None:
    sample = SimulatedVotes.random(
        seed, 1.0, 1.0, players=4, prompts=prompts, votes=votes, annotators=annotators, tied=0.2
    )
    # Labels may be strings; every annotator has a vote.
    world = sample._replace(annotators=np.array([f"a{i % annotators}" for i in range(len(sample.prompts))]))
    weights = np.random.default_rng(seed).uniform(0.5, 2, len(world.outcomes))
    fit = world.rated("prompts", "annotators", players=4, weights=weights)
    assert fit.connected
    assert len(fit.clusters) == 2
    assert fit.covariance == pytest.approx(sandwich_by_definition(world, fit.theta, weights), rel=1e-4, abs=1e-7)
    assert fit.covariance.sum(1) == pytest.approx(np.zeros(4), abs=1e-9)


def test_two_way_variance_is_clipped_at_zero() -> None:
    # Each prompt and each annotator has one win and one loss: V_prompt = V_annotator = 0, and - V of 80 votes remains.
    votes = [1.0, 0.0] * 40
    labels = np.arange(80) // 2
    fit = bradley_terry([0] * 80, [1] * 80, votes, 2, prompts=labels, annotators=-labels)
    assert fit.clusters == {"prompts": 40, "annotators": 40}
    assert fit.covariance == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def fit_exact_shares(of_prompt: float, of_annotator: float) -> BradleyTerryFit:
    """Fit Bradley-Terry to the exact share of wins of each pair: the limit of many votes."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    utility = points * math.sqrt(2 * (of_prompt**2 + of_annotator**2))
    theta = np.linspace(-1, 1, 6)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    shares = [(weights / weights.sum()) @ (1 / (1 + np.exp(theta[j] - theta[i] - utility))) for i, j in pairs]
    return bradley_terry([i for i, _ in pairs], [j for _, j in pairs], shares, 6, baseline=0)


def coverage(of_prompt: float, of_annotator: float, sides: Sequence[str], repeats: int = 300) -> float:
    """Return the share of nominal 95 % intervals that contain the true value."""
    truth = fit_exact_shares(of_prompt, of_annotator).ratings
    is_covered = []
    for seed in range(repeats):
        fit = SimulatedVotes.random(seed, of_prompt, of_annotator).rated(*sides, baseline=0)
        intervals = [fit.rating(player) for player in range(1, 6)]
        is_covered += [low <= true <= high for (_, low, high), true in zip(intervals, truth[1:], strict=True)]
    return float(np.mean(is_covered))


# Two of the four votes on a prompt correlate by .26 if its effects have deviation 1. Without clusters the variance is
# too small by 1 + 3 * .26 = 1.78, and the limits of 1.96 cover P(|z| < 1.96 / sqrt(1.78)) = .858.
@pytest.mark.parametrize(
    ("of_prompt", "of_annotator", "sides", "low", "high"),
    [
        (0.0, 0.0, [], 0.935, 0.965),  # independent votes: .95, measured .947
        (1.0, 0.0, [], 0.845, 0.89),  # measured .867
        (1.0, 0.0, ["annotators"], 0.84, 0.89),  # measured .855: the wrong clusters do not help
        (1.0, 0.0, ["prompts"], 0.935, 0.965),  # measured .945
        (1.0, 0.6, ["prompts"], 0.88, 0.935),  # measured .929
        (1.0, 0.6, ["prompts", "annotators"], 0.925, 0.965),  # measured .939
    ],
)
def test_rating_intervals_cover_the_truth_only_with_clusters(
    of_prompt: float, of_annotator: float, sides: list[str], low: float, high: float
) -> None:
    assert low < coverage(of_prompt, of_annotator, sides) < high


def test_rating_100000_votes_on_60_players_takes_seconds() -> None:
    world = SimulatedVotes.random(0, players=60, prompts=25_000, annotators=200)
    start = time.process_time()
    fit = world.rated("prompts", "annotators", players=60)
    assert time.process_time() - start < 3
    assert np.corrcoef(fit.theta, np.linspace(-1, 1, 60))[0, 1] > 0.99


def test_real_votes_on_few_prompts_cluster_by_annotator() -> None:
    rows = read_llmfao_votes()
    models = sorted({row[side] for row in rows for side in ("model_x", "model_y")})
    first, second = ([models.index(row[side]) for row in rows] for side in ("model_x", "model_y"))
    outcomes = [{"left": 1.0, "tie": 0.5, "right": 0.0}[row["winner"]] for row in rows]
    prompts, annotators = ([row[side] for row in rows] for side in ("prompt", "worker"))
    fit = bradley_terry(first, second, outcomes, len(models), prompts=prompts, annotators=annotators)
    assert (len(models), fit.connected, fit.clusters) == (59, True, {"annotators": 124})
    unclustered = bradley_terry(first, second, outcomes, len(models))
    assert unclustered.clusters == {}
    assert np.trace(fit.covariance) > 1.2 * np.trace(unclustered.covariance)


def test_ratings_do_not_depend_on_the_order_of_games() -> None:
    forward, backward = ([0, 0], [1, 2], [1, 0]), ([0, 0], [2, 1], [0, 1])
    assert bradley_terry(*forward, 3).theta == pytest.approx(bradley_terry(*backward, 3).theta)


# Invalid input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bradley_terry([0], [1, 0], [1, 1], 2), "give one of each per comparison"),
        (lambda: bradley_terry([0], [2], [1], 2), "numbered 0 to 1"),
        (lambda: bradley_terry([-1], [0], [1], 2), "numbered 0 to 1"),
        (lambda: bradley_terry(["a"], ["b"], [1], 2), "number them from 0"),
        (lambda: bradley_terry([0, 1], [1, 1], [1, 1], 2), "comparison 1 is of a player with itself"),
        (lambda: bradley_terry([0], [1], [2], 2), "outside 0 to 1"),
        (lambda: bradley_terry([0], [1], [math.nan], 2), "outside 0 to 1"),
        (lambda: bradley_terry([0], [1], [1], 2, [-1]), "a weight"),
        (lambda: bradley_terry([0], [1], [1], 2, baseline=2), "the baseline is player 2"),
        (lambda: bradley_terry([0], [1], [1], 2, prompts=["a", "b"]), "prompts have shape"),
        (lambda: bradley_terry([], [], [], 0), "numbered 0 to -1"),
    ],
)
def test_invalid_ratings_input_is_refused_with_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Other implementations


def evalica() -> Any:
    return pytest.importorskip("evalica", reason="needs evalica: pip install evalica==0.4.2")


def evalica_arguments(world: SimulatedVotes) -> dict[str, Any]:
    """Return the arguments of evalica."""
    winner = evalica().Winner
    named = {1.0: winner.X, 0.5: winner.Draw, 0.0: winner.Y}
    return dict(xs=world.first.tolist(), ys=world.second.tolist(), winners=[named[x] for x in world.outcomes.tolist()])


@pytest.mark.conformance
def test_ratings_with_ties_agree_with_evalica() -> None:
    world = SimulatedVotes.random(3, tied=0.3)
    expected = (
        evalica()
        .bradley_terry(**evalica_arguments(world), tolerance=1e-13, limit=100000)
        .scores.sort_index()
        .to_numpy()
    )
    assert world.rated().theta == pytest.approx(np.log(expected) - np.log(expected).mean(), abs=1e-6)


@pytest.mark.conformance
@pytest.mark.parametrize("alpha", [1e-6, 0.1])
def test_ratings_with_a_ridge_agree_with_choix(alpha: float) -> None:
    module = pytest.importorskip("choix", reason="needs choix: pip install choix==0.4.1")
    world = SimulatedVotes.random(5, prompts=40)
    won = world.outcomes == 1
    winners = np.where(won, world.first, world.second)
    losers = np.where(won, world.second, world.first)
    if alpha == 0.1:  # the first player loses all its games
        has_winner = winners != 0
        winners, losers = winners[has_winner], losers[has_winner]
    fit = bradley_terry(winners, losers, np.ones(len(winners)), 6)
    # choix's penalty is alpha |theta|^2, without the factor 1/2 of its documentation.
    pairs = list(zip(winners.tolist(), losers.tolist(), strict=True))
    expected = module.opt_pairwise(6, pairs, alpha=alpha / 2, tol=1e-12)
    assert fit.connected == (alpha != 0.1)
    assert fit.theta == pytest.approx(expected - expected.mean(), abs=1e-5)
