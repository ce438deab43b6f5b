"""Agreement of annotators: Krippendorff's alpha, which corrects for chance, and the raw share of equal judgements.

Judgements come in long form, one per entry; missing ones are simply absent. Intervals resample whole items (Efron 1979)
or whole clusters of items, since the judgements about one prompt depend on each other. Where all judgements are equal
there is no chance to correct for: the coefficient is NaN, undefined and not perfect. Resamples that all agree tell
nothing about uncertainty: then a share has Wilson's limits, and a coefficient has none.
"""

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from assent.functional.statistics import percentile_limits

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Level = Literal["nominal", "ordinal", "interval"]
"""Distance of two values: equal or not, number of judgements between them, or squared difference."""


class Agreement(NamedTuple):
    """A coefficient or a share, with confidence limits; NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int
    """Number of items with two judgements or more."""


class RawAgreement(NamedTuple):
    """The share of equal judgements among pairs of judgements of one item."""

    decisive: Agreement
    """Among pairs in which neither is a tie."""
    three_way: Agreement
    """Among all pairs, a tie being a value like others."""


def krippendorff_alpha(
    items: ArrayLike,
    values: ArrayLike,
    level: Level = "nominal",
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Return 1 - observed / expected disagreement: 1 is perfect, 0 is chance.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability" (repository.upenn.edu/asc_papers/43).

    Args:
        items: (N,) labels of the items; any number of judgements each.
        values: (N,) the judgements; NaN is missing. Labels of any kind if nominal, in their order if ordinal, else
            numbers. All items share them (first, second, tie; not an item's name), since chance is computed over all.
        clusters: (N,) the cluster of the item, such as its prompt; resampled whole. By default each item is one.
    """
    table = _Counts.of(items, values, clusters)
    scale = None if level == "nominal" else table.numbers(level == "ordinal")

    def alpha(times: Floats) -> float:
        margin = times @ table.counts  # (C,), judgements of each value
        n = margin.sum()
        if scale is None:
            observed, expected = table.totals**2 - table.squares, n**2 - margin @ margin
        else:
            # A difference of ranks counts the judgements between two values, and half of those at either value.
            at = np.cumsum(margin) - margin / 2 if level == "ordinal" else scale
            at = at - margin @ at / max(n, 1)
            observed = 2 * (table.totals * (table.counts @ at**2) - (table.counts @ at) ** 2)
            expected = 2 * n * (margin @ at**2)
        disagreement = times @ (observed / (table.totals - 1))
        return float(1 - (n - 1) * disagreement / expected) if expected > 0 else np.nan

    return _coefficient(table.clusters, alpha, resamples, seed)


def raw_agreement(
    items: ArrayLike,
    values: ArrayLike,
    tie: Any = None,
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> RawAgreement:
    """Return the share of equal judgements among pairs of judgements of one item; every pair counts alike.

    Args:
        items, values, clusters: (N,) as in `krippendorff_alpha`; one judgement per annotator and item.
        tie: the value that prefers neither side.
    """
    item, value = np.asarray(items), np.asarray(values)
    group = item if clusters is None else np.asarray(clusters)
    decided = value != tie if tie is not None else np.ones(len(value), dtype=bool)

    def share(mask: NDArray[np.bool_]) -> Agreement:
        table = _Counts.of(item[mask], value[mask], group[mask])
        return _share(table.squares - table.totals, table.totals, table.clusters, resamples, seed)

    return RawAgreement(share(decided), share(np.ones(len(value), dtype=bool)))


def near_agreement(
    items: ArrayLike,
    values: ArrayLike,
    step: float,
    clusters: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Return the share of pairs of judgements of one item that differ by at most `step`; every pair counts alike.

    Args: items, values, clusters: (N,) as in `krippendorff_alpha`, with numbers as values; one per annotator and item.
    """
    item, value = np.asarray(items), _to_numbers(np.asarray(values))
    group = item if clusters is None else np.asarray(clusters)
    _, first, unit, totals = np.unique(item, return_index=True, return_inverse=True, return_counts=True)
    # The values of all items on one line, those of different items further apart than any step.
    place = unit * (np.ptp(value) + 2 * step + 1 if len(value) else 1.0) + value
    line, reach = np.sort(place), step + 1e-9
    near = np.searchsorted(line, place + reach, "right") - np.searchsorted(line, place - reach) - 1
    pairs = np.bincount(unit, near, len(first)).astype(np.float64)
    shared = totals > 1
    _, cluster = np.unique(group[first][shared], return_inverse=True)
    return _share(pairs[shared], totals[shared].astype(np.float64), cluster, resamples, seed)


def word_overlap(first: str, second: str) -> float:
    """Return 2 x words in common / words of both, from 0 to 1, in any order and case.

    Dice 1945 (doi:10.2307/1932409), on multisets of the first 2000 words.
    """
    words, others = (
        Counter(islice((match[0] for match in re.finditer(r"\w+", text.casefold())), 2000)) for text in (first, second)
    )
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else float(first == second)


class _Counts(NamedTuple):
    counts: Any  # (U, C) sparse: judgements of each item with each value
    values: NDArray[Any]  # (C,), sorted
    totals: Floats  # (U,), judgements of each item
    squares: Floats  # (U,), sum over C of counts squared
    clusters: Indices  # (U,), numbered

    @classmethod
    def of(cls, items: ArrayLike, values: ArrayLike, clusters: ArrayLike | None = None, fewest: int = 2) -> "_Counts":
        """Count the values of the items that have at least `fewest` judgements."""
        item, value = np.asarray(items), np.asarray(values)
        group = item if clusters is None else np.asarray(clusters)
        if not item.shape == value.shape == group.shape == (item.size,):
            shapes = f"{item.shape}, {value.shape} and {group.shape}"
            raise ValueError(f"items, values and clusters have shapes {shapes}: give one of each per judgement")
        present = ~_is_missing(value)
        item, value, group = item[present], value[present], group[present]
        _, unit, sizes = np.unique(item, return_inverse=True, return_counts=True)
        is_shared = sizes[unit] >= fewest
        _, first, unit = np.unique(item[is_shared], return_index=True, return_inverse=True)
        distinct, kind = np.unique(value[is_shared], return_inverse=True)
        _, cluster = np.unique(group[is_shared][first], return_inverse=True)
        counts = csr_matrix((np.ones(len(unit)), (unit, kind)), (len(first), len(distinct)))
        counts.sum_duplicates()
        totals, squares = (np.asarray(matrix.sum(1), dtype=np.float64).ravel() for matrix in (counts, counts.power(2)))
        return cls(counts, distinct, totals, squares, cluster)

    def numbers(self, ordinal: bool) -> Floats:
        return np.arange(len(self.values), dtype=np.float64) if ordinal else _to_numbers(self.values)


def _share(agreeing: Floats, totals: Floats, clusters: Indices, resamples: int, seed: int) -> Agreement:
    """Return the share of agreeing pairs, from each item's ordered pairs that agree and its number of judgements."""
    pairs = totals * (totals - 1)
    value, draws, groups, n = _bootstrap(
        clusters, lambda times: float(times @ agreeing / (times @ pairs)), resamples, seed
    )
    return Agreement(value, *percentile_limits(value, draws, groups), n)


def _coefficient(clusters: Indices, statistic: Callable[[Floats], float], resamples: int, seed: int) -> Agreement:
    """Return a coefficient with percentile limits; the limits are NaN where all resamples give the same value."""
    value, draws, _, n = _bootstrap(clusters, statistic, resamples, seed)
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) and np.ptp(draws) > 1e-12 else (np.nan, np.nan)
    return Agreement(value, float(low), float(high), n)


class _Bootstrap(NamedTuple):
    value: float
    draws: Floats  # (R,), those resamples in which it is defined
    clusters: int
    items: int


def _bootstrap(clusters: Indices, statistic: Callable[[Floats], float], resamples: int, seed: int) -> _Bootstrap:
    """Compute a statistic on all items and on resamples of whole clusters; its argument is each item's count."""
    n, groups = len(clusters), int(clusters.max(initial=-1)) + 1
    value = statistic(np.ones(n)) if n else np.nan
    rng = np.random.default_rng(seed)
    samples = (rng.integers(groups, size=groups) for _ in range(resamples if groups > 1 else 0))
    draws = np.array(
        [statistic(np.bincount(sample, minlength=groups)[clusters].astype(np.float64)) for sample in samples]
    )
    return _Bootstrap(value, draws[~np.isnan(draws)], groups, n)


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)


def _to_numbers(values: NDArray[Any]) -> Floats:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"values of type {values.dtype} have no differences: give numbers, or level 'nominal'")
    return values.astype(np.float64)
