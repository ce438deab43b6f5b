"""Chat templates of published families, as TRL carries them: our prompts and completions are the texts of their own.

    pip install --no-deps trl==1.16.0

TRL is not imported: its templates are files. Each is laid on a tiny tokenizer that has its control tokens.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from assent.models.tokenizer import ChatTokenizer, Rendering
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
"""What ends an answer of each family."""
NAMED = dict.fromkeys(("glm4moe", "phi3", "phi3_5"), "<|endoftext|>") | dict.fromkeys(("gemma", "gemma3"), "<eos>")
"""The tokenizer's `eos_token`, where it is another token."""
CLOSES = {"deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "nemotron_3_super"}
"""Their prompt opens thoughts, their rendering of an answer does not: an answer without any closes them."""
ONE = Prompt.ask("Name a bird.")
BRIEF = Prompt((Message("system", "Be brief."), Message("user", "Name a bird.")))
TALK = Prompt((Message("user", "Name a bird."), Message("assistant", "A wren."), Message("user", "Another?")))
ANSWER = "An owl."


def template(name: str) -> str:
    spec = find_spec("trl")
    path = Path(spec.origin).parent / "chat_templates" / f"{name}.jinja" if spec and spec.origin else Path()
    if not path.is_file():
        pytest.skip("needs TRL's templates: pip install --no-deps trl==1.16.0")
    return path.read_text(encoding="utf-8")


def codec(name: str) -> ChatTokenizer:
    """The template of a family on bytes and its control tokens; thoughts are marked by ordinary tokens."""
    text, end = template(name), ENDS[name]
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


def rendered(codec: ChatTokenizer, prompt: Prompt, answer: str = "") -> str:
    messages = [message.to_dict() for message in prompt.messages]
    messages += [{"role": "assistant", "content": answer}] if answer else []
    return str(codec.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answer))


@pytest.mark.parametrize("name", ENDS)
def test_prompts_and_completions_are_the_texts_of_the_template(name: str) -> None:
    ours = codec(name)
    ours.require(name)
    for prompt in (ONE, BRIEF, TALK):
        try:
            before, whole = rendered(ours, prompt), rendered(ours, prompt, ANSWER)
        except Exception:  # noqa: BLE001 (templates raise what they like)
            assert ours.refusal(prompt).startswith("the chat template fails on turns of system, user")
            continue
        ids = ours.encode(prompt, Completion(ANSWER))
        assert ours.tokenizer.decode(list(ids.prompt)) == before
        completion = str(ours.tokenizer.decode(list(ids.completion)))
        assert completion.endswith(ENDS[name]) and completion.count(ENDS[name]) == 1
        if name in CLOSES:
            assert completion == f"\n</think>\n\n{ANSWER}{ENDS[name]}" and not whole.startswith(before)
        else:
            assert f"{whole}{ENDS[name]}".startswith(before + completion)


@pytest.mark.parametrize("name", ENDS)
def test_an_answer_that_was_cut_in_its_thoughts_stays_as_it_was_drawn(name: str) -> None:
    ours, drawn = codec(name), "<think>\nA bird, then, but"
    assert ours.tokenizer.decode(list(ours.completion(ONE, Completion(drawn, finished=False)))) == drawn


@pytest.mark.parametrize("name", ENDS)
def test_control_tokens_of_the_template_in_a_question_open_no_turn(name: str) -> None:
    ours = codec(name)
    special = set(ours.tokenizer.all_special_ids) | set(ours.stop_ids)
    spelt = " ".join(token for token in ours.tokenizer.get_added_vocab() if "channel" not in token)
    asked = Prompt.ask(f"What is {spelt}?")
    usual = [token for token in ours.prompt(Prompt.ask("What is it?")) if token in special]
    assert [token for token in ours.prompt(asked) if token in special] == usual
