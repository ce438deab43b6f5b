"""Reliability of annotators from their agreement alone: Dawid-Skene, and a kappa with the other annotators.

Dawid & Skene 1979 (doi:10.2307/2346806): each item has a true label and each annotator a confusion matrix; EM
estimates both. Items with a single judgement are left out of the estimate of the confusions.

The prior of an annotator's confusions, for each true label k of K, is a Dirichlet with the pseudo-counts

    a_kl = M / K [S 1(l = k) + (1 - S) / K],  sum_l a_kl = M / K,  sum_kl a_kl = M
    with M = PRIOR_JUDGEMENTS, S = PRIOR_ACCURACY

as of PRIOR_JUDGEMENTS judgements by an annotator who knows the label with probability PRIOR_ACCURACY and otherwise
guesses. It has the strength of PRIOR_JUDGEMENTS judgements, and its weight is PRIOR_ACCURACY for any number of labels;
with two labels it is 4 right judgements and 1 wrong of each.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

PRIOR_JUDGEMENTS, PRIOR_ACCURACY = 10.0, 0.6
"""Strength of the prior of each annotator in judgements, and the share of them made with knowledge."""


@dataclass(frozen=True)
class DawidSkeneFit:
    """A Dawid-Skene fit of A annotators, I items and K labels, each in the order of `numpy.unique`.

    Without any agreement it still trusts some annotators: check first that Krippendorff's alpha is above 0.
    """

    annotators: NDArray[Any]  # (A,)
    items: NDArray[Any]  # (I,)
    labels: NDArray[Any]  # (K,)
    shared: Indices  # (A,), judgements of items that others judged too; with 0 the prior decides
    prior: Floats  # (K,), frequency of each label
    confusion: Floats  # (A, K, K), P(annotator says the last | the middle is true)
    posterior: Floats  # (I, K), probability that a label is true

    @property
    def accuracy(self) -> Floats:
        """Return the probability that an annotator is right about a random item, (A,)."""
        accuracy: Floats = np.einsum("akk,k->a", self.confusion, self.prior)
        return accuracy

    @property
    def weight(self) -> Floats:
        """Return weights from 0 (judgements that do not depend on the truth, or worse) to 1 (always right), (A,).

        It is the mean probability of being right about each label, mapped from 1/K .. 1 to 0 .. 1. Constant and random
        judgements have 0, however frequent the labels are.
        """
        k = len(self.labels)
        if k < 2:
            return np.ones(len(self.annotators))
        hits = np.einsum("akk->a", self.confusion) / k
        weight: Floats = ((hits - 1 / k) / (1 - 1 / k)).clip(0, 1)
        return weight

    @property
    def prior_weight(self) -> float:
        """Return the weight of an annotator who shares no item with others, for any number of labels."""
        return PRIOR_ACCURACY


class PeerAgreement(NamedTuple):
    """Agreement of each of A annotators, in the order of `numpy.unique`, with the others."""

    annotators: NDArray[Any]  # (A,)
    kappa: Floats  # (A,), NaN without shared items, or where chance agreement is 1
    items: Indices  # (A,), items that others judged too


def dawid_skene(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    among: ArrayLike = (),
    iterations: int = 60,
    tolerance: float = 1e-7,
) -> DawidSkeneFit:
    """Estimate confusions and true labels by EM, starting from the shares of the votes.

    It stops when no posterior changes by more than `tolerance`.

    Args:
        items, annotators, labels: (N,), one entry per judgement; one judgement per annotator and item.
        among: labels that exist even if no judgement has them. With a single label all weights are 1.
    """
    votes = _Votes.of(items, annotators, labels, among)
    posterior = votes.tally() / np.maximum(votes.counts, 1)[:, None]
    shared_votes = votes.select(votes.counts[votes.item] > 1)
    prior, confusion = _m_step(shared_votes, posterior)
    for _ in range(iterations):
        previous = posterior
        posterior = _e_step(votes, prior, confusion)
        prior, confusion = _m_step(shared_votes, posterior)
        if posterior.size and np.abs(posterior - previous).max() <= tolerance:
            break
    shared = np.bincount(shared_votes.annotator, minlength=len(votes.annotators))
    return DawidSkeneFit(votes.annotators, votes.items, votes.labels, shared, prior, confusion, posterior)


def peer_kappa(items: ArrayLike, annotators: ArrayLike, labels: ArrayLike) -> PeerAgreement:
    """Return Cohen's kappa of each annotator with the majority of all others who judged the same item.

    Where several labels are equally frequent among the others, each counts as the majority by its share.
    """
    votes = _Votes.of(items, annotators, labels)
    votes = votes.select(votes.counts[votes.item] > 1)
    tally = votes.tally()[votes.item]  # (N, K) of the other annotators
    rows = np.arange(len(votes.item))
    tally[rows, votes.label] -= 1
    is_majority = tally == tally.max(1, keepdims=True, initial=0)
    majority = is_majority / np.maximum(is_majority.sum(1, keepdims=True), 1)

    size, k = len(votes.annotators), len(votes.labels)
    n = np.bincount(votes.annotator, minlength=size)
    divisor = np.maximum(n, 1)
    agreed = np.bincount(votes.annotator, majority[rows, votes.label], size) / divisor
    label_shares = (
        np.bincount(votes.annotator * k + votes.label, minlength=size * k).reshape(size, k) / divisor[:, None]
    )
    majority_shares = [np.bincount(votes.annotator, column, size) / divisor for column in majority.T]
    chance = np.einsum("ak,ka->a", label_shares, np.array(majority_shares).reshape(k, size))
    defined = (n > 0) & (chance < 1 - 1e-12)
    kappa = np.full(size, np.nan)
    kappa[defined] = (agreed[defined] - chance[defined]) / (1 - chance[defined])
    return PeerAgreement(votes.annotators, kappa, n)


class _Votes(NamedTuple):
    items: NDArray[Any]  # (I,)
    annotators: NDArray[Any]  # (A,)
    labels: NDArray[Any]  # (K,)
    item: Indices  # (N,)
    annotator: Indices  # (N,)
    label: Indices  # (N,)

    @classmethod
    def of(cls, items: ArrayLike, annotators: ArrayLike, labels: ArrayLike, among: ArrayLike = ()) -> "_Votes":
        columns = [np.asarray(column) for column in (items, annotators, labels)]
        if not columns[0].shape == columns[1].shape == columns[2].shape == (columns[0].size,):
            shapes = ", ".join(str(column.shape) for column in columns)
            raise ValueError(f"items, annotators and labels have shapes {shapes}: give one of each per judgement")
        n = columns[2].size
        extra_labels = np.asarray(among)
        if extra_labels.size:
            columns[2] = np.concatenate([columns[2], extra_labels]) if n else extra_labels
        (i, item), (a, annotator), (k, label) = (np.unique(column, return_inverse=True) for column in columns)
        return cls(i, a, k, item, annotator, label[:n])

    @property
    def counts(self) -> Indices:
        """Return the number of votes on each item, (I,)."""
        return np.bincount(self.item, minlength=len(self.items))

    def select(self, mask: NDArray[np.bool_]) -> "_Votes":
        return self._replace(item=self.item[mask], annotator=self.annotator[mask], label=self.label[mask])

    def tally(self) -> Floats:
        """Return how many votes each item has for each label, (I, K)."""
        shape = len(self.items), len(self.labels)
        flat = np.bincount(self.item * shape[1] + self.label, minlength=shape[0] * shape[1])
        return flat.reshape(shape).astype(np.float64)


class _Parameters(NamedTuple):
    prior: Floats  # (K,)
    confusion: Floats  # (A, K, K)


def _m_step(votes: _Votes, posterior: Floats) -> _Parameters:
    """Return the parameters from expected counts, plus the prior's pseudo-counts (and one item of each label)."""
    size, k = len(votes.annotators), len(votes.labels)
    cell = votes.annotator * k + votes.label
    counts = [np.bincount(cell, posterior[votes.item, true], size * k).reshape(size, k) for true in range(k)]
    pseudo = PRIOR_JUDGEMENTS / max(k, 1) * (PRIOR_ACCURACY * np.eye(k) + (1 - PRIOR_ACCURACY) / max(k, 1))
    confusion = np.array(counts).reshape(k, size, k).swapaxes(0, 1) + pseudo
    prior = posterior[votes.counts > 0].sum(0) + 1
    return _Parameters(prior / prior.sum(), confusion / confusion.sum(2, keepdims=True))


def _e_step(votes: _Votes, prior: Floats, confusion: Floats) -> Floats:
    """Return the probability of each label for each item, (I, K)."""
    size, k = len(votes.items), len(votes.labels)
    logs = np.log(confusion)
    evidence = [np.bincount(votes.item, logs[votes.annotator, true, votes.label], size) for true in range(k)]
    joint = np.array(evidence).reshape(k, size).T + np.log(prior)
    joint = np.exp(joint - joint.max(1, keepdims=True, initial=-np.inf))
    posterior: Floats = joint / joint.sum(1, keepdims=True)
    return posterior
