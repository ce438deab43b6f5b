"""The README's ten lines of Python, run."""

import re
from pathlib import Path

import pytest
import tiny

from assent import Preference, Prompt, Prompts, RewardModel

README = Path(__file__).parent.parent / "README.md"
OPENINGS = README.parent / "examples" / "openings.jsonl"


def test_the_lines_of_the_readme_train_a_policy_and_measure_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_reward_model_fits_preferences_and_prefers_their_kind(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    words = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird"]
    prompts = [Prompt.ask(f"Where is the {word}?") for word in words]
    preferences = [Preference(p, f"In the {w}.", "No no no.") for p in prompts for w in ("garden", "house", "sea")]
    environment = Prompts(prompts, model=str(model), run=tmp_path / "run", held_out=0.2, dtype="float32")
    fitted = RewardModel.fit(environment, preferences, lr=1e-3, epochs=8, batch_size=4)
    good, bad = fitted.score("Where is the star?", ["In the garden.", "No no no."])
    assert good > bad + 1
