"""A stage that waits for people: it asks, ends, and goes on where it was when the same command is given again."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from processes import assent

from assent.annotators.human import Human
from assent.annotators.simulated import Simulated
from assent.errors import AssentError, Waiting
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.queue import Ask, TaskQueue, change_setting, overlap
from assent.preferences.convert import examples
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.registry import names
from assent.run import Run, Setup, open_run
from assent.split import split
from assent.stages.label import Label
from assent.store import schema
from assent.store.database import Store

AT = "2026-11-20T10:00:00.000+00:00"
POLICY = "by hand"
KINDS = get_args(Label.__dataclass_fields__["kind"].type)
CROWD = tuple(f"person-{n}" for n in range(6))
ASKS = Label(POLICY, annotator=Human(wait=0))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(run=tmp_path / "run", held_out=0.5)) as run:
        yield run
        run.store.close()


def fill(store: Store, prompts: int = 4, answers: int = 2) -> list[Prompt]:
    made = [Prompt.ask(f"Why is the sea salty in place {n}?") for n in range(prompts)]
    store.add_prompts(made)
    store.add_responses(
        Response(prompt.id, f"{number} rivers bring salt to it, which stays.", POLICY)
        for prompt in made
        for number in range(answers)
    )
    return made


def reply(kind: str, shown: tuple[str, ...], strength: int = 2) -> Judgement:
    """What the first item of the screen is worth, in the words of a kind."""
    match kind:
        case "comparison":
            return Comparison(shown[0], strength)
        case "ranking":
            return Ranking(tuple((item,) for item in shown))
        case "rating":
            return Rating((("helpful", 5),))
        case "approval":
            return Approval(True)
        case "critique":
            return Critique("It is too short.")
        case "correction":
            return Correction("Rivers bring salt to it, and the sun takes the water away again.")
    return Demonstration("Rivers bring salt to it.")


def answers(store: Store, most: int = 10**6, people: tuple[str, ...] = CROWD, strength: int = 2) -> list[Feedback]:
    """What people say at the desk, one after the other, until there is nothing left to answer for any of them."""
    desk, said = TaskQueue(store), list[Feedback]()
    for person in people:
        while len(said) < most and (lent := desk.take(person, 1)):
            query, shown, _ = lent[0]
            event = Feedback(query.id, person, reply(query.kind, shown, strength), AT, 2.0, shown)
            said.append(desk.answer(event))
    return said


def come(store: Store) -> None:
    """Everybody answers something: what wants several opinions waits for as many people as there are."""
    desk = TaskQueue(store)
    query = Task("demonstration", next(store.prompts()).id, (), "train", "Look around.")
    desk.post([Ask(query, len(CROWD))], "hello")
    for person in CROWD:
        desk.lend(person, query)
        desk.answer(Feedback(query.id, person, Demonstration("Here I am."), AT))


def asks(store: Store) -> dict[str, Any]:
    """What lies on the desk: how many people each query wants."""
    with store.reading() as on:
        rows = on.execute(sa.select(schema.asks)).all()
    return {row.query: row.wanted for row in rows}


def waits(run: Run, label: Label = ASKS, key: str = "label") -> str:
    with pytest.raises(Waiting) as waiting:
        label(run, key)
    return str(waiting.value)


# Asking and going on


def test_it_asks_ends_and_goes_on_until_all_is_answered(run: Run) -> None:
    fill(run.store, prompts=8)
    assert waits(run).startswith("0 of 8 answered; ")
    there = asks(run.store)
    assert len(there) == 8
    answers(run.store, most=1, people=CROWD[:1])
    assert waits(run).startswith("1 of 8 answered; ")
    said = run.store.counts().feedback
    answers(run.store)
    done = ASKS(run, "label")
    assert done["queries"] + done["held_out"] == 8
    assert done["prompts"] == 8
    assert asks(run.store) == there  # the same questions each time, each once
    assert run.store.counts().tasks == 8
    assert run.store.counts().feedback == sum(there.values()) > said
    assert run.store.verify() == sum(there.values())
    assert ASKS(run, "label") == done


def test_it_says_how_many_are_answered(run: Run) -> None:
    fill(run.store, prompts=30)
    come(run.store)
    assert waits(run).startswith("0 of 30 answered; ")
    once = {query for query, wanted in asks(run.store).items() if wanted == 1}
    desk = TaskQueue(run.store)
    for query, shown, _ in desk.take("ann", 7):
        desk.answer(Feedback(query.id, "ann", reply(query.kind, shown), AT, display_order=shown))
    whole = len({event.task for event in run.store.feedback()} & once)
    assert 0 < whole <= 7
    assert waits(run).startswith(f"{whole} of 30 answered; ")


def test_it_says_where_to_answer(run: Run) -> None:
    fill(run.store)
    told = waits(run)
    assert "assent serve" in told and told.endswith("give this command again")
    change_setting(run.store, "address", "http://127.0.0.1:8123", "serve", AT)
    assert "http://127.0.0.1:8123" in waits(run)


def test_15_in_100_queries_go_to_three_people_and_2_to_five(run: Run) -> None:
    fill(run.store, prompts=120)
    waits(run)
    queries = {query.id: query for query in run.store.tasks()}
    there = asks(run.store)
    assert there == {name: overlap(query) for name, query in queries.items()}
    assert set(there.values()) == {1, 3, 5}
    answers(run.store)
    ASKS(run, "label")
    voices = Counter(event.task for event in run.store.feedback())
    assert dict(voices) == there


def test_slightly_better_waits_for_a_second_opinion(run: Run) -> None:
    fill(run.store, prompts=5)
    come(run.store)
    waits(run)
    once = [query for query, wanted in asks(run.store).items() if wanted == 1]
    assert once
    answers(run.store, people=CROWD[:1], strength=1)
    assert waits(run).startswith("0 of 5 answered; ")
    answers(run.store, people=CROWD[1:])
    ASKS(run, "label")
    voices = Counter(event.task for event in run.store.feedback())
    assert all(voices[query] == 2 for query in once)


def test_answers_that_come_while_it_waits_end_the_waiting(run: Run) -> None:
    fill(run.store)

    def people() -> list[Feedback]:
        with Store.open(run.folder / "feedback.db") as store:
            while len(asks(store)) < 4:
                time.sleep(0.02)
            return answers(store)

    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(people)
        done = Label(POLICY, annotator=Human(wait=0.5))(run, "label")  # half a minute
    assert done["queries"] + done["held_out"] == 4
    assert run.store.counts().feedback == len(crowd.result())


def test_the_stage_changes_nothing_of_what_people_said(run: Run) -> None:
    fill(run.store)
    waits(run)
    first, *rest = answers(run.store)
    again = TaskQueue(run.store).answer(
        replace(
            first,
            judgement=Comparison(first.display_order[1], 3),
            supersedes=first.id,
            id="on second thoughts",
            comment="why",
        )
    )
    ASKS(run, "label")
    ASKS(run, "label")
    assert list(run.store.feedback()) == [first, *rest, again]


def test_questions_of_another_stage_are_not_waited_for(run: Run) -> None:
    fill(run.store)
    waits(run)
    answers(run.store)
    prompt = Prompt.ask("A question of another round")
    run.store.add_prompts([prompt])
    run.store.add_responses([Response(prompt.id, text, "later") for text in ("One.", "Two.")])
    later = Label("later", annotator=Human(wait=0))
    assert waits(run, later, "label-2").startswith("0 of 1 answered; ")
    assert ASKS(run, "label")["prompts"] == 4
    answers(run.store)
    assert later(run, "label-2")["prompts"] == 1


def test_what_people_answered_before_it_was_asked_is_not_asked_again(run: Run) -> None:
    fill(run.store)
    done = Label(POLICY)(run, "label")  # simulated annotators
    run.store.add_feedback([replace(event, annotator="ann", id="") for event in run.store.feedback()])
    assert run.store.counts().feedback == 8
    assert ASKS(run, "label") == done
    assert asks(run.store) == {}


# What is asked


@pytest.mark.parametrize(
    ("texts", "pairs"),
    [
        (("The sea is salty.", "the  sea is salty.\n"), 0),
        (("The sea is salty.", "THE SEA IS SALTY."), 0),
        (("The sea is salty.", "The sea is not salty."), 1),
        (("It has 4 parts.", "It has 5 parts."), 1),
        (("One thing.", "Another thing.", " one THING. "), 2),
    ],
    ids=str,
)
def test_near_identical_answers_are_not_asked_about(run: Run, texts: tuple[str, ...], pairs: int) -> None:
    prompt = Prompt.ask("Why is the sea salty?")
    run.store.add_prompts([prompt])
    run.store.add_responses([Response(prompt.id, text, POLICY) for text in texts])
    if pairs:
        assert waits(run).startswith(f"0 of {pairs} answered; ")
    else:
        ASKS(run, "label")
    assert len(asks(run.store)) == pairs
    words = {response.id: " ".join(response.text.split()).casefold() for response in run.store.responses()}
    for query in run.store.tasks(ids=asks(run.store)):
        assert len({words[item] for item in query.items}) == 2
    answers(run.store)
    ASKS(run, "label")  # it does not wait for what was not asked


@pytest.mark.parametrize("kind", KINDS)
def test_questions_about_held_out_prompts_are_for_measuring(run: Run, kind: Any) -> None:
    prompts = fill(run.store, prompts=12)
    held_out = split(prompts, 0.5).held_out
    assert 0 < len(held_out) < 12
    label = replace(ASKS, kind=kind)
    waits(run, label)
    queries = list(run.store.tasks())
    assert {query.prompt for query in queries} == {prompt.id for prompt in prompts}
    assert all(query.purpose == ("evaluate" if query.prompt in held_out else "train") for query in queries)
    answers(run.store)
    done = label(run, "label")
    assert done["held_out"] == sum(query.purpose == "evaluate" for query in queries)
    assert done["queries"] == sum(query.purpose == "train" for query in queries)
    stored = {query.id: query.purpose for query in run.store.tasks()}
    assert {event.task for event in run.store.feedback()} == stored.keys()


def asked_of(run: Run, **settings: Any) -> list[Task]:
    waits(run, replace(ASKS, **settings))
    return list(run.store.tasks(ids=asks(run.store)))


def test_a_kind_is_a_file_of_feedback() -> None:
    assert set(KINDS) == set(names("feedback"))
    assert len(KINDS) == 7


@pytest.mark.parametrize("kind", ["rating", "approval", "critique", "correction"])
def test_kinds_about_one_answer_ask_about_each(run: Run, kind: Any) -> None:
    fill(run.store, prompts=3, answers=4)
    queries = asked_of(run, kind=kind)
    assert sorted(query.items for query in queries) == sorted((response.id,) for response in run.store.responses())
    assert {query.kind for query in queries} == {kind}


@pytest.mark.parametrize("kind", ["rating", "comparison"])
def test_no_more_than_so_many_questions_are_asked_about_a_prompt(run: Run, kind: Any) -> None:
    fill(run.store, prompts=3, answers=4)
    queries = asked_of(run, kind=kind, per_prompt=2)
    assert set(Counter(query.prompt for query in queries).values()) == {2}
    assert len({query.items for query in queries}) == 6


def test_a_comparison_is_about_two_answers_to_one_prompt(run: Run) -> None:
    fill(run.store, prompts=3, answers=4)
    queries = asked_of(run)
    of = {response.id: response.prompt for response in run.store.responses()}
    assert len(queries) == 3 * 6
    for query in queries:
        assert len(set(query.items)) == 2
        assert {of[item] for item in query.items} == {query.prompt}
    assert len({frozenset(query.items) for query in queries}) == 18


@pytest.mark.parametrize(("there", "most", "sizes"), [(4, 9, [4]), (9, 9, [9]), (11, 9, [2, 9]), (7, 3, [3, 3])])
def test_a_ranking_is_about_groups_of_the_answers(run: Run, there: int, most: int, sizes: list[int]) -> None:
    fill(run.store, prompts=2, answers=there)
    queries = asked_of(run, kind="ranking", ranked=most)
    for prompt in {query.prompt for query in queries}:
        groups = [query.items for query in queries if query.prompt == prompt]
        assert sorted(map(len, groups)) == sizes
        assert all(not set(a) & set(b) for a, b in combinations(groups, 2))


@pytest.mark.parametrize("there", [0, 2])
def test_a_demonstration_shows_no_answers_and_needs_none(run: Run, there: int) -> None:
    prompts = fill(run.store, prompts=3, answers=there)
    queries = asked_of(run, kind="demonstration")
    assert sorted(query.prompt for query in queries) == sorted(prompt.id for prompt in prompts)
    assert all(query.items == () for query in queries)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_is_asked_and_takes_its_answer(run: Run, kind: Any) -> None:
    fill(run.store, prompts=2, answers=3)
    queries = asked_of(run, kind=kind)
    assert all(query.kind == kind and query.instruction for query in queries)
    said = answers(run.store)
    assert {type(event.judgement).__name__.lower() for event in said} == {kind}
    replace(ASKS, kind=kind)(run, "label")


def test_own_words_are_asked(run: Run) -> None:
    fill(run.store)
    assert {query.instruction for query in asked_of(run, instruction="Which is kinder?")} == {"Which is kinder?"}


def test_without_answers_there_is_nothing_to_ask_about(run: Run) -> None:
    fill(run.store, answers=0)
    with pytest.raises(AssentError, match="holds no answers to ask about: run 'assent generate' first"):
        ASKS(run, "label")
    with pytest.raises(AssentError, match="holds no answers"):
        replace(ASKS, policy="another")(run, "label")


# The command


def command(folder: Path, status: int) -> str:
    words = ["label", "--annotator", "human", "--wait", "0", "--policy", POLICY, "--run", str(folder)]
    return assent(*words, status=status)


def test_the_command_ends_with_3_and_goes_on_when_it_is_given_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_run(Setup(run=folder)) as run:
        fill(run.store)
        run.store.close()
    asked = command(folder, 3)
    (line,) = [line for line in asked.splitlines() if line.startswith("assent: ")]
    assert line.startswith("assent: 0 of 4 answered; ")
    assert "Traceback" not in asked
    assert not (folder / "done" / "label.json").exists()
    with Store.open(folder / "feedback.db") as store:
        said = answers(store)
        assert len(said) == sum(asks(store).values())
    command(folder, 0)
    assert (folder / "done" / "label.json").exists()
    with Store.open(folder / "feedback.db") as store:
        assert list(store.feedback()) == said


# After a rehearsal


def test_people_are_asked_again_after_a_rehearsal_with_simulated_annotators(run: Run) -> None:
    fill(run.store, prompts=6)
    rehearsal = replace(ASKS, annotator=Simulated())(run, "label")
    assert run.store.counts().feedback == rehearsal["queries"] + rehearsal["held_out"] == 6
    assert waits(run).startswith("0 of 6 answered; ")
    answers(run.store)
    assert ASKS(run, "label") == rehearsal


def test_a_simulated_answer_is_no_example_where_a_person_answered(run: Run) -> None:
    fill(run.store, prompts=6)
    replace(ASKS, annotator=Simulated())(run, "label")
    waits(run)
    (by_person,) = answers(run.store, most=1, people=CROWD[:1])
    queries, events = list(run.store.tasks()), list(run.store.feedback())
    purpose = next(query.purpose for query in queries if query.id == by_person.task)
    made = examples(events, queries, run.store.prompts(), run.store.responses(), purpose=purpose)
    same_query = {event.id for event in events if event.task == by_person.task}
    assert [name for example in made for name in example.feedback_ids if name in same_query] == [by_person.id]
    simulated = [event.id for event in events if not event.by_person and event.task != by_person.task]
    asked = {query.id for query in queries if query.purpose == purpose}
    kept = {event.id for event in events if event.task in asked and event.id in simulated}
    assert kept <= {name for example in made for name in example.feedback_ids}
