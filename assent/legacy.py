"""Names of version 0.1 in run folders, and what they are called now.

Recipes, results and metrics of such a folder are translated when they are read; `run.open_run` then rewrites them once.
Folders of a later version, and recipes that a user passes, are not translated.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assent.files import write_atomically

MARK = "weigh"
"""A setting that every recipe of version 0.1 in a run folder has, and none of a later version."""
SETUP = {"weigh": "weight_annotators", "carry": "policy_stage"}
STAGES = {"rejection": "rejection_sampling"}
POLICIES = {"start": "base", **STAGES}
REWARDS = {"one_sentence": "conciseness_rubric"}
PROFILES = {"careful": "low_noise", "usual": "medium_noise", "hasty": "high_noise"}

SETTINGS = {
    "against": "baseline",
    "audit": "random_fraction",
    "centring": "center_rewards_coefficient",
    "chat": "apply_chat_template",
    "clip_high": "epsilon_high",
    "clip_low": "epsilon_low",
    "context": "context_length",
    "deviations": "uncertainty_coef",
    "examples": "num_examples",
    "horizon": "kl_horizon",
    "layers": "num_layers",
    "length": "max_completion_length",
    "max_tokens": "max_length",
    "missing_eos": "missing_eos_score",
    "normaliser": "loss_type",
    "odds_weight": "orpo_lambda",
    "overlong": "overlong_buffer",
    "people": "profiles",
    "per_prompt": "tasks_per_prompt",
    "ptx": "ptx_coef",
    "ranked": "max_ranking_size",
    "redraw": "dynamic_sampling",
    "rows": "generation_batch_size",
    "rule": "acquisition",
    "scale": "scale_rewards",
    "schedule": "lr_scheduler_type",
    "shuffled": "random_labels",
    "tokens_per_pack": "max_tokens_per_batch",
    "value_clip": "vf_clip",
    "value_coefficient": "vf_coef",
    "value_layers": "trainable_value_layers",
    "vocabulary": "vocab_size",
    "warmup": "warmup_ratio",
    "width": "hidden_size",
    "worst": "num_regressions",
}
"""Settings of stages that have one new name."""
REWARD_SETTINGS = {"reward": "rewards"}
SETTINGS_OF_STAGE: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("dapo", "dr_grpo", "grpo", "gspo", "ppo", "reinforce", "rloo"), REWARD_SETTINGS),
    **dict.fromkeys(("best_of_n", "rejection"), REWARD_SETTINGS),
    "cdpo": {"error_rate": "label_smoothing"},
    "robust_dpo": {"error_rate": "label_smoothing"},
    "generate": {"count": "num_prompts"},
    "label": {"count": "num_tasks"},
}
"""Settings whose new name depends on the stage."""
LISTS = ("rewards",)
"""Settings, by their new name, whose value was one name and is a list of names now."""
VALUES: Mapping[str, Mapping[str, str]] = {
    "ensemble": {"minimum": "worst_case", "lower": "uncertainty_weighted"},
    "scale_rewards": {"std": "group"},
    "profiles": PROFILES,
    "policy": POLICIES,
    "policies": POLICIES,
    "baseline": POLICIES,
    "reward": REWARDS,
    "rewards": REWARDS,
    "judge": REWARDS,
    "stages": STAGES,
    "policy_stage": STAGES,
}
"""Values of settings, by the setting's new name."""

METRICS = {
    "finished": "eos_rate",
    "flat_groups": "frac_reward_zero_std",
    "miss": "mae",
    "penalty": "kl_loss",
    "redrawn": "resampled",
    "rollout_gap": "sampler_logprob_diff",
}
STATE = {"trainees": "train_states", "memory": "extra_state"}
RESULTS = {"alike": "identical", "refused": "unrenderable", "miss": "mae", "held_out_miss": "held_out_mae"}
"""Keys of the results of training stages."""
RESULTS_OF_STAGE = {
    "generate": {"answers": "responses", "finished": "eos_rate"},
    "label": {"queries": "tasks"},
    "kto": {"answers": "completions"},
    "evaluate": {"against": "baseline"},
}
EVALUATED_POLICY = {
    "utility": "judge_score",
    "words": "mean_words",
    "finished": "eos_rate",
    "answers": "responses",
    "by_mode": "by_category",
}
"""Keys of one policy in the result of `evaluate`."""


def is_legacy(folder: Path) -> bool:
    """Return whether a run folder is of version 0.1, by the mark of its recipe."""
    try:
        return MARK in tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever reads the recipe is told that it is missing or broken


def translate_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a run folder with today's names; a recipe of today stays as it is."""
    if MARK not in recipe:
        return dict(recipe)
    translated: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            translated[translate_key(key)] = translate_settings(key, value)
        else:
            name = SETUP.get(key, key)
            translated[name] = _translate_value(name, value)
    return translated


def translate_settings(key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage, `key`, with today's names; to translate twice is to translate once."""
    names = {**SETTINGS, **SETTINGS_OF_STAGE.get(_stage(key), {})}
    translated: dict[str, Any] = {}
    for old_name, value in settings.items():
        name = names.get(old_name, old_name)
        is_label = name == "policy" and _stage(key) == "label"  # the store's name for responses
        translated[name] = translate_label(value) if is_label else _translate_value(name, value)
        if name in LISTS and isinstance(value, str):
            translated[name] = [translated[name]] if value else []
    return translated


def translate_key(key: str) -> str:
    """Return today's name of a stage in a round, or of a policy: `rejection-2` is `rejection_sampling-2`."""
    stage, suffix = _stage(key), key[len(_stage(key)) :]
    return POLICIES.get(stage, stage) + suffix


def translate_result(key: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a stage with today's names; to translate twice is to translate once."""
    stage = _stage(key)
    names = {**RESULTS, **RESULTS_OF_STAGE.get(stage, {})}
    translated = {names.get(name, name): value for name, value in result.items()}
    for name in ("policy", "baseline", "judge"):
        if isinstance(translated.get(name), str):
            translated[name] = _translate_name(name, translated[name])
    for name in ("label", "chosen"):
        if isinstance(translated.get(name), str):
            translated[name] = translate_label(translated[name])
    if stage in ("evaluate", "arena"):
        translated["policies"] = _translate_policies(translated.get("policies", {}))
        weights = translated.get("weights", {})
        translated["weights"] = {translate_key(REWARDS.get(name, name)): value for name, value in weights.items()}
    return translated


def translate_label(label: str) -> str:
    """Return today's name of the responses of a policy in the store, as the store's migration renames them."""
    return re.sub(r":start(?=#.{6}$)", ":base", label)


def translate_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of `metrics.jsonl` with today's names; to translate twice is to translate once."""
    translated = {METRICS.get(name, name): value for name, value in row.items()}
    if "stage" in translated:
        stage, slash, member = translated["stage"].partition("/")
        translated["stage"] = translate_key(stage) + slash + member
    return translated


def translate_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines of a `metrics.jsonl` with today's names; one that a crash cut short stays as it is."""
    return [f"{_translate_line(line)}\n" for line in lines]


def translate_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an unfinished stage with today's names; one of today stays as it is."""
    return {STATE.get(name, name): value for name, value in state.items()}


def scorer_annotators(reward: str) -> frozenset[str]:
    """Return the names that annotate the verdicts of a reward in `evaluate`; stored feedback keeps the old name."""
    old_names = (old for old, new in REWARDS.items() if new == reward)
    return frozenset(f"judge:{name}" for name in (reward, *old_names))


def rewrite_folder(folder: Path) -> None:
    """Translate the results, the metrics and the names of the files of a run folder of version 0.1.

    A process that is killed meanwhile does no harm: the next one translates what is left. The recipe says that the
    folder is of version 0.1, so the caller writes it last.
    """
    for old, new in STAGES.items():
        for path in (*folder.glob(f"{old}*"), *(path for part in folder.glob("*/") for path in part.glob(f"{old}*"))):
            if re.fullmatch(rf"{old}(-\d+)?(\.json)?", path.name):
                path.rename(path.with_name(new + path.name[len(old) :]))
    for path in sorted((folder / "done").glob("*.json")):
        rewrite_result(path.stem, path)
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        write_atomically(metrics, "".join(translate_lines(metrics.read_text(encoding="utf-8").splitlines())))


def rewrite_result(key: str, path: Path) -> None:
    """Translate the file of a result."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return  # whoever reads this result is told that it is broken
    write_atomically(path, json.dumps(translate_result(key, result), indent=1) + "\n")


def _translate_line(line: str) -> str:
    try:
        return json.dumps(translate_metrics(json.loads(line)))
    except ValueError:
        return line


def _translate_policies(policies: Mapping[str, Any]) -> dict[str, Any]:
    translated: dict[str, Any] = {}
    for name, policy in policies.items():
        values = {EVALUATED_POLICY.get(key, key): value for key, value in policy.items()}
        if isinstance(values.get("responses"), str):
            values["responses"] = translate_label(values["responses"])
        if "policy" in values:
            values["policy"] = translate_key(values["policy"])
        translated[translate_key(name)] = values
    return translated


def _translate_value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _translate_name(name, value)
    if isinstance(value, Sequence):
        return [_translate_value(name, part) for part in value]
    return value


def _translate_name(setting: str, value: str) -> str:
    names = VALUES.get(setting, {})
    stage = _stage(value)
    return names.get(stage, stage) + value[len(stage) :] if stage in names else value


def _stage(key: str) -> str:
    """Return the stage of a stage in a round: `ppo` of `ppo-2`."""
    match = re.fullmatch(r"(.+)-\d+", key)
    return match[1] if match else key
