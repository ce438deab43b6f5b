"""The model card (README.md) of a checkpoint: its kind, its training data, and how to compute rewards with it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from assent.errors import AssentError
from assent.models.chat_template import PROBE_COMPLETION
from assent.models.heads import HEAD_FILE
from assent.models.tokenizer import ChatTokenizer
from assent.records import Completion, Message, Prompt

CARD_NAME = "README.md"
SCORING_CODE = """{imports}

folders, ends = {folders}, {ends}  # this folder, and the tokens that end a completion
tokenizer = AutoTokenizer.from_pretrained(folders[0])
models = [{auto}.from_pretrained(folder, dtype=torch.float32) for folder in folders]

@torch.no_grad()
def score({arguments}):
{ids}
    scores = []
    for folder, model in zip(folders, models):
        {logits}
        mean, std = torch.tensor(model.config.reward_mean), torch.tensor(model.config.reward_std)
        scores.append((logits - mean) / std)
    return torch.cat(scores).mean().item()
"""
DATE_CODE = """    day = datetime.fromisoformat("{date}")  # the template writes the date, and was trained with this one
    clock = re.compile(r"strftime_now\\(\\s*['\\"]([^'\\"]*)['\\"]\\s*\\)")
    template = clock.sub(lambda call: repr(day.strftime(call[1])), tokenizer.get_chat_template())
"""
CHAT_CODE = """    text = tokenizer.apply_chat_template(conversation, tokenize=False{arguments})
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]{closing}
    ids = ids[: max(i for i, token in enumerate(ids) if token in ends) + 1]"""
PLAIN_CODE = """    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion)]
    ids = [{begin}, *texts[0], *texts[1], {end}]"""
CLASSIFIER_CODE = """model.config.pad_token_id = None  # a row by itself is read at its last token
        logits = model(torch.tensor([ids])).logits[0]"""
HEAD_FILE_CODE = f"""head = load_file(f"{{folder}}/{HEAD_FILE}")["score.weight"].float()
        logits = model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1] @ head.T"""
EXAMPLE_CALLS = {
    True: 'score([{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A wren."}])',
    False: 'score("Name a bird:", " a wren.")',
}


class ModelOrigin(NamedTuple):
    """The base model, the objective and the training data of a checkpoint."""

    base: str
    """The model that training started from: a hub id, or a path, of which the last part is shown."""
    objective: str
    data: Mapping[str, int]
    """Number of training examples by kind."""


def policy_card(origin: ModelOrigin) -> str:
    """Return the card of a policy."""
    return _card("text-generation", "policy", origin, "A language model. It loads with `AutoModelForCausalLM`.\n")


def reward_card(origin: ModelOrigin, tokenizer: ChatTokenizer, folders: Sequence[Path]) -> str:
    """Return the card of a reward model, or of an ensemble in several folders; paths are relative to the first."""
    has_head_file = (folders[0] / HEAD_FILE).exists()
    is_chat = tokenizer.tokenizer.chat_template is not None
    loader = f"`AutoModel`, with its head in `{HEAD_FILE}`" if has_head_file else "`AutoModelForSequenceClassification`"
    text = (
        f"A reward model: it scores a whole completion. It loads with {loader}.\n\n## Scores\n\n"
        "A score is read at the token that ends the completion. Templates may write something after it (ChatML writes "
        "a new line); cut that off, or the score is wrong. Score one row at a time, or pad on the right and read each "
        "row at its own end. `reward_mean` and `reward_std` of config.json are those of the training completions, for "
        "each head; normalised scores have mean 0 and standard deviation 1 there. Several heads are averaged.\n\n"
    )
    if (ids := _encoding_code(tokenizer)) is None:
        text += "This template renders a completion differently than it was trained; score it with `assent` itself.\n"
        return _card("text-classification", "reward-model", origin, text)
    imports = ["import torch"]
    if "strftime_now" in ids:
        imports.insert(0, "import re\nfrom datetime import datetime\n")
    if has_head_file:
        imports.append("from safetensors.torch import load_file")
    auto = "AutoModel" if has_head_file else "AutoModelForSequenceClassification"
    imports.append(f"from transformers import {auto}, AutoTokenizer")
    code = SCORING_CODE.format(
        imports="\n".join(imports),
        folders=[str(folder.relative_to(folders[0])) for folder in folders],
        ends=sorted(tokenizer.stop_ids),
        auto=auto,
        arguments="conversation" if is_chat else "prompt, completion",
        ids=ids,
        logits=HEAD_FILE_CODE if has_head_file else CLASSIFIER_CODE,
    )
    text += f"```python\n{code}\nprint({EXAMPLE_CALLS[is_chat]})\n```\n"
    return _card("text-classification", "reward-model", origin, text)


def _card(pipeline: str, kind: str, origin: ModelOrigin, text: str) -> str:
    is_hub_id = (
        origin.base.count("/") == 1 and not origin.base.startswith((".", "/", "~")) and not Path(origin.base).exists()
    )
    name = origin.base if is_hub_id else Path(origin.base).name
    header = [
        "library_name: transformers",
        f"pipeline_tag: {pipeline}",
        *([f"base_model: {name}"] if is_hub_id else []),
    ]
    data = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in origin.data.items())
    lines = [
        "---",
        *header,
        "tags:",
        *(f"- {tag}" for tag in ("assent", kind, origin.objective.replace("_", "-"))),
        "---",
        "",
        f"# {kind.replace('-', ' ').capitalize()} by {origin.objective}",
        "",
        text,
        "## Training",
        "",
        f"- base model: {name}",
        f"- objective: {origin.objective}",
        f"- data: {data}",
        f"- trained with: assent {version('assent')}",
    ]
    return "\n".join(lines) + "\n"


def _encoding_code(tokenizer: ChatTokenizer) -> str | None:
    """Return code that makes the ids to score; None if no short code makes the same ids as assent."""
    prompt = Prompt((Message("user", "Name a bird."),))
    if tokenizer.tokenizer.chat_template is None:
        return _plain_encoding_code(tokenizer)
    try:
        expected = tokenizer.encode(prompt, Completion(PROBE_COMPLETION))
        turns = [
            *(message.to_dict() for message in prompt.messages),
            {"role": "assistant", "content": PROBE_COMPLETION},
        ]
        settings = {"chat_template": tokenizer.template.text(), **tokenizer.rendering.arguments}
        text = str(tokenizer.tokenizer.apply_chat_template(turns, tokenize=False, **settings))
    except AssentError:
        return None
    ids = tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"]
    expected_ids = [*expected.prompt_ids, *expected.completion_ids]
    arguments = "".join(f", {name}={value!r}" for name, value in tokenizer.rendering.arguments.items())
    date_code = ""
    if tokenizer.rendering.date and tokenizer.template.text() != tokenizer.tokenizer.get_chat_template():
        date_code, arguments = DATE_CODE.format(date=tokenizer.rendering.date), f", chat_template=template{arguments}"
    for closing in ([], [expected_ids[-1]]):
        closed = [*ids, *closing]
        ends = [i for i, token in enumerate(closed) if token in tokenizer.stop_ids]
        if ends and closed[: ends[-1] + 1] == expected_ids:
            return date_code + CHAT_CODE.format(
                arguments=arguments, closing=f" + {closing}  # closes the turn" if closing else ""
            )
    return None


def _plain_encoding_code(tokenizer: ChatTokenizer) -> str | None:
    prompt = "Name a bird:"
    completion = " a wren."
    expected = tokenizer.encode(Prompt.plain(prompt), Completion(completion))
    texts = [tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion)]
    begin = expected.prompt_ids[0]
    end = expected.completion_ids[-1]
    if [begin, *texts[0], *texts[1], end] != [*expected.prompt_ids, *expected.completion_ids]:
        return None
    return PLAIN_CODE.format(begin=begin, end=end)
