"""The stage `abstain`: demonstrations of "I don't know" where a policy's own samples are wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent.cli import main
from assent.feedback.demonstration import Demonstration
from assent.functional.grading import Grade
from assent.generation.responses import load_prompts
from assent.records import Feedback, Response
from assent.run import Run, Setup
from assent.stages.abstain import ANNOTATOR, Abstain, GradedSamples
from assent.store.database import Store

COLOURS = {"duck": "red", "cat": "blue", "dog": "green", "king": "gold", "ball": "pink", "hat": "grey"}
"""What the model of these tests was taught."""
OTHERS = ("frog", "moon", "boat")
REFUSAL = "I don't know."
FAST = ("--n", "4", "--temperature", "0.3", "--max-new-tokens", "16")


def question(noun: str) -> str:
    return f"Colour of the {noun}?"


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_result(run: Path, stage: str = "abstain") -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "done" / f"{stage}.json").read_text())
    return result


def demonstrations(run: Path) -> dict[str, str]:
    """Return the demonstrations that count, by the text of the prompt."""
    with Store.open(run / "feedback.db") as store:
        prompts = {prompt.id: prompt.text for prompt in store.prompts()}
        prompt_of = {task.id: prompts[task.prompt] for task in store.tasks()}
        events = list(store.feedback(current=True))
    assert all(event.annotator == ANNOTATOR and event.source == "model" for event in events)
    return {prompt_of[event.task]: text_of(event) for event in events}


def text_of(event: Feedback) -> str:
    assert isinstance(event.judgement, Demonstration)
    return event.judgement.text


def counts(run: Path) -> tuple[int, int]:
    """Return the numbers of responses and of judgements."""
    with Store.open(run / "feedback.db") as store:
        return len(list(store.responses())), len(list(store.feedback()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model that answers what it was taught, and answers nothing else right."""
    folder = tmp_path_factory.mktemp("taught")
    rows = [{"messages": turns(question(noun), f"It is {colour}.")} for noun, colour in COLOURS.items()]
    data = write_lines(folder / "colours.jsonl", rows)
    base = tiny.make(folder / "model")
    flags = ["--model", str(base), "--dtype", "float32", "--held-out", "0", "--data", str(data)]
    fast = ["--lr", "5e-3", "--epochs", "100", "--batch-size", "6"]
    assert main(["sft", "--run", str(folder / "run"), *flags, *fast]) == 0
    return folder / "run" / "sft"


@pytest.fixture
def start(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that imports questions into a new run."""

    def start_run(rows: list[dict[str, Any]], held_out: float = 0.0, name: str = "run") -> Path:
        file = write_lines(tmp_path / f"{name}.jsonl", rows)
        run = tmp_path / name
        flags = ["--model", str(model), "--dtype", "float32", "--held-out", str(held_out)]
        assert main(["import", str(file), "--run", str(run), *flags]) == 0
        return run

    return start_run


def quiz(*nouns: str) -> list[dict[str, Any]]:
    return [{"prompt": question(noun), "answers": [COLOURS.get(noun, "ultramarine")]} for noun in nouns]


def graded(*samples: tuple[str, Grade]) -> GradedSamples:
    return GradedSamples("p", [Response("p", text, "it") for text, _ in samples], [grade for _, grade in samples])


# One question


def test_the_commonest_right_answer_is_the_demonstration() -> None:
    samples = graded(("Rome", "right"), ("It is Rome.", "right"), ("it is Rome", "right"), ("Pisa", "wrong"))
    assert samples.commonest_right_text() == "It is Rome."


def test_of_equally_common_answers_the_first_is_taken() -> None:
    assert graded(("Pisa", "wrong"), ("Rome!", "right"), ("It is Rome.", "right")).commonest_right_text() == "Rome!"


def test_a_cut_text_is_no_demonstration_beside_a_whole_one() -> None:
    cut = Response("p", "Rome, which was founded in", "it", finished=False)
    whole = Response("p", "Rome.", "it")
    assert GradedSamples("p", [cut, cut, whole], ["right"] * 3).commonest_right_text() == "Rome."
    assert GradedSamples("p", [cut, cut], ["right"] * 2).commonest_right_text() == cut.text


@pytest.mark.parametrize(
    ("num_right", "share", "is_known"), [(2, 0.5, True), (1, 0.5, False), (4, 1, True), (3, 1, False), (0, 0, False)]
)
def test_enough_right_samples_make_a_question_known(num_right: int, share: float, is_known: bool) -> None:
    right: Grade = "right"
    wrong: Grade = "wrong"
    samples = graded(*[("Rome", right)] * num_right, *[("Pisa", wrong)] * (4 - num_right))
    assert samples.is_known(share) == is_known


# The stage


def test_the_model_answers_what_it_knows_and_refuses_the_rest(start: Callable[..., Path]) -> None:
    unanswerable = {"prompt": question("wind"), "answers": []}
    run = start([*quiz(*COLOURS, *OTHERS), unanswerable, {"prompt": "Tell a story."}])
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    result = read_result(run)
    assert (result["questions"], result["known"], result["unknown"]) == (10, 6, 4)
    assert result["policy"] == "base" and result["right"] == pytest.approx(0.6, abs=0.05)
    answers = {question(noun): f"It is {colour}." for noun, colour in COLOURS.items()}
    refusals = {question(noun): REFUSAL for noun in (*OTHERS, "wind")}
    assert demonstrations(run) == answers | refusals


def test_held_out_questions_have_no_demonstration(start: Callable[..., Path]) -> None:
    run = start(quiz(*COLOURS, *OTHERS), held_out=0.4)
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    assert len(demonstrations(run)) == read_result(run)["questions"] < 9


def test_a_second_run_adds_nothing(start: Callable[..., Path]) -> None:
    run = start(quiz(*COLOURS, *OTHERS))
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    before, result = counts(run), read_result(run)
    assert before == (9 * 4, 9)
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    assert main(["abstain", "--run", str(run), *FAST, "--overwrite"]) == 0
    assert counts(run) == before
    again = read_result(run)
    assert {name: again[name] for name in ("label", "known", "right")} == {
        name: result[name] for name in ("label", "known", "right")
    }


def test_other_settings_supersede_the_demonstrations(start: Callable[..., Path]) -> None:
    run = start(quiz("duck", "frog"))
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    assert main(["abstain", "--run", str(run), *FAST, "--refusal", "I am not sure.", "--overwrite"]) == 0
    assert demonstrations(run) == {question("duck"): "It is red.", question("frog"): "I am not sure."}
    assert counts(run)[1] == 3


def test_sft_trains_on_the_demonstrations_alone(start: Callable[..., Path]) -> None:
    run = start(quiz("duck", "cat", "frog", "moon"))
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    assert main(["sft", "--run", str(run), "--lr", "3e-3", "--epochs", "20", "--batch-size", "4"]) == 0
    assert read_result(run, "sft")["demonstrations"] == 4
    # What it would sample from next is still the model that sft trains, not its result.
    assert main(["abstain", "--run", str(run), *FAST, "--overwrite"]) == 0
    assert read_result(run)["policy"] == "base"
    assert main(["abstain", "--run", str(run), *FAST, "--overwrite", "--policy", "sft"]) == 0
    assert read_result(run)["known"] == 2
    with Store.open(run / "feedback.db") as store:
        samples = [response.text for response in store.responses(policy=f"{read_result(run)['label']}/1")]
    assert sorted(samples) == [REFUSAL, REFUSAL, "It is blue.", "It is red."]


def test_another_model_is_sampled_from_again(start: Callable[..., Path], model: Path) -> None:
    run = start(quiz("duck"))
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    stage = Abstain()
    assert not stage.is_stale(Run(Setup(run=run, model=str(model))), "abstain", read_result(run))
    other = tiny.make(run.parent / "other", seed=1)
    assert stage.is_stale(Run(Setup(run=run, model=str(other))), "abstain", read_result(run))


@pytest.mark.parametrize(
    ("nouns", "message"),
    [
        (("frog", "moon"), "none of the 2 questions is known: sft would teach to refuse all"),
        (("duck", "cat"), "all 2 questions are known: sft would teach no refusal"),
    ],
)
def test_demonstrations_of_one_kind_are_warned_of(
    nouns: tuple[str, ...], message: str, start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(quiz(*nouns))
    assert main(["abstain", "--run", str(run), *FAST]) == 0
    assert message in capsys.readouterr().err


# Bad input


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([{"prompt": "Hello!"}], (), "no questions to train on: import prompts with a column `answers`"),
        (quiz("duck"), ("--refusal", "Ask me later."), "would be graded as an answer"),
        (quiz("duck"), ("--known-share", "2"), "known-share"),
        (quiz("duck"), ("--n", "0"), "--n"),
        (
            [{"prompt": "Who?", "answers": ["Ann"], "incorrect_answers": [True]}],
            (),
            "no questions to train on",
        ),
    ],
)
def test_bad_input_exits_with_2(
    rows: list[dict[str, Any]],
    flags: tuple[str, ...],
    message: str,
    start: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = start(rows)
    capsys.readouterr()
    assert main(["abstain", "--run", str(run), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert demonstrations(run) == {}


def test_questions_that_are_all_held_out_exit_with_2(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(quiz("duck"), held_out=1.0)
    assert main(["abstain", "--run", str(run)]) == 2
    assert "no questions to train on" in capsys.readouterr().err


def test_prompts_of_a_file_keep_their_answers_as_chat(model: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "quiz.jsonl", quiz("duck"))
    (tmp_path / "run").mkdir()
    run = Run(Setup(run=tmp_path / "run", model=str(model)))
    (prompt,) = load_prompts(run, str(file), tiny.load(model), 8)
    assert not prompt.is_plain
    assert prompt.meta["answers"] == ["red"]
