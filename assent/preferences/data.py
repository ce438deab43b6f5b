"""The preference data of a run: feedback as tokenized groups, to train on and held out."""

from pathlib import Path
from typing import NamedTuple

from assent.errors import AssentError, warn
from assent.labelling.quality import reliabilities
from assent.models.tokenizer import ChatTokenizer
from assent.preferences.convert import examples, standardised
from assent.records import Preference, Purpose, RankedCompletions, ScoredCompletion
from assent.run import Run
from assent.split import split
from assent.training.left_out import LeftOut
from assent.training.preferences import Compared, Feed, Judgement, compare

PURPOSES: tuple[Purpose, ...] = ("train", "evaluate")
"""Answers to queries about held-out prompts are for evaluation; imported ones were all asked for training."""


class PreferenceData(NamedTuple):
    """What was said of the run's answers, as trees."""

    kept: list[Compared]
    held: list[Compared]
    left_out: LeftOut


def judged(run: Run, codec: ChatTokenizer, max_tokens: int, feed: Feed) -> PreferenceData:
    """What was said of the run's answers, to train on and held out, and how much of it was too long.

    Raises:
        AssentError: there is nothing to train on that the feed reads.
    """
    prompts = list(run.store.prompts())
    sides = split(prompts, run.setup.held_out)
    said = [event for event in run.store.feedback() if not event.annotator.startswith("judge:")]
    if 0 < (simulated := sum(event.annotator.startswith("simulated:") for event in said)) < len(said):
        warn(f"{simulated} of {len(said)} answers are by simulated annotators; they count where no person answered")
    queries, responses = list(run.store.tasks()), list(run.store.responses())
    weights = reliabilities(run.store) if run.setup.weight_annotators else None
    made = [e for p in PURPOSES for e in examples(said, queries, prompts, responses, weights, purpose=p)]
    fit = [e for e in made if isinstance(e, feed.kinds)]
    judgements: list[Judgement] = [e for e in fit if isinstance(e, Preference | RankedCompletions) and feed.reads(e)]
    labels = [e for e in fit if isinstance(e, ScoredCompletion)]
    judgements += standardised(labels, said, sides.train)
    if lost := len(labels) - sum(isinstance(j, ScoredCompletion) for j in judgements):
        why = "of their annotators nothing, or one value only, is trained on"
        warn(f"{lost} of {len(labels)} ratings are left out: {why}")
    kept, left_out = compare((j for j in judgements if j.prompt.id in sides.train), codec, max_tokens)
    held, held_left_out = compare((j for j in judgements if j.prompt.id in sides.held_out), codec, max_tokens)
    if not kept:
        raise AssentError(_nothing(run.folder, feed, bool(fit), bool(held), left_out, max_tokens))
    return PreferenceData(kept, held, left_out + held_left_out)


def _nothing(folder: Path, feed: Feed, there: bool, held: bool, left_out: LeftOut, max_tokens: int) -> str:
    """Why there is nothing to train on, and what to do."""
    noun = "comparisons" if feed.noun == "pairs" else feed.noun
    if left_out.refused:
        return f"all {left_out.refused} {noun} of {folder} cannot be encoded; the first, {left_out.first}"
    if left_out.too_long:
        longer = f"longer than {max_tokens} tokens, the lesser of --max-length and the model's context"
        return f"all {left_out.too_long} {feed.noun} of {folder} to train on are {longer}"
    if held:
        return f"all {noun} of {folder} are about held-out prompts: take another --run with a lower --held-out"
    if there:
        return f"the {noun} of {folder} prefer nothing to anything: all are ties, or alike"
    makes = "" if feed.noun == "ratings" else "'assent label' makes some, "
    return f"{folder} holds no {noun}: {makes}'assent import' reads a file of them"
