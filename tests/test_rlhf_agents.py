"""RLHF with agents: an environment and comparisons of clips in place of prompts; train, evaluate, predict."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from assent import RLHF, AssentError, ClipRewards, Environment, Prompts, RewardModel

pytest.importorskip("stable_baselines3")
import gymnasium

from assent.control.agent import Agent
from assent.control.trainer import FIRST_MEASURED_SEED

README = Path(__file__).parent.parent / "README.md"
LABELS = {"labels": 20, "session": 4, "reward_epochs": 3}
STEPS: dict[str, Any] = {"steps": 4000, "episodes": 4, "evaluation_episodes": 2}
"""Five rollouts of four episodes of 200 steps."""


def agent_of(world: Any, folder: Path, **settings: Any) -> RLHF:
    """Return a small agent that learns in an environment."""
    environment = Environment(world, task="Swing it up.", run=folder, seed=1, **settings)
    return RLHF(environment, ClipRewards(**LABELS), **STEPS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RLHF:
    """Return an agent that has learned to swing a pendulum."""
    agent = agent_of("pendulum", tmp_path_factory.mktemp("agent") / "run")
    agent.train()
    return agent


# Train, evaluate, predict


def test_readme_lines_train_and_evaluate_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) < 10
    monkeypatch.chdir(tmp_path)
    smaller = lines.replace("labels=200", "labels=40").replace("steps=100_000", "steps=6_400")
    assert smaller != lines
    exec(smaller, {})
    assert "'n': 64" in capsys.readouterr().out
    assert (tmp_path / "runs" / "agent" / "control" / "agent.safetensors").exists()


def test_agent_trains_on_comparisons_of_clips(trained: RLHF) -> None:
    result = trained.train()
    assert (result["comparisons"], result["steps"]) == (20, 4000)
    assert 'task = "Swing it up."' in (trained.environment.setup.run / "recipe.toml").read_text()


def test_training_a_second_time_does_nothing(trained: RLHF) -> None:
    saved = trained.environment.setup.run / "control" / "agent.safetensors"
    before = saved.stat().st_mtime_ns
    repeated = agent_of("pendulum", trained.environment.setup.run)
    assert repeated.train() == trained.train()
    assert saved.stat().st_mtime_ns == before


def test_evaluate_returns_what_the_saved_agent_reaches(trained: RLHF) -> None:
    evaluation = trained.evaluate()
    assert evaluation == trained.evaluate()
    assert evaluation.keys() == {"true_return", "true_return_sampled"}
    agent = Agent.load(trained.environment.setup.run / "control")
    rollout = agent.play(range(FIRST_MEASURED_SEED, FIRST_MEASURED_SEED + 2), seed=0)
    assert evaluation["true_return"]["mean"] == pytest.approx(float(rollout.true_rewards.sum(0).mean()))


def test_predict_returns_the_actions_of_the_saved_agent(trained: RLHF) -> None:
    agent = Agent.load(trained.environment.setup.run / "control")
    rollout = agent.play([3, 4], seed=0)
    actions = trained.predict(rollout.observations[:10, 0])
    assert actions.shape == (10, 1)
    assert np.allclose(actions, rollout.actions[1:11, 0], atol=1e-5)
    assert np.allclose(trained.predict(rollout.observations[0, 0].tolist()), actions[0], atol=1e-5)


def test_agent_learns_in_an_environment_of_gymnasium(tmp_path: Path) -> None:
    world = gymnasium.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=100)
    agent = agent_of(world, tmp_path / "run")
    assert agent.train()["steps"] == 4000
    observation, _ = world.reset(seed=0)
    assert world.action_space.contains(agent.predict(observation))
    assert agent.evaluate()["true_return"]["n"] == 2
    assert agent.environment.settings["episode_steps"] == 100  # type: ignore[union-attr]


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"world": "pendulm"}, r"Environment: environment must be .*'pendulum'.*, got 'pendulm'"),
        ({"world": "pendulum", "env_id": "A-v1"}, "Environment has no setting 'env_id': it goes with environment = "),
        ({"world": "pendulum", "held_out": 2}, "Environment: held_out must be less than or equal to 1, got 2"),
        ({"world": 3}, "Environment takes a name or what gymnasium.make returns, not int"),
    ],
)
def test_wrong_environment_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=f"^{message}[^\n]*$"):
        Environment(run=tmp_path, **settings)


def test_environment_that_its_id_does_not_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"^Environment cannot make Pendulum-v1 again, its id says nothing of g: "):
        Environment(gymnasium.make("Pendulum-v1", g=3.0), run=tmp_path)
    wrapped = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    with pytest.raises(AssentError, match="its id says nothing of RescaleAction: register it so"):
        Environment(wrapped, run=tmp_path)


def test_wrong_settings_of_an_agent_are_refused(tmp_path: Path) -> None:
    environment = Environment("pendulum", run=tmp_path / "run")
    with pytest.raises(AssentError, match=r"^ClipRewards has no setting 'lables'; did you mean 'labels'"):
        ClipRewards(lables=20)
    with pytest.raises(AssentError, match=r"^ClipRewards: labels must be a valid integer"):
        ClipRewards(labels="many")
    with pytest.raises(AssentError, match=r"^RLHF control has no setting 'stpes'; did you mean 'steps'"):
        RLHF(environment, ClipRewards(), stpes=3)
    with pytest.raises(AssentError, match=r"^RLHF: the objective of an agent is ppo, not 'dpo'$"):
        RLHF(environment, ClipRewards(), objective="dpo")


def test_reward_model_must_fit_the_environment(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"^RLHF: an Environment needs ClipRewards, such as"):
        RLHF(Environment("pendulum", run=tmp_path / "agent"), RewardModel("folder", {}))
    model = tiny.make(tmp_path / "model")
    prompts = Prompts(["Where?"], model=str(model), run=tmp_path / "run")
    with pytest.raises(AssentError, match=r"^RLHF: ClipRewards is for an Environment; Prompts need RewardModel.fit"):
        RLHF(prompts, ClipRewards())
    with pytest.raises(AssentError, match=r"^RLHF.predict: a language model answers prompts; call generate\(prompt\)$"):
        RLHF(prompts, objective="dpo").predict([0.0])


def test_agent_writes_no_text_and_is_not_judged(trained: RLHF) -> None:
    for text_only in (lambda: trained.generate("Hello"), lambda: trained.model, lambda: trained.tokenizer):
        with pytest.raises(AssentError, match=r"^RLHF: an agent in an environment writes no text; call predict"):
            text_only()
    with pytest.raises(AssentError, match=r"^RLHF.evaluate: an agent has true returns; leave out judge$"):
        trained.evaluate(judge="human")
    with pytest.raises(AssentError, match=r"^RLHF.predict: [^\n]*observation shape[^\n]*$"):
        trained.predict([0.0, 1.0])


def test_untrained_agent_is_neither_evaluated_nor_asked(tmp_path: Path) -> None:
    agent = agent_of("pendulum", tmp_path / "run")
    with pytest.raises(AssentError, match=r"^RLHF.evaluate: no trained agent in .*; call train\(\)$"):
        agent.evaluate()
    with pytest.raises(AssentError, match=r"^no agent in .*control: train one with 'assent control'$"):
        agent.predict([0.0, 0.0, 0.0])


def test_api_imports_without_the_packages_of_agents() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("gymnasium", "stable_baselines3"))
from assent import RLHF, AssentError, ClipRewards, Environment
try:
    Environment("pendulum")
except AssentError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "an agent needs stable_baselines3: pip install 'assent[control]'\n"
