"""Chat templates of published families, as TRL ships them: encoded prompts and completions equal their rendering.

    pip install --no-deps trl==1.16.0

TRL is not imported: its templates are files. Each is applied to a tiny tokenizer with its control tokens.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from assent.models.rendering import Rendering
from assent.models.tokenizer import ChatTokenizer
from assent.models.tokenizer_checks import require_valid
from assent.records import Completion, Message, Prompt

pytestmark = pytest.mark.conformance

CONTROL = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|<(?:start_of_turn|end_of_turn|bos|eos|pad|turn\|)>|<\|turn>|<BOS_TOKEN>")
THINK = re.compile("think", re.IGNORECASE)
ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "lfm2": "<|im_end|>",
    "lfm2_2_5": "<|im_end|>",
    "lfm2_2_5_v2": "<|im_end|>",
    "lfm2_v2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "nemotron_3_nano": "<|im_end|>",
    "nemotron_3_super": "<|im_end|>",
    "phi3": "<|end|>",
    "phi3_5": "<|end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_5_nothink": "<|im_end|>",
    "qwen3_5_think": "<|im_end|>",
    "qwen3_6": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
}
"""The end token of a completion in each family."""
NAMED = dict.fromkeys(("glm4moe", "phi3", "phi3_5"), "<|endoftext|>") | dict.fromkeys(("gemma", "gemma3"), "<eos>")
"""The tokenizer's `eos_token`, where it differs."""
CLOSES = {"deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "nemotron_3_super"}
"""Families whose prompt opens thoughts and whose rendering of a completion does not; a completion closes them."""
ONE = Prompt.ask("Name a bird.")
BRIEF = Prompt((Message("system", "Be brief."), Message("user", "Name a bird.")))
TALK = Prompt((Message("user", "Name a bird."), Message("assistant", "A wren."), Message("user", "Another?")))
COMPLETION = "An owl."


def template(name: str) -> str:
    spec = find_spec("trl")
    path = Path(spec.origin).parent / "chat_templates" / f"{name}.jinja" if spec and spec.origin else Path()
    if not path.is_file():
        pytest.skip("needs TRL's templates: pip install --no-deps trl==1.16.0")
    return path.read_text(encoding="utf-8")


def load_tokenizer(name: str) -> ChatTokenizer:
    """Return the template of a family on bytes and its control tokens; thoughts are marked by ordinary tokens."""
    text = template(name)
    end = ENDS[name]
    eos = NAMED.get(name, end)
    begins = re.search("<[^<>]*(?:begin|bos|BOS)[^<>]*>", text)
    bos = begins[0] if begins else "<bos>" if "bos_token" in text else None
    control = [
        token
        for token in dict.fromkeys([eos, end, *([bos] if bos else []), *CONTROL.findall(text)])
        if not THINK.search(token)
    ]
    pieces = [*control, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, bos_token=bos)
    fast.chat_template = text
    return ChatTokenizer(fast, Rendering(), frozenset({control.index(end)}))


def rendered(load_tokenizer: ChatTokenizer, prompt: Prompt, completion: str = "") -> str:
    messages = [message.to_dict() for message in prompt.messages]
    messages += [{"role": "assistant", "content": completion}] if completion else []
    return str(
        load_tokenizer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not completion)
    )


@pytest.mark.parametrize("name", ENDS)
def test_encode_equals_the_text_of_the_template(name: str) -> None:
    chat_tokenizer = load_tokenizer(name)
    require_valid(chat_tokenizer, name)
    for prompt in (ONE, BRIEF, TALK):
        try:
            before = rendered(chat_tokenizer, prompt)
            whole = rendered(chat_tokenizer, prompt, COMPLETION)
        except Exception:  # noqa: BLE001 (templates raise exceptions of any type)
            assert chat_tokenizer.refusal_reason(prompt).startswith("the chat template fails on turns of system, user")
            continue
        ids = chat_tokenizer.encode(prompt, Completion(COMPLETION))
        assert chat_tokenizer.tokenizer.decode(list(ids.prompt_ids)) == before
        completion = str(chat_tokenizer.tokenizer.decode(list(ids.completion_ids)))
        assert completion.endswith(ENDS[name]) and completion.count(ENDS[name]) == 1
        if name in CLOSES:
            assert completion == f"\n</think>\n\n{COMPLETION}{ENDS[name]}" and not whole.startswith(before)
        else:
            assert f"{whole}{ENDS[name]}".startswith(before + completion)


@pytest.mark.parametrize("name", ENDS)
def test_truncated_thoughts_stay_as_sampled(name: str) -> None:
    chat_tokenizer = load_tokenizer(name)
    sampled = "<think>\nA bird, then, but"
    assert (
        chat_tokenizer.tokenizer.decode(
            list(chat_tokenizer.encode_completion(ONE, Completion(sampled, finished=False)))
        )
        == sampled
    )


@pytest.mark.parametrize("name", ENDS)
def test_control_tokens_in_a_prompt_open_no_turn(name: str) -> None:
    chat_tokenizer = load_tokenizer(name)
    special = set(chat_tokenizer.tokenizer.all_special_ids) | set(chat_tokenizer.stop_ids)
    control_tokens = " ".join(token for token in chat_tokenizer.tokenizer.get_added_vocab() if "channel" not in token)
    prompt = Prompt.ask(f"What is {control_tokens}?")
    usual = [token for token in chat_tokenizer.encode_prompt(Prompt.ask("What is it?")) if token in special]
    assert [token for token in chat_tokenizer.encode_prompt(prompt) if token in special] == usual
