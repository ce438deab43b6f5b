"""How far people agree beyond chance: Krippendorff's alpha, the kappas of Cohen and Fleiss, and the raw share.

Each takes answers in long form, one an entry, so that what nobody answered is simply not there. Intervals draw whole
items (Efron 1979), or whole clusters of items, for what is said of one prompt stands and falls together. Where everyone
always says the same there is no chance to correct for, and the coefficient is NaN: undefined, not perfect. A draw of
items that all agree cannot tell how sure that is: then a share has Wilson's limits, and a coefficient has none.
"""

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from assent.functional.statistics import limits

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Level = Literal["nominal", "ordinal", "interval"]
"""What the distance of two answers means: other or not, how many answers lie between, or the squared difference."""


class Agreement(NamedTuple):
    """A coefficient or a share, with confidence limits; NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int
    """Items that it rests on: those with two answers or more."""


class RawAgreement(NamedTuple):
    """How often two people who answered one item said the same."""

    decisive: Agreement
    """Of those pairs of answers in which neither is a tie."""
    three_way: Agreement
    """Of all pairs, a tie being an answer like others."""


def krippendorff_alpha(
    items: ArrayLike,
    values: ArrayLike,
    level: Level = "nominal",
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """1 - observed / expected disagreement: 1 is perfect, 0 is chance. Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability" (repository.upenn.edu/asc_papers/43).

    Args:
        items: (N,) labels of what was judged; any number of answers each.
        values: (N,) the answers; NaN is missing. Labels of any kind if nominal, in their order if ordinal, else
            numbers. They are the same for every item (first, second, tie; not an item's name), for chance is reckoned
            over all.
        clusters: (N,) what the item belongs to, such as its prompt; drawn whole. Each item alone if not given.
    """
    table = _Table.of(items, values, clusters)
    scale = None if level == "nominal" else table.numbers(level == "ordinal")

    def alpha(times: Floats) -> float:
        margin = times @ table.counts  # (C,), answers of each kind
        n = margin.sum()
        if scale is None:
            observed, expected = table.answers**2 - table.squares, n**2 - margin @ margin
        else:
            # A difference of ranks counts the answers between two, and half of those of either's own kind.
            at = np.cumsum(margin) - margin / 2 if level == "ordinal" else scale
            at = at - margin @ at / max(n, 1)
            observed = 2 * (table.answers * (table.counts @ at**2) - (table.counts @ at) ** 2)
            expected = 2 * n * (margin @ at**2)
        disagreement = times @ (observed / (table.answers - 1))
        return float(1 - (n - 1) * disagreement / expected) if expected > 0 else np.nan

    return _coefficient(table.clusters, alpha, resamples, seed)


def cohen_kappa(
    first: ArrayLike,
    second: ArrayLike,
    weights: Literal["none", "quadratic"] = "none",
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Agreement of two people beyond that of their habits. Cohen 1960 (doi:10.1177/001316446002000104), and with
    squared differences 1968 (doi:10.1037/h0026256).

    Args: first, second: (N,) what each said of N items; where either is NaN the item is left out.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"the answers of two people have shapes {a.shape} and {b.shape}: give both for each item")
    both = ~(_missing(a) | _missing(b))
    a, b = a[both], b[both]
    if weights == "quadratic":
        a, b = _numeric(a), _numeric(b)
    known, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    one, two = (np.eye(len(known))[side] for side in (index[: len(a)], index[len(a) :]))  # (N, C)

    def kappa(times: Floats) -> float:
        n = times.sum()
        if weights == "quadratic":
            means = times @ a / n, times @ b / n
            observed = times @ (a - b) ** 2 / n
            spread = times @ (a - means[0]) ** 2 / n + times @ (b - means[1]) ** 2 / n
            expected = spread + (means[0] - means[1]) ** 2
        else:
            observed = times @ (index[: len(a)] != index[len(a) :]) / n
            expected = 1 - (times @ one / n) @ (times @ two / n)
        return float(1 - observed / expected) if expected > 1e-12 else np.nan

    return _coefficient(np.arange(len(a)), kappa, resamples, seed)


def fleiss_kappa(items: ArrayLike, values: ArrayLike, resamples: int = 1000, seed: int = 0) -> Agreement:
    """Agreement of equally many answers an item, by whomever. Fleiss 1971 (doi:10.1037/h0031619).

    Raises:
        ValueError: items with different numbers of answers, for which Krippendorff's alpha is made.
    """
    table = _Table.of(items, values, fewest=1)
    each = np.unique(table.answers)
    if len(each) > 1 or (len(each) and each[0] < 2):
        raise ValueError(
            f"items have {each.min():.0f} to {each.max():.0f} answers, and Fleiss' kappa wants equally many of each, "
            "two or more: take krippendorff_alpha"
        )
    agree = (table.squares - table.answers) / (table.answers * (table.answers - 1))

    def kappa(times: Floats) -> float:
        margin = times @ table.counts
        expected = (margin @ margin) / margin.sum() ** 2
        return float((times @ agree / times.sum() - expected) / (1 - expected)) if expected < 1 - 1e-12 else np.nan

    return _coefficient(table.clusters, kappa, resamples, seed)


def raw_agreement(
    items: ArrayLike,
    values: ArrayLike,
    tie: Any = None,
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> RawAgreement:
    """The share of equal answers among pairs of answers to one item, every pair counting alike.

    Args: items, values, clusters: (N,) as above; one answer a person and item. tie: the value that decides nothing.
    """
    item, value = np.asarray(items), np.asarray(values)
    group = item if clusters is None else np.asarray(clusters)
    decided = value != tie if tie is not None else np.ones(len(value), dtype=bool)

    def share(which: NDArray[np.bool_]) -> Agreement:
        table = _Table.of(item[which], value[which], group[which])
        return _share(table.squares - table.answers, table.answers, table.clusters, resamples, seed)

    return RawAgreement(share(decided), share(np.ones(len(value), dtype=bool)))


def near_agreement(
    items: ArrayLike,
    values: ArrayLike,
    step: float,
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """The share of pairs of answers to one item that differ by at most `step`, every pair counting alike.

    Args: items, values, clusters: (N,) as above, the values being numbers; one answer a person and item.
    """
    item, value = np.asarray(items), _numeric(np.asarray(values))
    group = item if clusters is None else np.asarray(clusters)
    _, first, unit, answers = np.unique(item, return_index=True, return_inverse=True, return_counts=True)
    # The values of each item lie on a stretch of one line, further from those of the next than any step.
    place = unit * (np.ptp(value) + 2 * step + 1 if len(value) else 1.0) + value
    line, reach = np.sort(place), step + 1e-9
    near = np.searchsorted(line, place + reach, "right") - np.searchsorted(line, place - reach) - 1
    pairs = np.bincount(unit, near, len(first)).astype(np.float64)
    shared = answers > 1
    _, cluster = np.unique(group[first][shared], return_inverse=True)
    return _share(pairs[shared], answers[shared].astype(np.float64), cluster, resamples, seed)


def word_overlap(first: str, second: str) -> float:
    """2 x words in common / words of both, from 0 to 1: as often as each text has them, in whatever order and case.
    Dice 1945 (doi:10.2307/1932409), of multisets; of the first 2000 words.
    """
    one, two = (
        Counter(islice((found[0] for found in re.finditer(r"\w+", text.casefold())), 2000)) for text in (first, second)
    )
    total = one.total() + two.total()
    return 2 * (one & two).total() / total if total else float(first == second)


class _Table(NamedTuple):
    counts: Any  # (U, C) sparse: how often each item was given each answer
    known: NDArray[Any]  # (C,), the answers, in order
    answers: Floats  # (U,), how many there are to each item
    squares: Floats  # (U,), sum over C of counts squared
    clusters: Indices  # (U,), numbered

    @classmethod
    def of(cls, items: ArrayLike, values: ArrayLike, clusters: ArrayLike | None = None, fewest: int = 2) -> "_Table":
        """The items that have at least so many answers."""
        item, value = np.asarray(items), np.asarray(values)
        group = item if clusters is None else np.asarray(clusters)
        if not item.shape == value.shape == group.shape == (item.size,):
            shapes = f"{item.shape}, {value.shape} and {group.shape}"
            raise ValueError(f"items, values and clusters have shapes {shapes}: give one of each an answer")
        there = ~_missing(value)
        item, value, group = item[there], value[there], group[there]
        _, unit, sizes = np.unique(item, return_inverse=True, return_counts=True)
        kept = sizes[unit] >= fewest
        _, first, unit = np.unique(item[kept], return_index=True, return_inverse=True)
        known, kind = np.unique(value[kept], return_inverse=True)
        _, cluster = np.unique(group[kept][first], return_inverse=True)
        counts = csr_matrix((np.ones(len(unit)), (unit, kind)), (len(first), len(known)))
        counts.sum_duplicates()
        answers, squares = (np.asarray(each.sum(1), dtype=np.float64).ravel() for each in (counts, counts.power(2)))
        return cls(counts, known, answers, squares, cluster)

    def numbers(self, ordinal: bool) -> Floats:
        return np.arange(len(self.known), dtype=np.float64) if ordinal else _numeric(self.known)


def _share(agreeing: Floats, answers: Floats, clusters: Indices, resamples: int, seed: int) -> Agreement:
    """The share of agreeing pairs: of each item, its ordered pairs of answers that agree, and its answers."""
    pairs = answers * (answers - 1)
    value, drawn, groups, n = _over(clusters, lambda times: float(times @ agreeing / (times @ pairs)), resamples, seed)
    return Agreement(value, *limits(value, drawn, groups), n)


def _coefficient(clusters: Indices, statistic: Callable[[Floats], float], resamples: int, seed: int) -> Agreement:
    """With the percentiles of its draws as limits; unknown where it is the same in each."""
    value, drawn, _, n = _over(clusters, statistic, resamples, seed)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) and np.ptp(drawn) > 1e-12 else (np.nan, np.nan)
    return Agreement(value, float(low), float(high), n)


class _Drawn(NamedTuple):
    value: float
    draws: Floats  # (R,), those in which it is defined
    clusters: int
    items: int


def _over(clusters: Indices, statistic: Callable[[Floats], float], resamples: int, seed: int) -> _Drawn:
    """A statistic of how often each item counts, of all items and of draws of whole clusters."""
    n, groups = len(clusters), int(clusters.max(initial=-1)) + 1
    value = statistic(np.ones(n)) if n else np.nan
    random = np.random.default_rng(seed)
    draws = (random.integers(groups, size=groups) for _ in range(resamples if groups > 1 else 0))
    drawn = np.array([statistic(np.bincount(each, minlength=groups)[clusters].astype(np.float64)) for each in draws])
    return _Drawn(value, drawn[~np.isnan(drawn)], groups, n)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)


def _numeric(values: NDArray[Any]) -> Floats:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"answers of type {values.dtype} have no differences: give numbers, or level 'nominal'")
    return values.astype(np.float64)
