"""Preference data of a run: its feedback as tokenized groups of completions, for training and held out."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from assent.errors import AssentError, warn
from assent.labelling.quality import annotator_weights
from assent.models.tokenizer import ChatTokenizer
from assent.preferences.convert import standardise, to_examples
from assent.records import Example, Feedback, Preference, Purpose, RankedCompletions, ScoredCompletion, Task
from assent.run import Run
from assent.segments import refuse_behaviour
from assent.split import Split, split
from assent.training.left_out import LeftOut
from assent.training.preferences import BatchSpec, PromptGroup, group_by_prompt
from assent.training.preferences import Example as PreferenceExample

PURPOSES: tuple[Purpose, ...] = ("train", "evaluate")
"""Tasks of `label` on held-out prompts have purpose `evaluate`, as have comparisons of policies."""


class PreferenceData(NamedTuple):
    """Groups of completions of one prompt, with the judgements on them."""

    train: list[PromptGroup]
    held_out: list[PromptGroup]
    left_out: LeftOut


class RunJudgements(NamedTuple):
    """What annotators said in a run."""

    feedback: list[Feedback]
    """Without the scores of rewards that judged an evaluation."""
    tasks: list[Task]
    sides: Split
    examples: list[Example]


def load_preferences(run: Run, tokenizer: ChatTokenizer, max_tokens: int, spec: BatchSpec) -> PreferenceData:
    """Return the feedback that an objective reads, split by prompt.

    Args:
        max_tokens: longer completions, with their prompt, are left out and counted.
        spec: the kinds of feedback that the objective reads.

    Raises:
        AssentError: the judgements are of clips, or no training data is left; the message says why.
    """
    feedback, _, sides, all_examples = read_judgements(run)
    refuse_behaviour(run.folder, (example.prompt for example in all_examples))
    _warn_of_simulated(feedback)
    examples = [example for example in all_examples if isinstance(example, spec.example_types)]
    usable: list[PreferenceExample] = [
        example for example in examples if isinstance(example, Preference | RankedCompletions) and spec.accepts(example)
    ]
    usable += _standardised_ratings(examples, feedback, sides.train)
    train, left_out = group_by_prompt((e for e in usable if e.prompt.id in sides.train), tokenizer, max_tokens)
    held_out, also_left_out = group_by_prompt(
        (e for e in usable if e.prompt.id in sides.held_out), tokenizer, max_tokens
    )
    if not train:
        raise AssentError(_explain_no_data(run.folder, spec, bool(examples), bool(held_out), left_out, max_tokens))
    return PreferenceData(train, held_out, left_out + also_left_out)


def read_judgements(run: Run) -> RunJudgements:
    """Read a run's feedback as examples: of training prompts what was asked for training, of held-out prompts all."""
    feedback = [event for event in run.store.feedback() if event.source != "scorer"]
    prompts = list(run.store.prompts())
    tasks = list(run.store.tasks())
    responses = list(run.store.responses())
    weights = annotator_weights(run.store) if run.setup.weight_annotators else None
    sides = split(prompts, run.setup.held_out)
    examples: list[Example] = []
    for purpose in PURPOSES:
        converted = to_examples(feedback, tasks, prompts, responses, weights, purpose=purpose)
        examples += [e for e in converted if purpose == "train" or e.prompt.id in sides.held_out]
    return RunJudgements(feedback, tasks, sides, examples)


def _warn_of_simulated(feedback: list[Feedback]) -> None:
    simulated = sum(event.source == "simulated" for event in feedback)
    if 0 < simulated < len(feedback):
        warn(
            f"{simulated} of {len(feedback)} judgements are simulated; "
            "they are used only for tasks that no human has judged"
        )


def _standardised_ratings(
    examples: list[Example], feedback: list[Feedback], train: AbstractSet[str]
) -> list[ScoredCompletion]:
    ratings = [example for example in examples if isinstance(example, ScoredCompletion)]
    z_scores = standardise(ratings, feedback, train)
    if len(z_scores) < len(ratings):
        warn(
            f"{len(ratings) - len(z_scores)} of {len(ratings)} ratings are left out: "
            "their annotators rated no training prompt, or rated all of them alike"
        )
    return z_scores


def _explain_no_data(
    folder: Path, spec: BatchSpec, has_examples: bool, has_held_out: bool, left_out: LeftOut, max_tokens: int
) -> str:
    """Return an error message that says why there is no training data, and what to do."""
    noun = "comparisons" if spec.noun == "pairs" else spec.noun
    if left_out.unrenderable:
        return f"all {left_out.unrenderable} {noun} of {folder} cannot be encoded; the first, {left_out.first}"
    if left_out.too_long:
        return (
            f"all {left_out.too_long} {spec.noun} of {folder} for training are longer than {max_tokens} tokens "
            "(the lesser of --max-length and the model's context); raise --max-length, or use another model"
        )
    if has_held_out:
        return f"all {noun} of {folder} are about held-out prompts; start another --run with a lower --held-out"
    if has_examples:
        return f"the {noun} of {folder} express no preference: all are ties, or equal"
    remedy = "" if spec.noun == "ratings" else "'assent label' creates some, "
    return f"{folder} holds no {noun}: {remedy}'assent import' reads a file of them"
