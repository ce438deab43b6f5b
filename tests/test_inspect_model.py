"""`assent inspect MODEL`: one screen about a model, whatever its family, and its measures against transformers' own."""

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
    """The script that makes tiny models of many families."""
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
    def read(where: Path, *words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["inspect", str(where), *words]) == status
        return capsys.readouterr().out

    return read


def test_a_policy_is_described_on_one_screen(model: Path, page: Page) -> None:
    lines = page(model).splitlines()
    assert len(lines) <= 24
    facts = {line[:18].strip(): line[18:].strip() for line in lines}
    assert facts["model"].startswith("LlamaForCausalLM (llama): 99,712 weights in F32, 0.00 GB")
    assert facts["kind"].startswith("a policy")
    assert facts["context"] == "256 tokens"
    assert facts["vocabulary"] == "401 tokens, 401 rows in the embedding"
    assert (facts["template"], facts["thoughts"], facts["ends"]) == ("takes no arguments", "none", "<|end|>")
    assert facts["reward head"] == "of transformers (LlamaForSequenceClassification)"
    assert facts["read as"].startswith("packs") and facts["--trainable-value-layers"] == "up to 2"


@pytest.mark.parametrize(
    ("family", "way", "head"),
    [("granite", "packs", "assent"), ("mamba", "rows", "assent"), ("gpt2", "", "transformers")],
)
def test_with_all_a_model_is_measured(
    family: str, way: str, head: str, families: ModuleType, tmp_path: Path, page: Page
) -> None:
    text = page(families.make(family, tmp_path / family), "--all")
    assert f"read as            {way}" in text
    assert f"reward head        of {head}" in text
    assert "nats from transformers' own forward pass" in text and "FAIL" not in text
    assert "likeliest tokens are those of transformers' own generate" in text


def test_a_measure_that_disagrees_fails(
    model: Path, page: Page, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from assent.models import inspection

    def spoilt(language: object, plain: object, measure: Callable[..., object] = inspection.measured) -> object:
        next(language.model.parameters()).data.mul_(1.1)  # type: ignore[attr-defined]
        return measure(language, plain)

    monkeypatch.setattr(inspection, "measured", spoilt)
    assert main(["inspect", str(model), "--all"]) == 2
    shown = capsys.readouterr()
    assert "from transformers' own forward pass  FAIL" in shown.out
    assert "cannot be trained as it is: see above" in shown.err


def test_a_reward_model_and_its_heads_are_told(model: Path, tmp_path: Path, page: Page) -> None:
    save(new_reward(model, 0, heads=3), tmp_path / "reward")
    text = page(tmp_path / "reward", "--all")
    assert "a reward model with 3 heads, for --reward and --judge" in text and "read as            packs" in text


def test_an_adapter_s_folder_is_a_model(
    model: Path, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    adapted = get_peft_model(load_policy(model).model, LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    assert "LlamaForCausalLM (llama)" in page(tmp_path / "adapter")


def test_a_large_model_is_not_loaded_unasked(model: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "SMALL", 1000)
    text = page(model)
    assert "read as            not tried, the model is large or not here: --all loads it" in text
    assert "read as            packs" in page(model, "--all")


def test_what_a_template_reads_is_told(tmp_path: Path, page: Page) -> None:
    folder = tiny.make(tmp_path / "model")
    opening = "assistant\n' + ('' if enable_thinking is defined and not enable_thinking else '<think>\n') }}"
    dated = "{{ strftime_now('%Y') }}" + tiny.CHATML.replace("assistant\n' }}", opening)
    (folder / "chat_template.jinja").write_text(dated)
    text = page(folder)
    assert "template           reads enable_thinking (--template-args), writes the date (--date)" in text
    assert "thoughts           the prompt opens thoughts" in text
    assert "thoughts           none" in page(folder, "--template-args", "enable_thinking=false")


def test_a_template_that_breaks_the_contract_ends_with_status_2(tmp_path: Path, page: Page) -> None:
    folder = tiny.make(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(tiny.CHATML.replace("<|end|>", ""))
    assert "FAIL  nothing ends a turn" in page(folder, status=2)


def test_a_file_of_data_is_no_model(model: Path, tmp_path: Path, page: Page) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "Who?"}\n')
    assert "1 prompt: prompt" in page(data, "--model", str(model))
    assert inspect.is_model("HuggingFaceTB/SmolLM2-135M-Instruct") and inspect.is_model("model.gguf")
    assert not inspect.is_model("examples/openings.jsonl") and not inspect.is_model("openings.jsonl")
