"""A run renders its prompts alike from its first day to its last, and trains the tokens that were drawn."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent import Completion, Prompts, RewardModel
from assent.cli import main
from assent.models.checkpoints import save
from assent.models.load import new_reward
from assent.models.tokenizer import Rendering, read_codec
from assent.preferences.convert import examples
from assent.records import Preference, Prompt
from assent.rewards.model import Model
from assent.run import Setup, open_run
from assent.store.database import Store

DATED = "{{ '<|start|>system\n' + strftime_now('%d %b %Y') + '<|end|>\n' }}" + tiny.CHATML
SHORT = ("--dtype", "float32", "--held-out", "0")
DRAWS = ("--n", "2", "--n-held-out", "0", "--max-new-tokens", "12", "--temperature", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.make(tmp_path_factory.mktemp("dated") / "model")
    (folder / "chat_template.jinja").write_text(DATED)
    return folder


@pytest.fixture(scope="module")
def prompts(model: Path) -> Path:
    path = model.parent / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Where is number {i}?"}) + "\n" for i in range(6)))
    return path


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_first_day_of_a_run_is_its_date_for_good(tmp_path: Path) -> None:
    setup = Setup(run=tmp_path / "run")
    with open_run(setup) as run:
        first = run.rendering.date
        assert len(first) == len("2026-11-30") and run.recipe["date"] == first
    text = (setup.run / "recipe.toml").read_text()
    (setup.run / "recipe.toml").write_text(text.replace(first, "2020-02-29"))  # as if it had begun long ago
    with open_run(setup) as run:
        assert run.rendering.date == "2020-02-29"
        assert run.rendering.strftime("%d %B %Y, %H:%M") == "29 February 2020, 00:00"


@pytest.mark.parametrize("words", [("--date", "30.11.2026"), ("--template-args", "enable_thinking")])
def test_what_is_mistyped_makes_no_run(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Who?"}\n')
    assert main(["import", str(file), "--run", str(tmp_path / "run"), *words]) == 2
    assert f"{words[0]} " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_date_of_a_run_that_trained_is_not_changed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    row = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A duck."}]}
    data.write_text(json.dumps(row) + "\n")
    run = ("--run", str(tmp_path / "run"))
    assert main(["sft", *run, "--model", str(model), "--data", str(data), "--date", "2024-07-26", *SHORT]) == 0
    assert main(["sft", *run, "--date", "2024-07-27"]) == 2
    assert "is a run with date = '2024-07-26', not '2024-07-27'" in capsys.readouterr().err
    assert main(["sft", *run]) == 0


def test_the_date_decides_the_loss_and_the_clock_does_not(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    row = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A duck."}]}
    data.write_text(json.dumps(row) + "\n")
    found: dict[str, Any] = {}
    for name, date in (("a", "2024-07-26"), ("b", "2024-07-26"), ("c", "2031-01-05")):
        run = tmp_path / name
        words = ["sft", "--run", str(run), "--model", str(model), "--data", str(data), "--date", date, *SHORT]
        assert main(words) == 0
        found[name] = losses(run)
    assert found["a"] == found["b"] != found["c"]


def test_what_was_drawn_is_kept_as_tokens_and_trained_as_such(model: Path, prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--run", str(run), "--model", str(model), *SHORT]
    assert main(["generate", *words, "--prompts", str(prompts), *DRAWS]) == 0
    assert main(["label", "--run", str(run), "--annotator", "simulated"]) == 0
    codec = tiny.load(model).codec
    with Store.open(run / "feedback.db") as store:
        asked = {prompt.id: prompt for prompt in store.prompts()}
        responses = list(store.responses())
        made = examples(store.feedback(), store.tasks(), store.prompts(), store.responses())
    assert len(responses) == 12
    for response in responses:
        assert response.token_ids and response.tokenizer == codec.fingerprint
        assert codec.completion(asked[response.prompt], response.completion) == response.token_ids
        assert codec.decode(response.token_ids, asked[response.prompt]) == response.text
        assert (response.token_ids[-1] in codec.stop_ids) == response.finished
    pairs = [example for example in made if isinstance(example, Preference)]
    assert pairs and all(pair.chosen.token_ids and pair.rejected.token_ids for pair in pairs)


def test_arguments_of_the_template_are_those_of_the_run(tmp_path: Path) -> None:
    opening = "assistant\n' + ('' if think is defined and not think else 'Hm. ') }}"
    thinks = tiny.CHATML.replace("assistant\n' }}", opening)
    folder = tiny.make(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(thinks)
    with open_run(Setup(run=tmp_path / "run", model=str(folder), template_args="think=false")) as run:
        ends = [
            codec.decode(codec.prompt(Prompt.ask("Who?")), Prompt.ask("Who?"))[-4:]
            for codec in (read_codec(str(folder)), read_codec(str(folder), run.rendering))
        ]
    assert ends == ["Hm. ", "ant\n"]


@pytest.mark.parametrize(("template", "rendered"), [(DATED, False), ("{{ 'You judge.\n' }}" + tiny.CHATML, True)])
def test_a_judge_reads_its_own_template(
    template: str, rendered: bool, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same vocabulary is given the drawn tokens only if it would read the very same ones."""
    judge = tmp_path / "judge"
    save(new_reward(model, 0), judge)
    (judge / "chat_template.jinja").write_text(template)
    heads = {"reward_mean": [0.0], "reward_std": [1.0]}
    config = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps(config | heads))
    asked: list[Prompt] = []
    score = Model.score

    def listen(self: Model, some: Any, responses: Any) -> Any:
        asked.extend(some)
        return score(self, some, responses)

    monkeypatch.setattr(Model, "score", listen)
    run = str(tmp_path / "run")
    assert main(["import", str(prompts), "--run", run, "--model", str(model)]) == 0
    steps = ("--steps", "1", "--n", "2", "--batch-size", "2", "--max-new-tokens", "6")
    assert main(["grpo", "--run", run, "--reward", str(judge), *steps, *SHORT]) == 0
    assert bool(asked) == rendered


def test_a_fitted_reward_model_scores_as_it_was_fitted(model: Path, prompts: Path, tmp_path: Path) -> None:
    pairs = [Preference(Prompt.ask(f"Who {i}?"), Completion("The duck."), Completion("No.")) for i in range(6)]
    environment = Prompts(prompts, str(model), tmp_path / "run", held_out=0, dtype="float32", date="2020-02-29")
    fitted = RewardModel.fit(environment, pairs, lr=1e-2)
    assert fitted.rendering.date == "2020-02-29"
    another = replace(fitted, rendering=Rendering(date="2031-01-05"))
    assert fitted.score("Who 1?", ["The duck."]) != another.score("Who 1?", ["The duck."])
