"""Several responses to one prompt: best-of-n beside trained policies, and the reward model on each policy's own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from assent.evaluation.candidates import BATCH_SIZE
from assent.evaluation.draws import (
    Floats,
    PolicyPoint,
    card_on_draws,
    draw_responses,
    load_proxy,
    measure_best_of_n,
    score_draws,
)
from assent.evaluation.judges import RewardJudge, load_judge
from assent.functional.conciseness import conciseness_score
from assent.generation.sampling import Sampling
from assent.models.checkpoints import save
from assent.models.load import new_reward
from assent.records import Prompt, Response
from assent.run import Run, Setup, open_run

PROXY = np.array([[1.0, 2, 3, 4]])
GOLD = np.array([[0.0, 1, 1, 0]])
SAMPLING = Sampling(temperature=1.0, max_new_tokens=6)


def policy_point(*gold: float, kl: float = 2.0) -> PolicyPoint:
    return PolicyPoint(kl, np.array(gold)[:, None])


def responses_of_words(*rows: tuple[int, ...]) -> list[list[Response]]:
    """Return responses of so many words, different in their text."""
    return [[Response(f"p{p}", " ".join(["word"] * words) + "!" * n, "base") for n, words in enumerate(row)]
            for p, row in enumerate(rows)]  # fmt: skip


# The curve of best-of-n


def test_curve_of_four_draws_by_hand() -> None:
    result = measure_best_of_n(PROXY, GOLD, {})
    # The best of the 6 pairs by proxy have golds 1, 1, 0, 1, 0, 0, and the best of all four has 0.
    assert [(point["n"], point["gold"]) for point in result["curve"]] == [(1, 0.5), (2, 0.5), (4, 0.0)]
    assert [point["proxy"] for point in result["curve"]] == pytest.approx([2.5, 10 / 3, 4])
    assert [point["kl"] for point in result["curve"]] == pytest.approx([0, 0.193147, 0.636294], abs=1e-6)
    assert [point["gold_se"] for point in result["curve"]] == [None] * 3  # a single prompt
    assert (result["prompts"], result["n"], result["gold_mean"], result["gold_sd"]) == (1, 4, 0.5, 0.5)


def test_fit_goes_through_the_gains_of_three_sizes() -> None:
    fit = measure_best_of_n(PROXY, GOLD, {})["fit"]
    near, far = 0.193147**0.5, 0.636294**0.5
    # Gains 0 and -1/2: R(d) = d (alpha - beta d) is 0 at d = alpha / beta.
    assert fit["alpha"] / fit["beta"] == pytest.approx(near, abs=1e-5)
    assert fit["beta"] == pytest.approx(0.5 / (far * (far - near)), abs=1e-5)


def test_curve_of_two_draws_is_not_fitted() -> None:
    result = measure_best_of_n(PROXY[:, :2], GOLD[:, :2], {})
    assert [point["n"] for point in result["curve"]] == [1, 2] and result["fit"] is None


def test_sizes_are_powers_of_two_and_all_draws() -> None:
    draws = np.arange(6.0)[None]
    assert [point["n"] for point in measure_best_of_n(draws, draws, {})["curve"]] == [1, 2, 4, 6]


def test_members_of_an_ensemble_are_averaged() -> None:
    members = np.stack([PROXY + 1, PROXY - 1], axis=2)
    assert measure_best_of_n(members, GOLD, {}) == measure_best_of_n(PROXY, GOLD, {})


# Of gold 0, 1, 2, 3 the best of 1, 2, 4 by itself is 1.5, 2.5 of pairs (1, 2, 3, 2, 3, 3: 14 / 6), and 3.
@pytest.mark.parametrize(
    ("gold", "n"), [(-1, 1), (1.5, 1), (1.5 + 1e-12, 1), (1.6, 2), (14 / 6, 2), (2.5, 4), (3, 4), (3.1, None)]
)
def test_policy_is_worth_the_smallest_n_that_reaches_it(gold: float, n: int | None) -> None:
    ladder = np.arange(4.0)[None]
    assert measure_best_of_n(ladder, ladder, {"ppo": policy_point(gold)})["policies"]["ppo"]["equivalent_n"] == n


def test_baseline_is_worth_one_draw_of_itself() -> None:
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(30, 6))
    result = measure_best_of_n(gold, gold, {"same": PolicyPoint(0.0, gold, gold)})
    assert result["policies"]["same"]["equivalent_n"] == 1
    assert result["policies"]["same"]["proxy"] == pytest.approx(result["curve"][0]["proxy"])
    assert result["policies"]["same"]["gold"] == pytest.approx(result["gold_mean"])


def test_standard_error_of_a_policy_is_over_prompts() -> None:
    gold = np.array([[0.0, 2], [4, 6]])  # means 1 and 5, deviation sqrt(8), over sqrt(2) prompts
    policies = measure_best_of_n(None, gold, {"ppo": PolicyPoint(None, gold)})["policies"]
    row: dict[str, object] = {
        "kl": None,
        "gold": 3.0,
        "gold_se": 2.0,
        "proxy": None,
        "equivalent_n": None,
        "margins": [],
    }
    assert policies["ppo"] == row


def test_margins_are_paired_over_prompts() -> None:
    # Of the prompts, one response scores 1 and 11, the best of 2 scores 2 and 10; the policy scores 4 and 12.
    gold = np.array([[0.0, 2], [12, 10]])
    result = measure_best_of_n(np.array([[0.0, 1], [0, 1]]), gold, {"ppo": policy_point(4, 12)})
    # Differences 3 and 1, error 1; and 2 and 2, error 0: what prompts differ in cancels.
    assert result["policies"]["ppo"]["margins"] == [
        {"n": 1, "difference": 2.0, "se": 1.0},
        {"n": 2, "difference": 2.0, "se": 0.0},
    ]
    assert result["policies"]["ppo"]["gold_se"] == 4


def test_fall_and_rise_of_the_curve_are_paired() -> None:
    # The curve of one prompt is 0.5, 0.5, 0: see above; and that of another 10.5, 10.5, 11.
    result = measure_best_of_n(np.tile(PROXY, (2, 1)), np.array([[0.0, 1, 1, 0], [11, 10, 10, 11]]), {})
    assert result["fall"] == pytest.approx({"n_peak": 1, "difference": 0.0, "se": 0.5})
    assert result["rise"] == pytest.approx({"difference": 0.0, "se": 0.5})
    falling = measure_best_of_n(np.tile(PROXY, (2, 1)), np.array([[0.0, 2, 5, 1], [0, 1, 6, 1]]), {})
    # Best of 2: ranks weigh 0, 1/6, 1/3, 1/2, so 2.5 and 2.67; one response 2 and 2; all four 1 and 1.
    assert falling["fall"] == pytest.approx({"n_peak": 2, "difference": 19 / 12, "se": 1 / 12})
    assert falling["rise"] == pytest.approx({"difference": -1.0, "se": 0.0})
    alone = measure_best_of_n(PROXY, GOLD, {})
    assert (alone["fall"]["difference"], alone["fall"]["se"], alone["rise"]["difference"]) == (0.5, None, -0.5)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_gold_is_not_fitted(value: float) -> None:
    gold = np.full((3, 7), value)
    result = measure_best_of_n(np.random.default_rng(0).normal(size=(3, 7)), gold, {"same": PolicyPoint(1.0, gold)})
    assert result["fit"] is None and len(result["curve"]) == 4
    assert result["fall"]["difference"] == result["rise"]["difference"] == 0
    assert {margin["difference"] for margin in result["policies"]["same"]["margins"]} == {0.0}


def test_without_a_reward_model_there_is_no_curve() -> None:
    result = measure_best_of_n(None, GOLD, {})
    assert result["curve"] == [] and result["fit"] is None and result["gold_mean"] == 0.5
    assert "fall" not in result and "rise" not in result


# The report card on draws

FOUR = responses_of_words((1, 2, 3, 4))


@pytest.mark.parametrize(("factor", "accuracy", "spearman"), [(1, 1.0, 1.0), (-1, 0.0, -1.0), (0, 0.5, None)])
def test_card_of_a_perfect_inverted_and_constant_proxy(factor: int, accuracy: float, spearman: float | None) -> None:
    gold = np.array([[3.0, 1, 2, 0]])
    card = card_on_draws(FOUR, factor * gold, gold)
    assert (card["accuracy"], card["n"], card["pairs"]) == (accuracy, 1, 6)
    assert card["spearman"] == (None if spearman is None else pytest.approx(spearman))
    assert card["low"] < 0.5 < card["high"]  # one prompt is one vote


def test_card_leaves_out_pairs_that_the_judge_ties() -> None:
    # Of gold 0, 1, 1, 0 four pairs differ: of proxies (1, 2), (1, 3), (2, 4), (3, 4) the first two are right.
    card = card_on_draws(FOUR, PROXY, GOLD)
    assert (card["accuracy"], card["pairs"], card["n"]) == (0.5, 4, 1)
    assert card["longer_wins"]["rate"] == 0.5  # words rise with the proxy
    assert "disagreement" not in card


def test_longer_wins_counts_words() -> None:
    card = card_on_draws(responses_of_words((3, 3, 5)), np.array([[3.0, 2, 1]]), np.array([[0.0, 1, 2]]))
    # The longest is the best, and the other two are equally long: (1 + 1 + 1/2) / 3.
    assert card["accuracy"] == 0 and card["longer_wins"]["rate"] == pytest.approx(5 / 6)


def test_card_without_a_decided_pair_has_no_accuracy() -> None:
    assert card_on_draws(FOUR, PROXY, 0 * GOLD) == {"n": 0, "pairs": 0, "spearman": None}


def test_prompts_without_a_pair_do_not_count() -> None:
    draws = responses_of_words((1, 2), (1, 2))
    card = card_on_draws(draws, np.array([[1.0, 2], [1, 2]]), np.array([[1.0, 2], [1, 1]]))
    assert (card["n"], card["pairs"], card["accuracy"]) == (1, 1, 1.0)


def test_limits_of_many_prompts_are_a_bootstrap_over_them() -> None:
    # In 20 of 40 prompts all 6 pairs are right, in the others all are wrong: 240 pairs, but 40 votes.
    gold = np.tile(np.arange(4.0), (40, 1))
    card = card_on_draws(FOUR * 40, gold * np.repeat([1, -1], 20)[:, None], gold)
    assert (card["accuracy"], card["n"], card["pairs"]) == (0.5, 40, 240)
    assert card["high"] - card["low"] == pytest.approx(2 * 1.96 * 0.5 / 40**0.5, abs=0.05)


def test_disagreement_is_the_deviation_among_members() -> None:
    members = np.stack([PROXY, PROXY + 2], axis=2)
    card = card_on_draws(FOUR, members, GOLD)
    assert card["disagreement"] == pytest.approx(2**0.5)  # of x and x + 2, unbiased
    assert card["accuracy"] == card_on_draws(FOUR, PROXY, GOLD)["accuracy"]


# Scores


def test_equal_responses_are_scored_once() -> None:
    prompts = [Prompt.ask("One?"), Prompt.ask("Two?")]
    draws = [[Response(prompt.id, text, "base") for text in ("a", "b", "a")] for prompt in prompts]

    def count(aligned_prompts: object, responses: object) -> list[float]:
        assert isinstance(aligned_prompts, list) and isinstance(responses, list)
        assert [response.prompt for response in responses] == [prompt.id for prompt in aligned_prompts]
        return [float(n) for n in range(len(responses))]

    assert score_draws(count, prompts, draws).tolist() == [[0, 1, 0], [2, 3, 2]]


# Real draws of a tiny model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two policies."""
    folder = tmp_path_factory.mktemp("policies")
    return [tiny.make(folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture
def run(models: list[Path], tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(tmp_path / "run", str(models[0]), dtype="float32")) as run:
        yield run


@pytest.fixture
def prompts(run: Run) -> list[Prompt]:
    prompts = [Prompt.ask(f"Where is the {word}?") for word in ("duck", "frog", "boat")]
    run.store.add_prompts(prompts)
    return prompts


def draw(run: Run, model: Path, prompts: list[Prompt], n: int, sampling: Sampling = SAMPLING) -> list[list[Response]]:
    policy = "base" if str(model) == run.setup.model else str(model)
    return draw_responses(run, "evaluate", policy, tiny.load(model), prompts, n, sampling)


def texts(draws: list[list[Response]]) -> list[list[str]]:
    return [[response.text for response in row] for row in draws]


def num_stored(run: Run) -> int:
    return len(list(run.store.responses()))


def test_second_call_generates_nothing(run: Run, models: list[Path], prompts: list[Prompt]) -> None:
    first = draw(run, models[0], prompts, 4)
    assert [{response.prompt for response in row} for row in first] == [{prompt.id} for prompt in prompts]
    assert {len(row) for row in first} == {4} and num_stored(run) == 12
    assert all(len({response.text for response in row}) > 1 for row in first)
    model = tiny.load(models[0])
    model.model.base_model.register_forward_pre_hook(lambda *_: pytest.fail("the model was asked again"))
    second = draw_responses(run, "evaluate", "base", model, prompts, 4, SAMPLING)
    assert second == first and num_stored(run) == 12


def test_equal_draws_are_stored_and_returned(run: Run, models: list[Path], prompts: list[Prompt]) -> None:
    greedy = Sampling(temperature=0, max_new_tokens=6)
    for _ in range(2):
        draws = draw(run, models[0], prompts, 3, greedy)
        assert [len(row) for row in draws] == [3, 3, 3] and all(len({r.text for r in row}) == 1 for row in draws)


def test_interrupted_draws_continue(run: Run, models: list[Path], tmp_path: Path) -> None:
    prompts = [Prompt.ask(f"What is {number}?") for number in range(20)]
    run.store.add_prompts(prompts)
    complete = draw(run, models[0], prompts, 8)
    with open_run(Setup(tmp_path / "other", str(models[0]), dtype="float32")) as other:
        other.store.add_prompts(prompts)
        draw(other, models[0], prompts[: BATCH_SIZE // 8], 8)  # stopped after the first batch
        assert texts(draw(other, models[0], prompts, 8)) == texts(complete)


def test_proxy_is_the_reward_model_of_this_round(run: Run, models: list[Path]) -> None:
    judge = load_judge(run, "conciseness_rubric")
    assert load_proxy(run, judge) is None
    save(new_reward(models[0], seed=0), run.folder / "reward")
    assert load_proxy(run, judge) is not None
    assert load_proxy(run, load_judge(run, "reward")) is None  # it cannot be measured against itself


def test_two_policies_are_measured_end_to_end(run: Run, models: list[Path], prompts: list[Prompt]) -> None:
    save(new_reward(models[0], seed=0, heads=2), run.folder / "reward")
    judge = load_judge(run, "conciseness_rubric")
    proxy = load_proxy(run, judge)
    assert isinstance(judge, RewardJudge) and proxy is not None
    names = dict(zip(("base", "trained"), models, strict=True))
    draws = {name: draw(run, model, prompts, 4) for name, model in names.items()}
    gold = {name: score_draws(judge.score, prompts, rows) for name, rows in draws.items()}
    proxies = {name: score_draws(proxy.score, prompts, rows) for name, rows in draws.items()}
    assert gold["base"].shape == (3, 4) and proxies["base"].shape == (3, 4, 2)
    expected = conciseness_score(prompts[1].text, draws["trained"][1][2].text, draws["trained"][1][2].finished)
    assert gold["trained"][1, 2] == pytest.approx(expected)
    assert texts(draws["base"]) != texts(draws["trained"])

    points = {"trained": PolicyPoint(1.5, gold["trained"], proxies["trained"])}
    result = measure_best_of_n(proxies["base"], gold["base"], points)
    assert [point["n"] for point in result["curve"]] == [1, 2, 4]
    assert result["curve"][0]["gold"] == pytest.approx(result["gold_mean"])
    assert np.diff([point["proxy"] for point in result["curve"]]).min() > 0
    assert result["policies"]["trained"]["gold"] == pytest.approx(gold["trained"].mean())
    for name, rows in draws.items():
        card = card_on_draws(rows, proxies[name], gold[name])
        assert card["pairs"] > 0 and 0 <= card["low"] <= card["accuracy"] <= card["high"] <= 1
        assert card["disagreement"] > 0


def test_scores_of_a_model_keep_its_members() -> None:
    prompt = Prompt.ask("One?")
    draws = [[Response(prompt.id, text, "base") for text in "ab"]]

    def score(aligned_prompts: object, responses: object) -> Tensor:
        return torch.tensor([[1.0, 2], [3, 4]])

    table: Floats = score_draws(score, [prompt], draws)
    assert table.tolist() == [[[1, 2], [3, 4]]] and table.dtype == np.float64
