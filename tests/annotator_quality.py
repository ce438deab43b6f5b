"""The quality of all annotators and their agreement, computed at once from a list of judgements."""

from collections.abc import Iterable, Mapping
from math import nan
from typing import NamedTuple

from assent.feedback import WrittenJudgement
from assent.functional.agreement import Agreement, RawAgreement
from assent.labelling.agreement import KindAgreement, measure_consensus
from assent.labelling.judgement_table import JudgementTable
from assent.labelling.quality import AnnotatorQuality, measure_annotators
from assent.records import Feedback, Judgement, Task

UNDEFINED = Agreement(nan, nan, nan, 0)


class Quality(NamedTuple):
    """The quality of all annotators, and their agreement."""

    annotators: tuple[AnnotatorQuality, ...]
    by_kind: tuple[KindAgreement, ...]

    @property
    def weights(self) -> dict[str, float]:
        return {annotator.annotator: annotator.weight for annotator in self.annotators}

    @property
    def agreement(self) -> RawAgreement:
        """The agreement in comparisons."""
        rows = [row.agreement for row in self.by_kind if row.kind == "comparison"]
        return RawAgreement(*rows) if rows else RawAgreement(UNDEFINED, UNDEFINED)

    @property
    def alpha(self) -> Agreement:
        """Krippendorff's alpha of comparisons, with a tie as a third label."""
        return next((row.alpha for row in self.by_kind if row.kind == "comparison" and row.alpha), UNDEFINED)


def measure_quality(
    feedback: Iterable[Feedback],
    tasks: Mapping[str, Task],
    gold: Mapping[str, Judgement] | None = None,
    resamples: int = 1000,
) -> Quality:
    """Measure the quality of all annotators by their current judgements.

    Args:
        tasks: by id.
        gold: the known judgements of gold items, by task id.
    """
    gold = gold or {}
    table = JudgementTable(gold)
    texts: dict[str, str] = {}
    for event in feedback:
        table.add(event, tasks[event.task])
        texts[event.id] = event.judgement.text if isinstance(event.judgement, WrittenJudgement) else ""
    consensus = measure_consensus(table, gold, lambda _: texts, resamples)
    return Quality(measure_annotators(table, gold, consensus.peers), consensus.by_kind)
