"""Rankings and ratings: from feedback to batches, with ties."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from assent.annotators.simulated import PROFILES, Simulated
from assent.batch import RankedScores
from assent.cli import main
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import read_file
from assent.functional.losses import kway_loss, plackett_luce_loss
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.models.forward import scores
from assent.models.load import LoadedModel, load_reward, new_reward
from assent.models.packing import pack
from assent.preferences.convert import standardise
from assent.preferences.unpaired import load_unpaired
from assent.records import Completion, Feedback, Preference, Prompt, RankedCompletions, Response, ScoredCompletion, Task
from assent.run import Setup, open_run
from assent.training.left_out import LeftOut
from assent.training.preferences import BATCH_SPECS, MAX_COMPLETIONS, group_by_prompt

PROMPT = Prompt.ask("Which planet is the largest?")
TEXTS = [Completion(text) for text in ("Jupiter.", "It is Jupiter, by far.", "Saturn.", "A large one, I think.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def reward_model(folder: Path) -> LoadedModel:
    return new_reward(folder, seed=0)


def reference_score(reward_model: LoadedModel, text: Completion) -> torch.Tensor:
    """Return the score of one completion by transformers alone: one row without padding."""
    encoded = reward_model.chat_tokenizer.encode(PROMPT, text)
    ids = torch.tensor([[*encoded.prompt_ids, *encoded.completion_ids]])
    result: torch.Tensor = reward_model.model(input_ids=ids).logits[0, 0]
    return result


def test_ranking_is_one_group_with_each_completion_once(reward_model: LoadedModel) -> None:
    a, b, c, d = TEXTS
    groups, left_out = group_by_prompt(
        [RankedCompletions(PROMPT, ((a,), (b, c), (d,)), 2.0)], reward_model.chat_tokenizer, 256
    )
    (group,) = groups
    assert left_out == LeftOut() and len(group.tokens.completions) == 4 and len(group.pairs) == 5
    assert group.rankings[0].tiers == (0, 1, 1, 2) and group.rankings[0].weight == 2.0
    assert group.tokens.num_tokens == len(group.tokens.prefix) + sum(map(len, group.tokens.completions))
    scored = scores(reward_model.model, pack([group.tokens]))[:, 0]
    batch = BATCH_SPECS[RankedScores].build(scored, groups, 2.0)
    expected = torch.stack([reference_score(reward_model, text) for text in TEXTS])[None]
    tiers = torch.tensor([[0, 1, 1, 2]])
    for loss in (kway_loss, plackett_luce_loss):
        assert torch.allclose(loss(batch.scores, batch.tiers, batch.mask), loss(expected, tiers), atol=1e-5)


def test_rankings_of_several_sizes_fit_in_one_batch(reward_model: LoadedModel) -> None:
    a, b, c, d = TEXTS
    second_prompt = Prompt.ask("Which planet is the smallest?")
    examples = [
        RankedCompletions(PROMPT, ((a,), (b,), (c,), (d,))),
        RankedCompletions(second_prompt, ((b,), (c,)), 3.0),
        RankedCompletions(PROMPT, ((d,), (a,))),
    ]
    groups, _ = group_by_prompt(examples, reward_model.chat_tokenizer, 256)
    assert [len(group.tokens.completions) for group in groups] == [4, 2]
    batch = BATCH_SPECS[RankedScores].build(
        scores(reward_model.model, pack([t.tokens for t in groups]))[:, 0], groups, 0.0
    )
    assert batch.mask.sum(1).tolist() == [4, 2, 2] and batch.weight.tolist() == [1.0, 1.0, 3.0]
    # the second ranking of the first prompt names its last completion first
    assert batch.scores[1, 0] == batch.scores[0, 3] and batch.scores[1, 1] == batch.scores[0, 0]


def test_comparison_is_a_ranking_of_two_and_a_tie_is_none(reward_model: LoadedModel) -> None:
    sure = Preference(PROMPT, Completion("Jupiter."), Completion("Saturn."))
    examples = [sure, replace(sure, p_chosen=0.75), replace(sure, p_chosen=0.5)]
    (group,), _ = group_by_prompt(examples, reward_model.chat_tokenizer, 256)
    assert [(r.indices, r.tiers, r.weight) for r in group.rankings] == [
        ((0, 1), (0, 1), 1.0),
        ((0, 1), (0, 1), 0.75),
        ((1, 0), (0, 1), 0.25),
    ]


def test_ranking_drops_completions_that_are_too_long(reward_model: LoadedModel) -> None:
    long = Completion("very " * 200)
    examples = [RankedCompletions(PROMPT, ((TEXTS[0],), (long,), (TEXTS[2],)))]
    (group,), left_out = group_by_prompt(examples, reward_model.chat_tokenizer, 100)
    assert left_out == LeftOut(too_long=2) and len(group.tokens.completions) == 2 and group.rankings[0].tiers == (0, 2)
    assert group_by_prompt([RankedCompletions(PROMPT, ((TEXTS[0],), (long,)))], reward_model.chat_tokenizer, 100) == (
        [],
        LeftOut(too_long=1),
    )


def test_ranking_is_never_split_over_groups(reward_model: LoadedModel) -> None:
    many = [Completion(f"Answer number {i}.") for i in range(2 * MAX_COMPLETIONS)]
    examples = [
        RankedCompletions(PROMPT, tuple((text,) for text in many[:20])),
        RankedCompletions(PROMPT, ((many[21],), (many[22],))),
    ]
    groups, _ = group_by_prompt(examples, reward_model.chat_tokenizer, 256)
    assert [len(group.tokens.completions) for group in groups] == [20, 2]


def test_ratings_are_standardised_by_annotator() -> None:
    values = {"mild": (0.8, 1.0, 0.9), "severe": (0.0, 0.4, 0.2), "bored": (0.5, 0.5, 0.5)}
    labels, events = [], []
    for annotator, ratings in values.items():
        for i, value in enumerate(ratings):
            event = Feedback("q", annotator, Rating((("overall", 4),)), "2026-01-01T00:00:00Z", id=f"{annotator}{i}")
            events.append(event)
            labels.append(
                ScoredCompletion(
                    Prompt.ask(f"Question {i}?"), Completion("An answer."), value, feedback_ids=(event.id,)
                )
            )
    train = {Prompt.ask(f"Question {i}?").id for i in range(2)}
    # Mean and deviation of the first two: 0.9 and 0.1, 0.2 and 0.2; "bored" has no deviation and is left out.
    standardised = standardise(labels, events, train)
    assert [label.value for label in standardised] == pytest.approx(
        [-1, 1, 0, -1, 1, 0]
    )  # the third is not in the training split: the scale is that of the first two


@pytest.mark.parametrize("kind", ["ranking", "rating"])
def test_rankings_and_ratings_round_trip_through_a_file(kind: str, tmp_path: Path) -> None:
    rows = {
        "ranking": {"prompt": "Once", "completions": [" a", " b", " c"], "ranks": [2, 1, 2], "weight": 2.0},
        "rating": {"prompt": "Once", "completion": " a", "rating": 4.0},
    }
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(rows[kind]) + "\n")
    reading = read_file(file)
    assert reading.format == kind and not reading.skipped
    write_file(reading.examples, tmp_path / "back.jsonl", kind)
    back = json.loads((tmp_path / "back.jsonl").read_text())
    assert read_file(tmp_path / "back.jsonl").feedback[0].judgement == reading.feedback[0].judgement
    if kind == "ranking":
        assert isinstance(reading.feedback[0].judgement, Ranking)
        assert [back["completions"], back["ranks"]] == [[" b", " a", " c"], [1, 2, 2]]
    else:
        assert reading.feedback[0].judgement == Rating((("overall", 4.0),)) and back == rows["rating"]


BROKEN_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"completions": [" a", " b"], "ranks": [1]}, "not two lists of the same length"),
    ({"completions": [" a"], "ranks": [1]}, "not two lists of the same length"),
    ({"completions": [" a", " b"], "ranks": [1, "2"]}, "not a list of numbers"),
    ({"completions": [" a", " a"], "ranks": [1, 2]}, "identical replies"),
    ({"completions": [" a", " "], "ranks": [1, 2]}, "empty reply"),
]


@pytest.mark.parametrize(("row", "reason"), BROKEN_ROWS)
def test_broken_ranking_is_rejected_with_the_reason(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = {"prompt": "Once", "completions": [" a", " b"], "ranks": [1, 2]}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(r) for r in (good, {"prompt": "Once", **row})))
    reading = read_file(tmp_path / "rows.jsonl")
    assert len(reading.feedback) == 1 and len(reading.skipped) == 1 and reason in reading.skipped[0].reason


def test_simulated_ranking_of_two_equals_a_comparison() -> None:
    good, bad = (Response(PROMPT.id, text, "p") for text in ("The largest planet of all is Jupiter.", "Saturn"))
    annotators = Simulated(profiles=("high_noise",))
    kinds = ["ranking"] * 400 + ["comparison"] * 400
    tasks = [Task(kind, PROMPT.id, (good.id, bad.id), instruction=str(i)) for i, kind in enumerate(kinds)]
    feedback = list(
        annotators.annotate(tasks, {PROMPT.id: PROMPT}, {r.id: r for r in (good, bad)}, 0, datetime.now(UTC))
    )
    first = [
        getattr(e.judgement, "tiers", ((getattr(e.judgement, "preferred", ""),),))[0][0] == good.id for e in feedback
    ]
    ranked, compared = sum(first[:400]) / 400, sum(first[400:]) / 400
    assert abs(ranked - compared) < 0.1 and 0.5 < ranked <= 1 - PROFILES["high_noise"].error_prob / 2


def test_rankings_are_labelled_trained_on_and_evaluated(folder: Path, tmp_path: Path) -> None:
    run = ["--run", str(tmp_path / "run"), "--model", str(folder), "--device", "cpu", "--dtype", "float32"]
    counts = ["--num-prompts", "12", "--n", "4", "--n-held-out", "3"]
    assert main(["generate", *run, *counts, "--max-new-tokens", "8"]) == 0
    assert main(["label", *run, "--kind", "ranking"]) == 0
    assert main(["reward", *run, "--objective", "kway", "--lr", "1e-3", "--batch-size", "4", "--epochs", "2"]) == 0
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert result["rankings"] > 0 and result["n"] > 0 and 0 <= result["accuracy"] <= 1
    losses = [line["loss"] for line in metrics_of(tmp_path / "run") if line["stage"] == "reward"]
    # A new reward model has scores near 0, and a pair of equal scores the loss ln 2 = 0.693.
    assert losses[0] == pytest.approx(0.69, abs=0.1) and all(torch.isfinite(torch.tensor(losses)))
    assert load_reward(tmp_path / "run" / "reward").model.config.num_labels == 1
    assert 'objective = "kway"' in (tmp_path / "run" / "recipe.toml").read_text()
    assert main(["reward", *run, "--objective", "plackett_luce", "--lr", "1e-3", "--overwrite"]) == 0
    assert main(["dpo", *run, "--lr", "1e-4"]) == 0  # DPO reads rankings as pairs


def test_reward_model_learns_from_ratings(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question {i}: ", "completion": text, "rating": stars}
        for i in range(40)
        for text, stars in ((" yes yes yes", 6), (" no no no", 2))
    ]
    (tmp_path / "ratings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = ["--run", str(tmp_path / "run"), "--model", str(folder), "--device", "cpu", "--dtype", "float32"]
    assert main(["import", str(tmp_path / "ratings.jsonl"), "--run", str(tmp_path / "run")]) == 0
    assert (
        main(["reward", *run, "--objective", "regression", "--lr", "3e-3", "--batch-size", "4", "--epochs", "3"]) == 0
    )
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert result["ratings"] > 20 and result["spearman"] > 0.8


def test_objective_of_another_stage_is_refused_by_name(folder: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["reward", "--run", str(tmp_path / "run"), "--model", str(folder), "--objective", "dpo"]) == 2
    assert "'bradley_terry'" in capsys.readouterr().err
    assert main(["reward", "--run", str(tmp_path / "run"), "--model", str(folder), "--objective", "kway"]) == 2
    assert "holds no rankings" in capsys.readouterr().err
    assert main(["reward", "--run", str(tmp_path / "run"), "--objective", "kway", "--nu", "2"]) == 2
    assert "no flag '--nu" in capsys.readouterr().err


def test_reason_for_a_lack_of_training_examples_is_named(folder: Path, tmp_path: Path, capsys: Any) -> None:
    rows = {
        "ties": {"prompt": "Once", "completions": [" a", " b"], "ranks": [1, 1]},
        "alike": {"prompt": "Once", "completion": " a", "rating": 4},
        "long": {"prompt": "Once", "completions": [" a b c d e f", " b"], "ranks": [1, 2]},
    }
    expected = {
        "ties": (["--objective", "kway"], "express no preference: all are ties, or equal"),
        "alike": (["--objective", "regression"], "the ratings of"),
        "long": (["--max-length", "4"], "all 1 pairs of"),
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
        run = ["--run", str(tmp_path / name), "--model", str(folder), "--held-out", "0"]
        assert (
            main(["import", str(tmp_path / f"{name}.jsonl"), "--run", str(tmp_path / name), "--no-apply-chat-template"])
            == 0
        )
        flags, reason = expected[name]
        assert main(["reward", *run, *flags]) == 2
        assert reason in capsys.readouterr().err


def test_ratings_above_the_middle_are_desirable_to_kto(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Once", "completion": f" {i}", "rating": i} for i in range(1, 8)]
    (tmp_path / "ratings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    setup = Setup(tmp_path / "run", str(folder), held_out=0.0)
    assert (
        main(["import", str(tmp_path / "ratings.jsonl"), "--run", str(tmp_path / "run"), "--no-apply-chat-template"])
        == 0
    )
    with open_run(setup) as run:
        (unpaired,), held_out, _ = load_unpaired(run, tiny.load(folder).chat_tokenizer, 100)
    assert not held_out and sorted(unpaired.desirable) == [False, False, False, True, True, True]  # 4 is neither
