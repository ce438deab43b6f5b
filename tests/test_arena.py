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
from assent.generation.local import Sampling
from assent.records import CHAT, Feedback, Prompt, Query, Response
from assent.stages.arena import WAVE, Arena
from assent.store.desk import Desk
from assent.store.runs import Run, Setup, open_run

SHORT = Sampling(temperature=1.0, max_new_tokens=8)
POLICIES = ("poor", "fair", "good", "best")


@dataclass(frozen=True)
class Fans:
    """People who like some policies' answers better, by Bradley-Terry."""

    at_once: ClassVar[int] = 50
    taste: Mapping[str, float]

    def answer(
        self, queries: Iterable[Query], prompts: Mapping[str, Prompt], responses: Mapping[str, Response], seed: int,
        now: datetime, desk: Desk, batch: str,
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
    pairs = (
        sorted(name for name in POLICIES if any(f":{name}" in by[i] for i in q.items)) for q in run.store.queries()
    )
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
    arena = Arena(POLICIES, per_prompt=2, pairs="best", sampling=SHORT, annotator=Fans(taste))
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
    arena = Arena(POLICIES, per_prompt=2, pairs="best", sampling=SHORT, annotator=Fans(dict.fromkeys(POLICIES, 0.0)))
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
