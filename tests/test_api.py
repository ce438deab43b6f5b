"""The Python API: the README's lines, the methods of a run, RLHF with each kind of objective."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent import RLHF, AssentError, Preference, Prompt, Prompts, RewardModel, Run
from assent.api import method_name
from assent.batch import ScorePairs
from assent.cli import main
from assent.commands import command as command_of
from assent.commands import command_names
from assent.config import settings
from assent.preferences.data import load_preferences
from assent.protocols import Stage
from assent.records import Completion
from assent.run import open_run, read_run_recipe
from assent.training.preferences import BATCH_SPECS

README = Path(__file__).parent.parent / "README.md"
OPENINGS = README.parent / "examples" / "openings.jsonl"


def test_readme_lines_train_and_evaluate_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, _ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) < 10
    model = tiny.make(tmp_path / "runs" / "tiny" / "pretrain", chat=False)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "openings.jsonl").write_text("\n".join(OPENINGS.read_text().splitlines()[:40]))
    rows = [
        f'{{"prompt": "{word} was here. ", "chosen": "The {word} ran home.", "rejected": "no no no no"}}'
        for word in ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird"]
    ]
    (tmp_path / "comparisons.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(lines, scope)
    assert (tmp_path / "runs" / "python" / "ppo" / "model.safetensors").exists()
    assert model.exists()


def test_reward_model_fits_its_preferences(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    words = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird"]
    prompts = [Prompt.ask(f"Where is the {word}?") for word in words]
    preferences = [
        Preference(p, Completion(f"In the {w}."), Completion("No no no."))
        for p in prompts
        for w in ("garden", "house", "sea")
    ]
    environment = Prompts(prompts, model=str(model), run=tmp_path / "run", held_out=0.2, dtype="float32")
    fitted = RewardModel.fit(environment, preferences, lr=1e-3, epochs=8, batch_size=4)
    good, bad = fitted.score("Where is the star?", ["In the garden.", "No no no."])
    assert good > bad + 1


def test_preference_p_chosen_margin_and_weight_reach_training(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    prompts = [Prompt.ask(f"Where is number {number}?") for number in range(8)]
    preferences = [Preference(p, Completion("In the sea."), Completion("No no", False), 0.7, 1.5, 2.0) for p in prompts]
    environment = Prompts(prompts, model=str(model), run=tmp_path / "run", dtype="float32")
    RewardModel.fit(environment, preferences, batch_size=8)
    with open_run(environment.setup) as run:
        train, held_out, _ = load_preferences(run, tiny.load(model).chat_tokenizer, 256, BATCH_SPECS[ScorePairs])
    assert len(train) + len(held_out) == 8
    for group in train + held_out:
        (pair,) = group.pairs
        assert pair[2:] == pytest.approx((0.7, 1.5, 2.0))
        ended = [branch[-1] in tiny.load(model).chat_tokenizer.stop_ids for branch in group.tokens.completions]
        assert (ended[pair.chosen], ended[pair.rejected]) == (True, False)


def test_plain_texts_are_held_out_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.make(tmp_path / "model", chat=False)
    texts = [f'{{"text": "The cat ran home {number} times."}}\n' for number in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(texts))
    run = ["--run", str(tmp_path / "run"), "--model", str(model)]
    assert main(["sft", *run, "--data", str(tmp_path / "texts.jsonl"), "--dtype", "float32"]) == 0
    counts = dict(re.findall(r"(\w+) ([\d.]+)", capsys.readouterr().out))
    assert int(counts["demonstrations"]) + int(counts["held_out"]) == 40
    assert 5 <= int(counts["held_out"]) <= 20


def test_first_stage_fixes_the_model_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.make(tmp_path / "model", chat=False)
    (tmp_path / "shown.jsonl").write_text('{"prompt": "Where?", "completion": " Here."}\n' * 4)
    run = ["--run", str(tmp_path / "run")]
    assert main(["import", str(tmp_path / "shown.jsonl"), *run]) == 0
    assert main(["sft", *run, "--model", str(model), "--held-out", "0", "--dtype", "float32"]) == 0
    assert main(["sft", *run, "--model", "other/model"]) == 2
    assert f"is a run with model = {str(model)!r}, not 'other/model'" in capsys.readouterr().err


WORDS = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird"]


def write_comparisons(path: Path) -> Path:
    rows = [
        {"prompt": [{"role": "user", "content": f"Where is the {word}?"}],
         "chosen": [{"role": "assistant", "content": f"In the {place}."}],
         "rejected": [{"role": "assistant", "content": "No no no."}]}
        for word in WORDS
        for place in ("garden", "house")
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_methods_of_a_run_chain_through_the_loop(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    run = Run(tmp_path / "run", model=str(model), dtype="float32", held_out=0.3)
    run.import_(write_comparisons(tmp_path / "pairs.jsonl")).reward(lr=1e-3, batch_size=4).dpo(lr=1e-3)
    assert list(run.results) == ["reward", "dpo"]
    assert repr(run) == f"Run({str(run.folder)!r}, finished: reward, dpo)"
    assert [row["step"] for row in run.metrics if row["stage"] == "dpo"] == [1]
    with run.open_store() as store:
        assert len(list(store.feedback())) == 24
    assert run.results["reward"]["pairs"] + run.results["reward"]["n"] == 24
    run.evaluate(judge="conciseness_rubric", max_new_tokens=8)
    assert run.summary["win_rate"].keys() == {"dpo"}


def test_run_keeps_settings_of_its_folder_and_its_stages(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    first = Run(tmp_path / "run", model=str(model), dtype="float32", seed=3)
    first.import_(write_comparisons(tmp_path / "pairs.jsonl")).reward(lr=1e-3, batch_size=4)
    again = Run(tmp_path / "run")
    assert (again.setup.seed, again.setup.model) == (3, str(model))
    seconds = again.reward().results["reward"]["seconds"]
    assert seconds == first.results["reward"]["seconds"]
    with pytest.raises(AssentError, match=r"holds 'reward' with lr = 0.001, not 0.01: .* --overwrite"):
        again.reward(lr=1e-2)
    again.reward(lr=1e-2, batch_size=4, overwrite=True)
    assert read_run_recipe(tmp_path / "run")["reward"]["lr"] == 1e-2


def test_iterate_runs_the_stages_of_a_recipe(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    run = Run(tmp_path / "run", model=str(model), dtype="float32")
    run.import_(write_comparisons(tmp_path / "pairs.jsonl"))
    run.iterate({"stages": ["reward", "dpo"], "reward": {"batch_size": 4}, "dpo": {"lr": 1e-3}})
    assert list(run.results) == ["reward", "dpo"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.reward(epoch=1), "Run.reward has no setting 'epoch'; did you mean 'epochs'?"),
        (lambda run: run.dpo("x.jsonl"), "Run.dpo takes keywords only, not 'x.jsonl'"),
        (lambda run: run.import_("a", "b"), "Run.import_ takes one word, file, not 'b'"),
        (lambda run: run.verify(), "no run at "),
        (lambda run: Run("x", lr=1), "Run has no setting 'lr'"),
    ],
)
def test_wrong_call_of_a_run_says_what_to_do(tmp_path: Path, call: Callable[[Run], object], message: str) -> None:
    with pytest.raises(AssentError, match=f"^{re.escape(message)}"):
        call(Run(tmp_path / "run"))


def test_every_command_is_a_method_with_its_settings() -> None:
    for name in command_names():
        method = getattr(Run, method_name(name))
        parameters = [*inspect.signature(method).parameters]
        known = [*settings(command_of(name))]
        own = ["overwrite"] if isinstance(command_of(name), Stage) else []
        assert sorted(parameters) == sorted(["self", *known, *own]), name
        assert all(f"    {setting}: " in method.__doc__ for setting in known), name


def test_rlhf_trains_dpo_and_opens_in_transformers(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    prompts = [Prompt.ask(f"Where is the {word}?") for word in WORDS]
    environment = Prompts(prompts, model=str(model), run=tmp_path / "run", dtype="float32")
    reward_model = RewardModel.fit(environment, write_comparisons(tmp_path / "pairs.jsonl"), lr=1e-3, batch_size=4)
    agent = RLHF(environment, reward_model, objective="dpo", lr=1e-3)
    result = agent.train()
    assert result["pairs"] > 0
    assert 0 <= agent.evaluate(max_new_tokens=8)["win"]["rate"] <= 1
    ids = agent.tokenizer("Where is the cat?", return_tensors="pt")
    policy: Any = agent.model
    assert policy.generate(**ids, max_new_tokens=3, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_rlhf_refuses_an_objective_that_it_cannot_train(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    environment = Prompts([Prompt.ask("Where?")], model=str(model), run=tmp_path / "run")
    with pytest.raises(AssentError, match="no objective 'pppo'; did you mean 'ppo'"):
        RLHF(environment, objective="pppo")
    with pytest.raises(AssentError, match=r"ppo needs a reward model; pass RewardModel.fit\(environment\)"):
        RLHF(environment)
