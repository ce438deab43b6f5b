"""`weight_annotators`: the weight of a training example is the reliability of its annotator."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import tiny

from assent.batch import ScorePairs
from assent.feedback.comparison import Comparison
from assent.labelling.quality import annotator_weights
from assent.preferences.data import load_preferences
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.run import Run, Setup, open_run
from assent.training.preferences import BATCH_SPECS

NUM_TASKS = 30
AT = "2026-11-30T10:00:00Z"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run in which ann and bob agree on every task, and eve contradicts both on every second one."""
    model = tiny.make(tmp_path / "model")
    with open_run(Setup(tmp_path / "run", str(model), held_out=0.0, dtype="float32")) as run:
        for number in range(NUM_TASKS):
            prompt = Prompt.ask(f"Where is the duck, {number}?")
            good, bad = (Response(prompt.id, text, "base") for text in (f"In the sea {number}.", f"No {number}."))
            task = Task("comparison", prompt.id, (good.id, bad.id))
            run.store.add_prompts([prompt])
            run.store.add_responses([good, bad])
            run.store.add_tasks([task])
            choices = {"ann": good.id, "bob": good.id, "eve": bad.id if number % 2 else good.id}
            run.store.add_feedback(Feedback(task.id, name, Comparison(item), AT) for name, item in choices.items())
        yield run


def pair_weights(run: Run) -> list[float]:
    tokenizer = tiny.load(Path(run.setup.model)).chat_tokenizer
    data = load_preferences(run, tokenizer, 256, BATCH_SPECS[ScorePairs])
    return [pair.weight for group in data.train for pair in group.pairs]


def test_unreliable_annotator_weighs_less(run: Run) -> None:
    weights = annotator_weights(run.store)
    assert weights["eve"] < 0.5 < min(weights["ann"], weights["bob"])


def test_weight_annotators_changes_the_weights_of_pairs(run: Run) -> None:
    assert set(pair_weights(run)) == {1.0}
    weighted = Run(replace(run.setup, weight_annotators=True), run.recipe)
    weights = annotator_weights(run.store)
    expected = sorted(weights[name] for name in ("ann", "bob", "eve") for _ in range(NUM_TASKS))
    assert sorted(pair_weights(weighted)) == pytest.approx(expected)


def test_judgements_for_evaluation_are_never_trained_on(run: Run) -> None:
    prompt = Prompt.ask("Where is the duck, at last?")
    items = tuple(Response(prompt.id, text, "dpo") for text in ("Here.", "There."))
    run.store.add_prompts([prompt])
    run.store.add_responses(items)
    ids = items[0].id, items[1].id
    for purpose, number in (("evaluate", NUM_TASKS * 3), ("train", NUM_TASKS * 3 + 1)):
        task = Task("comparison", prompt.id, ids, cast(Purpose, purpose))
        run.store.add_tasks([task])
        run.store.add_feedback([Feedback(task.id, "ann", Comparison(ids[0]), AT)])
        assert len(pair_weights(run)) == number
