"""Unpaired data of a run: completions that were approved or disapproved; a choice gives one of each."""

from collections.abc import Iterable
from typing import NamedTuple

from assent.errors import AssentError
from assent.labelling.quality import annotator_weights
from assent.models.packing import SharedPrefix
from assent.models.rendering import Unrenderable
from assent.models.tokenizer import ChatTokenizer
from assent.preferences.convert import load_examples
from assent.records import Completion, Example, Preference, Prompt, RankedCompletions, ScoredCompletion
from assent.run import Run
from assent.segments import refuse_behaviour
from assent.split import split
from assent.training.left_out import LeftOut


class UnpairedGroup(NamedTuple):
    """Completions of one prompt, each approved or disapproved."""

    tokens: SharedPrefix
    desirable: tuple[bool, ...]  # (K,)
    weights: tuple[float, ...]  # (K,)


class UnpairedData(NamedTuple):
    """Groups for training and held out."""

    train: list[UnpairedGroup]
    held_out: list[UnpairedGroup]
    left_out: LeftOut


class Verdict(NamedTuple):
    """A completion that an annotator approved or disapproved."""

    completion: Completion
    is_desirable: bool
    weight: float


class Vote(NamedTuple):
    """A verdict on tokens."""

    is_desirable: bool
    weight: float


Votes = dict[tuple[int, ...], list[Vote]]
"""Votes on the completions of a prompt, by their token ids."""


def load_unpaired(run: Run, tokenizer: ChatTokenizer, max_tokens: int) -> UnpairedData:
    """Return the run's approvals, ratings and both sides of its choices, split by prompt.

    Args:
        max_tokens: longer completions, with their prompt, are left out and counted.

    Raises:
        AssentError: the judgements are of clips, or no training data is left.
    """
    weights = annotator_weights(run.store) if run.setup.weight_annotators else None
    left_out = LeftOut()
    prompts: dict[str, Prompt] = {}
    votes_by_prompt: dict[str, Votes] = {}
    examples = load_examples(run.store, weights)
    refuse_behaviour(run.folder, (example.prompt for example in examples))
    for example in examples:
        for verdicts in _to_verdicts(example):
            for ids, vote in _encode(example.prompt, verdicts, tokenizer, max_tokens, left_out):
                prompts[example.prompt.id] = example.prompt
                votes_by_prompt.setdefault(example.prompt.id, {}).setdefault(ids, []).append(vote)
    held_out_ids = split(prompts.values(), run.setup.held_out).held_out
    train: list[UnpairedGroup] = []
    held_out: list[UnpairedGroup] = []
    for prompt_id, votes in votes_by_prompt.items():
        group = _build_group(tokenizer.encode_prompt(prompts[prompt_id]), votes)
        (held_out if prompt_id in held_out_ids else train).append(group)
    if not train:
        raise AssentError(_explain_no_data(run, bool(held_out), left_out, max_tokens))
    return UnpairedData(train, held_out, left_out)


def _to_verdicts(example: Example) -> list[list[Verdict]]:
    """Return the verdict of a score, and the two verdicts of each choice."""
    match example:
        case ScoredCompletion(value=value) if value != 0.5:  # a rating above the middle of its scale is an approval
            return [[Verdict(example.completion, value > 0.5, example.weight)]]
        case Preference() | RankedCompletions():
            return [
                [
                    Verdict(choice.chosen, choice.p_chosen > 0.5, choice.weight),
                    Verdict(choice.rejected, choice.p_chosen < 0.5, choice.weight),
                ]
                for choice in example.preferences
                if choice.p_chosen != 0.5
            ]
    return []


def _encode(
    prompt: Prompt, verdicts: list[Verdict], tokenizer: ChatTokenizer, max_tokens: int, left_out: LeftOut
) -> list[tuple[tuple[int, ...], Vote]]:
    """Return the completions' token ids with their votes; count what cannot be trained on."""
    try:
        encoded = [tokenizer.encode(prompt, verdict.completion) for verdict in verdicts]
    except Unrenderable as error:
        left_out.add_unrenderable(prompt, str(error))
        return []
    if len(verdicts) == 2 and encoded[0] == encoded[1]:
        left_out.identical += 1
        return []
    rows: list[tuple[tuple[int, ...], Vote]] = []
    for ids, verdict in zip(encoded, verdicts, strict=True):
        if len(ids.prompt_ids) + len(ids.completion_ids) > max_tokens:
            left_out.too_long += 1
        else:
            rows.append((ids.completion_ids, Vote(verdict.is_desirable, verdict.weight)))
    return rows


def _build_group(prompt_ids: tuple[int, ...], votes: Votes) -> UnpairedGroup:
    rows = [(ids, total) for ids, completion_votes in votes.items() for total in _add_up(completion_votes)]
    return UnpairedGroup(
        SharedPrefix(prompt_ids, tuple(ids for ids, _ in rows)),
        tuple(total.is_desirable for _, total in rows),
        tuple(total.weight for _, total in rows),
    )


def _add_up(votes: Iterable[Vote]) -> list[Vote]:
    """Return one vote for all approvals of a completion and one for all disapprovals, unless their weight is 0."""
    votes = list(votes)
    totals = [Vote(side, sum(vote.weight for vote in votes if vote.is_desirable == side)) for side in (True, False)]
    return [total for total in totals if total.weight > 0]


def _explain_no_data(run: Run, has_held_out: bool, left_out: LeftOut, max_tokens: int) -> str:
    """Return an error message that says why there is no training data, and what to do."""
    if left_out.unrenderable:
        return f"{left_out.unrenderable} rows of {run.folder} cannot be encoded; the first, {left_out.first}"
    if left_out.too_long:
        return (
            f"all {left_out.too_long} completions of {run.folder} for training are longer than {max_tokens} tokens "
            "(the lesser of --max-length and the model's context); raise --max-length, or use another model"
        )
    if has_held_out:
        return f"all approvals of {run.folder} are about held-out prompts; start another --run with a lower --held-out"
    return (
        f"{run.folder} holds no approvals or comparisons to train on: "
        "'assent label' creates some, 'assent import' reads a file of them"
    )
