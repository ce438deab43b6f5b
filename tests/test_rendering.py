"""A run renders its prompts in the same way on every day, and trains the sampled tokens."""

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
from assent.models.rendering import Rendering
from assent.models.tokenizer import load_chat_tokenizer
from assent.preferences.convert import to_examples
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


def test_run_keeps_the_date_of_its_first_day(tmp_path: Path) -> None:
    setup = Setup(run=tmp_path / "run")
    with open_run(setup) as run:
        first = run.rendering.date
        assert len(first) == len("2026-11-30") and run.recipe["date"] == first
    text = (setup.run / "recipe.toml").read_text()
    (setup.run / "recipe.toml").write_text(text.replace(first, "2020-02-29"))  # as if the run had begun long ago
    with open_run(setup) as run:
        assert run.rendering.date == "2020-02-29"
        assert run.rendering.strftime("%d %B %Y, %H:%M") == "29 February 2020, 00:00"


@pytest.mark.parametrize("words", [("--date", "30.11.2026"), ("--template-args", "enable_thinking")])
def test_mistyped_rendering_flags_create_no_run(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Who?"}\n')
    assert main(["import", str(file), "--run", str(tmp_path / "run"), *words]) == 2
    assert f"{words[0]} " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_rendering_date_is_fixed_after_training(
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


def test_loss_depends_on_the_rendering_date_not_the_clock(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    row = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A duck."}]}
    data.write_text(json.dumps(row) + "\n")
    by_date: dict[str, Any] = {}
    for name, date in (("a", "2024-07-26"), ("b", "2024-07-26"), ("c", "2031-01-05")):
        run = tmp_path / name
        words = ["sft", "--run", str(run), "--model", str(model), "--data", str(data), "--date", date, *SHORT]
        assert main(words) == 0
        by_date[name] = losses(run)
    assert by_date["a"] == by_date["b"] != by_date["c"]


def test_sampled_token_ids_are_stored_and_trained(model: Path, prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--run", str(run), "--model", str(model), *SHORT]
    assert main(["generate", *words, "--prompts", str(prompts), *DRAWS]) == 0
    assert main(["label", "--run", str(run), "--annotator", "simulated"]) == 0
    tokenizer = tiny.load(model).chat_tokenizer
    with Store.open(run / "feedback.db") as store:
        stored = {prompt.id: prompt for prompt in store.prompts()}
        responses = list(store.responses())
        examples = to_examples(store.feedback(), store.tasks(), store.prompts(), store.responses())
    assert len(responses) == 12
    for response in responses:
        assert response.token_ids and response.tokenizer == tokenizer.fingerprint
        assert tokenizer.encode_completion(stored[response.prompt], response.completion) == response.token_ids
        assert tokenizer.decode(response.token_ids, stored[response.prompt]) == response.text
        assert (response.token_ids[-1] in tokenizer.stop_ids) == response.finished
    pairs = [example for example in examples if isinstance(example, Preference)]
    assert pairs and all(pair.chosen.token_ids and pair.rejected.token_ids for pair in pairs)


def test_template_arguments_are_those_of_the_run(tmp_path: Path) -> None:
    opening = "assistant\n' + ('' if think is defined and not think else 'Hm. ') }}"
    thinks = tiny.CHATML.replace("assistant\n' }}", opening)
    folder = tiny.make(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(thinks)
    with open_run(Setup(run=tmp_path / "run", model=str(folder), template_args="think=false")) as run:
        ends = [
            tokenizer.decode(tokenizer.encode_prompt(Prompt.ask("Who?")), Prompt.ask("Who?"))[-4:]
            for tokenizer in (load_chat_tokenizer(str(folder)), load_chat_tokenizer(str(folder), run.rendering))
        ]
    assert ends == ["Hm. ", "ant\n"]


@pytest.mark.parametrize(("template", "rendered"), [(DATED, False), ("{{ 'You judge.\n' }}" + tiny.CHATML, True)])
def test_reward_model_uses_its_own_template(
    template: str, rendered: bool, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the sampled tokens to a reward model of the same vocabulary only if it encodes the text equally."""
    reward = tmp_path / "judge"
    save(new_reward(model, 0), reward)
    (reward / "chat_template.jinja").write_text(template)
    heads = {"reward_mean": [0.0], "reward_std": [1.0]}
    config = json.loads((reward / "config.json").read_text())
    (reward / "config.json").write_text(json.dumps(config | heads))
    scored: list[Prompt] = []
    score = Model.score

    def listen(self: Model, batch: Any, responses: Any) -> Any:
        scored.extend(batch)
        return score(self, batch, responses)

    monkeypatch.setattr(Model, "score", listen)
    run = str(tmp_path / "run")
    assert main(["import", str(prompts), "--run", run, "--model", str(model)]) == 0
    steps = ("--steps", "1", "--n", "2", "--batch-size", "2", "--max-new-tokens", "6")
    assert main(["grpo", "--run", run, "--rewards", str(reward), *steps, *SHORT]) == 0
    assert bool(scored) == rendered


def test_fitted_reward_model_keeps_its_rendering(model: Path, prompts: Path, tmp_path: Path) -> None:
    pairs = [Preference(Prompt.ask(f"Who {i}?"), Completion("The duck."), Completion("No.")) for i in range(6)]
    environment = Prompts(prompts, str(model), tmp_path / "run", held_out=0, dtype="float32", date="2020-02-29")
    fitted = RewardModel.fit(environment, pairs, lr=1e-2)
    assert fitted.rendering.date == "2020-02-29"
    another = replace(fitted, rendering=Rendering(date="2031-01-05"))
    assert fitted.score("Who 1?", ["The duck."]) != another.score("Who 1?", ["The duck."])
