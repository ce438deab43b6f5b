"""LoRA: one frozen model serves as policy, reference, reward model and value model."""

import json
import math
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from assent.cli import main
from assent.errors import AssentError
from assent.functional import onednn
from assent.generation.local import sample_completions
from assent.generation.sampling import Sampling
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.models import linear
from assent.models.adapters import SharedBase, lora_config, matches_base
from assent.models.forward import logprobs, scores, values
from assent.models.load import load_policy, load_reward
from assent.models.packing import SharedPrefix, pack
from assent.run import Run, Setup, open_run
from assent.stages.online import Online
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training

LORA = ["--lora-rank", "4", "--lr", "3e-3", "--batch-size", "4"]
SMALL = ["--steps", "3", "--batch-size", "4", "--n", "2", "--max-new-tokens", "6"]
TREES = [SharedPrefix((5, 6, 7), ((8, 9), (10, 11, 12))), SharedPrefix((4,), ((20, 21, 22, 23),))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a reward model that was trained with LoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    tiny.make(folder / "model", chat=False)
    rows = [{"prompt": f"Question {i}: ", "chosen": " yes it is.", "rejected": " no no no"} for i in range(30)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["import", str(folder / "pairs.jsonl"), "--run", str(folder / "run"), "--no-apply-chat-template"]) == 0
    assert main(["reward", *flags(folder, folder / "run"), *LORA, "--epochs", "3"]) == 0
    return folder


def flags(prepared: Path, run: Path) -> list[str]:
    return ["--run", str(run), "--model", str(prepared / "model"), "--device", "cpu", "--dtype", "float32"]


def prepare_run(prepared: Path, folder: Path) -> list[str]:
    shutil.copytree(prepared / "run", folder)
    return flags(prepared, folder)


@torch.no_grad()
def test_adapter_scores_as_the_merged_reward_model(prepared: Path) -> None:
    folder = prepared / "run" / "reward"
    assert matches_base(folder, str(prepared / "model"))
    body = SharedBase(load_policy(prepared / "model"))
    policy = body.new_adapter("policy", 4)
    view = body.load_adapter(folder, "reward")
    expected = scores(load_reward(folder).model, pack(TREES))
    assert torch.allclose(scores(view.model, pack(TREES)), expected, atol=1e-5)
    assert view.model.config.reward_mean == load_reward(folder).model.config.reward_mean
    plain = logprobs(load_policy(prepared / "model").model, pack(TREES)).logprobs
    for model in (body.base_model(), policy):  # a new adapter changes nothing; no adapter is the reference
        assert torch.allclose(logprobs(model.model, pack(TREES)).logprobs, plain, atol=1e-5)
    assert torch.allclose(
        scores(view.model, pack(TREES)), expected, atol=1e-5
    )  # whichever adapter was active in between


def test_training_changes_adapters_not_the_reference(prepared: Path) -> None:
    torch.manual_seed(0)
    body = SharedBase(load_policy(prepared / "model"))
    training = Training(lr=1e-2, lora_rank=4)
    policy = body.new_adapter("policy", 4)
    reward = body.load_adapter(prepared / "run" / "reward", "reward")
    value = body.load_adapter(prepared / "run" / "reward", "value", train=True)
    trainees = [ReplicatedState(policy, training, 4), ReplicatedState(value, training, 4)]
    with torch.no_grad():
        before = [logprobs(body.base_model().model, pack(TREES)).logprobs, scores(reward.model, pack(TREES))]
        first = logprobs(policy.model, pack(TREES)).logprobs, values(value.model, pack(TREES))
    for step in range(3):
        # both forward passes come before either backward pass
        gain = logprobs(policy.model, pack(TREES)).logprobs.mean()
        miss = (values(value.model, pack(TREES)) - 1).square().mean()
        (miss - gain).backward()
        for trainee in trainees:
            assert trainee.step(step) > 0
    with torch.no_grad():
        after = [logprobs(body.base_model().model, pack(TREES)).logprobs, scores(reward.model, pack(TREES))]
        last = logprobs(policy.model, pack(TREES)).logprobs, values(value.model, pack(TREES))
    assert all(torch.equal(model, second) for model, second in zip(before, after, strict=True))
    assert last[0].mean() > first[0].mean() + 0.05
    assert (last[1] - 1).square().mean() < (first[1] - 1).square().mean()
    names = [name for trainee in trainees for name in trainee.state()["masters"]]
    assert any(".policy." in name for name in names) and "score.weight" in names
    assert not any("lora_" not in name and name != "score.weight" for name in names)


def test_adapter_sampler_logprobs_with_patched_linears(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    trainee = ReplicatedState(
        SharedBase(load_policy(prepared / "model")).new_adapter("policy", 4), Training(lr=1e-2, lora_rank=4), 2
    )
    (-logprobs(trainee.model, pack(TREES)).logprobs.mean()).backward()
    trainee.step(0)
    by_transposing = Mock(wraps=onednn.transposed_linear)  # it only counts
    monkeypatch.setattr(linear, "transposed_linear", by_transposing)
    monkeypatch.setattr(onednn, "is_slow_cpu", lambda: True)
    prompts = [tree.prefix for tree in TREES]
    samples = sample_completions(trainee.model, prompts, 3, Sampling(1.0, 6), frozenset(), 0)
    assert by_transposing.call_count > 5 * 7  # after the first step: the maps of every block and their adapters
    with torch.no_grad():
        sampled = [SharedPrefix(prompts[sample.prompt_index], (sample.token_ids,)) for sample in samples]
        expected = logprobs(trainee.model, pack(sampled)).logprobs
    assert torch.allclose(torch.tensor([x for sample in samples for x in sample.logprobs]), expected, atol=1e-4)


def test_policy_and_adapter_round_trip(prepared: Path, tmp_path: Path) -> None:
    body = SharedBase(load_policy(prepared / "model"))
    trainee = ReplicatedState(body.new_adapter("policy", 4), Training(lr=1e-2, lora_rank=4), 2)
    (-logprobs(trainee.model, pack(TREES)).logprobs.mean()).backward()
    trainee.step(0)
    with torch.no_grad():
        expected = logprobs(trainee.model, pack(TREES)).logprobs
    trainee.save(tmp_path / "policy")
    with torch.no_grad():
        actual = logprobs(load_policy(tmp_path / "policy").model, pack(TREES)).logprobs
    assert torch.allclose(actual, expected, atol=1e-5)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(prepared / "model"), str(tmp_path / "policy" / "adapter")
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-5)


def test_ppo_shares_one_base_for_four_models(prepared: Path, tmp_path: Path) -> None:
    run = prepare_run(prepared, tmp_path / "run")
    setup = Setup(tmp_path / "run", str(prepared / "model"), dtype="float32", device="cpu")
    with open_run(setup) as opened:
        models = Online(training=Training(lora_rank=4))._load(opened)
    (judge_model,) = models.rewards.models
    assert models.value is not None
    views = [models.policy.model, models.value.model, models.reference]
    reward = judge_model.members[0].model
    assert all(view.shared_base is reward.shared_base for view in views)
    assert main(["ppo", *run, *LORA, *SMALL]) == 0
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5) and lines[0]["ratio"] == pytest.approx(1, abs=1e-5)
    assert lines[0]["value_loss"] > 0 and lines[-1]["kl"] != 0
    before, end = (load_file(f / "model.safetensors") for f in (prepared / "model", tmp_path / "run" / "ppo"))
    assert before.keys() == end.keys() and any(not torch.equal(before[k], end[k]) for k in before)
    assert (tmp_path / "run" / "ppo" / "adapter" / "adapter_model.safetensors").exists()


def test_shared_base_scores_as_separate_models(prepared: Path, tmp_path: Path) -> None:
    run = prepare_run(prepared, tmp_path / "one")
    assert main(["grpo", *run, *LORA, *SMALL]) == 0
    second = prepare_run(prepared, tmp_path / "apart")
    shutil.rmtree(tmp_path / "apart" / "reward" / "adapter")
    assert main(["grpo", *second, *LORA, *SMALL]) == 0
    model, two = ([x for x in metrics_of(tmp_path / n) if x["stage"] == "grpo"] for n in ("one", "apart"))
    for a, b in zip(model, two, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-3) and a["kl"] == pytest.approx(b["kl"], abs=1e-3)


def test_reward_model_of_another_base_is_separate(prepared: Path, tmp_path: Path) -> None:
    run = prepare_run(prepared, tmp_path / "run")
    assert main(["dpo", *run, "--lr", "1e-3"]) == 0  # another base: all weights changed
    assert not matches_base(tmp_path / "run" / "reward", str(tmp_path / "run" / "dpo"))
    assert main(["ppo", *run, *LORA, *SMALL, "--policy", "dpo"]) == 0
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_value_layers_and_lora_exclude_each_other(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ppo", *prepare_run(prepared, tmp_path / "run"), *LORA, "--trainable-value-layers", "1"]) == 2
    assert "use one of them" in capsys.readouterr().err


def test_second_round_samples_from_merged_weights(prepared: Path, tmp_path: Path) -> None:
    run = prepare_run(prepared, tmp_path / "run")
    assert main(["dpo", *run, *LORA]) == 0
    with open_run(Setup(tmp_path / "run", str(prepared / "model"), round=2, dtype="float32")) as opened:
        assert isinstance(opened, Run) and opened.base_policy == "dpo"
        assert load_policy(opened.policy(opened.base_policy)).model.config.model_type == "llama"


def test_shared_base_in_bfloat16_casts_its_heads(prepared: Path, tmp_path: Path) -> None:
    run = [*prepare_run(prepared, tmp_path / "run")[:-1], "bfloat16"]
    assert main(["reward", *run, *LORA, "--overwrite"]) == 0
    assert main(["ppo", *run, *LORA, *SMALL]) == 0
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert all(math.isfinite(line["score"]) and line["value_loss"] > 0 for line in lines)


def test_policy_adapter_is_no_reward_model(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepare_run(prepared, tmp_path / "run")
    assert main(["dpo", *run, *LORA]) == 0
    assert main(["grpo", *run, *LORA, *SMALL, "--rewards", "dpo"]) == 2
    assert "has no reward head, it is a policy" in capsys.readouterr().err


def test_matches_base_follows_a_gguf_file(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assent.models.adapters.locate", lambda model_id: str(prepared / "model"))
    assert matches_base(prepared / "run" / "reward", "some.gguf")  # the weights count, not the name


def test_peft_reads_a_reward_adapter_with_its_head(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    monkeypatch.chdir(prepared)
    run = ["--run", str(tmp_path / "run"), "--model", "model", "--device", "cpu", "--dtype", "float32"]
    shutil.copytree(prepared / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "reward")
    (tmp_path / "run" / "recipe.toml").unlink()
    (tmp_path / "run" / "done" / "reward.json").unlink()
    assert main(["reward", *run, *LORA]) == 0
    saved = tmp_path / "run" / "reward"
    config = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(prepared / "model") and config["task_type"] == "SEQ_CLS"
    monkeypatch.chdir(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    expected = AutoModelForSequenceClassification.from_pretrained(saved).eval()(ids).logits
    for seed in (0, 1):  # a head that is missing from the adapter would be random
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(config["base_model_name_or_path"], num_labels=1)
        both = PeftModel.from_pretrained(base, str(saved / "adapter")).eval()
        with torch.no_grad():
            assert torch.allclose(both(input_ids=ids).logits, expected, atol=1e-6)


@torch.no_grad()
def test_adapter_without_a_saved_head_still_loads(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(prepared / "run" / "reward", tmp_path / "reward")
    adapter = tmp_path / "reward" / "adapter"
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights["base_model.model.score.weight"]
    save_file(weights, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"modules_to_save": None, "task_type": None}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert matches_base(tmp_path / "reward", str(prepared / "model"))
    view = SharedBase(load_policy(prepared / "model")).load_adapter(tmp_path / "reward", "reward")
    expected = scores(load_reward(prepared / "run" / "reward").model, pack(TREES))
    assert torch.allclose(scores(view.model, pack(TREES)), expected, atol=1e-5)
    with pytest.raises(AssentError, match=r"holds no reward head .*; name the folder of the merged model instead"):
        load_reward(adapter)


def test_lora_alpha_is_twice_the_rank_by_default() -> None:
    assert (lora_config(4).lora_alpha, lora_config(4, alpha=6).lora_alpha) == (8, 6)


def test_lora_alpha_scales_the_adapter(prepared: Path, tmp_path: Path) -> None:
    run = prepare_run(prepared, tmp_path / "run")
    assert main(["ppo", *run, *LORA, *SMALL, "--lora-alpha", "1"]) == 0
    config = json.loads((tmp_path / "run" / "ppo" / "adapter" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 1
