"""The arena and win rates by annotators: choice of pairs, and rates and ratings from judgements."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import exp
from pathlib import Path
from typing import ClassVar

import pytest
import tiny

from assent.config import NamedPlugin, override
from assent.errors import AssentError
from assent.evaluation.candidates import held_out_prompts
from assent.evaluation.judges import AnnotatorJudge, RewardJudge, load_judge
from assent.evaluation.win_rates import Outcome, compute_win_rates
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.functional.statistics import clustered_win_rate, win_rate
from assent.generation.sampling import Sampling
from assent.labelling.arena import PolicyRating, RatingTable, rate_policies
from assent.labelling.queue import TaskQueue
from assent.models.checkpoints import save
from assent.models.load import new_reward
from assent.records import CHAT, Feedback, Judgement, Prompt, Response, Task
from assent.run import Run, Setup, open_run
from assent.stages.arena import WAVE_SIZE, Arena
from assent.stages.evaluate import Evaluate

SHORT = Sampling(temperature=1.0, max_new_tokens=8)
POLICIES = ("poor", "fair", "good", "best")


@dataclass(frozen=True)
class BradleyTerry:
    """Annotators who prefer the responses of some policies, by Bradley-Terry."""

    batch_size: ClassVar[int] = 50
    is_human: ClassVar[bool] = True
    utilities: Mapping[str, float]
    votes: int = 1

    def annotate(
        self, tasks: Iterable[Task], prompts: Mapping[str, Prompt], responses: Mapping[str, Response], seed: int,
        now: datetime, queue: TaskQueue, batch: str,
    ) -> Iterator[Feedback]:  # fmt: skip
        for task in tasks:
            rng = random.Random(task.id)
            first, second = (self.utility(responses[item]) for item in task.items)
            for vote in range(self.votes):
                prefers_first = rng.random() < 1 / (1 + exp(second - first))
                annotator = f"annotator {rng.randrange(40)}" + (f", vote {vote}" if vote else "")
                yield Feedback(task.id, annotator, Comparison(task.items[not prefers_first]), now.isoformat())

    def utility(self, response: Response) -> float:
        return next(value for name, value in self.utilities.items() if f"{name}#" in response.policy + "#")


EQUAL = BradleyTerry(dict.fromkeys(POLICIES, 0.0))
UNEQUAL = BradleyTerry({"poor": -2.5, "fair": -1.5, "good": 0.0, "best": 1.5})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run with four models, and prompts of which half are held out."""
    folder = tmp_path / "run"
    for seed, name in enumerate(POLICIES):
        tiny.make(folder / name, seed=seed)
    setup = Setup(run=folder, model=str(folder / "poor"), held_out=0.5, dtype="float32", device="cpu")
    with open_run(setup) as run:
        run.store.add_prompts(Prompt.ask(f"Tell me of number {n}.") for n in range(160))
        yield run


def count_pairs(run: Run) -> Counter[tuple[str, ...]]:
    """Count how often each two policies were compared."""
    policies = {response.id: response.policy for response in run.store.responses()}
    pairs = (
        sorted(name for name in POLICIES if any(f":{name}" in policies[item] for item in task.items))
        for task in run.store.tasks()
    )
    return Counter(tuple(pair) for pair in pairs)


def test_even_pairs_are_compared_equally_often(run: Run) -> None:
    arena = Arena(POLICIES, sampling=SHORT, annotator=EQUAL)
    result = arena(run, "arena")
    pairs = count_pairs(run)
    assert len(pairs) == 6 and max(pairs.values()) - min(pairs.values()) <= 1
    assert result["comparisons"] == sum(pairs.values()) == run.store.counts().feedback
    assert set(result["policies"]) == set(POLICIES)


def test_best_pairs_find_the_best_policy(run: Run) -> None:
    arena = Arena(POLICIES, tasks_per_prompt=2, pairs="best", sampling=SHORT, annotator=UNEQUAL)
    result = arena(run, "arena")
    assert next(iter(result["policies"])) == "best"
    pairs = count_pairs(run)
    assert pairs["best", "good"] > 2 * pairs["fair", "poor"]
    assert sum(pairs.values()) <= 2 * result["prompts"]
    ids = [event.id for event in run.store.feedback()]
    assert len(ids) > 2 * WAVE_SIZE
    assert arena(run, "arena") == result  # all tasks are judged already
    assert [event.id for event in run.store.feedback()] == ids


def test_best_pairs_of_equal_policies_rate_them_equal(run: Run) -> None:
    arena = Arena(POLICIES, tasks_per_prompt=2, pairs="best", sampling=SHORT, annotator=EQUAL)
    rows = arena(run, "arena")["policies"].values()
    low, high = max(row["low"] for row in rows), min(row["high"] for row in rows)
    assert low <= 1000 <= high  # every interval contains the baseline's rating


def test_prompts_of_chats_are_not_compared(run: Run) -> None:
    arena = Arena(POLICIES, sampling=SHORT, annotator=EQUAL)
    result = arena(run, "arena")
    before = run.store.counts()
    run.store.add_prompts(Prompt.ask(f"And how are you, {n}?", source=CHAT) for n in range(20))
    assert arena(run, "arena") == result
    assert run.store.counts()._replace(prompts=before.prompts) == before


def test_arena_refuses_a_single_policy(run: Run) -> None:
    with pytest.raises(AssentError, match="train one, or name some"):
        replace(Arena(("poor",), sampling=SHORT))(run, "arena")


# Win rates by a judge


def evaluate_by(annotator: BradleyTerry) -> Evaluate:
    return Evaluate(
        ("fair", "best"), "poor", judge="human", judge_plugins=(NamedPlugin("human", annotator),), sampling=SHORT
    )


def test_evaluate_asks_an_annotator(run: Run) -> None:
    result = evaluate_by(UNEQUAL)(run, "evaluate")
    assert result["judge"] == "human" and result["baseline"] == "poor"
    policies = result["policies"]
    assert list(policies) == ["poor", "fair", "best"]
    assert policies["best"]["win"]["low"] > 0.8  # its odds are e^4
    assert 0.5 < policies["fair"]["win"]["rate"] < policies["best"]["win"]["rate"]
    assert policies["best"]["judge_score"] is None and "win" not in policies["poor"]
    for policy in ("fair", "best"):
        win = policies[policy]["win"]
        assert win == win_rate(win["wins"], win["ties"], win["losses"])._asdict()
        assert win["n"] == result["prompts"]


def test_evaluate_reuses_the_judgements_of_the_arena(run: Run) -> None:
    policies = ("poor", "fair", "best")
    arena = Arena(policies, tasks_per_prompt=3, sampling=SHORT, annotator=UNEQUAL)
    arena(run, "evaluate")  # under this key the responses are those of the evaluation
    before = run.store.counts()
    evaluate_by(UNEQUAL)(run, "evaluate")
    assert run.store.counts() == before


def test_several_votes_on_a_prompt_are_clustered(run: Run) -> None:
    result = evaluate_by(replace(UNEQUAL, votes=3))(run, "evaluate")
    win = result["policies"]["fair"]["win"]
    assert win["n"] == 3 * result["prompts"] == win["wins"] + win["ties"] + win["losses"]
    prompts = held_out_prompts(run)[:6]
    outcomes = [Outcome(prompt, value) for prompt in prompts for value in (1.0, 0.5, 0.0)[: 1 + len(prompt.id) % 3]]
    outcomes += [Outcome(prompts[0], 1.0)]
    values = [outcome.value for outcome in outcomes]
    labels = [outcome.prompt.id for outcome in outcomes]
    assert compute_win_rates(outcomes).overall == clustered_win_rate(values, labels)


def test_identical_responses_tie_without_a_task(run: Run) -> None:
    prompts = held_out_prompts(run)[:3]
    same = [Response(prompt.id, "The same words.", "one#1") for prompt in prompts]
    judge = AnnotatorJudge("human", UNEQUAL)
    responses = {"base": same, "ppo": [replace(response, policy="two#1") for response in same]}
    judged = judge.compare(run, "evaluate", prompts, responses, "base")
    assert [outcome.value for outcome in judged.outcomes["ppo"]] == [0.5] * 3
    assert run.store.counts().tasks == 0 and judged.decided == []


def test_reward_judge_prefers_the_higher_score(run: Run) -> None:
    (prompt,) = held_out_prompts(run)[:1]
    good = Response(prompt.id, "The number seven is the luckiest of all the numbers.", "good#1")
    bad = Response(prompt.id, "no no no", "bad#1", finished=False)
    run.store.add_responses([good, bad])
    judge = load_judge(run, "conciseness_rubric")
    assert isinstance(judge, RewardJudge)
    judged = judge.compare(run, "evaluate", [prompt], {"base": [bad], "ppo": [good]}, "base")
    assert judged.outcomes == {"ppo": [Outcome(prompt, 1.0)]} and judged.scores["ppo"] > judged.scores["base"]
    (event,) = run.store.feedback()
    assert event.judgement == Comparison(preferred=good.id)
    assert (event.annotator, event.source) == ("judge:conciseness_rubric", "scorer")


def test_evaluate_without_a_reward_model_asks_for_a_judge(run: Run) -> None:
    with pytest.raises(AssentError, match="has no reward model to judge with; name a judge with --judge"):
        Evaluate(("best",), "poor", sampling=SHORT)(run, "evaluate")


def test_evaluate_warns_that_the_reward_model_is_biased(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(new_reward(run.policy("poor"), 0), run.folder / "reward")
    result = Evaluate(("best",), "poor", sampling=SHORT)(run, "evaluate")
    assert result["judge"] == "reward"
    assert "the judge is the run's own reward model 'reward': its win rates are biased" in capsys.readouterr().err
    named = Evaluate(("best",), "poor", judge="reward", sampling=SHORT)(run, "evaluate")
    assert named == result
    assert "biased" not in capsys.readouterr().err


def test_evaluate_takes_a_judge_that_is_a_plain_class(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "length.py"
    file.write_text(
        "import torch\n\n\nclass Length:\n    def score(self, prompts, responses):\n"
        "        return torch.tensor([float(len(response.text)) for response in responses])\n"
    )
    stage = override(Evaluate(("best",), "poor", sampling=SHORT), {"judge": str(file)}, "evaluate")
    result = stage(run, "evaluate")
    assert result["judge"] == str(file) and str(file) in result["weights"]
    assert result["policies"]["best"]["judge_score"] > 0


def test_settings_of_the_judge_are_settings_of_evaluate() -> None:
    evaluate = override(Evaluate(), {"judge": "human", "wait": 0.0}, "evaluate")
    assert evaluate.judge == "human"
    ((name, annotator),) = evaluate.judge_plugins
    assert (name, annotator.wait) == ("human", 0.0)
    assert override(Evaluate(), {"judge": "human,simulated"}, "evaluate").judge_plugins == ()  # one name, unknown
    with pytest.raises(AssentError, match="evaluate has no setting 'wait'"):
        override(Evaluate(), {"judge": "conciseness_rubric", "wait": 0.0}, "evaluate")


# Counts of the rating table

POLICIES_BY_ITEM = {"x": frozenset({"a"}), "y": frozenset({"b"}), "z": frozenset({"c"}), "xy": frozenset({"a", "b"})}


def rate(*votes: tuple[str, Task, Judgement], corrected: Judgement | None = None) -> RatingTable:
    """Rate policies by votes of annotators; `corrected` supersedes the last vote."""
    events = [
        Feedback(task.id, annotator, judgement, f"2026-01-01T{n:06}")
        for n, (annotator, task, judgement) in enumerate(votes)
    ]
    if corrected:
        events += [replace(events[-1], judgement=corrected, supersedes=events[-1].id, id="corrected")]
    return rate_policies(events, {task.id: task for _, task, _ in votes}, POLICIES_BY_ITEM)


def counts(ratings: RatingTable) -> dict[str, tuple[int, int, int]]:
    return {row.policy: (row.wins, row.ties, row.losses) for row in ratings.rows}


def pair(*items: str, prompt: str = "p") -> Task:
    return Task("comparison", prompt, items, "evaluate")


def test_shared_response_wins_once_for_each_of_its_policies() -> None:
    ratings = rate(("ann", pair("xy", "z"), Comparison("xy")))
    assert counts(ratings) == {"a": (1, 0, 0), "b": (1, 0, 0), "c": (0, 0, 1)}
    assert (ratings.comparisons, ratings.annotators) == (1, 1)


def test_shared_response_does_not_rank_its_policies() -> None:
    ratings = rate(("ann", pair("xy", "x"), Comparison("x")), ("ann", pair("y", "z"), Comparison(verdict="tie")))
    assert counts(ratings) == {"b": (0, 1, 0), "c": (0, 1, 0)}
    assert ratings.comparisons == 1


def test_ranking_of_three_counts_as_three_comparisons() -> None:
    task = Task("ranking", "p", ("x", "y", "z"), "evaluate")
    ratings = rate(("ann", task, Ranking((("x",), ("y", "z")))))
    assert counts(ratings) == {"a": (2, 0, 0), "b": (0, 1, 1), "c": (0, 1, 1)}
    assert (ratings.comparisons, ratings.annotators) == (3, 1)


def test_all_comparisons_of_one_annotator_count() -> None:
    ratings = rate(("ann", pair("x", "y"), Comparison("x")), ("ann", pair("x", "z"), Comparison("x")))
    assert counts(ratings) == {"a": (2, 0, 0), "b": (0, 0, 1), "c": (0, 0, 1)}
    assert (ratings.comparisons, ratings.annotators) == (2, 1)


def test_superseded_feedback_does_not_count() -> None:
    vote = ("ann", pair("x", "y"), Comparison("x"))
    assert counts(rate(vote, corrected=Comparison("y"))) == {"a": (0, 0, 1), "b": (1, 0, 0)}
    assert rate(vote, corrected=Comparison(verdict="cannot tell")) == RatingTable((), 0, 0, False, {})


@pytest.mark.parametrize("verdicts", [("tie", "tie"), ("x", "y")])
def test_ties_in_every_prompt_still_have_an_interval(verdicts: tuple[str, str]) -> None:
    votes = [
        (
            f"annotator {side}",
            pair("x", "y", prompt=f"p{n}"),
            Comparison(verdict="tie") if v == "tie" else Comparison(v),
        )
        for n in range(40)
        for side, v in enumerate(verdicts)
    ]
    ratings = rate(*votes)
    assert ratings.clusters == {"prompts": 40}

    def width(row: PolicyRating) -> float:
        return row.high - row.low

    # 80 votes of which half are wins: the logit has variance 1 / (80 / 4), and the mean of the two players is at 1000.
    assert [width(row) for row in ratings.rows] == pytest.approx([1.96 * 173.72 * (4 / 80) ** 0.5] * 2, rel=1e-3)
