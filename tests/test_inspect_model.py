"""`assent inspect MODEL`: one screen about a model of any family, and its comparison with transformers."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tiny

from assent.cli import main
from assent.models.checkpoints import save
from assent.models.load import load_policy, new_reward
from assent.tools import inspect

TOP = Path(__file__).parent.parent
Page = Callable[..., str]


@pytest.fixture(scope="module")
def families() -> ModuleType:
    """Return the benchmark that makes tiny models of many families."""
    spec = importlib.util.spec_from_file_location("families", TOP / "benchmarks" / "families.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["families"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("inspect") / "model")


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Page:
    def read(path: Path, *words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["inspect", str(path), *words]) == status
        return capsys.readouterr().out

    return read


def test_inspect_describes_a_policy(model: Path, page: Page) -> None:
    lines = page(model).splitlines()
    assert len(lines) <= 24
    facts = {line[:18].strip(): line[18:].strip() for line in lines}
    assert facts["model"].startswith("LlamaForCausalLM (llama): 99,712 weights in F32, 0.00 GB")
    assert facts["kind"].startswith("a policy")
    assert facts["context"] == "256 tokens"
    assert facts["vocabulary"] == "401 tokens, 401 rows in the embedding"
    assert (facts["template"], facts["thoughts"], facts["ends"]) == ("takes no arguments", "none", "<|end|>")
    assert facts["reward head"] == "of transformers (LlamaForSequenceClassification)"
    assert (
        facts["read as"].startswith("packed batches") and facts["value layers"] == "up to 2 (--trainable-value-layers)"
    )


@pytest.mark.parametrize(
    ("family", "way", "head"),
    [("granite", "packed batches", "assent"), ("mamba", "padded rows", "assent"), ("gpt2", "", "transformers")],
)
def test_inspect_all_compares_a_policy_with_transformers(
    family: str, way: str, head: str, families: ModuleType, tmp_path: Path, page: Page
) -> None:
    text = page(families.make(family, tmp_path / family), "--all")
    assert f"read as            {way}" in text
    assert f"reward head        of {head}" in text
    assert "nats from transformers' own forward pass" in text and "FAIL" not in text
    assert "greedy tokens are those of transformers' own generate" in text


def test_inspect_fails_if_logprobs_differ(
    model: Path, page: Page, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from assent.models import inspection

    def spoilt(policy: object, plain: object, measure: Callable[..., object] = inspection.compare_loaded) -> object:
        next(policy.model.parameters()).data.mul_(1.1)  # type: ignore[attr-defined]
        return measure(policy, plain)

    monkeypatch.setattr(inspection, "compare_loaded", spoilt)
    assert main(["inspect", str(model), "--all"]) == 2
    output = capsys.readouterr()
    assert "from transformers' own forward pass  FAIL" in output.out
    assert "cannot be trained as it is: see above" in output.err


def test_inspect_describes_a_reward_model(model: Path, tmp_path: Path, page: Page) -> None:
    save(new_reward(model, 0, heads=3), tmp_path / "reward")
    text = page(tmp_path / "reward", "--all")
    assert (
        "a reward model with 3 heads, for --rewards and --judge" in text and "read as            packed batches" in text
    )


def test_inspect_describes_an_adapter(model: Path, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    adapted = get_peft_model(load_policy(model).model, LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    assert "LlamaForCausalLM (llama)" in page(tmp_path / "adapter")


def test_inspect_does_not_load_a_large_model(model: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MAX_UNASKED_BYTES", 1000)
    text = page(model)
    assert "read as            not loaded, the model is large or not on this machine: use --all" in text
    assert "read as            packed batches" in page(model, "--all")


def test_inspect_lists_template_arguments(tmp_path: Path, page: Page) -> None:
    folder = tiny.make(tmp_path / "model")
    opening = "assistant\n' + ('' if enable_thinking is defined and not enable_thinking else '<think>\n') }}"
    dated = "{{ strftime_now('%Y') }}" + tiny.CHATML.replace("assistant\n' }}", opening)
    (folder / "chat_template.jinja").write_text(dated)
    text = page(folder)
    assert "template           reads enable_thinking (--template-args), writes the date (--date)" in text
    assert "thoughts           the prompt opens thoughts" in text
    assert "thoughts           none" in page(folder, "--template-args", "enable_thinking=false")


def test_inspect_exits_2_for_a_broken_template(tmp_path: Path, page: Page) -> None:
    folder = tiny.make(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(tiny.CHATML.replace("<|end|>", ""))
    assert "FAIL  nothing ends a turn" in page(folder, status=2)


def test_inspect_reads_a_data_file_as_data(model: Path, tmp_path: Path, page: Page) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "Who?"}\n')
    assert "1 prompt: prompt" in page(data, "--model", str(model))
    assert inspect.is_model("HuggingFaceTB/SmolLM2-135M-Instruct") and inspect.is_model("model.gguf")
    assert not inspect.is_model("examples/openings.jsonl") and not inspect.is_model("openings.jsonl")
