"""How sure a policy is: of the options of a choice, and of the answers that it wrote itself.

A choice asks which of K texts the policy would rather write as its whole reply. The confidence in an own answer is its
mean log-probability, the share of further samples that agree with it, or the probability that the policy calls it true,
P(True), Kadavath et al. 2022 (arXiv:2207.05221).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assent.functional.grading import normalize_answer
from assent.models.forward import logprobs
from assent.models.load import LoadedModel
from assent.models.packing import SharedPrefix, pack
from assent.records import Completion, Message, Prompt, Response
from assent.rewards.truthful import read_texts
from assent.seeds import named_rng
from assent.training.batching import INFERENCE_TOKENS, plan_batches

TRUE_OR_FALSE = "Is your answer to this question correct? Reply with one word, True or False."


class Choice(NamedTuple):
    """A question with K options, one of which is right."""

    prompt: Prompt
    options: tuple[str, ...]
    correct: int
    """Index of the right option."""


def pose_choices(prompts: Sequence[Prompt], seed: int, num_options: int = 4) -> list[Choice]:
    """Return a choice for each prompt whose `meta` has accepted `answers` and `incorrect_answers`; others are left out.

    The right option is the first accepted answer. Its rivals are drawn by the seed and the prompt's id alone, without
    those that say the same as an accepted answer or as another rival. There are fewer options where rivals are few.
    """
    choices = []
    for prompt in prompts:
        answers = read_texts(prompt.meta.get("answers")) or ()
        rivals = {normalize_answer(text): text for text in read_texts(prompt.meta.get("incorrect_answers")) or ()}
        for accepted in map(normalize_answer, answers):
            rivals.pop(accepted, None)
        if answers and rivals:
            keys = named_rng(seed, prompt.id).sample(sorted(rivals), min(len(rivals), num_options - 1))
            # in an order that says nothing, as the first of equal options counts as the choice
            options = sorted((answers[0], *(rivals[key] for key in keys)))
            choices.append(Choice(prompt, tuple(options), options.index(answers[0])))
    return choices


def option_logprobs(
    model: LoadedModel,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    max_tokens: int = INFERENCE_TOKENS,
) -> list[Tensor]:
    """Return the log-probability of each option as the whole reply, its end token included: (K,) float32 a prompt.

    Raises Unrenderable: the chat template refuses a prompt.
    """
    completions = [[Completion(text) for text in texts] for texts in options]
    return [sums for sums, _ in _sum_logprobs(model, prompts, completions, max_tokens)]


def option_probs(
    model: LoadedModel,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    max_tokens: int = INFERENCE_TOKENS,
) -> list[Tensor]:
    """Return the probabilities of the options among themselves, in proportion to `option_logprobs`: (K,) a prompt."""
    return [sums.softmax(-1) for sums in option_logprobs(model, prompts, options, max_tokens)]


def mean_logprobs(
    model: LoadedModel, prompts: Sequence[Prompt], responses: Sequence[Response], max_tokens: int = INFERENCE_TOKENS
) -> Tensor:
    """Return the mean log-probability of the tokens of each response at temperature 1, in nats: (N,) float32.

    It is NaN for a response without tokens: an empty text that was cut.

    Raises Unrenderable: the chat template refuses a prompt.
    """
    completions = [[response.completion] for response in responses]
    rows = [sums / lengths for sums, lengths in _sum_logprobs(model, prompts, completions, max_tokens)]
    return torch.cat(rows) if rows else torch.zeros(0)


def p_true(
    model: LoadedModel, prompts: Sequence[Prompt], responses: Sequence[Response], max_tokens: int = INFERENCE_TOKENS
) -> Tensor:
    """Return P("True") / (P("True") + P("False")) when the policy is asked about each response: (N,) float32.

    The question is a user's turn after the response; it continues the text of a plain prompt.

    Raises Unrenderable: the chat template refuses a conversation.
    """
    questions = [_ask_if_true(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    rows = option_probs(model, questions, [("True", "False")] * len(questions), max_tokens)
    return torch.stack(rows)[:, 0] if rows else torch.zeros(0)


def sample_agreement(answers: Sequence[str], samples: Sequence[Sequence[str]]) -> list[float]:
    """Return the share of each question's samples that say the same as its answer; NaN without samples.

    Two texts say the same if `normalize_answer` makes them equal.
    """
    shares = []
    for answer, texts in zip(answers, samples, strict=True):
        same = [normalize_answer(text) == normalize_answer(answer) for text in texts]
        shares.append(sum(same) / len(same) if same else math.nan)
    return shares


def _ask_if_true(prompt: Prompt, response: Response) -> Prompt:
    if prompt.is_plain:
        return Prompt.plain(f"{prompt.text}{response.text}\n\n{TRUE_OR_FALSE}\n")
    answer = Message("assistant", response.text, response.extra)
    return Prompt((*prompt.messages, answer, Message("user", TRUE_OR_FALSE)), tools=prompt.tools)


@torch.no_grad()
def _sum_logprobs(
    model: LoadedModel, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], max_tokens: int
) -> list[tuple[Tensor, Tensor]]:
    """Return, for each prompt, the summed log-probability and the number of tokens of its completions, each (K,)."""
    tokenizer = model.chat_tokenizer
    sequences = [
        SharedPrefix(
            tokenizer.encode_prompt(prompt),
            tuple(tokenizer.encode_completion(prompt, completion) for completion in row),
        )
        for prompt, row in zip(prompts, completions, strict=True)
    ]
    sums: dict[int, tuple[Tensor, Tensor]] = {}
    for indices in plan_batches(sequences, max_tokens):
        packed = pack([sequences[i] for i in indices]).to(model.model.device)
        totals = packed.sum_completions(logprobs(model.model, packed).logprobs).cpu()
        counts = [len(sequences[i].completions) for i in indices]
        rows = zip(totals.split(counts), packed.completion_lens.cpu().split(counts), strict=True)
        sums.update(zip(indices, rows, strict=True))
    return [sums[i] for i in range(len(sequences))]
