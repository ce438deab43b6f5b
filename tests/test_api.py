"""The ten lines of Python in the README run."""

import re
from pathlib import Path

import pytest
import tiny

from assent import Preference, Prompt, Prompts, RewardModel
from assent.batch import ScorePairs
from assent.cli import main
from assent.preferences.data import load_preferences
from assent.records import Completion
from assent.run import open_run
from assent.training.preferences import BATCH_SPECS

README = Path(__file__).parent.parent / "README.md"
OPENINGS = README.parent / "examples" / "openings.jsonl"


def test_readme_lines_train_and_evaluate_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
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
