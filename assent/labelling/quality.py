"""The quality of each annotator: accuracy on gold items, habits, speed, agreement with others, and a weight.

A bad result leads to a lower weight and a suggested pause, never to a deletion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np

from assent.functional.sequential import GoldTestState, SequentialTest
from assent.functional.statistics import Interval, wilson
from assent.labelling.agreement import PeerAgreement, measure_peer_agreement
from assent.labelling.judgement_table import JudgementTable
from assent.labelling.queue import TaskQueue
from assent.labelling.units import IS_TIE
from assent.records import Judgement
from assent.store.database import Store

MIN_WEIGHT = 0.05
"""The least weight of an annotator: nobody is left out without a human decision."""


@dataclass(frozen=True)
class AnnotatorQuality:
    """The quality of one annotator's current judgements."""

    annotator: str
    num_judgements: int
    gold_accuracy: Interval
    """The share of gold items that were judged right."""
    gold_test: GoldTestState
    """The sequential test on the gold items."""
    first_shown_rate: Interval
    """The share of preferences for the item that was shown first; 1/2 without a position bias."""
    tie_rate: Interval
    """The share of comparisons that are ties."""
    median_seconds: float
    """Of the judgements with a duration; NaN if there are none."""
    total_seconds: float
    peer_kappa: float
    """Cohen's kappa with the majority of the others; NaN if there are none."""
    peer_items: int
    """Pairs of items behind `peer_kappa`."""
    reliability: float
    """The weight by Dawid-Skene: 0 for judgements that do not depend on the truth, 1 for judgements that are always
    right, and a prior for an annotator who shares no item with others."""

    @property
    def weight(self) -> float:
        """Return the weight of the annotator's judgements in training."""
        return max(self.reliability, MIN_WEIGHT)

    @property
    def should_pause(self) -> bool:
        """Return whether a reviewer should pause the annotator and discuss the judgements with them."""
        return self.gold_test.status == "failed"


def measure_annotators(
    table: JudgementTable,
    gold: Mapping[str, Judgement],
    peers: Mapping[str, PeerAgreement],
    test: SequentialTest | None = None,
) -> tuple[AnnotatorQuality, ...]:
    """Return the quality of each annotator with a current judgement, by name; this is fast, given `peers`."""
    run_test = test or SequentialTest()
    judgements = table.current_judgements()
    size = len(table.annotators)
    annotator = judgements.annotator
    is_decisive = judgements.preferred_first_shown >= 0
    num_judgements = np.bincount(annotator, minlength=size).tolist()
    num_comparisons = np.bincount(annotator[judgements.is_comparison == 1], minlength=size).tolist()
    num_ties = np.bincount(annotator[judgements.outcome == IS_TIE], minlength=size).tolist()
    num_decisive = np.bincount(annotator[is_decisive], minlength=size).tolist()
    num_first_shown = np.bincount(annotator[judgements.preferred_first_shown == 1], minlength=size).tolist()
    timed = np.flatnonzero(judgements.duration > 0)
    timed = timed[np.lexsort((judgements.duration[timed], annotator[timed]))]
    durations = np.split(judgements.duration[timed], np.searchsorted(annotator[timed], np.arange(1, size)))
    gold_tests = [run_test(results) for results in table.gold_results(gold)]
    return tuple(
        AnnotatorQuality(
            annotator=name,
            num_judgements=num_judgements[i],
            gold_accuracy=wilson(gold_tests[i].correct, gold_tests[i].total),
            gold_test=gold_tests[i],
            first_shown_rate=wilson(num_first_shown[i], num_decisive[i]),
            tie_rate=wilson(num_ties[i], num_comparisons[i]),
            median_seconds=float(np.median(durations[i])) if len(durations[i]) else nan,
            total_seconds=float(durations[i].sum()),
            peer_kappa=peers.get(name, PeerAgreement()).kappa,
            peer_items=peers.get(name, PeerAgreement()).items,
            reliability=peers.get(name, PeerAgreement()).reliability,
        )
        for name, i in sorted(table.annotators.items())
        if num_judgements[i]
    )


def annotator_weights(store: Store) -> dict[str, float]:
    """Return the weight of each annotator in a store, as `to_examples` takes it; scorers get none."""
    table = JudgementTable()
    gold = {item.task.id: item.judgement for item in TaskQueue(store).gold.items()}
    for arrival in store.arrivals():
        if arrival.event.source != "scorer":
            table.add(arrival.event, arrival.task)
    annotators = measure_annotators(table, gold, measure_peer_agreement(table, gold))
    return {annotator.annotator: annotator.weight for annotator in annotators}
