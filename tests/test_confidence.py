"""Confidence of a policy in options and in its own answers, and whether it is as often right."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from assent.evaluation.calibration import (
    compare_calibration,
    fit_choice_temperature,
    measure_answers,
    measure_choices,
)
from assent.evaluation.confidence import (
    TRUE_OR_FALSE,
    Choice,
    mean_logprobs,
    option_probs,
    p_true,
    pose_choices,
    sample_agreement,
)
from assent.functional.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, measure_calibration
from assent.functional.grading import normalize_answer
from assent.generation.local import LocalGenerator
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel
from assent.records import Completion, Message, Prompt, Response

CAPITALS = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Norway": "Oslo", "Ghana": "Accra", "Peru": "Lima"}


def question(country: str, answers: Sequence[str], incorrect: Sequence[str] = ()) -> Prompt:
    prompt = Prompt.ask(f"What is the capital of {country}?")
    return replace(prompt, meta={"answers": list(answers), "incorrect_answers": list(incorrect)})


PROMPTS = [question(country, [city], sorted({*CAPITALS.values()} - {city})) for country, city in CAPITALS.items()]
OPTIONS = [("Paris", "a very long reply indeed"), ("Madrid", "Rome", "Oslo"), ("Rome",), ("Oslo", "x", "y", "z")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return tiny.load(folder)


@pytest.fixture(scope="module")
def samples(model: LoadedModel) -> list[tuple[Response, tuple[float, ...]]]:
    """A response to each prompt with the log-probabilities at which it was sampled."""
    generator = LocalGenerator()
    generator.load(model)
    tokenizer = model.chat_tokenizer
    sampled = generator.generate([tokenizer.encode_prompt(p) for p in PROMPTS], 1, Sampling(1.0, 12), seed=3)
    return [
        (Response.of(p.id, tokenizer.to_completion(p, s.token_ids, s.finished), "policy"), s.logprobs)
        for p, s in zip(PROMPTS, sampled, strict=True)
    ]


def responses(*texts: str) -> list[Response]:
    return [Response(prompt.id, text, "policy") for prompt, text in zip(PROMPTS, texts, strict=False)]


def logprob_by_transformers(folder: Path, model: LoadedModel, prompt: Prompt, text: str) -> float:
    """Return the log-probability of a reply from the logits of a plain forward pass of its own."""
    from transformers import AutoModelForCausalLM

    ids = model.chat_tokenizer.encode_prompt(prompt)
    reply = model.chat_tokenizer.encode_completion(prompt, Completion(text))
    assert reply[-1] in model.chat_tokenizer.stop_ids
    plain = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = plain(torch.tensor([[*ids, *reply]])).logits[0, len(ids) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(reply)), reply].sum())


def test_option_probabilities_match_plain_forward_passes(folder: Path, model: LoadedModel) -> None:
    for prompt, texts, probs in zip(PROMPTS, OPTIONS, option_probs(model, PROMPTS[:4], OPTIONS), strict=False):
        sums = torch.tensor([logprob_by_transformers(folder, model, prompt, text) for text in texts])
        assert probs.tolist() == pytest.approx(sums.softmax(0).tolist(), abs=1e-4)
        assert float(probs.sum()) == pytest.approx(1)


@pytest.mark.parametrize("max_tokens", [1, 100, 10_000])
def test_batches_of_any_size_give_the_same_probabilities(model: LoadedModel, max_tokens: int) -> None:
    alone = [option_probs(model, [p], [o])[0] for p, o in zip(PROMPTS, OPTIONS, strict=False)]
    together = option_probs(model, PROMPTS[:4], OPTIONS, max_tokens)
    for first, second in zip(alone, together, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_option_probability_is_independent_of_order(model: LoadedModel) -> None:
    forward, backward = option_probs(model, PROMPTS[:1] * 2, [("Rome", "Oslo", "Lima"), ("Lima", "Oslo", "Rome")])
    assert torch.allclose(forward, backward.flip(0), atol=1e-5)


def test_mean_logprob_is_the_mean_at_sampling(
    model: LoadedModel, samples: list[tuple[Response, tuple[float, ...]]]
) -> None:
    means = mean_logprobs(model, PROMPTS, [response for response, _ in samples])
    assert means.tolist() == pytest.approx([sum(values) / len(values) for _, values in samples], abs=1e-4)


def test_mean_logprob_without_tokens_is_nan(model: LoadedModel) -> None:
    assert mean_logprobs(model, PROMPTS[:1], [Response(PROMPTS[0].id, "", "policy", finished=False)]).isnan().all()
    assert mean_logprobs(model, [], []).shape == (0,)


def test_p_true_compares_two_replies_to_a_second_turn(folder: Path, model: LoadedModel) -> None:
    turns = (*PROMPTS[0].messages, Message("assistant", "Rome"), Message("user", TRUE_OR_FALSE))
    true, false = (logprob_by_transformers(folder, model, Prompt(turns), text) for text in ("True", "False"))
    expected = 1 / (1 + math.exp(false - true))
    assert float(p_true(model, PROMPTS[:1], responses("Rome"))[0]) == pytest.approx(expected, abs=1e-4)
    assert p_true(model, [], []).shape == (0,)


def test_p_true_continues_a_plain_text(tmp_path: Path) -> None:
    prompt = Prompt.plain("The capital of France is")
    model = tiny.load(tiny.make(tmp_path, chat=False))
    asked = Prompt.plain(f"The capital of France is Rome\n\n{TRUE_OR_FALSE}\n")
    expected = option_probs(model, [asked], [("True", "False")])[0][0]
    assert p_true(model, [prompt], [Response(prompt.id, " Rome", "policy")])[0] == pytest.approx(float(expected))


def test_agreement_ignores_case_and_punctuation() -> None:
    assert sample_agreement(["Paris"], [["paris.", "PARIS", "Lyon", "the Paris"]]) == [0.75]
    assert math.isnan(sample_agreement(["Paris"], [[]])[0])


def test_choices_depend_on_seed_and_prompt_alone() -> None:
    options = [choice.options for choice in pose_choices(PROMPTS, 0)]
    backward = [replace(p, meta={**p.meta, "incorrect_answers": p.meta["incorrect_answers"][::-1]}) for p in PROMPTS]
    assert [choice.options for choice in pose_choices(backward[::-1], 0)][::-1] == options
    assert [choice.options for choice in pose_choices(PROMPTS, 1)] != options


def test_a_choice_has_one_right_option_and_its_rivals() -> None:
    for choice, city in zip(pose_choices(PROMPTS, 0), CAPITALS.values(), strict=True):
        assert choice.options[choice.correct] == city
        assert len(set(choice.options)) == 4
        assert set(choice.options) <= set(CAPITALS.values())


def test_the_right_option_may_stand_anywhere() -> None:
    assert {choice.correct for seed in range(20) for choice in pose_choices(PROMPTS, seed)} == {0, 1, 2, 3}


def test_rivals_never_say_the_same_as_an_accepted_answer() -> None:
    prompt = question("Ukraine", ["Kyiv", "Kiev"], ["kiev.", "The Kyiv", "Minsk", "minsk", "Riga"])
    for seed in range(20):
        (choice,) = pose_choices([prompt], seed)
        assert choice.options[choice.correct] == "Kyiv"
        assert sorted(map(normalize_answer, choice.options)) == ["kyiv", "minsk", "riga"]


def test_a_choice_reads_a_single_answer_as_it_is() -> None:
    prompt = replace(Prompt.ask("What is two and two?"), meta={"answers": 4, "incorrect_answers": "five"})
    assert pose_choices([prompt], 0) == [Choice(prompt, ("4", "five"), 0)]


def test_questions_without_an_answer_or_rivals_are_left_out() -> None:
    assert pose_choices([Prompt.ask("Why?"), question("A", [], ["B"]), question("A", ["B"], ["b"])], 0) == []


def test_temperature_of_two_options_by_hand() -> None:
    # right in 2 of 3: sigmoid(2 / T) = 2 / 3
    logits = [torch.tensor([2.0, 0.0])] * 3
    assert fit_choice_temperature(logits, [0, 0, 1]) == pytest.approx(2 / math.log(2))


def test_temperature_ignores_a_constant_and_impossible_options() -> None:
    logits = [torch.tensor([7.0, 5.0]), torch.tensor([2.0, 0.0, -1e6]), torch.tensor([2.0, 0.0])]
    assert fit_choice_temperature(logits, [0, 0, 1]) == pytest.approx(2 / math.log(2))


@given(st.integers(0, 1000), st.floats(0.25, 4))
def test_scaled_logits_scale_the_temperature(seed: int, scale: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = [torch.randn(k, generator=rng, dtype=torch.float64) for k in (2, 3, 4) * 10]
    correct = [int(torch.multinomial(row.softmax(-1), 1, generator=rng)) for row in logits]
    temperature = fit_choice_temperature(logits, correct)
    if LOWEST_TEMPERATURE < temperature < HIGHEST_TEMPERATURE / 4:
        assert fit_choice_temperature([scale * row for row in logits], correct) == pytest.approx(scale * temperature)


@pytest.mark.parametrize(
    ("correct", "temperature"), [([0, 0], LOWEST_TEMPERATURE), ([1, 1], HIGHEST_TEMPERATURE), ([0, 1], 100.0)]
)
def test_temperature_has_limits(correct: list[int], temperature: float) -> None:
    assert fit_choice_temperature([torch.tensor([3.0, 0.0])] * 2, correct) == temperature


def test_temperature_of_equal_logits_is_one() -> None:
    assert fit_choice_temperature([torch.zeros(4), torch.zeros(2)], [0, 1]) == 1
    assert math.isnan(fit_choice_temperature([], []))


def test_a_choice_is_the_most_likely_option(model: LoadedModel) -> None:
    choices = pose_choices(PROMPTS, 0)
    probs = option_probs(model, PROMPTS, [choice.options for choice in choices])
    result = measure_choices(model, choices)
    assert result["confidences"] == pytest.approx([float(row.max()) for row in probs], abs=1e-6)
    assert result["correct"] == [int(row.argmax() == c.correct) for row, c in zip(probs, choices, strict=True)]
    assert result["accuracy"] == pytest.approx(sum(result["correct"]) / 6)
    assert result["low"] < result["accuracy"] < result["high"]
    assert sum(point["n"] for point in result["bins"]) == result["n"] == 6


def test_figures_follow_from_the_lists_of_the_result(model: LoadedModel) -> None:
    result = measure_choices(model, pose_choices(PROMPTS, 0))
    expected = measure_calibration(result["confidences"], result["correct"], 10)._asdict()
    del expected["temperature"]  # this is of all options
    assert {key: result[key] for key in expected} == pytest.approx(expected)


def test_choices_of_a_tied_policy_are_right_by_chance_alone() -> None:
    """The first of equal options counts as the choice: the right one is first in a quarter of questions."""
    texts = [f"option {n * 37 % 101}" for n in range(99)]
    prompts = [question(text, [text], [rival for rival in texts if rival != text]) for text in texts]
    choices = [choice for seed in range(5) for choice in pose_choices(prompts, seed)]
    assert sum(choice.correct == 0 for choice in choices) / len(choices) == pytest.approx(0.25, abs=0.06)


def test_refused_questions_are_left_out_of_calibration(model: LoadedModel) -> None:
    texts = responses("Paris", "I don't know.", "Naples", "Oslo")
    result = measure_answers(model, PROMPTS[:4], texts)
    assert (result["n"], result["refused"], result["correct"]) == (3, 1, [1, 0, 1])
    assert result["prompts"] == [PROMPTS[i].id for i in (0, 2, 3)]
    means = mean_logprobs(model, PROMPTS[:4], texts).exp().tolist()
    assert result["confidences"] == pytest.approx([means[0], means[2], means[3]], abs=1e-6)


def test_a_policy_that_only_refuses_has_no_figures(model: LoadedModel) -> None:
    result = measure_answers(model, PROMPTS[:1], responses("I don't know."))
    assert (result["n"], result["refused"], result["bins"]) == (0, 1, [])
    assert math.isnan(result["brier"])
    compared = compare_calibration(result, result)
    assert compared["n"] == 0
    assert math.isnan(compared["accuracy"]["value"])


def test_a_policy_does_not_differ_from_itself(model: LoadedModel) -> None:
    result = measure_choices(model, pose_choices(PROMPTS, 0))
    compared = compare_calibration(result, result)
    assert {name: compared[name]["value"] for name in ("brier", "nll", "accuracy", "auroc")} == pytest.approx(
        {"brier": 0, "nll": 0, "accuracy": 0, "auroc": 0}
    )


def row(**answers: tuple[float, int]) -> dict[str, list[object]]:
    """Return the lists of a result with a confidence and an outcome for each prompt."""
    return {
        "prompts": list(answers),
        "confidences": [confidence for confidence, _ in answers.values()],
        "correct": [outcome for _, outcome in answers.values()],
    }


def test_a_difference_is_policy_minus_baseline_by_question() -> None:
    baseline = row(a=(0.5, 1), b=(0.5, 0), only_here=(0.9, 0))
    policy = row(not_there=(0.9, 1), b=(0.1, 0), a=(0.9, 1))
    compared = compare_calibration(baseline, policy)
    assert compared["n"] == 2
    assert compared["brier"]["value"] == pytest.approx(0.01 - 0.25)
    assert compared["nll"]["value"] == pytest.approx(math.log(0.5 / 0.9))
    assert compared["auroc"]["value"] == pytest.approx(1 - 0.5)
    assert compared["accuracy"]["value"] == 0
