"""Clips outside of control: their judgements survive a file, and stages for texts refuse them in a line."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from test_import_export_inspect import CommandResult, run_here

from assent.api import Run
from assent.environments.pendulum import Pendulum
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats.files.sniffing import FORMATS
from assent.preferences.convert import load_examples
from assent.records import (
    Feedback,
    Judgement,
    Preference,
    Prompt,
    RankedCompletions,
    Response,
    ScoredCompletion,
    Task,
)
from assent.replay import encode_actions, prompt_of, replay, summarise
from assent.run import open_store
from assent.segments import Segment

SEEDS = (3, 4)
CLIPS = 4
"""Clips of each seed."""
KINDS = ("comparison", "ranking", "rating")
PAIRS, TASKS = ("preference", "preference-implicit", "openai-preference"), ("label-studio", "argilla", "csv")
CARRIERS = {
    "comparison": (*PAIRS, *TASKS, "lmarena"),
    "ranking": ("ranking", *PAIRS, *TASKS),
    "rating": ("rating", *TASKS),
}
"""The formats that hold judgements of a kind; `events` holds everything."""
REFUSALS = [
    (kind, name)
    for kind in KINDS
    for name, reader in FORMATS.items()
    if reader.record_types and name not in ("events", "prompt-only", *CARRIERS[kind])
]


@cache
def clips_of(seed: int) -> tuple[Prompt, tuple[Response, ...]]:
    """Return clips of episodes from one seed, each with its own actions."""
    prompt = prompt_of(Pendulum(), seed)
    clips = []
    for number in range(CLIPS):
        torques = np.random.default_rng((seed, number)).uniform(-2, 2, (20 + 5 * number, 1)).astype(np.float32)
        episodes = Pendulum().begin([seed])
        for torque in torques:
            episodes.step(torque[None])
        segment = Segment(5 * number, 20, encode_actions(torques), summarise(episodes.observations[0]))
        clips.append(Response(prompt.id, segment.text, "control#0"))
    return prompt, tuple(clips)


def judgements_of(kind: str, ids: Sequence[str]) -> dict[tuple[str, ...], Judgement]:
    """Return what somebody says of the clips of a seed, by the items of the task."""
    first, second, third, fourth = ids
    if kind == "comparison":
        return {(first, second): Comparison(second), (third, fourth): Comparison(third)}
    if kind == "ranking":
        return {(first, second, third, fourth): Ranking(((third,), (fourth,), (first,), (second,)))}
    return {(item,): Rating((("overall", value),)) for item, value in zip(ids, (2, 3, 6, 5), strict=True)}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return a run for each kind of judgement."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        with open_store(folder) as store:
            for prompt, clips in map(clips_of, SEEDS):
                store.add_prompts([prompt])
                store.add_responses(clips)
                for items, judgement in judgements_of(kind, [clip.id for clip in clips]).items():
                    task = Task(kind, prompt.id, items, "train", "Which clip is better?")
                    store.add_tasks([task])
                    store.add_feedback([Feedback(task.id, "ann", judgement, "2026-11-20T10:00:00Z")])
    return folders


def preferences_in(folder: Path) -> list[tuple[object, ...]]:
    """Return every pair that the judgements of a run order, or every clip with its score."""
    found: list[tuple[object, ...]] = []
    with open_store(folder) as store:
        for example in load_examples(store):
            if isinstance(example, ScoredCompletion):
                found.append((example.prompt.id, example.completion.text, example.value))
            elif isinstance(example, Preference | RankedCompletions):
                pairs = example.preferences
                found += [(pair.prompt.id, pair.chosen.text, pair.rejected.text, pair.p_chosen) for pair in pairs]
    return sorted(found, key=repr)


def true_returns_in(folder: Path) -> list[float]:
    """Return the true returns of all clips of a run, replayed."""
    with open_store(folder) as store:
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        clips = replay([(prompts[response.prompt], response.text) for response in store.responses()])
    return sorted(clip.true_return for clip in clips)


def export(folder: Path, file: Path, name: str) -> CommandResult:
    return run_here("export", file, "--run", folder, "--format", name)


# Files


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in ("events", *CARRIERS[kind])])
def test_judgements_of_clips_survive_a_file(kind: str, name: str, judged: Mapping[str, Path], tmp_path: Path) -> None:
    file = tmp_path / f"clips.{'csv' if name == 'csv' else 'jsonl'}"
    assert export(judged[kind], file, name).status == 0
    result = run_here("import", file, "--run", tmp_path / "run")
    assert result.status == 0 and f"read as {name} (detected)" in result.out
    assert preferences_in(tmp_path / "run") == preferences_in(judged[kind]) != []
    assert true_returns_in(tmp_path / "run") == true_returns_in(judged[kind])


@pytest.mark.parametrize(("kind", "name"), REFUSALS)
def test_formats_that_hold_no_clips_say_so_in_a_line(
    kind: str, name: str, judged: Mapping[str, Path], tmp_path: Path
) -> None:
    result = export(judged[kind], tmp_path / "clips.jsonl", name)
    assert result.status != 0 and not list(tmp_path.iterdir())
    assert result.err.startswith(f"assent: {name} can") and len(result.err.splitlines()) == 1


# Stages for texts


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that holds only a stage control."""
    pytest.importorskip("stable_baselines3")
    run = Run(tmp_path_factory.mktemp("agent") / "run", held_out=0.0)
    run.control(labels=4, initial_fraction=1.0, steps=800, episodes=4, reward_epochs=1, evaluation_episodes=2)
    return Path(run.folder)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("evaluate", "trains an agent: 'assent control' measures it at its end, and 'assent report' shows it"),
        ("evaluate --policies control", "'assent control' measures it at its end"),
        ("reward", "holds clips of an agent, not texts: only 'assent control' trains on them"),
        ("kto", "holds clips of an agent, not texts"),
        ("dpo", "holds clips of an agent, not texts"),
        ("generate", "holds clips of an agent, not texts"),
        ("ppo --rewards conciseness_rubric", "holds clips of an agent, not texts"),
        ("label", "holds no responses to label; name clips by their rollout, such as --policy control#0"),
        ("label --policy control#0 --kind correction", "nobody can write a clip"),
        ("label --policy control#0 --num-tasks 2 --acquisition entropy", "'assent label' draws clips at random"),
    ],
)
def test_stages_for_texts_refuse_clips_in_a_line(command: str, reason: str, agent: Path) -> None:
    result = run_here(*command.split(), "--run", agent)
    assert result.status != 0 and reason in result.err and len(result.err.splitlines()) == 1


def test_clips_of_a_rollout_are_ranked(agent: Path) -> None:
    result = run_here("label", "--policy", "control#0", "--kind", "ranking", "--run", agent)
    assert result.status == 0
    with open_store(agent) as store:
        clips = {response.id for response in store.responses(policy="control#0")}
        rankings = [task for task in store.tasks() if task.kind == "ranking"]
        assert {item for task in rankings for item in task.items} == clips and len(clips) > 3
        assert {task.id for task in rankings} < {event.task for event in store.feedback()}
