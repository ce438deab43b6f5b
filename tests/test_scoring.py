"""Rewards of a stage: rules with settings, several rewards with weights, a user's own file."""

import os
import pickle
from pathlib import Path

import pytest
import tiny

from assent.cli import main
from assent.commands import stage
from assent.config import override, settings, table
from assent.errors import AssentError
from assent.loggers.jsonl import read_metrics
from assent.records import Prompt, Response
from assent.registry import resolve_file
from assent.rewards.length_penalty import LengthPenalty
from assent.run import Run, Setup
from assent.scoring import RewardSource

PROMPT = Prompt.ask("Where?")
RESPONSES = [Response(PROMPT.id, "word " * count, "base") for count in (2, 4, 10)]
OWN_REWARD = """
class Own:
    def score(self, prompts, responses):
        return [1.0 for _ in responses]
"""


def source(**table: object) -> RewardSource:
    return override(RewardSource(), table, "test")


def scores(source: RewardSource, folder: Path) -> list[float]:
    rewards = source.load(Run(Setup(folder)))
    return rewards.score([PROMPT] * len(RESPONSES), RESPONSES).total.tolist()


def test_length_penalty_grows_beyond_the_target() -> None:
    penalty = LengthPenalty(target_words=4).score([PROMPT] * 3, RESPONSES)
    assert penalty.tolist() == [0.0, 0.0, -1.5]  # by hand: 10 / 4 - 1


def test_rule_settings_are_settings_of_the_stage(tmp_path: Path) -> None:
    ppo = override(stage("ppo"), {"rewards": "length_penalty", "target_words": "5"}, "assent ppo")
    assert table(ppo)["target_words"] == 5
    assert settings(ppo)["target_words"].help.startswith("Words without a penalty")
    assert "target_words" not in settings(stage("ppo"))
    assert scores(source(rewards=["length_penalty"], target_words=5), tmp_path) == [0.0, 0.0, -1.0]


def test_rule_settings_without_the_rule_are_refused() -> None:
    with pytest.raises(AssentError, match="no setting 'target_words': it goes with rewards = length_penalty"):
        override(stage("ppo"), {"target_words": 5}, "assent ppo")


def test_several_rewards_are_added_with_weights(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN_REWARD)
    rewards = source(rewards=["length_penalty", str(own)], reward_weights=[2.0, 0.5], target_words=5)
    assert scores(rewards, tmp_path) == [0.5, 0.5, -1.5]  # by hand: 2 * (0, 0, -1) + 0.5
    metrics = rewards.load(Run(Setup(tmp_path))).score([PROMPT] * 3, RESPONSES).metrics
    assert metrics == {"rewards/length_penalty": pytest.approx(-1 / 3), f"rewards/{own}": 1.0}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"rewards": ["length_penalty"], "reward_weights": [1.0, 2.0]}, "2 reward_weights for 1 rewards"),
        ({"rewards": ["length_penalty", "length_penalty"]}, "rewards names 'length_penalty' twice; name it once"),
        ({"rewards": ["nothing.py"]}, "no file at nothing.py"),
    ],
)
def test_wrong_rewards_are_refused(table: dict[str, object], line: str) -> None:
    with pytest.raises(AssentError, match=line):
        source(**table)


def test_rewards_of_a_later_layer_keep_their_settings() -> None:
    recipe = override(stage("grpo"), {"rewards": ["length_penalty"], "target_words": 9}, "recipe.toml [grpo]")
    flags = override(recipe, {"rewards": "length_penalty,conciseness_rubric"}, "assent grpo")
    assert table(flags)["target_words"] == 9


def test_own_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    rule = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Own:\n    {0}: float = {1}\n"
    rule += "    def score(self, prompts, responses):\n        return [self.{0} for _ in responses]\n"
    files = []
    for folder, name, value in (("a", "first", 2.0), ("b", "second", 3.0)):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "mine.py")
        files[-1].write_text(rule.format(name, value))
    rewards = source(rewards=[str(file) for file in files], second=5.0)
    assert scores(rewards, tmp_path) == [7.0, 7.0, 7.0]


def test_weights_must_be_finite() -> None:
    with pytest.raises(AssentError, match="reward_weights must be a finite number"):
        source(rewards=["length_penalty"], reward_weights=["nan"])


def test_unknown_reward_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="no reward 'lenght_penalty'; did you mean 'length_penalty'"):
        source(rewards=["lenght_penalty"]).load(Run(Setup(tmp_path)))


def test_ppo_logs_each_reward_by_name(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Where is the duck?"}\n{"prompt": "Where is the cat?"}\n')
    run = ["--run", str(tmp_path / "run"), "--model", str(model), "--held-out", "0", "--dtype", "float32"]
    assert main(["import", str(tmp_path / "prompts.jsonl"), *run[:2]]) == 0
    rewards = ["--rewards", "length_penalty,conciseness_rubric", "--reward-weights", "0.5,1", "--target-words", "2"]
    assert main(["grpo", *run, *rewards, "--steps", "1", "--max-new-tokens", "6", "--missing-eos-score", "off"]) == 0
    (line,) = read_metrics(tmp_path / "run")
    assert line["rewards/length_penalty"] < 0 < line["rewards/conciseness_rubric"]
    total = 0.5 * line["rewards/length_penalty"] + line["rewards/conciseness_rubric"]
    assert line["score"] == pytest.approx(total, abs=1e-5)


SETTING_OF_ROLLOUTS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    n: int = 5

    def score(self, prompts, responses):
        return [1.0 for _ in responses]
"""
NEEDS_ARGUMENT = """
class Own:
    def __init__(self, path):
        self.path = path

    def score(self, prompts, responses):
        return [1.0 for _ in responses]
"""
WRONG_DEFAULT = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    scale: float = 0.0

    def __post_init__(self):
        if not self.scale:
            raise ValueError("scale must not be 0")

    def score(self, prompts, responses):
        return [self.scale for _ in responses]
"""


def test_setting_that_the_stage_has_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SETTING_OF_ROLLOUTS)
    with pytest.raises(AssentError, match=r"Own and RolloutSettings both have a setting 'n'; rename it in own\.py"):
        override(stage("grpo"), {"rewards": [str(tmp_path / "own.py")]}, "assent grpo")


@pytest.mark.parametrize(
    ("text", "reason"), [(NEEDS_ARGUMENT, ".* missing 1 required"), (WRONG_DEFAULT, "scale must not be 0")]
)
@pytest.mark.parametrize(("command", "setting"), [("grpo", "rewards"), ("evaluate", "judge")])
def test_own_file_without_defaults_is_refused_early(
    text: str, reason: str, command: str, setting: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(AssentError, match=f"^test: every setting of Own needs a default that works: {reason}"):
        override(stage(command), {setting: str(tmp_path / "own.py")}, "test")


def test_own_file_is_imported_once_until_it_changes(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN_REWARD)
    first = resolve_file(str(own), "score")
    assert resolve_file(str(own), "score") is first
    assert type(pickle.loads(pickle.dumps(first()))) is first
    own.write_text(f"{OWN_REWARD}    scale = 2.0\n")
    os.utime(own, ns=(0, own.stat().st_mtime_ns + 1))
    assert resolve_file(str(own), "score").scale == 2.0
