"""Control: an agent learns from comparisons of clips, never from the environment's reward, and survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from assent.api import Run
from assent.control.comparisons import ComparisonSettings, draw_pairs
from assent.environments.pendulum import Pendulum, PendulumEpisodes
from assent.errors import Waiting
from assent.feedback.comparison import Comparison
from assent.labelling.queue import TaskQueue
from assent.protocols import Transition
from assent.records import Feedback
from assent.replay import start_of
from assent.run import open_store
from assent.segments import Segment

pytest.importorskip("stable_baselines3")
from assent.control.agent import Agent, AgentSettings, Rollout

SMALL = {"episodes": 4, "steps": 4800, "labels": 24, "session": 4, "reward_epochs": 3, "evaluation_episodes": 2}
"""Six rollouts of four episodes."""


def run_control(folder: Path, **settings: Any) -> Run:
    """Run the stage at a small size."""
    setup = {"held_out": settings.pop("held_out", 0.0), "seed": settings.pop("seed", 0)}
    run: Run = Run(folder, **setup).control(**{**SMALL, **settings})
    return run


def weights(folder: Path, name: str = "agent") -> dict[str, NDArray[np.float32]]:
    """Return what a finished stage has saved."""
    return dict(load_file(folder / "control" / f"{name}.safetensors"))


def assert_equal(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def progress_of(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics without the time."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in Run(folder).metrics]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run whose comparisons are all judged."""
    folder = tmp_path_factory.mktemp("control") / "run"
    run_control(folder, held_out=0.3, seed=1)
    return folder


# The result


def test_stage_keeps_agent_reward_model_and_settings(finished: Path) -> None:
    result = Run(finished).results["control"]
    assert (result["comparisons"], result["steps"], result["true_return"]["n"]) == (24, 4800, 2)
    settings = json.loads((finished / "control" / "agent.json").read_text())
    assert (settings["environment"], settings["labels"], settings["error_rate"]) == ("pendulum", 24, 0.1)
    assert {"mean", "std"} < weights(finished, "reward_model").keys()


def test_metrics_count_labels_and_measure_the_reward_model(finished: Path) -> None:
    lines = progress_of(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["asked"] == lines[0]["labels"] == 6
    assert lines[-1]["labels"] == 24
    assert all(-2000 < line["true_return"] < 0 for line in lines)
    assert 0 <= lines[0]["reward_accuracy"] <= 1
    assert any("held_out_accuracy" in line for line in lines)


def test_compared_clips_have_one_seed_and_do_not_overlap(finished: Path) -> None:
    with open_store(finished) as store:
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        responses = {response.id: response for response in store.responses()}
        tasks = list(store.tasks())
        feedback = list(store.feedback())
    assert len(tasks) == len(feedback) == 24
    assert {event.annotator for event in feedback} == {"simulated:noise_free"}
    for task in tasks:
        assert start_of(prompts[task.prompt]).environment == Pendulum()
        first, second = (Segment.read(responses[item].text) for item in task.items)
        prefix = min(len(first.actions), len(second.actions))
        if first.actions[:prefix] == second.actions[:prefix]:  # two pieces of one episode
            assert abs(first.start - second.start) >= Pendulum.clip_steps


def test_held_out_seeds_are_only_evaluated(finished: Path) -> None:
    from assent.split import split

    with open_store(finished) as store:
        held_out = split(store.prompts(), 0.3).held_out
        purposes = {task.purpose: set() for task in store.tasks()}  # type: ignore[var-annotated]
        for task in store.tasks():
            purposes[task.purpose].add(task.prompt)
    assert purposes["evaluate"]
    assert purposes["evaluate"] <= held_out
    assert not purposes["train"] & held_out


# What the agent may not see


class Liar(Pendulum):
    """A pendulum whose own reward has the other sign."""

    def begin(self, seeds: Any) -> PendulumEpisodes:
        return LyingEpisodes(seeds)


class LyingEpisodes(PendulumEpisodes):
    def step(self, actions: NDArray[Any]) -> Transition:
        return (transition := super().step(actions))._replace(true_rewards=-transition.true_rewards)


def test_agent_never_sees_the_true_reward() -> None:
    policies, returns = [], []
    for environment in (Pendulum(), Liar()):
        agent = Agent(environment, AgentSettings(episodes=2, epochs=1), seed=0)
        for number in range(2):
            agent.iterate([number, number], number, lambda rollout: rollout.features[..., 0])
        policies.append({name: weight.numpy() for name, weight in agent._ppo.policy.state_dict().items()})
        returns.append(float(agent.play([5], 0).true_rewards.sum()))
    assert_equal(*policies)
    assert returns[0] == -returns[1] != 0


def test_scores_are_added_to_the_value_of_the_last_observation() -> None:
    settings = AgentSettings(episodes=2, epochs=1)
    agent = Agent(Pendulum(), settings, seed=0)
    seen: list[NDArray[Any]] = []

    def score(rollout: Rollout) -> NDArray[np.float32]:
        seen.append(agent._ppo.rollout_buffer.rewards.copy())
        with torch.no_grad():
            last = torch.from_numpy(rollout.observations[-1])
            seen.append(settings.gamma * agent._ppo.policy.predict_values(last).numpy()[:, 0])
        return np.full((200, 2), 5, dtype=np.float32)

    agent.iterate([1, 1], 0, score)
    bootstrap, expected = seen
    assert np.all(bootstrap[:-1] == 0)
    assert bootstrap[-1] == pytest.approx(expected, rel=1e-5)
    assert np.all(expected != 0)
    assert np.allclose(agent._ppo.rollout_buffer.rewards.reshape(-1).sum(), 5 * 400 + expected.sum(), rtol=1e-4)


# When to ask, and what


def test_all_comparisons_are_asked_after_four_fifths() -> None:
    settings = ComparisonSettings(labels=200)
    due = [settings.due(step / 100) for step in range(101)]
    assert due[0] == 50
    assert due == sorted(due)
    assert due[80] == due[100] == 200
    assert due[79] < 200
    # 50 + 150 ln(1 + .15/.15) / ln(1 + .8/.15) = 50 + 150 x .693147 / 1.845827 = 106.3
    assert settings.due(0.15) == 106


def test_without_decay_all_are_asked_at_first() -> None:
    assert ComparisonSettings(labels=30, label_decay=0).due(0) == 30


def test_pairs_are_distinct_and_follow_from_the_seed() -> None:
    features, rewards = np.zeros((50, 4, 4), np.float32), np.zeros((50, 4), np.float32)
    rollout = Rollout((7, 7, 9, 9), np.zeros((50, 4, 1)), np.zeros((50, 4, 3)), features, rewards)
    pairs = draw_pairs(rollout, 10, 40, "seed")
    assert pairs == draw_pairs(rollout, 10, 40, "seed") != draw_pairs(rollout, 10, 40, "other")
    assert len({frozenset(pair) for pair in pairs}) == 40
    for first, second in pairs:
        assert rollout.seeds[first[0]] == rollout.seeds[second[0]]
        assert first[0] != second[0] or abs(first[1] - second[1]) >= 10
        assert max(first[1], second[1]) <= 40


# People


def judge(folder: Path, count: int) -> int:
    """Judge at most `count` comparisons as a person at the page; return how many there were."""
    with open_store(folder) as store:
        queue = TaskQueue(store)
        assignments = queue.next_tasks("ann", count)
        for assignment in assignments:
            shown = assignment.display_order
            now = datetime.now(UTC).isoformat()
            queue.submit(Feedback(assignment.task.id, "ann", Comparison(preferred=shown[0]), now, display_order=shown))
    return len(assignments)


HUMAN = {"annotator": "human", "wait": 0, "ahead": 4}


def test_people_are_waited_for_and_the_agent_runs_ahead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Waiting, match="0 of 6 tasks judged"):
        run_control(folder, **HUMAN)
    assert judge(folder, 5) == 5
    with pytest.raises(Waiting, match="5 of 6 tasks judged"):  # nothing is learned before all first answers are in
        run_control(folder, **HUMAN)
    assert not Run(folder).metrics
    judge(folder, 1)
    waits = 0
    while True:
        try:
            run = run_control(folder, **HUMAN)
        except Waiting as waiting:
            waits += 1
            completed, _, total = str(waiting).split()[:3]
            assert int(total) - int(completed) > 4
            assert judge(folder, 100)
        else:
            break
    assert 1 <= waits <= 5
    lines = run.metrics
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["asked"] == 24
    assert 24 - lines[-1]["labels"] <= 4
    assert any(line["labels"] < line["asked"] for line in lines)


# Baselines and resuming


@pytest.mark.parametrize("reward", ["true", "constant", "random"])
def test_baselines_ask_nobody(reward: str, tmp_path: Path) -> None:
    run = run_control(tmp_path / "run", reward=reward)
    assert run.results["control"]["comparisons"] == 0
    with open_store(tmp_path / "run") as store:
        assert not list(store.tasks())
    rewards = [line["reward"] for line in run.metrics]
    assert all(value == 0 for value in rewards) == (reward == "constant")
    if reward == "true":
        assert all(line["correlation"] == pytest.approx(1, abs=1e-6) for line in run.metrics)


def kill_after(folder: Path, lines: int, *command: str) -> None:
    """Run a command in a process, and kill it when it has logged so many steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "assent", *command], env=environment, stderr=subprocess.DEVNULL)
    metrics = folder / "metrics.jsonl"
    try:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < lines:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("save_every", [1, 3])
def test_killed_run_resumes_to_the_same_agent(save_every: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_control(whole, save_every=save_every)
    flags = {**SMALL, "save_every": save_every, "held_out": 0.0, "run": killed}
    command = [
        "control",
        *(str(part) for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)),
    ]
    kill_after(killed, 2, *command)
    kill_after(killed, 5, *command)
    assert not (killed / "done" / "control.json").exists()
    run_control(killed, save_every=save_every)
    assert_equal(weights(whole), weights(killed))
    assert_equal(weights(whole, "reward_model"), weights(killed, "reward_model"))
    assert progress_of(whole) == progress_of(killed)
