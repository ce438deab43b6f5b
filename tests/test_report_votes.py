"""What the report says of a judge's votes: the settings of the judge, later verdicts, policies without votes."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from assent.evaluation.candidates import Candidate, held_out_prompts
from assent.evaluation.judges import Judged, load_judge
from assent.evaluation.win_rates import Outcome
from assent.records import Prompt, Response
from assent.report.comparisons import read_comparisons
from assent.report.formatting import percent
from assent.report.rounds import find_rounds, read_results
from assent.report.terminal import summary_table
from assent.report.verdict import headline, missed_targets
from assent.rewards.length_penalty import LengthPenalty
from assent.run import Run, Setup, open_run
from assent.stages.evaluate import measure_policy
from assent.tools.report import Report

WORDS = {"base": 6, "ppo": 2, "dpo": 6}
"""Words of each policy's responses."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(run=tmp_path / "demo", model="a/model", held_out=0.5)) as run:
        run.store.add_prompts(Prompt.ask(f"Name {n} birds.", ("creative", "knowledge")[n % 2]) for n in range(20))
        yield run


def responses_of(run: Run) -> dict[str, list[Response]]:
    responses = {
        policy: [Response(prompt.id, f"{policy} " + "so " * (count - 1), policy) for prompt in held_out_prompts(run)]
        for policy, count in WORDS.items()
    }
    run.store.add_responses(item for items in responses.values() for item in items)
    return responses


def finish(run: Run, judge: str, judged: Judged, settings: dict[str, Any] | None = None) -> None:
    """Finish the stage `evaluate` with a judge's votes."""
    responses = responses_of(run)
    run.recipe["evaluate"] = {"judge": judge, **(settings or {})}
    policies = [
        Candidate(name, items, None if name == "base" else 1.5)
        for name, items in responses.items()
        if name == "base" or name in judged.outcomes
    ]
    result = {
        "baseline": "base",
        "judge": judge,
        "prompts": len(held_out_prompts(run)),
        "policies": {item.policy: measure_policy(item, judged, policies[0]).to_dict() for item in policies},
    }
    run.finish("evaluate", result)


def evaluate(run: Run, target_words: int) -> Judged:
    """Finish an evaluation by a length penalty with this target."""
    judge = load_judge(run, "length_penalty", LengthPenalty(target_words))
    judged = judge.compare(run, "evaluate", held_out_prompts(run), responses_of(run), "base")
    finish(run, "length_penalty", judged, {"target_words": target_words})
    return judged


def report(run: Run) -> str:
    Report()(run, "report")
    return re.sub(r"\s+", " ", (run.folder / "report.html").read_text(encoding="utf-8")).replace("\u00a0", " ")


def in_terminal(run: Run) -> str:
    out = io.StringIO()
    Console(width=120, file=out).print(summary_table(run.folder))
    return out.getvalue()


def first_sentence(run: Run) -> str:
    results = read_results(run.folder)
    return headline(find_rounds(results), results)


def test_report_scores_with_the_settings_of_the_evaluation(run: Run) -> None:
    evaluate(run, target_words=4)
    (round_,) = find_rounds(read_results(run.folder))
    comparisons = read_comparisons(run, round_)
    # By hand: the penalty is 6 / 4 - 1 for six words, and 0 for two; with the default target both are 0.
    assert {response.score for response in comparisons.by_policy["base"].values()} == {-0.5}
    assert {response.score for response in comparisons.by_policy["ppo"].values()} == {0.0}


def test_second_evaluation_supersedes_verdicts_that_differ(run: Run) -> None:
    num_prompts = len(held_out_prompts(run))
    for target, value, outcome in ((4, 1.0, "won"), (50, 0.5, "tied"), (4, 1.0, "won")):
        votes = evaluate(run, target).outcomes["ppo"]
        assert {vote.value for vote in votes} == {value}
        (round_,) = find_rounds(read_results(run.folder))
        assert round_.compared["ppo"]["win"]["rate"] == value
        shown = read_comparisons(run, round_).by_policy["ppo"].values()
        assert {response.outcome for response in shown} == {outcome}
    assert len(list(run.store.feedback(current=True))) == 2 * num_prompts  # of ppo and of dpo
    assert run.store.counts().feedback == 4 * num_prompts  # dpo was a tie each time
    evaluate(run, 4)
    assert run.store.counts().feedback == 4 * num_prompts
    assert run.store.verify() == 4 * num_prompts


def votes_on(prompts: list[Prompt], values: tuple[float, ...]) -> list[Outcome]:
    return [Outcome(prompt, value) for prompt in prompts for value in values]


def test_report_of_a_policy_without_votes_in_a_category(run: Run) -> None:
    prompts = held_out_prompts(run)
    creative = [prompt for prompt in prompts if prompt.category == "creative"]
    outcomes = {"ppo": votes_on(creative, (1.0,)), "dpo": votes_on(prompts, (0.0,))}
    finish(run, "human", Judged(outcomes, {}, []))
    html = report(run)
    for category in ("creative", "knowledge"):
        count = sum(prompt.category == category for prompt in prompts)
        assert f"<th>{category}, {count} prompts</th>" in html
    (row,) = re.findall(r"<tr><td>PPO<span[^>]*>, by category.*?</tr>", html)
    assert row.endswith("<td></td></tr>") and row.count(percent(1.0)) > 0


def test_report_of_a_policy_without_any_vote(run: Run) -> None:
    prompts = held_out_prompts(run)
    finish(run, "human", Judged({"ppo": [], "dpo": votes_on(prompts, (1.0,))}, {}, []))
    assert read_results(run.folder)["evaluate"]["policies"]["ppo"]["win"]["rate"] is None
    html = report(run)
    assert '<td data-label="Win rate">not judged</td>' in html
    sentence = first_sentence(run)
    assert sentence.startswith("PPO was not judged; DPO wins 100 % [")
    assert sentence.endswith(f"] of {len(prompts)} held-out prompts against the base model.")
    assert missed_targets(find_rounds(read_results(run.folder))) == ["PPO was not judged, so it has no win rate."]
    assert re.search(r"PPO +not judged ", in_terminal(run))
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["win_rate"].keys() == {"dpo"} and summary["kl"].keys() == {"ppo", "dpo"}


def test_report_of_a_round_without_any_vote(run: Run) -> None:
    finish(run, "human", Judged({"ppo": [], "dpo": []}, {}, []))
    assert first_sentence(run) == "PPO was not judged; DPO was not judged."
    assert "not judged" in report(run) and "not judged" in in_terminal(run)
    assert "All targets met" not in report(run)


def test_report_counts_prompts_and_votes_apart(run: Run) -> None:
    prompts = held_out_prompts(run)
    finish(run, "human", Judged({"ppo": votes_on(prompts, (1.0, 1.0, 0.0))}, {}, []))
    votes = f"of {3 * len(prompts)} votes on {len(prompts)} held-out prompts against the base model"
    assert votes in first_sentence(run)
    html = report(run)
    for category in ("creative", "knowledge"):
        count = sum(prompt.category == category for prompt in prompts)
        assert f"<th>{category}, {count} prompts</th>" in html and f"{3 * count} votes" in html
