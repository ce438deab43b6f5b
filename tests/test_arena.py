"""The arena: which policies meet, what is asked of whom, and that the best of several is found with fewer answers."""

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

from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.generation.local import Sampling
from assent.labelling.arena import Row, Table, table
from assent.labelling.queue import TaskQueue
from assent.records import CHAT, Feedback, Judgement, Prompt, Response, Task
from assent.run import Run, Setup, open_run
from assent.stages.arena import WAVE, Arena

SHORT = Sampling(temperature=1.0, max_new_tokens=8)
POLICIES = ("poor", "fair", "good", "best")


@dataclass(frozen=True)
class Fans:
    """People who like some policies' answers better, by Bradley-Terry."""

    batch_size: ClassVar[int] = 50
    human: ClassVar[bool] = True
    taste: Mapping[str, float]

    def answer(
        self, queries: Iterable[Task], prompts: Mapping[str, Prompt], responses: Mapping[str, Response], seed: int,
        now: datetime, desk: TaskQueue, batch: str,
    ) -> Iterator[Feedback]:  # fmt: skip
        for query in queries:
            luck = random.Random(query.id)
            one, other = (self.of(responses[item]) for item in query.items)
            first = luck.random() < 1 / (1 + exp(other - one))
            yield Feedback(query.id, f"fan {luck.randrange(40)}", Comparison(query.items[not first]), now.isoformat())

    def of(self, response: Response) -> float:
        return next(taste for name, taste in self.taste.items() if f"{name}#" in response.policy + "#")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Four models that answer, and prompts half of which are held out."""
    folder = tmp_path / "run"
    for seed, name in enumerate(POLICIES):
        tiny.make(folder / name, seed=seed)
    setup = Setup(run=folder, model=str(folder / "poor"), held_out=0.5, dtype="float32", device="cpu")
    with open_run(setup) as run:
        run.store.add_prompts(Prompt.ask(f"Tell me of number {n}.") for n in range(160))
        yield run


def meetings(run: Run) -> Counter[tuple[str, ...]]:
    """How often which two policies were compared."""
    by = {response.id: response.policy for response in run.store.responses()}
    pairs = (sorted(name for name in POLICIES if any(f":{name}" in by[i] for i in q.items)) for q in run.store.tasks())
    return Counter(tuple(pair) for pair in pairs)


def test_in_turn_every_two_policies_meet_equally_often(run: Run) -> None:
    arena = Arena(POLICIES, sampling=SHORT, annotator=Fans(dict.fromkeys(POLICIES, 0.0)))
    done = arena(run, "arena")
    met = meetings(run)
    assert len(met) == 6 and max(met.values()) - min(met.values()) <= 1
    assert done["comparisons"] == sum(met.values()) == run.store.counts().feedback
    assert set(done["policies"]) == set(POLICIES)


def test_looking_for_the_best_asks_mostly_about_those_that_may_be_it_and_finds_it(run: Run) -> None:
    taste = {"poor": -2.5, "fair": -1.5, "good": 0.0, "best": 1.5}
    arena = Arena(POLICIES, tasks_per_prompt=2, pairs="best", sampling=SHORT, annotator=Fans(taste))
    done = arena(run, "arena")
    assert next(iter(done["policies"])) == "best"
    met = meetings(run)
    assert met["best", "good"] > 2 * met["fair", "poor"]
    assert sum(met.values()) <= 2 * done["prompts"]
    said = [event.id for event in run.store.feedback()]
    assert len(said) > 2 * WAVE
    assert arena(run, "arena") == done  # the same questions, answered already
    assert [event.id for event in run.store.feedback()] == said


def test_among_equals_looking_for_the_best_prefers_nobody(run: Run) -> None:
    arena = Arena(
        POLICIES, tasks_per_prompt=2, pairs="best", sampling=SHORT, annotator=Fans(dict.fromkeys(POLICIES, 0.0))
    )
    rows = arena(run, "arena")["policies"].values()
    low, high = max(row["low"] for row in rows), min(row["high"] for row in rows)
    assert low <= 1000 <= high  # where the first one stands: in every interval


def test_what_came_up_in_a_talk_is_not_asked_about(run: Run) -> None:
    arena = Arena(POLICIES, sampling=SHORT, annotator=Fans(dict.fromkeys(POLICIES, 0.0)))
    done = arena(run, "arena")
    said = run.store.counts()
    run.store.add_prompts(Prompt.ask(f"And how are you, {n}?", source=CHAT) for n in range(20))
    assert arena(run, "arena") == done
    assert run.store.counts()._replace(prompts=said.prompts) == said


def test_one_policy_has_nobody_to_meet(run: Run) -> None:
    with pytest.raises(AssentError, match="train one, or name some"):
        replace(Arena(("poor",), sampling=SHORT))(run, "arena")


# What the table counts

AUTHORS = {"x": frozenset({"a"}), "y": frozenset({"b"}), "z": frozenset({"c"}), "xy": frozenset({"a", "b"})}


def rated(*answers: tuple[str, Task, Judgement], corrected: Judgement | None = None) -> Table:
    """The table of what annotators say; with `corrected`, the last one then says that instead."""
    events = [Feedback(query.id, who, answer, f"2026-01-01T{n:06}") for n, (who, query, answer) in enumerate(answers)]
    if corrected:
        events += [replace(events[-1], judgement=corrected, supersedes=events[-1].id, id="corrected")]
    return table(events, {query.id: query for _, query, _ in answers}, AUTHORS)


def counts(found: Table) -> dict[str, tuple[int, int, int]]:
    return {row.policy: (row.wins, row.ties, row.losses) for row in found.rows}


def pair(*items: str, prompt: str = "p") -> Task:
    return Task("comparison", prompt, items, "evaluate")


def test_an_answer_that_two_policies_gave_wins_once_for_each_and_beats_the_third_once() -> None:
    found = rated(("ann", pair("xy", "z"), Comparison("xy")))
    assert counts(found) == {"a": (1, 0, 0), "b": (1, 0, 0), "c": (0, 0, 1)}
    assert (found.comparisons, found.annotators) == (1, 1)


def test_what_two_policies_share_tells_nothing_between_them() -> None:
    found = rated(("ann", pair("xy", "x"), Comparison("x")), ("ann", pair("y", "z"), Comparison(verdict="tie")))
    assert counts(found) == {"b": (0, 1, 0), "c": (0, 1, 0)}
    assert found.comparisons == 1


def test_a_ranking_of_three_is_three_comparisons() -> None:
    query = Task("ranking", "p", ("x", "y", "z"), "evaluate")
    found = rated(("ann", query, Ranking((("x",), ("y", "z")))))
    assert counts(found) == {"a": (2, 0, 0), "b": (0, 1, 1), "c": (0, 1, 1)}
    assert (found.comparisons, found.annotators) == (3, 1)


def test_each_comparison_of_one_annotator_on_one_prompt_counts() -> None:
    found = rated(("ann", pair("x", "y"), Comparison("x")), ("ann", pair("x", "z"), Comparison("x")))
    assert counts(found) == {"a": (2, 0, 0), "b": (0, 0, 1), "c": (0, 0, 1)}
    assert (found.comparisons, found.annotators) == (2, 1)


def test_an_answer_that_was_superseded_counts_nowhere() -> None:
    said = ("ann", pair("x", "y"), Comparison("x"))
    assert counts(rated(said, corrected=Comparison("y"))) == {"a": (0, 0, 1), "b": (1, 0, 0)}
    assert rated(said, corrected=Comparison(verdict="cannot tell")) == Table((), 0, 0, False, {})


@pytest.mark.parametrize("verdicts", [("tie", "tie"), ("x", "y")])
def test_two_policies_that_tie_in_every_prompt_are_not_surely_equal(verdicts: tuple[str, str]) -> None:
    said = [
        (
            f"annotator {side}",
            pair("x", "y", prompt=f"p{n}"),
            Comparison(verdict="tie") if v == "tie" else Comparison(v),
        )
        for n in range(40)
        for side, v in enumerate(verdicts)
    ]
    found = rated(*said)
    assert found.clusters == {"prompts": 40}

    def width(row: Row) -> float:
        return row.high - row.low

    # 80 votes of which half are wins: the logit has variance 1 / (80 / 4), and the mean of the two players is at 1000.
    assert [width(row) for row in found.rows] == pytest.approx([1.96 * 173.72 * (4 / 80) ** 0.5] * 2, rel=1e-3)
