"""Who can be relied on, from nothing but who agrees with whom: Dawid-Skene, and a kappa with one's peers beside it.

Dawid & Skene 1979 (doi:10.2307/2346806): each item has a true label, each annotator a habit of confusing labels; EM
finds both. What nobody else answered tells nothing of a habit, and is left out of learning it.

The prior of an annotator's confusions, for each true label k of K, is a Dirichlet with the pseudo-counts

    a_kl = MASS / K [SKILL 1(l = k) + (1 - SKILL) / K],  sum_l a_kl = MASS / K,  sum_kl a_kl = MASS

as of MASS answers by somebody who knows the label with the chance SKILL and otherwise says any. It weighs MASS answers,
and its weight is SKILL, however many labels there are; with two labels it is 4 right answers and 1 wrong of each.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MASS, SKILL = 10.0, 0.6
"""Answers that each annotator is taken to have given beforehand, and how often with knowledge."""


@dataclass(frozen=True)
class Reliability:
    """What Dawid-Skene says of A annotators, I items and K labels, each in the order of `numpy.unique`.

    Where nobody agrees with anybody it still finds someone to believe: see whether alpha is above 0 first.
    """

    annotators: NDArray[Any]  # (A,)
    items: NDArray[Any]  # (I,)
    labels: NDArray[Any]  # (K,)
    shared: Indices  # (A,), how many answers each gave to items that another answered too; with 0 the prior speaks
    prior: Floats  # (K,), how frequent each label is
    confusion: Floats  # (A, K, K), chance of saying the last where the middle is true
    posterior: Floats  # (I, K), chance that a label is true

    @property
    def accuracy(self) -> Floats:
        """Chance of an annotator being right about an item drawn at random, (A,)."""
        made: Floats = np.einsum("akk,k->a", self.confusion, self.prior)
        return made

    @property
    def weight(self) -> Floats:
        """From 0 (says the same whatever is true, or worse) to 1 (always right), (A,).

        The mean chance of being right about each label, brought from 1/K .. 1 to 0 .. 1: who presses one key, or keys
        at random, has 0 however frequent the labels are.
        """
        k = len(self.labels)
        if k < 2:
            return np.ones(len(self.annotators))
        hits = np.einsum("akk->a", self.confusion) / k
        made: Floats = ((hits - 1 / k) / (1 - 1 / k)).clip(0, 1)
        return made

    @property
    def unknown(self) -> float:
        """The weight of whoever shares no item with others: that of the prior, for any number of labels."""
        return SKILL


class Peers(NamedTuple):
    """How far each of A annotators, in the order of `numpy.unique`, agrees with the others."""

    annotators: NDArray[Any]  # (A,)
    kappa: Floats  # (A,), NaN where there is nobody to agree with, or no chance to correct for
    items: Indices  # (A,), how many items that others answered too it rests on


def dawid_skene(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    among: ArrayLike = (),
    iterations: int = 60,
    tolerance: float = 1e-7,
) -> Reliability:
    """Confusions and true labels by EM, from the votes' shares on, until no posterior moves by more than `tolerance`.

    Args:
        items, annotators, labels: (N,) an answer each; one answer an annotator and item.
        among: labels that count even if nobody gave them. Of a single one nothing can be told: all weights are 1.
    """
    said = _Answers.of(items, annotators, labels, among)
    posterior = said.tally() / np.maximum(said.answers, 1)[:, None]
    told = said.only(said.answers[said.item] > 1)
    prior, confusion = _habits(told, posterior)
    for _ in range(iterations):
        before = posterior
        posterior = _truths(said, prior, confusion)
        prior, confusion = _habits(told, posterior)
        if posterior.size and np.abs(posterior - before).max() <= tolerance:
            break
    shared = np.bincount(told.annotator, minlength=len(said.annotators))
    return Reliability(said.annotators, said.items, said.labels, shared, prior, confusion, posterior)


def peer_kappa(items: ArrayLike, annotators: ArrayLike, labels: ArrayLike) -> Peers:
    """Cohen's kappa of each annotator with the majority of all others who answered the same item.

    Where the others are split evenly, each of their first choices is the majority by its share.
    """
    said = _Answers.of(items, annotators, labels)
    said = said.only(said.answers[said.item] > 1)
    others = said.tally()[said.item]  # (N, K)
    here = np.arange(len(said.item))
    others[here, said.label] -= 1
    most = others == others.max(1, keepdims=True, initial=0)
    majority = most / np.maximum(most.sum(1, keepdims=True), 1)

    size, k = len(said.annotators), len(said.labels)
    n = np.bincount(said.annotator, minlength=size)
    each = np.maximum(n, 1)
    agreed = np.bincount(said.annotator, majority[here, said.label], size) / each
    own = np.bincount(said.annotator * k + said.label, minlength=size * k).reshape(size, k) / each[:, None]
    theirs = [np.bincount(said.annotator, column, size) / each for column in majority.T]
    chance = np.einsum("ak,ka->a", own, np.array(theirs).reshape(k, size))
    defined = (n > 0) & (chance < 1 - 1e-12)
    kappa = np.full(size, np.nan)
    kappa[defined] = (agreed[defined] - chance[defined]) / (1 - chance[defined])
    return Peers(said.annotators, kappa, n)


class _Answers(NamedTuple):
    items: NDArray[Any]  # (I,)
    annotators: NDArray[Any]  # (A,)
    labels: NDArray[Any]  # (K,)
    item: Indices  # (N,)
    annotator: Indices  # (N,)
    label: Indices  # (N,)

    @classmethod
    def of(cls, items: ArrayLike, annotators: ArrayLike, labels: ArrayLike, among: ArrayLike = ()) -> "_Answers":
        given = [np.asarray(side) for side in (items, annotators, labels)]
        if not given[0].shape == given[1].shape == given[2].shape == (given[0].size,):
            shapes = ", ".join(str(side.shape) for side in given)
            raise ValueError(f"items, annotators and labels have shapes {shapes}: give one of each an answer")
        n, others = given[2].size, np.asarray(among)
        if others.size:
            given[2] = np.concatenate([given[2], others]) if n else others
        (i, item), (a, annotator), (k, label) = (np.unique(side, return_inverse=True) for side in given)
        return cls(i, a, k, item, annotator, label[:n])

    @property
    def answers(self) -> Indices:
        """To each item, (I,)."""
        return np.bincount(self.item, minlength=len(self.items))

    def only(self, which: NDArray[np.bool_]) -> "_Answers":
        return self._replace(item=self.item[which], annotator=self.annotator[which], label=self.label[which])

    def tally(self) -> Floats:
        """How often each item was given each label, (I, K)."""
        shape = len(self.items), len(self.labels)
        flat = np.bincount(self.item * shape[1] + self.label, minlength=shape[0] * shape[1])
        return flat.reshape(shape).astype(np.float64)


class _Habits(NamedTuple):
    prior: Floats  # (K,)
    confusion: Floats  # (A, K, K)


def _habits(said: _Answers, posterior: Floats) -> _Habits:
    """The M step: expected counts, with the prior's pseudo-counts added (and one item of each label)."""
    size, k = len(said.annotators), len(said.labels)
    cell = said.annotator * k + said.label
    counts = [np.bincount(cell, posterior[said.item, true], size * k).reshape(size, k) for true in range(k)]
    pseudo = MASS / max(k, 1) * (SKILL * np.eye(k) + (1 - SKILL) / max(k, 1))
    confusion = np.array(counts).reshape(k, size, k).swapaxes(0, 1) + pseudo
    prior = posterior[said.answers > 0].sum(0) + 1
    return _Habits(prior / prior.sum(), confusion / confusion.sum(2, keepdims=True))


def _truths(said: _Answers, prior: Floats, confusion: Floats) -> Floats:
    """The E step: which label is how likely to be true of each item, (I, K)."""
    size, k = len(said.items), len(said.labels)
    logs = np.log(confusion)
    evidence = [np.bincount(said.item, logs[said.annotator, true, said.label], size) for true in range(k)]
    joint = np.array(evidence).reshape(k, size).T + np.log(prior)
    joint = np.exp(joint - joint.max(1, keepdims=True, initial=-np.inf))
    made: Floats = joint / joint.sum(1, keepdims=True)
    return made
