"""Acquisition: the pairs of responses to compare next, the most informative ones and a uniform random slice."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assent.errors import AssentError, did_you_mean
from assent.functional.acquisition import (
    Floats,
    Indices,
    bald,
    d_optimal,
    disagreement,
    fisher_weight,
    k_centre,
    predictive_entropy,
    random_projection,
    win_probabilities,
)
from assent.functional.near_identical import differs_by_few_edits, normalise

Acquisition = Literal["uniform", "disagreement", "entropy", "bald", "d_optimal"]

ACQUISITION_SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "disagreement": disagreement,
    "entropy": predictive_entropy,
    "bald": bald,
}
"""Acquisition functions that score each candidate on its own."""
OVERSAMPLING = 4
"""Diverse candidates are selected from the best `OVERSAMPLING` times as many."""
MAX_DIMENSIONS = 64
"""Larger features are projected to this many dimensions."""


class Candidate(NamedTuple):
    """A pair of items that an annotator could compare."""

    prompt: str  # id
    first: str  # id of an item
    second: str  # id of an item


class SelectedPair(NamedTuple):
    """A selected pair and its selection probability."""

    candidate: Candidate
    acquisition: Acquisition
    """The acquisition function that selected it; `uniform` for the random slice."""
    propensity: float
    """Probability of selection, by the random slice or the acquisition function, over the draws of the slice."""


class DistinctPairs(NamedTuple):
    """Candidates whose texts differ enough to be compared."""

    candidates: list[Candidate]
    near_identical: int
    """Number of pairs left out."""


def select(
    candidates: Sequence[Candidate],
    acquisition: Acquisition,
    count: int,
    scores: Mapping[str, ArrayLike],
    features: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    random_fraction: float = 0.2,
    *,
    previous: Sequence[Candidate] = (),
) -> list[SelectedPair]:
    """Select `count` candidates, or all of them if there are no more, in random order.

    The N candidates are ranked once by the acquisition function, with a hash of their ids to break ties. A uniform draw
    without replacement takes m = round(random_fraction x count) of all N. The acquisition function fills the other
    places with the best of its ranking that were not drawn. `_propensities` derives the selection probabilities.

    Two estimates of a mean over all N candidates (the reward model's accuracy, for instance) are unbiased. One is the
    plain mean over the random slice; to test a model, the slice must not be among its training data. The other is
    sum(value / propensity) / N over all selected candidates, for m > 0 (Horvitz & Thompson 1952,
    doi:10.1080/01621459.1952.10483446). The order is random, so that judgements of the slice are a uniform sample even
    if annotators stop early.

    Args:
        candidates: pairs of different texts (see `distinct`), each once.
        acquisition: if there are features, `disagreement`, `entropy` and `bald` add diversity by k-centre among the
            best `OVERSAMPLING` x count; `d_optimal` needs features, and is diverse by itself.
        scores: of each item, one logit for each member of an ensemble, (M,), not standardised; `uniform` reads none.
        features: of each item, (D,).
        previous: pairs that were compared before: the information matrix of `d_optimal` starts from them.

    Raises:
        AssentError: a setting out of range; an item without scores or features; a pair that is there twice.
    """
    _check_settings(acquisition, count, random_fraction)
    if not candidates:
        return []
    _check_unique(candidates)
    pool = sorted(candidates, key=_tie_breaker)
    rng = np.random.default_rng(seed)
    count = min(count, len(pool))
    num_random = count if acquisition == "uniform" else round(random_fraction * count)
    random_slice: list[int] = rng.choice(len(pool), num_random, replace=False).tolist()
    selected: list[tuple[int, Acquisition]] = [(index, "uniform") for index in random_slice]
    propensity = np.full(len(pool), num_random / len(pool))
    if num_random < count:
        ranking = _rank(acquisition, pool, count, scores, features, previous)
        propensity[ranking] = _propensities(len(pool), num_random, count)
        in_slice = set(random_slice)
        remaining = [index for index in ranking.tolist() if index not in in_slice]
        selected += [(index, acquisition) for index in remaining[: count - num_random]]
    rng.shuffle(selected)
    return [SelectedPair(pool[index], function, float(propensity[index])) for index, function in selected]


def distinct(candidates: Sequence[Candidate], texts: Mapping[str, str]) -> DistinctPairs:
    """Leave out pairs of near-identical texts.

    Args:
        texts: text of each item, by id.

    Raises:
        AssentError: an item without a text.
    """
    items = {item for candidate in candidates for item in (candidate.first, candidate.second)}
    if missing := sorted(items - texts.keys()):
        raise AssentError(f"item '{missing[0]}' has no text; pass the text of every item")
    normal_forms = {item: normalise(texts[item]) for item in items}
    distinct_pairs = [
        candidate
        for candidate in candidates
        if not differs_by_few_edits(normal_forms[candidate.first], normal_forms[candidate.second])
    ]
    return DistinctPairs(distinct_pairs, len(candidates) - len(distinct_pairs))


def _check_settings(acquisition: Acquisition, count: int, random_fraction: float) -> None:
    if acquisition not in get_args(Acquisition):
        suggestion = did_you_mean(acquisition, get_args(Acquisition))
        raise AssentError(f"no acquisition function '{acquisition}'{suggestion}")
    if count < 1:
        raise AssentError(f"cannot select {count} pairs; the number must be 1 or more")
    if not 0 <= random_fraction <= 1:
        raise AssentError(f"random_fraction must be between 0 and 1, got {random_fraction}")


def _check_unique(candidates: Sequence[Candidate]) -> None:
    pairs: set[frozenset[str]] = set()
    for _, first, second in candidates:
        pair = frozenset((first, second))
        if first == second:
            raise AssentError(f"the pair of '{first}' and '{second}' is one item; pass pairs of two items")
        if pair in pairs:
            raise AssentError(f"the pair of '{first}' and '{second}' is there twice; pass each pair once")
        pairs.add(pair)


def _tie_breaker(candidate: Candidate) -> bytes:
    """Return a sort key that does not depend on the order of the candidates."""
    return hashlib.sha256("\n".join(candidate).encode("utf-8", "surrogatepass")).digest()


def _rank(
    acquisition: Acquisition,
    pool: Sequence[Candidate],
    count: int,
    scores: Mapping[str, ArrayLike],
    features: Mapping[str, ArrayLike] | None,
    previous: Sequence[Candidate],
) -> Indices:
    """Return the indices of the `count` best candidates by the acquisition function, the best first."""
    n = len(pool)
    index_of: dict[str, int] = {}
    pairs = np.array(
        [
            [index_of.setdefault(item, len(index_of)) for item in (pair.first, pair.second)]
            for pair in (*pool, *(previous if acquisition == "d_optimal" else ()))
        ]
    )
    p = win_probabilities(_stack(scores, index_of, "scores", np.float64), pairs)
    if acquisition in ("disagreement", "bald") and p.shape[1] < 2:
        raise AssentError(f"'{acquisition}' needs an ensemble, not one member; train several, or use 'entropy'")
    x = None
    if features is not None:
        phi = random_projection(_stack(features, index_of, "features", np.float32), MAX_DIMENSIONS).astype(np.float64)
        x = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    if acquisition == "d_optimal":
        if x is None:
            raise AssentError("'d_optimal' needs features of the items; pass them, or use 'bald'")
        root_mean_square = np.sqrt(np.square(x[:n]).sum(1).mean()) or 1.0
        y = fisher_weight(p)[:, None] * x / root_mean_square
        return d_optimal(y[:n], count, observed=y[n:]).order
    best = np.argsort(-ACQUISITION_SCORES[acquisition](p), kind="stable")
    if x is None:
        return best[:count]
    best = best[: OVERSAMPLING * count]
    return best[k_centre(x[best], count).order]


def _stack(
    values: Mapping[str, ArrayLike], items: Mapping[str, int], noun: str, dtype: type[np.floating]
) -> NDArray[np.floating]:
    """Stack the values of the items in their order, (N, ...)."""
    for item in items:
        if item not in values:
            raise AssentError(f"item '{item}' has no {noun}; pass those of every item of a candidate")
    rows = [np.asarray(values[item], dtype=dtype) for item in items]
    shapes = {row.shape for row in rows}
    if len(shapes) != 1 or len(shapes.pop()) != 1:
        raise AssentError(f"the {noun} of items have several lengths; pass a row of the same length for each item")
    table = np.stack(rows)
    if not np.isfinite(table).all():
        item = list(items)[int(np.flatnonzero(~np.isfinite(table).all(1))[0])]
        raise AssentError(f"the {noun} of item '{item}' are not finite; leave out its pairs")
    return table


def _propensities(num_candidates: int, num_random: int, count: int) -> Floats:
    """Return the propensities of the first `count` of the ranking of N candidates, best first.

    Only the draw of m is random, so a candidate's propensity is the share of all possible draws that select it. It is 1
    for the first k = count - m: if the draw does not take them, the acquisition function does. It is m / N beyond the
    first `count`, where only the draw selects. The candidate of rank r between them is reached when the draw took r - k
    or more of those before it, so its propensity is m / N + (1 - m / N) P[H >= r - k]. H is hypergeometric: m draws
    from N - 1 candidates, r - 1 of which count. All of it is conditional on the scores.
    """
    from scipy.stats import hypergeom  # most of a second to import

    num_ranked = count - num_random
    share = num_random / num_candidates
    ranks = np.arange(num_ranked, count)  # from 0
    reached = hypergeom.sf(ranks - num_ranked, num_candidates - 1, ranks, num_random)
    return np.concatenate([np.ones(num_ranked), share + (1 - share) * reached])
