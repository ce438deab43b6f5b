"""What responses are like as texts: diversity across and within prompts, overlap with references, measures by category.

Preference training narrows diversity within a prompt most (Kirk et al. 2023, arXiv:2310.06452), so the two are apart.
A measure that needs sacrebleu is None without it, and so is one that the texts do not have.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypeVar, get_args

import numpy as np

from assent.errors import AssentError
from assent.functional.diversity import (
    distinct_n,
    expectation_adjusted_distinct,
    ngram_similarity,
    self_bleu,
    vendi_score,
)
from assent.functional.finite import replace_nonfinite
from assent.functional.grading import Grade, is_refusal
from assent.functional.overlap import bleu, chrf
from assent.functional.rouge import rouge_scores, word_tokens
from assent.functional.statistics import wilson
from assent.records import Example, Prompt, Response, SFTExample

T = TypeVar("T")

SELF_BLEU_TEXTS = 50
"""Texts that self-BLEU compares at most: its time grows with their square."""
VENDI_TEXTS = 200
"""Texts across prompts that the Vendi score counts at most."""
COPIED_WORDS = 4
"""Words in a row that count as copied if the source has them."""
GRADES: tuple[str, ...] = get_args(Grade)


def measure_texts(responses: Sequence[Response], vocabulary_size: int, seed: int = 0) -> dict[str, Any]:
    """Return the diversity of one policy's responses across prompts, one response to each.

    Args:
        vocabulary_size: `shared_vocabulary` of all policies that are compared.
        seed: decides which texts are measured where that is limited; equal for all policies, so that they are measured
            on the same prompts.

    Raises:
        ValueError: no responses, or a vocabulary smaller than that of the responses.
    """
    texts = [response.text for response in responses]
    return _finite(
        {
            "n": len(texts),
            "words": sum(len(word_tokens(text)) for text in texts),
            "distinct_1": distinct_n(texts, 1),
            "distinct_2": distinct_n(texts, 2),
            "ead_1": expectation_adjusted_distinct(texts, 1, max(vocabulary_size, 1)),
            "self_bleu": _self_bleu(texts, seed),
            "vendi": _vendi(_sample(texts, VENDI_TEXTS, seed)),
        }
    )


def shared_vocabulary(policies: Iterable[Sequence[Response]]) -> int:
    """Return the number of distinct words in the responses of all policies."""
    return len({word for responses in policies for response in responses for word in word_tokens(response.text)})


def measure_within(groups: Sequence[Sequence[str]], seed: int = 0) -> dict[str, Any]:
    """Return the diversity of responses to the same prompt: means over prompts, and the standard error of `vendi`.

    `vendi` is the effective number of different responses, of `n / prompts`. A prompt with fewer than two responses is
    left out; the result is empty if no prompt is left.

    Args:
        groups: the responses to each prompt; a text that was sampled twice is there twice.
    """
    groups = [group for group in groups if len(group) >= 2]
    if not groups:
        return {}
    vendi = [_vendi(group) for group in groups]
    return _finite(
        {
            "prompts": len(groups),
            "n": sum(map(len, groups)),
            "distinct_1": _mean(distinct_n(group, 1) for group in groups),
            "distinct_2": _mean(distinct_n(group, 2) for group in groups),
            "self_bleu": _mean(_self_bleu(group, seed) for group in groups),
            "vendi": _mean(vendi),
            "vendi_se": _standard_error(vendi),
        }
    )


def collect_references(prompts: Iterable[Prompt], examples: Iterable[Example]) -> dict[str, list[str]]:
    """Return the reference texts of prompts by id: their demonstrations, then `reference` and `references` of meta.

    Prompts without a reference are left out.
    """
    demonstrations: dict[str, list[str]] = {}
    for example in examples:
        if isinstance(example, SFTExample):
            demonstrations.setdefault(example.prompt.id, []).append(example.completion.text)
    references: dict[str, list[str]] = {}
    for prompt in prompts:
        several = prompt.meta.get("references")
        listed = several if isinstance(several, list | tuple) else [several]
        texts = [*demonstrations.get(prompt.id, []), prompt.meta.get("reference"), *listed]
        if unique := list(dict.fromkeys(text for text in texts if isinstance(text, str) and text.strip())):
            references[prompt.id] = unique
    return references


def measure_references(responses: Sequence[Response], references: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return how much responses overlap with reference texts; responses without a reference are left out.

    ROUGE is F: the mean over responses of the best over references. BLEU and chrF are those of the corpus against each
    first reference. The result is empty if no response has a reference.

    Args:
        references: texts by prompt (id), as from `collect_references`.
    """
    pairs = [(response.text, texts) for response in responses if (texts := references.get(response.prompt))]
    if not pairs:
        return {}
    scores = [[rouge_scores(text, reference) for reference in texts] for text, texts in pairs]
    rouge_l = [max(score.rougeL.f for score in row) for row in scores]
    corpus = [text for text, _ in pairs], [texts[0] for _, texts in pairs]
    bleu_score = _unless_missing(lambda: bleu(*corpus))
    chrf_score = _unless_missing(lambda: chrf(*corpus))
    return {
        "n": len(pairs),
        "rouge1": fmean(max(score.rouge1.f for score in row) for row in scores),
        "rouge2": fmean(max(score.rouge2.f for score in row) for row in scores),
        "rougeL": fmean(rouge_l),
        "rougeL_se": _standard_error(rouge_l),
        "bleu": bleu_score and bleu_score.score,
        "bleu_signature": bleu_score and bleu_score.signature,
        "chrf": chrf_score and chrf_score.score,
        "chrf_signature": chrf_score and chrf_score.signature,
    }


def measure_categories(
    prompts: Sequence[Prompt], responses: Sequence[Response], grades: Mapping[str, str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return for each category of prompts the measures that fit it, each with the number of responses `n`.

    - `grounded`: the text is in the prompt. `source_rougeL` is the share of the response's words that follow the
      prompt's (precision of ROUGE-L), `copied` the share of its 4-grams that the prompt has, both as means over
      responses; `refused` although the text has the answer.
    - `knowledge`: the shares `right`, `refused` and `wrong` of the graded responses, if there are any.
    - `creative`: `distinct_2` and `vendi` across responses.

    Shares of responses have Wilson limits. Other categories have `n` alone, and prompts without one are left out.

    Args:
        responses: one to each prompt, in the order of the prompts.
        grades: `right`, `refused` or `wrong` by prompt (id).
        seed: as in `measure_texts`.
    """
    by_category: dict[str, list[tuple[Prompt, str]]] = {}
    for prompt, response in zip(prompts, responses, strict=True):
        if prompt.category:
            by_category.setdefault(prompt.category, []).append((prompt, response.text))
    return {category: _measure_category(category, rows, grades, seed) for category, rows in by_category.items()}


def _measure_category(
    category: str, rows: Sequence[tuple[Prompt, str]], grades: Mapping[str, str], seed: int
) -> dict[str, Any]:
    texts = [text for _, text in rows]
    measures: dict[str, Any] = {"n": len(rows)}
    match category:
        case "grounded":
            measures |= {
                "source_rougeL": fmean(rouge_scores(text, prompt.text).rougeL.precision for prompt, text in rows),
                "copied": _mean(_copied(text, prompt.text) for prompt, text in rows),
                "refused": _share([is_refusal(text) for text in texts]),
            }
        case "knowledge":
            graded = [grades[prompt.id] for prompt, _ in rows if prompt.id in grades]
            if graded:
                measures |= {grade: _share([value == grade for value in graded]) for grade in GRADES}
        case "creative":
            measures |= {"distinct_2": distinct_n(texts, 2), "vendi": _vendi(_sample(texts, VENDI_TEXTS, seed))}
    return _finite(measures)


def _copied(text: str, source: str) -> float:
    """Return the share of a text's 4-grams that the source has; NaN for a text of fewer than four words."""
    ngrams, source_ngrams = (
        [tuple(words[i : i + COPIED_WORDS]) for i in range(len(words) - COPIED_WORDS + 1)]
        for words in (word_tokens(text), word_tokens(source))
    )
    in_source = set(source_ngrams)
    return fmean(ngram in in_source for ngram in ngrams) if ngrams else math.nan


def _share(values: Sequence[bool]) -> dict[str, float]:
    """Return the share of true values with its Wilson limits."""
    return wilson(sum(values), len(values))._asdict()


def _vendi(texts: Sequence[str]) -> float:
    return vendi_score(ngram_similarity(texts))


def _self_bleu(texts: Sequence[str], seed: int) -> float | None:
    """Return the mean self-BLEU of at most 50 texts; None without sacrebleu, or for a single text."""
    sample = _sample(texts, SELF_BLEU_TEXTS, seed)
    return _unless_missing(lambda: fmean(self_bleu(sample))) if len(sample) > 1 else None


def _sample(texts: Sequence[str], limit: int, seed: int) -> Sequence[str]:
    """Return at most `limit` texts; the same places for every list of the same length."""
    if len(texts) <= limit:
        return texts
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:limit]]


def _unless_missing(measure: Callable[[], T]) -> T | None:
    """Return a measure of sacrebleu; None where sacrebleu is not installed."""
    try:
        return measure()
    except AssentError:
        return None


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are there; None if there are none."""
    present = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(present) if present else None


def _standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None for a single value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _finite(measures: dict[str, Any]) -> dict[str, Any]:
    """Return measures as JSON, with None for a measure that the texts do not have."""
    finite: dict[str, Any] = replace_nonfinite(measures)
    return finite
