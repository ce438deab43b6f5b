"""Measures of responses as texts: diversity, overlap with references, and the table by category, by hand."""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from assent.evaluation.text_metrics import (
    VENDI_TEXTS,
    collect_references,
    measure_categories,
    measure_references,
    measure_texts,
    measure_within,
    shared_vocabulary,
)
from assent.records import Completion, Example, Preference, Prompt, Response, SFTExample

FOX = "the quick brown fox jumped over the lazy dog"
FOX_REFERENCE = "the quick brown dog jumped over the fox"


def respond(texts: Sequence[str], prompts: Sequence[str] = ()) -> list[Response]:
    """Return one response to each prompt; the prompts are 0, 1, 2 ... by default."""
    names = prompts or [str(number) for number in range(len(texts))]
    return [Response(prompt, text, "policy") for prompt, text in zip(names, texts, strict=True)]


# Across prompts


def test_texts_across_prompts_are_measured_by_hand() -> None:
    # a, b and c are 3 of 7 words; ab, ba and bc are 3 of 5 pairs. Ten words drawn seven times: 10 (1 - .9^7).
    measures = measure_texts(respond(["a b a b", "a b c"]), vocabulary_size=10)
    assert (measures["n"], measures["words"]) == (2, 7)
    assert measures["distinct_1"] == pytest.approx(3 / 7)
    assert measures["distinct_2"] == pytest.approx(3 / 5)
    assert measures["ead_1"] == pytest.approx(3 / (10 * (1 - 0.9**7)))


def test_vendi_counts_texts_that_share_half_as_part_of_two() -> None:
    # Of the trigrams abc, bcd and abc, bcx one is common: the cosine is 1/2, and the eigenvalues are 3/4 and 1/4.
    vendi = measure_texts(respond(["abcd", "abcx"]), vocabulary_size=2)["vendi"]
    assert vendi == pytest.approx(0.75**-0.75 * 0.25**-0.25)


def test_self_bleu_of_equal_responses_to_all_prompts_is_100() -> None:
    measures = measure_texts(respond([FOX] * 3), vocabulary_size=8)
    assert measures["self_bleu"] == pytest.approx(100)
    assert measures["vendi"] == pytest.approx(1)


def test_the_vocabulary_is_that_of_all_policies() -> None:
    assert shared_vocabulary([respond(["The cat.", "a cat"]), respond(["THE dog"])]) == 4


def test_responses_without_words_have_no_diversity() -> None:
    measures = measure_texts(respond(["...", "!"]), shared_vocabulary([respond(["...", "!"])]))
    assert (measures["words"], measures["distinct_1"], measures["distinct_2"], measures["ead_1"]) == (0, *[None] * 3)


def test_a_single_response_cannot_be_compared_with_others() -> None:
    measures = measure_texts(respond(["a cat"]), vocabulary_size=2)
    assert (measures["self_bleu"], measures["vendi"]) == (None, pytest.approx(1))


def test_vendi_is_measured_on_a_sample_of_many_texts() -> None:
    texts = [chr(0x4E00 + number) * 3 for number in range(VENDI_TEXTS + 50)]  # no two share a character
    assert measure_texts(respond(texts), len(texts))["vendi"] == pytest.approx(VENDI_TEXTS)


def test_the_sample_depends_on_the_seed_alone() -> None:
    responses = respond([" ".join(random.Random(number).choices("abcdefgh", k=6)) for number in range(120)])
    first, again, other_seed = (measure_texts(responses, 200, seed)["self_bleu"] for seed in (0, 0, 1))
    assert first == again != other_seed


# Within a prompt


def test_identical_responses_to_a_prompt_are_one_text() -> None:
    measures = measure_within([[FOX] * 4, ["a dog sleeps all day"] * 4])
    assert (measures["prompts"], measures["n"]) == (2, 8)
    assert measures["vendi"] == pytest.approx(1)
    assert measures["vendi_se"] == pytest.approx(0)
    assert measures["self_bleu"] == pytest.approx(100)


def test_diversity_within_prompts_is_a_mean_over_prompts() -> None:
    # Two equal texts, and two without a common word: Vendi 1 and 2, distinct words 4 of 8 and 4 of 4.
    measures = measure_within([["a b c d", "a b c d"], ["one two", "pink hogs"]])
    assert measures["distinct_1"] == pytest.approx((1 / 2 + 1) / 2)
    assert measures["distinct_2"] == pytest.approx((1 / 2 + 1) / 2)
    assert measures["self_bleu"] == pytest.approx((100 + 0) / 2)
    assert measures["vendi"] == pytest.approx((1 + 2) / 2)
    assert measures["vendi_se"] == pytest.approx(0.5)


def test_a_prompt_with_one_response_is_left_out() -> None:
    assert measure_within([["a b", "a b"], ["c d"], []])["prompts"] == 1
    assert measure_within([["a b"], []]) == {}


def test_the_spread_of_one_prompt_is_unknown() -> None:
    assert measure_within([["a b", "c d"]])["vendi_se"] is None


# References


def test_rouge_takes_the_best_reference_of_each_response() -> None:
    # The overlap of FOX with its second reference is in test_text_metrics.py; the other response equals its reference.
    references = {"0": ["no word in common", FOX_REFERENCE], "1": ["a dog ran"]}
    measures = measure_references(respond([FOX, "a dog ran"]), references)
    assert measures["n"] == 2
    assert measures["rouge1"] == pytest.approx((16 / 17 + 1) / 2)
    assert measures["rouge2"] == pytest.approx((8 / 15 + 1) / 2)
    assert measures["rougeL"] == pytest.approx((12 / 17 + 1) / 2)
    assert measures["rougeL_se"] == pytest.approx((1 - 12 / 17) / 2)


def test_bleu_and_chrf_take_the_first_reference() -> None:
    # The first references have 9/10 of the words, 7/8 of the pairs, 5/6 and 3/4; sacrebleu 2.6.0 gives 83.759224.
    references = {"0": ["the cat sat on the mat", "a dog"], "1": ["a dog ran fast"]}
    measures = measure_references(respond(["the cat sat on the mat today", "a dog ran"]), references)
    assert measures["bleu"] == pytest.approx(83.759224, abs=5e-7)
    assert measures["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert measures["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    equal = measure_references(respond(["a dog ran"]), {"0": ["a dog ran"]})
    assert equal["chrf"] == pytest.approx(100)


def test_responses_without_a_reference_are_left_out() -> None:
    responses = respond(["a dog ran", "a cat"])
    assert measure_references(responses, {"0": ["a dog ran"]})["n"] == 1
    assert measure_references(responses, {}) == {}


def test_without_sacrebleu_its_measures_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    responses = respond([FOX, FOX_REFERENCE])
    overlap = measure_references(responses, {"0": [FOX]})
    assert [overlap[name] for name in ("bleu", "bleu_signature", "chrf", "chrf_signature")] == [None] * 4
    assert overlap["rougeL"] == pytest.approx(1)
    assert measure_texts(responses, 8)["self_bleu"] is None
    assert measure_within([[FOX, FOX]])["self_bleu"] is None


def test_references_are_demonstrations_and_meta() -> None:
    capital = replace(Prompt.ask("Capital of France?"), meta={"reference": "Paris", "references": ["Paris.", "Paris"]})
    bird = replace(Prompt.ask("Name a bird."), meta={"references": "wren", "reference": " "})
    fish = Prompt.ask("Name a fish.")
    examples: list[Example] = [
        SFTExample(Prompt.ask("Capital of France?"), Completion("It is Paris.")),
        SFTExample(Prompt.ask("Elsewhere?"), Completion("No.")),
        Preference(fish, Completion("A carp."), Completion("A bat.")),
    ]
    assert collect_references([capital, bird, fish], examples) == {
        capital.id: ["It is Paris.", "Paris", "Paris."],
        bird.id: ["wren"],
    }


# Categories

GROUNDED = [Prompt.ask(f"The red hen sat on {place}. Where did it sit?", "grounded") for place in ("a box", "the mat")]
KNOWLEDGE = [Prompt.ask(f"Capital of {country}?", "knowledge") for country in ("France", "Peru", "Chad", "Mali")]


def table(rows: Sequence[tuple[Prompt, str]], grades: dict[str, str] | None = None) -> dict[str, dict[str, object]]:
    prompts = [prompt for prompt, _ in rows]
    return measure_categories(prompts, respond([text for _, text in rows], [p.id for p in prompts]), grades or {})


def test_grounded_responses_are_compared_with_their_source() -> None:
    # "red hen sat on a box now": 6 of 7 words follow the source, and 3 of 4 4-grams are in it. The refusal shares no
    # word with its source.
    rows = [(GROUNDED[0], "Red hen sat on a box now"), (GROUNDED[1], "I don't know.")]
    measures = table(rows)["grounded"]
    assert measures["n"] == 2
    assert measures["source_rougeL"] == pytest.approx((6 / 7 + 0) / 2)
    assert measures["copied"] == pytest.approx((3 / 4 + 0) / 2)
    low, high = pytest.approx(0.0945, abs=1e-4), pytest.approx(0.9055, abs=1e-4)
    assert measures["refused"] == {"rate": 0.5, "low": low, "high": high, "n": 2}


def test_a_response_of_three_words_copies_nothing_that_counts() -> None:
    assert table([(GROUNDED[0], "on a box")])["grounded"]["copied"] is None
    assert table([(GROUNDED[0], "on a box"), (GROUNDED[1], "hen sat on the mat")])["grounded"]["copied"] == 1


def test_knowledge_is_the_shares_of_its_grades() -> None:
    # Wilson's limits of 1 of 3 are .0615 and .7923, of 0 of 3 they are 0 and .5615.
    grades = dict(zip([prompt.id for prompt in KNOWLEDGE], ["right", "refused", "refused"], strict=False))
    measures = table([(prompt, "Paris") for prompt in KNOWLEDGE], grades)["knowledge"]
    assert measures["n"] == 4
    low, high = pytest.approx(0.0615, abs=1e-4), pytest.approx(0.7923, abs=1e-4)
    assert measures["right"] == {"rate": pytest.approx(1 / 3), "low": low, "high": high, "n": 3}
    assert measures["wrong"] == {"rate": 0, "low": 0, "high": pytest.approx(0.5615, abs=1e-4), "n": 3}


def test_knowledge_without_grades_is_counted_only() -> None:
    assert table([(KNOWLEDGE[0], "Paris")]) == {"knowledge": {"n": 1}}


def test_creative_responses_are_measured_for_diversity() -> None:
    similes = [Prompt.ask(f"A simile for {thing}.", "creative") for thing in ("snow", "fear")]
    measures = table([(similes[0], "like a cat"), (similes[1], "like a cat")])["creative"]
    assert measures == {"n": 2, "distinct_2": 0.5, "vendi": pytest.approx(1)}


def test_other_categories_are_counted_and_none_is_left_out() -> None:
    rows = [(Prompt.ask("Add 1 and 1.", "sums"), "2"), (Prompt.ask("Hello."), "Hello.")]
    assert table(rows) == {"sums": {"n": 1}}
