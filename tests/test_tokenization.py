"""The contract of text and numbers, on small tokenizers of every fault and on the demo's own."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from assent.errors import AssentError
from assent.models.tokenization import Codec, Point, separate_pad
from assent.records import Message, Prompt

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TALK = Prompt((Message("user", " Name a bird."), Message("assistant", "A wren. "), Message("user", "Another?")))
TEXTS = [
    "An owl.",
    "",
    " ",
    "\n",
    "\n\nAn owl.",
    " An owl. ",
    "\U0001f989",
    "An<|im_end|> owl",
    "<|im_end|>",
    "</s> owl",
]


def tokenizer(template: str | None = CHATML, adds_bos: bool = False, **special: str | None) -> PreTrainedTokenizerFast:
    """Bytes, one merge (two line ends are one token), and the special tokens of ChatML and Llama."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {piece: number for number, piece in enumerate([*names, *alphabet, "ĊĊ"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if adds_bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    told: dict[str, Any] = {"eos_token": "<|im_end|>", "pad_token": "<pad>", **special}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=["<|im_start|>", "<|im_end|>"], **told
    )
    fast.chat_template = template
    return fast


def llama(template: str = LLAMA2) -> PreTrainedTokenizerFast:
    return tokenizer(template, adds_bos=True, bos_token="<s>", eos_token="</s>")


def points(broken: PreTrainedTokenizerBase) -> dict[str, Point]:
    return {point.name: point for point in Codec(broken).check()}


def failures(broken: PreTrainedTokenizerBase) -> dict[str, str]:
    return {point.name: point.detail for point in Codec(broken).check() if point.ok is False}


@pytest.mark.parametrize("good", [tokenizer(), llama(), tokenizer(None)], ids=["ChatML", "Llama-2", "no template"])
def test_a_good_tokenizer_keeps_all_five_promises(good: PreTrainedTokenizerBase) -> None:
    assert [(point.name, point.ok) for point in Codec(good).check()] == [
        (name, True) for name in ("prefix", "end", "bos", "pad", "trained")
    ]
    Codec(good).require("it")


FAULTS = {
    "a second BOS": (llama("{{ bos_token }}" + LLAMA2), "bos", "two BOS tokens '<s>'"),
    "no BOS, but trained with one": (
        llama(LLAMA2.replace("bos_token + ", "")),
        "bos",
        "not begin with the BOS token '<s>'",
    ),
    "no end token": (tokenizer(CHATML.replace("<|im_end|>", "")), "end", "the template write '<|im_end|>'"),
    "no end token at all": (tokenizer(eos_token=None), "end", "completions could never end"),
    "earlier turns stripped": (
        tokenizer(CHATML.replace("m.content", "(m.content if loop.last else m.content | trim)")),
        "prefix",
        "writes a turn the same wherever it stands",
    ),
    "opens an answer in another way": (
        tokenizer(CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>'")),
        "prefix",
        "opens an answer as its generation prompt does",
    ),
    "pad is the end token": (tokenizer(pad_token="<|im_end|>"), "pad", "give it another pad_token"),
    "pad closes a turn": (tokenizer(eos_token="</s>", pad_token="<|im_end|>"), "pad", "give it another pad_token"),
    "answers are changed": (tokenizer(CHATML.replace("m.content", "m.content | upper")), "trained", "content as it is"),
    "a template that fails": (
        tokenizer("{{ raise_exception('not today') }}"),
        "prefix",
        "not today; use another template",
    ),
}


@pytest.mark.parametrize(("broken", "name", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_what_to_do_is_said(broken: PreTrainedTokenizerBase, name: str, words: str) -> None:
    found = failures(broken)
    assert list(found) == [name]
    assert words in found[name]
    with pytest.raises(AssentError, match=f"the tokenizer of it fails the contract: {name}: "):
        Codec(broken).require("it")


def test_what_a_broken_promise_hides_is_neither_kept_nor_broken() -> None:
    found = points(tokenizer("{{ raise_exception('not today') }}"))
    assert [point.ok for point in found.values()] == [False, None, None, True, None]


def test_a_tokenizer_that_adds_bos_by_itself_adds_none_to_the_template_s_own() -> None:
    codec = Codec(llama())
    assert codec.tokenizer("a")["input_ids"][0] == codec.tokenizer.bos_token_id
    assert codec.prompt(Prompt.ask("a")).count(0) == 1
    assert codec.prompt(Prompt.plain("a")).count(0) == 1


def test_a_tokenizer_without_a_template_refuses_conversations_and_takes_text() -> None:
    codec = Codec(tokenizer(None, bos_token="<s>"))
    with pytest.raises(AssentError, match="has no chat template: use a chat model, or plain-text prompts"):
        codec.prompt(TALK)
    prompt, completion = codec.encode(Prompt.plain("a\n"), "\nb")
    assert codec.tokenizer.convert_ids_to_tokens(list(prompt)) == ["<s>", "a", "Ċ"]
    assert codec.tokenizer.convert_ids_to_tokens(list(completion)) == ["Ċ", "b", "<|im_end|>"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "prompt", [TALK, Prompt.ask("Name a bird."), Prompt.plain("A bird:")], ids=["talk", "ask", "plain"]
)
@pytest.mark.parametrize("made", [tokenizer, llama])
def test_a_completion_ends_in_the_end_token_exactly_once(made: Any, prompt: Prompt, text: str) -> None:
    codec = Codec(made())
    ids = codec.completion(prompt, text)
    assert ids[-1] in codec.ends
    assert sum(token in codec.ends for token in ids) == 1
    assert codec.completion(prompt, text, finished=False) == ids[:-1]
    assert codec.encode(prompt, text) == (codec.prompt(prompt), ids)


@pytest.mark.parametrize("text", [text for text in TEXTS if not text.startswith("\n") and "<" not in text])
@pytest.mark.parametrize("made", [tokenizer, llama])
def test_prompt_and_completion_are_the_full_rendering_up_to_the_end(made: Any, text: str) -> None:
    codec = Codec(made())
    turns = [{"role": m.role, "content": m.content} for m in (*TALK.messages, Message("assistant", text))]
    full = codec.tokenizer(codec.tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)
    prompt, completion = codec.encode(TALK, text)
    assert list(prompt + completion) == full["input_ids"][: len(prompt) + len(completion)]
    assert len(full["input_ids"]) - len(prompt) - len(completion) == (
        1 if made is tokenizer else 0
    )  # ChatML's last line end
    assert codec.rendered(TALK, text).completion[len(completion) :] == tuple(
        full["input_ids"][len(prompt + completion) :]
    )


def test_an_answer_that_begins_with_a_line_end_does_not_melt_into_its_prompt() -> None:
    codec = Codec(tokenizer())
    prompt, completion = codec.encode(TALK, "\nAn owl.")
    assert prompt == codec.prompt(TALK)
    assert str(codec.tokenizer.decode(list(prompt + completion))).endswith("assistant\n\nAn owl.<|im_end|>")


def test_what_stands_behind_an_end_token_belongs_to_nothing() -> None:
    codec = Codec(tokenizer())
    assert codec.completion(TALK, "An<|im_end|> owl") == codec.completion(TALK, "An")
    assert codec.completion(Prompt.plain("x"), "An<|im_end|> owl") == codec.completion(Prompt.plain("x"), "An")


def test_a_turn_may_end_in_another_token_than_a_text() -> None:
    codec = Codec(tokenizer(eos_token="</s>"))
    assert {codec.tokenizer.convert_ids_to_tokens(end) for end in codec.ends} == {"</s>", "<|im_end|>"}
    assert codec.tokenizer.convert_ids_to_tokens(codec.completion(TALK, "owl")[-1]) == "<|im_end|>"
    assert codec.tokenizer.convert_ids_to_tokens(codec.completion(Prompt.plain("a"), "owl")[-1]) == "</s>"


def test_the_ends_are_found_once() -> None:
    codec = Codec(tokenizer())
    assert codec.ends is codec.ends


def test_a_template_that_refuses_one_conversation_says_so_in_one_line() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    codec = Codec(tokenizer(strict))
    codec.require("it")
    with pytest.raises(AssentError, match="fails on turns of system, user: no system here"):
        codec.prompt(Prompt((Message("system", "Be brief."), Message("user", "Name a bird."))))


@pytest.mark.parametrize("pad", ["<|im_end|>", "</s>", None])
def test_a_pad_that_ends_an_answer_is_replaced(pad: str | None) -> None:
    mended = tokenizer(eos_token="</s>", pad_token=pad)
    assert separate_pad(mended)
    assert mended.pad_token_id not in Codec(mended).ends
    assert points(mended)["pad"].ok
    assert not separate_pad(mended)


@pytest.mark.model
def test_the_demo_s_model_keeps_the_contract_once_its_pad_is_another() -> None:
    from transformers import AutoTokenizer

    from assent.models.load import DEMO_MODEL, locate

    demo: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(locate(DEMO_MODEL))
    assert list(failures(demo)) == ["pad"]
    assert separate_pad(demo)
    assert (demo.pad_token, failures(demo)) == ("<|endoftext|>", {})
    codec = Codec(demo)
    for text in TEXTS:
        assert sum(token in codec.ends for token in codec.completion(TALK, text)) == 1
    assert codec.decode(codec.completion(TALK, "\n\nAn owl.")) == "\n\nAn owl."
