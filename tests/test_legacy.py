"""Run folders of version 0.1 are read, continued and reported with today's names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from assent.cli import main
from assent.commands import command
from assent.config import read_recipe, settings
from assent.legacy import (
    MARK,
    rewrite_folder,
    scorer_annotators,
    translate_label,
    translate_metrics,
    translate_recipe,
    translate_result,
    translate_settings,
    translate_state,
)
from assent.loggers.jsonl import read_metrics
from assent.run import Setup, open_run, read_run_recipe
from assent.stage_files import StageFiles, read_result

OLD_RUN = Path(__file__).parent / "data" / "run_0.1"
"""The recipe, the results and some metrics of `assent run examples/tiny.toml` with assent 0.1."""
STAGES = ("pretrain", "generate", "label", "reward", "ppo", "dpo")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


PROBE_SETTINGS = ["probe_judge", "probe_steps", "probe_prompts", "watch_only"]


@pytest.mark.parametrize("stage", [*STAGES, "evaluate"])
def test_old_recipe_has_settings_of_todays_stages(stage: str) -> None:
    old = read_recipe(OLD_RUN / "recipe.toml")
    table = translate_recipe(old)[stage]
    settings_of_today = settings(command(stage))
    assert not set(table) - set(settings_of_today)
    assert len(table) == len(old[stage])
    newer = [name for name in settings_of_today if name not in table]
    assert newer in (
        [],
        ["report_to"],
        ["reward_weights", "report_to"],
        ["value_head", "ungated", "reward_weights", *PROBE_SETTINGS, "report_to"],
        ["draws", "draw_prompts", "questions", "num_questions", "texts"],
    )


@pytest.mark.parametrize("stage", STAGES)
def test_finished_stage_of_an_old_run_is_already_done(
    stage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stage, "--run", str(folder)]) == 0
    assert f"{stage}: already done" in capsys.readouterr().out


def test_opening_an_old_run_rewrites_it_once(folder: Path) -> None:
    old_database = read_recipe(folder / "recipe.toml")["database"]
    with open_run(Setup(run=folder)) as run:
        assert run.recipe["weight_annotators"] is False and run.recipe["policy_stage"] == "ppo"
        assert run.recipe["database"] == old_database
    recipe = read_recipe(folder / "recipe.toml")
    assert MARK not in recipe and recipe == translate_recipe(read_recipe(OLD_RUN / "recipe.toml"))
    assert recipe["label"]["profiles"] == ["low_noise", "medium_noise", "high_noise"]
    assert recipe["evaluate"]["judge"] == "conciseness_rubric"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".toml")}
    with open_run(Setup(run=folder)):
        pass
    assert {path: path.read_bytes() for path in files} == files


def test_results_of_an_old_run_are_read_without_opening_it(folder: Path) -> None:
    evaluation = read_result(folder / "done" / "evaluate.json")
    assert (evaluation["baseline"], evaluation["judge"]) == ("pretrain", "conciseness_rubric")
    baseline = evaluation["policies"]["pretrain"]
    assert baseline.keys() == {"judge_score", "mean_words", "eos_rate", "responses"}
    # Numbers of tests/data/run_0.1: here (89 + 15 / 2) / 121 of its wins and ties.
    assert evaluation["policies"]["ppo"]["win"]["rate"] == pytest.approx(0.7975206611570248)
    generation = read_result(folder / "done" / "generate.json")
    assert (generation["responses"], generation["label"]) == (1988, "generate:pretrain#f71884")
    assert read_run_recipe(folder)["ppo"]["rewards"] == []


def test_metrics_of_an_old_run_have_todays_names(folder: Path) -> None:
    (first, _) = (row for row in read_metrics(folder) if row["stage"] == "ppo")
    assert first["eos_rate"] == 0.9375 and first["sampler_logprob_diff"] == pytest.approx(3.45788e-07)
    old = [json.loads(line) for line in (OLD_RUN / "metrics.jsonl").read_text().splitlines()]
    assert [list(row.values()) for row in read_metrics(folder)] == [list(row.values()) for row in old]


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("cdpo", {"error_rate": 0.1}, {"label_smoothing": 0.1}),
        ("robust_dpo-2", {"error_rate": 0.1}, {"label_smoothing": 0.1}),
        ("reward", {"error_rate": 0.1, "centring": 0.01}, {"error_rate": 0.1, "center_rewards_coefficient": 0.01}),
        ("grpo", {"scale": "std", "ensemble": "lower"}, {"scale_rewards": "group", "ensemble": "uncertainty_weighted"}),
        ("dr_grpo", {"scale": "none", "length": 256.0}, {"scale_rewards": "none", "max_completion_length": 256.0}),
        ("ppo", {"reward": "one_sentence", "policy": "start"}, {"rewards": ["conciseness_rubric"], "policy": "base"}),
        ("label", {"reward": "reward", "count": 3, "audit": 0.5},
         {"reward": "reward", "num_tasks": 3, "random_fraction": 0.5}),
        ("label", {"policy": "generate:start#0123ab"}, {"policy": "generate:base#0123ab"}),
        ("generate", {"count": 3, "rows": 8}, {"num_prompts": 3, "generation_batch_size": 8}),
        ("rejection", {"reward": "", "rows": 8}, {"rewards": [], "generation_batch_size": 8}),
        ("evaluate", {"policies": ["ppo", "rejection-2"], "against": "start", "judge": "runs/x/reward"},
         {"policies": ["ppo", "rejection_sampling-2"], "baseline": "base", "judge": "runs/x/reward"}),
    ],
)  # fmt: skip
def test_old_settings_are_translated(stage: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert translate_settings(stage, old) == new
    assert translate_settings(stage, new) == new, "today's settings stay as they are"


def test_recipe_of_today_is_not_translated() -> None:
    recipe = {"weight_annotators": False, "mine": {"length": 3, "rows": "start"}}
    assert translate_recipe(recipe) == recipe


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("label-2", {"queries": 3, "held_out": 1}, {"tasks": 3, "held_out": 1}),
        ("reward", {"ratings": 3, "miss": 0.5, "alike": 2}, {"ratings": 3, "mae": 0.5, "identical": 2}),
        ("kto", {"answers": 3, "held_out_kl": 0.1}, {"completions": 3, "held_out_kl": 0.1}),
        ("best_of_n", {"policy": "start", "chosen": "best_of_n:start#0123ab"},
         {"policy": "base", "chosen": "best_of_n:base#0123ab"}),
        ("arena", {"policies": {"start": {"policy": "start", "rating": 1.0}}, "weights": {"start": "a"}},
         {"policies": {"base": {"policy": "base", "rating": 1.0}}, "weights": {"base": "a"}}),
    ],
)  # fmt: skip
def test_old_results_are_translated(key: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert translate_result(key, old) == new
    assert translate_result(key, new) == new


def test_only_labels_of_the_base_policy_are_renamed() -> None:
    assert translate_label("generate-2:start#0123ab") == "generate-2:base#0123ab"
    unchanged = ("generate:restart#0123ab", "imported:start", "generate:start#0123abc", "a:start#0123ab:b")
    assert [translate_label(label) for label in unchanged] == list(unchanged)


def test_metrics_of_an_ensemble_member_keep_their_member() -> None:
    row = {"stage": "rejection-2/1", "step": 3, "redrawn": 1.0, "flat_groups": 0.5}
    translated = {"stage": "rejection_sampling-2/1", "step": 3, "resampled": 1.0, "frac_reward_zero_std": 0.5}
    assert translate_metrics(row) == translated


def test_state_of_an_unfinished_stage_is_translated() -> None:
    old = {"step": 3, "trainees": {"policy": {"masters": []}}, "memory": {"beta": 0.1}}
    state = {"step": 3, "train_states": {"policy": {"masters": []}}, "extra_state": {"beta": 0.1}}
    assert translate_state(old) == translate_state(state) == state


def test_files_of_renamed_stages_are_moved(tmp_path: Path) -> None:
    for name in ("rejection/config.json", "rejection-2/config.json", "done/rejection-2.json", "rejections/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "done" / "dpo.json").write_text("{broken")
    rewrite_folder(tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert names == [
        *("done/dpo.json", "done/rejection_sampling-2.json", "rejection_sampling-2/config.json"),
        *("rejection_sampling/config.json", "rejections/x.json"),
    ]
    rewrite_folder(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")) == names


def test_verdicts_of_a_renamed_reward_are_found() -> None:
    assert scorer_annotators("conciseness_rubric") == {"judge:conciseness_rubric", "judge:one_sentence"}
    assert scorer_annotators("reward") == {"judge:reward"}


def test_folder_of_today_is_not_translated(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "recipe.toml").write_text('model = "start"\n[ppo]\nweigh = 1')  # a setting of a stage is no mark
    label = {"label": "generate:start#0123ab", "refused": 1}
    (tmp_path / "done" / "generate.json").write_text(json.dumps(label))
    row = {"stage": "ppo", "step": 1, "seconds": 1.0, "penalty": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert read_result(tmp_path / "done" / "generate.json") == label
    assert read_metrics(tmp_path) == [row]


def test_stage_that_version_0_1_moved_aside_is_translated(tmp_path: Path) -> None:
    aside = tmp_path / "replaced" / "generate"
    aside.mkdir(parents=True)
    (tmp_path / "done").mkdir()
    row = {"stage": "generate", "step": 1, "seconds": 1.0, "penalty": 0.5}
    log = {"settings": {"count": 3}, "left": ["result"], "metrics": [json.dumps(row) + "\n"]}
    (aside / "before.json").write_text(json.dumps(log))
    (aside / "result").write_text(json.dumps({"answers": 3, "label": "generate:start#0123ab"}))
    files = StageFiles(tmp_path, "generate")
    restored = files.restore()
    files.finish_restoring()
    assert restored is not None and restored.settings == {"num_prompts": 3}
    assert files.read_result() == {"responses": 3, "label": "generate:base#0123ab"}
    assert [row["kl_loss"] for row in read_metrics(tmp_path)] == [0.5]
