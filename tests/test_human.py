"""The stage `label` with human annotators: it queues tasks, waits, exits and resumes; and the tasks that it creates."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

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
from assent.labelling.queue import TaskQueue, TaskRequest, required_votes
from assent.labelling.settings import change_setting
from assent.preferences.candidates import previous_pairs
from assent.preferences.convert import to_examples
from assent.records import Feedback, Judgement, Prompt, Purpose, Response, Source, Task
from assent.registry import names
from assent.run import Run, Setup, open_run
from assent.split import split
from assent.stages.label import Label
from assent.store import schema
from assent.store.database import Store

TIME = "2026-11-20T10:00:00.000+00:00"
POLICY = "by hand"
KINDS = names("feedback")
ANNOTATORS = tuple(f"person-{n}" for n in range(6))
LABEL = Label(POLICY, annotator=Human(wait=0))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(run=tmp_path / "run", held_out=0.5)) as run:
        yield run
        run.store.close()


def add_responses(store: Store, prompts: int = 4, responses: int = 2) -> list[Prompt]:
    rows = [Prompt.ask(f"Why is the sea salty in place {n}?") for n in range(prompts)]
    store.add_prompts(rows)
    store.add_responses(
        Response(prompt.id, f"{number} rivers bring salt to it, which stays.", POLICY)
        for prompt in rows
        for number in range(responses)
    )
    return rows


def make_judgement(kind: str, items: tuple[str, ...], strength: int = 2) -> Judgement:
    """Return a judgement of a kind that prefers the first item of the screen."""
    match kind:
        case "comparison":
            return Comparison(items[0], strength)
        case "ranking":
            return Ranking(tuple((item,) for item in items))
        case "rating":
            return Rating((("helpful", 5),))
        case "approval":
            return Approval(True)
        case "critique":
            return Critique("It is too short.")
        case "correction":
            return Correction("Rivers bring salt to it, and the sun takes the water away again.")
    return Demonstration("Rivers bring salt to it.")


def judge_all(
    store: Store, max_tasks: int = 10**6, annotators: tuple[str, ...] = ANNOTATORS, strength: int = 2
) -> list[Feedback]:
    """Let each annotator in turn judge the tasks that the queue offers, until it offers none."""
    queue = TaskQueue(store)
    feedback: list[Feedback] = []
    for annotator in annotators:
        while len(feedback) < max_tasks and (assignments := queue.next_tasks(annotator, 1)):
            task, order, _ = assignments[0]
            judgement = make_judgement(task.kind, order, strength)
            feedback.append(queue.submit(Feedback(task.id, annotator, judgement, TIME, 2.0, order)))
    return feedback


def judge_first_task(store: Store) -> None:
    """Let every annotator judge a task, since no task requires more votes than there are annotators."""
    queue = TaskQueue(store)
    task = Task("demonstration", next(store.prompts()).id, (), "train", "Look around.")
    queue.enqueue([TaskRequest(task, len(ANNOTATORS))], "hello")
    for annotator in ANNOTATORS:
        queue.assignments.assign(annotator, task)
        queue.submit(Feedback(task.id, annotator, Demonstration("Here I am."), TIME))


def queued_votes(store: Store) -> dict[str, int]:
    """Return the required votes of each task of the queue."""
    with store.reading() as connection:
        rows = connection.execute(sa.select(schema.queue)).all()
    return {row.task: row.required for row in rows}


def wait_message(run: Run, label: Label = LABEL, key: str = "label") -> str:
    with pytest.raises(Waiting) as waiting:
        label(run, key)
    return str(waiting.value)


# Waiting and resuming


def test_label_waits_and_resumes_until_all_tasks_are_judged(run: Run) -> None:
    add_responses(run.store, prompts=8)
    assert wait_message(run).startswith("0 of 8 tasks judged; ")
    queued = queued_votes(run.store)
    assert len(queued) == 8
    judge_all(run.store, max_tasks=1, annotators=ANNOTATORS[:1])
    assert wait_message(run).startswith("1 of 8 tasks judged; ")
    feedback = run.store.counts().feedback
    judge_all(run.store)
    result = LABEL(run, "label")
    assert result["tasks"] + result["held_out"] == 8
    assert result["prompts"] == 8
    assert queued_votes(run.store) == queued  # the same tasks, each only once
    assert run.store.counts().tasks == 8
    assert run.store.counts().feedback == sum(queued.values()) > feedback
    assert run.store.verify() == sum(queued.values())
    assert LABEL(run, "label") == result


def test_waiting_reports_the_number_of_judged_tasks(run: Run) -> None:
    add_responses(run.store, prompts=30)
    judge_first_task(run.store)
    assert wait_message(run).startswith("0 of 30 tasks judged; ")
    single_vote = {task for task, votes in queued_votes(run.store).items() if votes == 1}
    queue = TaskQueue(run.store)
    for task, order, _ in queue.next_tasks("ann", 7):
        queue.submit(Feedback(task.id, "ann", make_judgement(task.kind, order), TIME, display_order=order))
    complete = len({event.task for event in run.store.feedback()} & single_vote)
    assert 0 < complete <= 7
    assert wait_message(run).startswith(f"{complete} of 30 tasks judged; ")


def test_waiting_reports_the_server_address(run: Run) -> None:
    add_responses(run.store)
    message = wait_message(run)
    assert "assent serve" in message and message.endswith("rerun this command")
    change_setting(run.store, "address", "http://127.0.0.1:8123", "serve", TIME)
    assert "http://127.0.0.1:8123" in wait_message(run)


def test_required_votes_are_one_three_or_five(run: Run) -> None:
    add_responses(run.store, prompts=120)
    wait_message(run)
    tasks = {task.id: task for task in run.store.tasks()}
    queued = queued_votes(run.store)
    assert queued == {name: required_votes(task) for name, task in tasks.items()}
    assert set(queued.values()) == {1, 3, 5}
    judge_all(run.store)
    LABEL(run, "label")
    votes = Counter(event.task for event in run.store.feedback())
    assert dict(votes) == queued


def test_strength_1_requires_a_second_vote(run: Run) -> None:
    add_responses(run.store, prompts=5)
    judge_first_task(run.store)
    wait_message(run)
    single_vote = [task for task, votes in queued_votes(run.store).items() if votes == 1]
    assert single_vote
    judge_all(run.store, annotators=ANNOTATORS[:1], strength=1)
    assert wait_message(run).startswith("0 of 5 tasks judged; ")
    judge_all(run.store, annotators=ANNOTATORS[1:])
    LABEL(run, "label")
    votes = Counter(event.task for event in run.store.feedback())
    assert all(votes[task] == 2 for task in single_vote)


def test_judgements_that_arrive_meanwhile_end_the_wait(run: Run) -> None:
    add_responses(run.store)

    def judge_when_queued() -> list[Feedback]:
        with Store.open(run.folder / "feedback.db") as store:
            while len(queued_votes(store)) < 4:
                time.sleep(0.02)
            return judge_all(store)

    with ThreadPoolExecutor(1) as pool:
        feedback = pool.submit(judge_when_queued)
        result = Label(POLICY, annotator=Human(wait=0.5))(run, "label")  # half a minute
    assert result["tasks"] + result["held_out"] == 4
    assert run.store.counts().feedback == len(feedback.result())


def test_label_leaves_human_feedback_unchanged(run: Run) -> None:
    add_responses(run.store)
    wait_message(run)
    first, *others = judge_all(run.store)
    corrected = TaskQueue(run.store).submit(
        replace(
            first,
            judgement=Comparison(first.display_order[1], 3),
            supersedes=first.id,
            id="on second thoughts",
            comment="why",
        )
    )
    LABEL(run, "label")
    LABEL(run, "label")
    assert list(run.store.feedback()) == [first, *others, corrected]


def test_label_does_not_wait_for_tasks_of_another_stage(run: Run) -> None:
    add_responses(run.store)
    wait_message(run)
    judge_all(run.store)
    prompt = Prompt.ask("A prompt of another round")
    run.store.add_prompts([prompt])
    run.store.add_responses([Response(prompt.id, text, "later") for text in ("One.", "Two.")])
    next_round = Label("later", annotator=Human(wait=0))
    assert wait_message(run, next_round, "label-2").startswith("0 of 1 tasks judged; ")
    assert LABEL(run, "label")["prompts"] == 4
    judge_all(run.store)
    assert next_round(run, "label-2")["prompts"] == 1


def test_tasks_with_human_feedback_are_not_queued(run: Run) -> None:
    add_responses(run.store)
    result = Label(POLICY)(run, "label")  # simulated annotators
    run.store.add_feedback([replace(event, annotator="ann", source="human", id="") for event in run.store.feedback()])
    assert run.store.counts().feedback == 8
    assert LABEL(run, "label") == result
    assert queued_votes(run.store) == {}


# Tasks


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
def test_near_identical_responses_are_not_queued(run: Run, texts: tuple[str, ...], pairs: int) -> None:
    prompt = Prompt.ask("Why is the sea salty?")
    run.store.add_prompts([prompt])
    run.store.add_responses([Response(prompt.id, text, POLICY) for text in texts])
    if pairs:
        assert wait_message(run).startswith(f"0 of {pairs} tasks judged; ")
    else:
        LABEL(run, "label")
    assert len(queued_votes(run.store)) == pairs
    normalised = {response.id: " ".join(response.text.split()).casefold() for response in run.store.responses()}
    for task in run.store.tasks(ids=queued_votes(run.store)):
        assert len({normalised[item] for item in task.items}) == 2
    judge_all(run.store)
    LABEL(run, "label")  # it does not wait for pairs that it did not queue


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_tasks_have_purpose_evaluate(run: Run, kind: Any) -> None:
    prompts = add_responses(run.store, prompts=12)
    held_out = split(prompts, 0.5).held_out
    assert 0 < len(held_out) < 12
    label = replace(LABEL, kind=kind)
    wait_message(run, label)
    tasks = list(run.store.tasks())
    assert {task.prompt for task in tasks} == {prompt.id for prompt in prompts}
    assert all(task.purpose == ("evaluate" if task.prompt in held_out else "train") for task in tasks)
    judge_all(run.store)
    result = label(run, "label")
    assert result["held_out"] == sum(task.purpose == "evaluate" for task in tasks)
    assert result["tasks"] == sum(task.purpose == "train" for task in tasks)
    assert {event.task for event in run.store.feedback()} == {task.id for task in run.store.tasks()}


def label_tasks(run: Run, **settings: Any) -> list[Task]:
    wait_message(run, replace(LABEL, **settings))
    return list(run.store.tasks(ids=queued_votes(run.store)))


def test_label_kinds_are_the_files_of_feedback() -> None:
    assert [Label(kind=kind).kind for kind in KINDS] == list(KINDS)
    assert len(KINDS) == 7
    with pytest.raises(ValueError, match="no kind of feedback 'comparisn'; did you mean 'comparison'"):
        Label(kind="comparisn")


@pytest.mark.parametrize("kind", ["rating", "approval", "critique", "correction"])
def test_single_response_kinds_make_one_task_each(run: Run, kind: Any) -> None:
    add_responses(run.store, prompts=3, responses=4)
    tasks = label_tasks(run, kind=kind)
    assert sorted(task.items for task in tasks) == sorted((response.id,) for response in run.store.responses())
    assert {task.kind for task in tasks} == {kind}


@pytest.mark.parametrize("kind", ["rating", "comparison"])
def test_tasks_per_prompt_limits_the_tasks(run: Run, kind: Any) -> None:
    add_responses(run.store, prompts=3, responses=4)
    tasks = label_tasks(run, kind=kind, tasks_per_prompt=2)
    assert set(Counter(task.prompt for task in tasks).values()) == {2}
    assert len({task.items for task in tasks}) == 6


def test_comparisons_pair_responses_of_one_prompt(run: Run) -> None:
    add_responses(run.store, prompts=3, responses=4)
    tasks = label_tasks(run)
    prompt_of = {response.id: response.prompt for response in run.store.responses()}
    assert len(tasks) == 3 * 6
    for task in tasks:
        assert len(set(task.items)) == 2
        assert {prompt_of[item] for item in task.items} == {task.prompt}
    assert len({frozenset(task.items) for task in tasks}) == 18


@pytest.mark.parametrize(
    ("num_responses", "max_size", "sizes"), [(4, 9, [4]), (9, 9, [9]), (11, 9, [2, 9]), (7, 3, [3, 3])]
)
def test_rankings_split_the_responses(run: Run, num_responses: int, max_size: int, sizes: list[int]) -> None:
    add_responses(run.store, prompts=2, responses=num_responses)
    tasks = label_tasks(run, kind="ranking", max_ranking_size=max_size)
    for prompt in {task.prompt for task in tasks}:
        groups = [task.items for task in tasks if task.prompt == prompt]
        assert sorted(map(len, groups)) == sizes
        assert all(not set(a) & set(b) for a, b in combinations(groups, 2))


@pytest.mark.parametrize("num_responses", [0, 2])
def test_demonstrations_need_no_responses(run: Run, num_responses: int) -> None:
    prompts = add_responses(run.store, prompts=3, responses=num_responses)
    tasks = label_tasks(run, kind="demonstration")
    assert sorted(task.prompt for task in tasks) == sorted(prompt.id for prompt in prompts)
    assert all(task.items == () for task in tasks)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_instruction_and_takes_judgements(run: Run, kind: Any) -> None:
    add_responses(run.store, prompts=2, responses=3)
    tasks = label_tasks(run, kind=kind)
    assert all(task.kind == kind and task.instruction for task in tasks)
    feedback = judge_all(run.store)
    assert {type(event.judgement).__name__.lower() for event in feedback} == {kind}
    replace(LABEL, kind=kind)(run, "label")


def test_instruction_replaces_the_default(run: Run) -> None:
    add_responses(run.store)
    assert {task.instruction for task in label_tasks(run, instruction="Which is kinder?")} == {"Which is kinder?"}


def test_label_without_responses_is_refused(run: Run) -> None:
    add_responses(run.store, responses=0)
    with pytest.raises(AssentError, match="holds no responses to label; run 'assent generate' first"):
        LABEL(run, "label")
    with pytest.raises(AssentError, match="holds no responses"):
        replace(LABEL, policy="another")(run, "label")


# The command


def command(folder: Path, status: int) -> str:
    words = ["label", "--annotator", "human", "--wait", "0", "--policy", POLICY, "--run", str(folder)]
    return assent(*words, status=status)


def test_label_command_exits_with_3_and_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_run(Setup(run=folder)) as run:
        add_responses(run.store)
        run.store.close()
    output = command(folder, 3)
    (line,) = [line for line in output.splitlines() if line.startswith("assent: ")]
    assert line.startswith("assent: 0 of 4 tasks judged; ")
    assert "Traceback" not in output
    assert not (folder / "done" / "label.json").exists()
    with Store.open(folder / "feedback.db") as store:
        feedback = judge_all(store)
        assert len(feedback) == sum(queued_votes(store).values())
    command(folder, 0)
    assert (folder / "done" / "label.json").exists()
    with Store.open(folder / "feedback.db") as store:
        assert list(store.feedback()) == feedback


# After simulated annotators


def test_simulated_feedback_does_not_count_for_human_tasks(run: Run) -> None:
    add_responses(run.store, prompts=6)
    simulated = replace(LABEL, annotator=Simulated())(run, "label")
    assert run.store.counts().feedback == simulated["tasks"] + simulated["held_out"] == 6
    assert wait_message(run).startswith("0 of 6 tasks judged; ")
    judge_all(run.store)
    assert LABEL(run, "label") == simulated


def test_human_feedback_replaces_simulated_examples(run: Run) -> None:
    add_responses(run.store, prompts=6)
    replace(LABEL, annotator=Simulated())(run, "label")
    wait_message(run)
    (by_human,) = judge_all(run.store, max_tasks=1, annotators=ANNOTATORS[:1])
    tasks, events = list(run.store.tasks()), list(run.store.feedback())
    purpose = next(task.purpose for task in tasks if task.id == by_human.task)
    examples = to_examples(events, tasks, run.store.prompts(), run.store.responses(), purpose=purpose)
    sources = [name for example in examples for name in example.feedback_ids]
    of_task = {event.id for event in events if event.task == by_human.task}
    assert [name for name in sources if name in of_task] == [by_human.id]
    task_ids = {task.id for task in tasks if task.purpose == purpose} - {by_human.task}
    simulated = {event.id for event in events if not event.is_human and event.task in task_ids}
    assert simulated and simulated <= set(sources)


# Pairs of earlier rounds


def add_task(run: Run, items: int = 2, kind: str = "comparison", purpose: Purpose = "train") -> Task:
    """Add a task about a new prompt."""
    prompt = Prompt.ask(f"Why is the sea salty in place {run.store.counts().prompts}?")
    responses = [Response(prompt.id, f"{n} rivers bring salt to it.", POLICY) for n in range(items)]
    run.store.add_prompts([prompt])
    run.store.add_responses(responses)
    task = Task(kind, prompt.id, tuple(response.id for response in responses), purpose)
    run.store.add_tasks([task])
    return task


def add_feedback(run: Run, task: Task, source: Source) -> None:
    run.store.add_feedback([Feedback(task.id, "ann", make_judgement(task.kind, task.items), TIME, source=source)])


def pairs_before(run: Run, humans_only: bool = False) -> list[tuple[str, ...]]:
    return [pair[1:] for pair in previous_pairs(run.store, "label-2", humans_only=humans_only)]


def test_previous_pairs_are_queued_or_judged(run: Run) -> None:
    queued = add_task(run)
    judged = add_task(run)
    add_task(run)  # neither
    TaskQueue(run.store).enqueue([TaskRequest(queued)], "label")
    add_feedback(run, judged, "human")
    assert pairs_before(run) == [queued.items, judged.items]


def test_previous_pairs_leave_out_the_stage_itself(run: Run) -> None:
    task = add_task(run)
    TaskQueue(run.store).enqueue([TaskRequest(task)], "label-2")
    add_feedback(run, task, "human")
    assert pairs_before(run) == []


def test_previous_pairs_of_simulated_feedback_do_not_bind_humans(run: Run) -> None:
    task = add_task(run)
    add_feedback(run, task, "simulated")
    assert pairs_before(run) == [task.items]
    assert pairs_before(run, humans_only=True) == []


def test_previous_pairs_include_those_of_rankings(run: Run) -> None:
    ranking, rating = add_task(run, 3, "ranking"), add_task(run, 1, "rating")
    evaluation = add_task(run, purpose="evaluate")
    for task in (ranking, rating, evaluation):
        add_feedback(run, task, "human")
    assert pairs_before(run) == list(combinations(ranking.items, 2))
