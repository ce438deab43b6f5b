"""Every recipe of examples/ runs to its end, at a small size."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import tomli_w
from hub_cache import add_data_set
from test_human import judge_all

from assent.cli import main
from assent.iterate import Iterate
from assent.run import open_store

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.toml"))
WORDS = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird", "house", "sea"]
UNGATED = {"ungated": True}
"""A reward model of seven prompts has learned nothing."""
ONLINE = {"steps": 2, "n": 4, "batch_size": 4, "max_new_tokens": 8, **UNGATED}

SMALL: Mapping[str, Mapping[str, Any]] = {
    "pretrain": {"epochs": 1},
    "abstain": {"n": 2, "max_new_tokens": 8},
    "sft": {"epochs": 1},
    "generate": {"n": 4, "n_held_out": 2, "max_new_tokens": 8},
    "label": {},
    "reward": {"epochs": 1},
    "grpo": ONLINE,
    "rloo": ONLINE,
    "ppo": ONLINE,
    "best_of_n": {"n": 2, "max_new_tokens": 8},
    "rejection_sampling": {"n": 2, "epochs": 1, "max_new_tokens": 8, **UNGATED},
    "evaluate": {"max_new_tokens": 8},
    "control": {"episodes": 8, "steps": 3200, "labels": 8, "session": 4, "reward_epochs": 2, "evaluation_episodes": 3},
    "arena": {"max_new_tokens": 8, "tasks_per_prompt": 1},
}
"""Settings by stage that make it fast; whatever else a recipe says stays."""
MORE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "active_rounds": {"label": {"num_tasks": 8}},
    "atari": {"control": {"episodes": 2, "steps": 1024}},
    "lora_ppo": {"ppo": {"minibatches": 2}},
    "people": {"label": {"wait": 0, "num_tasks": 6}, "evaluate": {"wait": 0}},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of the hub with rows of our own in the columns of the data sets that recipes name."""
    cache = tmp_path_factory.mktemp("hub")
    turns = [[{"role": "user", "content": f"Tell me of the {word}."}] for word in WORDS]
    good = [{"role": "assistant", "content": "It is far away."}]
    bad = [{"role": "assistant", "content": "No."}]
    pairs = [{"chosen": t + good, "rejected": t + bad, "score_chosen": 8.5, "score_rejected": 3.0} for t in turns]
    shown = [{"prompt": t[0]["content"], "prompt_id": "1", "messages": t + good, "category": "Chat"} for t in turns]
    for id, rows in (("trl-lib/ultrafeedback_binarized", pairs), ("HuggingFaceH4/no_robots", shown)):
        add_data_set(cache, id, {"data/train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})
    return cache


def shrink(name: str, folder: Path) -> Path:
    """Write a recipe that differs from the example in size, model and prompts alone."""
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    recipe |= {"run": str(folder / "run"), "held_out": 0.4, "dtype": "float32"}
    if "pretrain" not in recipe["stages"]:
        recipe["model"] = str(tiny.make(folder / "model"))
    if "generate" in recipe["stages"]:
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"Tell me of the {word}."}) + "\n" for word in WORDS))
        recipe["generate"]["prompts"] = str(prompts)
    for stage in recipe["stages"]:
        own = {**SMALL.get(stage, {}), **MORE.get(name, {}).get(stage, {})}
        recipe[stage] = {**recipe.get(stage, {}), **own} if own else recipe.get(stage, {})
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def test_there_are_15_recipes_with_purpose_and_command() -> None:
    assert len(RECIPES) == 15
    for name in RECIPES:
        first, *lines = (FOLDER / f"{name}.toml").read_text().splitlines()
        assert first.startswith("# ")
        assert f"# Try it: assent run examples/{name}.toml" in [line.split(",")[0] for line in lines]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_runs_to_its_end(
    name: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(ROOT)
    path = shrink(name, tmp_path)
    recipe, run = tomllib.loads(path.read_text()), tmp_path / "run"
    waits = [stage for stage in recipe["stages"] if "human" in recipe[stage].values()]
    for stage in waits:
        assert main(["run", str(path)]) == 3
        assert "tasks judged; " in capsys.readouterr().err
        assert not (run / "done" / f"{stage}.json").exists()
        with open_store(run) as store:
            assert judge_all(store)
    assert main(["run", str(path)]) == 0, capsys.readouterr().err
    names = [stage for stage in recipe["stages"] if stage not in ("import", "report")]
    for number in range(1, recipe.get("rounds", Iterate.rounds) + 1):
        for stage in names if number == 1 else [f"{stage}-{number}" for stage in names]:
            assert (run / "done" / f"{stage}.json").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["win_rate"] or "evaluate" not in names
    assert (run / "report.html").stat().st_size > 10_000
