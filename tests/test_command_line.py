"""Settings of a command: its defaults, then the run's, the recipe's and the command line's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assent.cli import main
from assent.commands import stage
from assent.config import override, table, write_recipe

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs a command, which must be refused, and returns the one line that it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert main(words) == 2
        output = capsys.readouterr().err
        assert output.count("\n") == 1
        return output

    return run


def write_run(folder: Path, name: str, **settings: object) -> None:
    """Write a run folder in which a stage has been started with these settings."""
    (folder / "done").mkdir(parents=True)
    recipe = {name: table(override(stage(name), settings, name))}
    (folder / "recipe.toml").write_text(write_recipe(recipe))


def test_wrong_plugin_of_a_recipe_names_the_recipe(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "r.toml").write_text('[label]\nannotator = "humman"')
    assert refused("label", "r.toml").startswith("assent: r.toml [label]: annotator must be 'human'")
    (tmp_path / "r.toml").write_text("")
    assert refused("label", "r.toml", "--annotator", "humman").startswith("assent: assent label: --annotator must be")


def test_recipe_replaces_the_plugin_of_the_run(tmp_path: Path, refused: Refused) -> None:
    write_run(tmp_path / "run", "label", annotator="simulated", profiles=["low_noise"])
    (tmp_path / "r.toml").write_text('[label]\nannotator = "human"')
    assert "holds 'label' with annotator = 'simulated', not 'human'" in refused("label", "r.toml", "--run", "run")


def test_flag_replaces_the_plugin_of_a_recipe(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "r.toml").write_text("[label]\nvotes = 3")
    assert "holds no responses to label" in refused("label", "r.toml", "--annotator", "human", "--wait", "0")
    (tmp_path / "r.toml").write_text('[grpo]\nrewards = ["length_penalty"]\nreward_weights = [0.5]')
    rewards = ["--rewards", "length_penalty,conciseness_rubric", "--reward-weights", "0.5,1", "--target-words", "9"]
    assert "no policy 'nowhere'" in refused("grpo", "r.toml", *rewards, "--policy", "nowhere")


def test_rewards_of_the_run_bring_their_flags(tmp_path: Path, refused: Refused) -> None:
    write_run(tmp_path / "run", "ppo", rewards=["length_penalty"])
    words = "ppo", "--run", "run", "--target-words", "7"
    assert "holds 'ppo' with target_words = 50, not 7" in refused(*words)
    assert "it goes with --rewards length_penalty" in refused(*words, "--overwrite"), "the defaults apply"


def test_reward_named_twice_is_written_as_a_flag(refused: Refused) -> None:
    assert "assent ppo: --rewards names 'reward' twice; name it once" in refused("ppo", "--rewards", "reward,reward")


def test_help_needs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "default").mkdir(parents=True)
    (tmp_path / "runs" / "default" / "recipe.toml").write_text("[ppo]\nrewards = ['gone.py']")
    for words in (["ppo", "--help"], ["ppo", "--rewards", "length_penalty", "-h"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "--target-words" in capsys.readouterr().out
