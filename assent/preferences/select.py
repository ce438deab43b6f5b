"""Which pairs to ask about next: those whose answers teach most, and a slice drawn by lot that keeps us honest."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assent.errors import AssentError, did_you_mean
from assent.functional.acquisition import (
    Floats,
    Places,
    bald,
    d_optimal,
    disagreement,
    entropy,
    evenness,
    k_centre,
    project,
    win_probabilities,
)
from assent.functional.near_identical import few_edits, normalised
from assent.functional.near_identical import near_identical as near_identical

Rule = Literal["uniform", "disagreement", "entropy", "bald", "d_optimal"]

WORTH: Mapping[str, Callable[[Floats], Floats]] = {"disagreement": disagreement, "entropy": entropy, "bald": bald}
"""The rules that give each candidate a number, whatever the others are."""
FEW = 4
"""Diverse candidates are chosen from the best so many times as many."""
DIMENSIONS = 64
"""Larger features are projected to so many."""


class Candidate(NamedTuple):
    """A pair that an annotator could be asked about."""

    prompt: str  # id
    first: str  # id of an item
    second: str  # id of an item


class Chosen(NamedTuple):
    """A pair to ask about, and how likely it was to be asked about."""

    candidate: Candidate
    rule: Rule
    """Which rule chose it; `uniform` is the audit slice."""
    propensity: float
    """How often it would be chosen, by lot or by rule, if the lots were drawn again."""
    audit: float
    """How often the audit slice would hold it: the same for every candidate."""


class Distinct(NamedTuple):
    """Candidates that differ enough to be compared."""

    candidates: list[Candidate]
    near_identical: int
    """How many were left out."""


def select(
    candidates: Sequence[Candidate],
    rule: Rule,
    count: int,
    scores: Mapping[str, ArrayLike],
    features: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    audit: float = 0.2,
    *,
    asked: Sequence[Candidate] = (),
) -> list[Chosen]:
    """Choose `count` candidates, all of them if there are no more, in an order drawn by lot.

    N candidates are ranked once by the rule; the ranking depends on nothing but candidates, scores and features: equals
    stand in the order of a hash of their names. Lots then draw m = round(audit x count) of all N, uniformly without
    replacement, and the rule fills the other k = count - m places with the first of its ranking that were not drawn.

    Chance is thus in the lots alone, and a propensity is the share of all draws of them in which the candidate is
    chosen. It is 1 for the first k of the ranking: had the lots not drawn them, the rule would have taken them. Beyond
    the first `count` only lots choose, with m / N. Between, the rule comes as far as place r when r - k or more of
    those before it were drawn, so m / N + (1 - m / N) P[H >= r - k] with H hypergeometric: m draws from N - 1, of which
    r - 1 count. All of it is given the scores: it does not ask how else they could have come out.

    Two unbiased estimates of the mean of anything over all N candidates (how often the reward model is right, say):
    the plain mean over the audit slice, which needs no weights, as any candidate was as likely to be in it (a slice
    that must not have been trained on, if it is to test); and sum(value / propensity) / N over all that were chosen
    (Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446), as long as m > 0. The order is part of it: if
    annotators stop early, what they did answer of the slice is still a uniform draw.

    Args:
        candidates: pairs of different texts (see `distinct`), each once.
        rule: diversity is added to `disagreement`, `entropy` and `bald` by k-centre among the best few times `count`,
            if there are features; `d_optimal` needs features, and is diverse by itself.
        scores: of each item by every member of an ensemble, (M,) logits, not standardised; `uniform` looks at none.
        features: of each item, (D,).
        asked: pairs that have been asked before: `d_optimal` adds to what they tell.

    Raises:
        AssentError: a setting out of range; an item without scores or features; a pair that stands there twice.
    """
    if rule not in get_args(Rule):
        raise AssentError(f"no rule '{rule}' to choose by{did_you_mean(rule, get_args(Rule))}")
    if count < 1 or not 0 <= audit <= 1:
        raise AssentError(f"{count} pairs cannot be chosen with an audit of {audit}: ask for 1 or more, and 0 to 1")
    if not candidates:
        return []
    _once(candidates)
    pool, random = sorted(candidates, key=_lot), np.random.default_rng(seed)
    count = min(count, len(pool))
    by_lot = count if rule == "uniform" else round(audit * count)
    drawn: list[int] = random.choice(len(pool), by_lot, replace=False).tolist()
    chosen: list[tuple[int, Rule]] = [(place, "uniform") for place in drawn]
    propensity = np.full(len(pool), by_lot / len(pool))
    if by_lot < count:
        ranking, taken = _ranking(rule, pool, count, scores, features, asked), set(drawn)
        propensity[ranking] = _propensities(len(pool), by_lot, count)
        left = [place for place in ranking.tolist() if place not in taken]
        chosen += [(place, rule) for place in left[: count - by_lot]]
    random.shuffle(chosen)
    return [Chosen(pool[place], by, float(propensity[place]), by_lot / len(pool)) for place, by in chosen]


def distinct(candidates: Sequence[Candidate], texts: Mapping[str, str]) -> Distinct:
    """Leave out the pairs whose texts a reader could hardly tell apart; `texts` are those of the items, by id."""
    items = {item for candidate in candidates for item in candidate[1:]}
    for item in sorted(items - texts.keys())[:1]:
        raise AssentError(f"item '{item}' is to be compared and its text is not given: pass the text of every item")
    plain = {item: normalised(texts[item]) for item in items}
    kept = [each for each in candidates if not few_edits(plain[each.first], plain[each.second])]
    return Distinct(kept, len(candidates) - len(kept))


def _once(candidates: Sequence[Candidate]) -> None:
    seen: set[frozenset[str]] = set()
    for _, first, second in candidates:
        pair = frozenset((first, second))
        if pair in seen or first == second:
            how = "is one item" if first == second else "stands among the candidates twice"
            raise AssentError(f"the pair of '{first}' and '{second}' {how}: pass each pair of two items once")
        seen.add(pair)


def _lot(candidate: Candidate) -> bytes:
    """A place in the order of equals that does not depend on the order in which the candidates came."""
    return hashlib.sha256("\n".join(candidate).encode("utf-8", "surrogatepass")).digest()


def _ranking(
    rule: Rule,
    pool: Sequence[Candidate],
    count: int,
    scores: Mapping[str, ArrayLike],
    features: Mapping[str, ArrayLike] | None,
    asked: Sequence[Candidate],
) -> Places:
    """Places in the pool of the first `count` that the rule would choose, the best first."""
    n, items = len(pool), dict[str, int]()
    past = asked if rule == "d_optimal" else ()
    pairs = np.array([[items.setdefault(item, len(items)) for item in pair[1:]] for pair in (*pool, *past)])
    p = win_probabilities(_rows(scores, items, "scores", np.float64), pairs)
    if rule in ("disagreement", "bald") and p.shape[1] < 2:
        raise AssentError(f"'{rule}' asks where members disagree, and there is one: fit several, or choose 'entropy'")
    x = None
    if features is not None:
        phi = project(_rows(features, items, "features", np.float32), DIMENSIONS).astype(np.float64)
        x = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    if rule == "d_optimal":
        if x is None:
            raise AssentError("'d_optimal' needs features of the items, and none are given: choose 'bald' without them")
        typical = np.sqrt(np.square(x[:n]).sum(1).mean()) or 1.0
        y = evenness(p)[:, None] * x / typical
        return d_optimal(y[:n], count, known=y[n:]).order
    best = np.argsort(-WORTH[rule](p), kind="stable")
    if x is None:
        return best[:count]
    best = best[: FEW * count]
    return best[k_centre(x[best], count).order]


def _rows(
    values: Mapping[str, ArrayLike], items: Mapping[str, int], what: str, dtype: type[np.floating]
) -> NDArray[np.floating]:
    """The values of the items, (N, ...), in their order."""
    for item in items:
        if item not in values:
            raise AssentError(f"item '{item}' has no {what}: give those of every item of a candidate")
    found = [np.asarray(values[item], dtype=dtype) for item in items]
    shapes = {row.shape for row in found}
    if len(shapes) != 1 or len(shapes.pop()) != 1:
        raise AssentError(f"the {what} of items are of several lengths: give each item a row of the same length")
    rows = np.stack(found)
    if not np.isfinite(rows).all():
        item = list(items)[int(np.flatnonzero(~np.isfinite(rows).all(1))[0])]
        raise AssentError(f"the {what} of item '{item}' are not finite numbers: leave out its pairs")
    return rows


def _propensities(candidates: int, by_lot: int, count: int) -> Floats:
    """Of the first `count` of the ranking: see `select`."""
    from scipy.stats import hypergeom  # most of a second to import

    sure, share = count - by_lot, by_lot / candidates
    before = np.arange(sure, count)
    reached = hypergeom.sf(before - sure, candidates - 1, before, by_lot)
    return np.concatenate([np.ones(sure), share + (1 - share) * reached])
