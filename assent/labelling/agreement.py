"""Agreement between annotators: Krippendorff's alpha by kind of judgement, and the reliability of each annotator.

Only human annotators count in the agreement; programs (`Feedback.source`) get a reliability too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isqrt, nan
from random import Random
from typing import NamedTuple

import numpy as np

from assent.functional.agreement import (
    Agreement,
    Level,
    krippendorff_alpha,
    near_agreement,
    raw_agreement,
    word_overlap,
)
from assent.functional.reliability import dawid_skene, peer_kappa
from assent.functional.statistics import bootstrap
from assent.labelling.judgement_table import Indices, JudgementTable, Labels
from assent.labelling.units import FIRST, SECOND, TEXT, TIE
from assent.records import Judgement

TextReader = Callable[[Collection[str]], Mapping[str, str]]
"""A function that returns the texts of written judgements, by feedback id."""

RATING_TOLERANCE = 1.0
"""Ratings that differ by no more agree, as in `Rating.agrees`."""
MAX_TEXT_PAIRS = 1000
"""Pairs of texts that are compared, drawn at random if there are more."""
PRIOR_RELIABILITY = 0.6
"""The reliability of an unknown annotator: the weight of the prior in `functional.reliability`."""
KIND_ORDER = ("comparison", "rating", "approval", "correction", "demonstration", "critique")
LEVELS: Mapping[str, Level] = {"rating": "interval"}
MEASURES = {"rating": "at most one step apart", "correction": "both change it, or neither"}


@dataclass(frozen=True)
class KindAgreement:
    """The agreement of human annotators in one kind of judgement."""

    kind: str
    axis: str
    """Of ratings; else empty."""
    measure: str
    """The condition under which two judgements of an item agree."""
    agreement: Agreement
    """The share of pairs of judgements that agree; for texts, the mean share of words in common."""
    alpha: Agreement | None
    """Krippendorff's alpha; None where the measure has none."""

    @property
    def undefined_reason(self) -> str:
        """Return why alpha is undefined; empty if it is defined, or the measure has none."""
        if self.alpha is None or self.alpha.value == self.alpha.value:
            return ""
        return "all labels are the same" if self.alpha.n else "no item has two judgements"


class PeerAgreement(NamedTuple):
    """The agreement of an annotator with the others, in comparisons."""

    kappa: float = nan
    """Cohen's kappa with the majority of the others; NaN if there are none."""
    items: int = 0
    """Pairs of items behind it."""
    reliability: float = PRIOR_RELIABILITY
    """The weight by Dawid-Skene."""


class Consensus(NamedTuple):
    """The agreement among all annotators, which takes longer to measure than what each did alone."""

    peers: Mapping[str, PeerAgreement]
    by_kind: tuple[KindAgreement, ...]
    """Of each kind of judgement that human annotators gave; without gold items."""


def measure_consensus(
    table: JudgementTable,
    gold: Mapping[str, Judgement],
    read_texts: TextReader,
    resamples: int = 1000,
    seed: int = 0,
) -> Consensus:
    """Measure how far judgements of the same items agree.

    Args:
        gold: the known judgements of gold items, by task id; they do not count in the agreement.
        resamples, seed: of the bootstrap intervals, which draw whole prompts.
    """
    all_labels = table.labels(gold)
    labels = table.human_labels(all_labels)
    pairs = table.of_kind(labels, "comparison")
    by_kind = []
    if len(pairs.unit):
        raw = raw_agreement(pairs.unit, pairs.value, TIE, pairs.prompt, resamples, seed)
        alpha = krippendorff_alpha(pairs.unit, pairs.value, "nominal", pairs.prompt, resamples, seed)
        decisive = "same preference, among those with one"
        by_kind.append(KindAgreement("comparison", "", decisive, raw.decisive, None))
        by_kind.append(KindAgreement("comparison", "", "same label, ties included", raw.three_way, alpha))
    for kind, axis in sorted(table.measures, key=_display_order):
        selected = table.of_kind(labels, kind, axis)
        if kind == "comparison" or not len(selected.unit):
            continue
        if axis == TEXT:
            by_kind.append(_text_agreement(table, kind, selected, read_texts, resamples, seed))
        else:
            by_kind.append(_label_agreement(kind, axis, selected, resamples, seed))
    return Consensus(_peer_agreement(table, all_labels, gold), tuple(by_kind))


def measure_peer_agreement(table: JudgementTable, gold: Mapping[str, Judgement]) -> dict[str, PeerAgreement]:
    """Return the agreement of each annotator with the others, by name."""
    return _peer_agreement(table, table.labels(gold), gold)


def _peer_agreement(table: JudgementTable, labels: Labels, gold: Mapping[str, Judgement]) -> dict[str, PeerAgreement]:
    """Fit Dawid-Skene to comparisons; the known judgements of gold items count as those of one more annotator."""
    labels = table.of_kind(labels, "comparison")
    gold_labels = table.gold_labels(gold)
    gold_units = np.array([unit for unit, _ in gold_labels], dtype=np.intp)
    gold_values = np.array([value for _, value in gold_labels], dtype=np.intp)
    gold_annotator = np.full(len(gold_labels), len(table.annotators))
    fit = dawid_skene(
        np.concatenate([labels.unit, gold_units]),
        np.concatenate([labels.annotator, gold_annotator]),
        np.concatenate([labels.value.astype(np.intp), gold_values]),
        among=(FIRST, SECOND),
    )
    weights = dict(zip(fit.annotators.tolist(), fit.weight.tolist(), strict=True))
    kappas = peer_kappa(labels.unit, labels.annotator, labels.value)
    columns = zip(kappas.annotators.tolist(), kappas.kappa.tolist(), kappas.items.tolist(), strict=True)
    by_annotator = {annotator: (kappa, num_items) for annotator, kappa, num_items in columns}
    return {
        name: PeerAgreement(*by_annotator.get(i, (nan, 0)), weights.get(i, fit.prior_weight))
        for name, i in table.annotators.items()
    }


def _label_agreement(kind: str, axis: str, labels: Labels, resamples: int, seed: int) -> KindAgreement:
    """Measure the agreement of ratings along an axis, of approvals, or of the decision to correct a response."""
    tolerance = RATING_TOLERANCE if kind == "rating" else 0.0
    agreement = near_agreement(labels.unit, labels.value, tolerance, labels.prompt, resamples, seed)
    level = LEVELS.get(kind, "nominal")
    alpha = krippendorff_alpha(labels.unit, labels.value, level, labels.prompt, resamples, seed)
    return KindAgreement(kind, axis, MEASURES.get(kind, "same label"), agreement, alpha)


def _text_agreement(
    table: JudgementTable, kind: str, labels: Labels, read_texts: TextReader, resamples: int, seed: int
) -> KindAgreement:
    """Measure the share of words that two annotators' texts have in common, on a random sample of pairs."""
    _, sizes = np.unique(labels.unit, return_counts=True)
    pairs = _sample_pairs(labels.unit, seed)
    ids = [[table.text_id(row) for row in labels.row[pair].tolist()] for pair in pairs]
    texts = read_texts([id for pair in ids for id in pair])
    overlaps = [word_overlap(texts.get(first, ""), texts.get(second, "")) for first, second in ids]
    interval = bootstrap(overlaps, [labels.prompt[pair[0]] for pair in pairs], resamples, seed)
    agreement = Agreement(*interval[:3], int((sizes > 1).sum()))
    return KindAgreement(kind, "", "words in common", agreement, None)


def _sample_pairs(unit: Indices, seed: int) -> list[Indices]:
    """Return a random sample of the pairs of labels that share a unit, as two indices each.

    The pairs of a unit are numbered 01, 02, 12, 03, 13, ...: pair number p is (p - s (s - 1) / 2, s), where s is the
    largest integer with s (s - 1) / 2 <= p.
    """
    order = np.argsort(unit, kind="stable")
    _, starts, sizes = np.unique(unit[order], return_index=True, return_counts=True)
    num_pairs = sizes * (sizes - 1) // 2
    ends = np.cumsum(num_pairs)
    total = int(ends[-1])
    pairs = []
    for number in sorted(Random(seed).sample(range(total), min(total, MAX_TEXT_PAIRS))):
        index = int(np.searchsorted(ends, number, "right"))
        number_in_unit = number - int(ends[index]) + int(num_pairs[index])
        second = (1 + isqrt(1 + 8 * number_in_unit)) // 2
        first = number_in_unit - second * (second - 1) // 2
        pairs.append(order[[starts[index] + first, starts[index] + second]])
    return pairs


def _display_order(measure: tuple[str, str]) -> tuple[bool, int, str]:
    """Return the sort key of a measure: written judgements come last."""
    kind, axis = measure
    return (axis == TEXT, KIND_ORDER.index(kind), axis)
