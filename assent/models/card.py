"""A README.md for a checkpoint: what it is and what it was trained on; of a reward model, how to read its scores."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from assent.errors import AssentError
from assent.models.heads import FILE as OWN_HEAD
from assent.models.tokenizer import ANSWER, ChatTokenizer
from assent.records import Completion, Message, Prompt

NAME = "README.md"
SCORING = """{imports}

folders, ends = {folders}, {ends}  # this folder, and the tokens that end an answer
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
DATED = """    day = datetime.fromisoformat("{date}")  # the template writes the date, and was trained with this one
    clock = re.compile(r"strftime_now\\(\\s*['\\"]([^'\\"]*)['\\"]\\s*\\)")
    template = clock.sub(lambda call: repr(day.strftime(call[1])), tokenizer.get_chat_template())
"""
CHAT = """    text = tokenizer.apply_chat_template(conversation, tokenize=False{arguments})
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]{closing}
    ids = ids[: max(i for i, token in enumerate(ids) if token in ends) + 1]"""
PLAIN = """    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)]
    ids = [{begin}, *texts[0], *texts[1], {end}]"""
CLASSIFIER = """model.config.pad_token_id = None  # a row by itself is read at its last token
        logits = model(torch.tensor([ids])).logits[0]"""
OWN = f"""head = load_file(f"{{folder}}/{OWN_HEAD}")["score.weight"].float()
        logits = model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1] @ head.T"""
USE = {
    True: 'score([{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A wren."}])',
    False: 'score("Name a bird:", " a wren.")',
}


class Origin(NamedTuple):
    """Where a checkpoint comes from."""

    base: str
    """The model that it started from: a hub id, or anything else by its last name."""
    objective: str
    data: Mapping[str, int]
    """What it was trained on, by kind."""


def policy(origin: Origin) -> str:
    """The card of a policy."""
    return _card("text-generation", "policy", origin, "A language model. It loads with `AutoModelForCausalLM`.\n")


def reward(origin: Origin, codec: ChatTokenizer, folders: Sequence[Path]) -> str:
    """The card of a reward model, or of an ensemble in several folders; paths are written from the first."""
    own, chat = (folders[0] / OWN_HEAD).exists(), codec.tokenizer.chat_template is not None
    what = "`AutoModel`, with its head in " + f"`{OWN_HEAD}`" if own else "`AutoModelForSequenceClassification`"
    text = (
        f"A reward model: it scores a whole answer. It loads with {what}.\n\n## Scores\n\n"
        "A score is read at the token that ends the answer. Templates may write something behind it (ChatML writes a "
        "new line): cut that off, or another number is read. Score one row at a time, or pad on the right and read "
        "each row at its own end. `reward_mean` and `reward_std` of config.json are those of the training answers, for "
        "each head: what comes out has mean 0 and deviation 1 there. Several heads are averaged.\n\n"
    )
    if (ids := _ids(codec)) is None:
        text += "This template renders an answer otherwise than it was trained: `assent` itself must score it.\n"
        return _card("text-classification", "reward-model", origin, text)
    imports = ["import torch"]
    if "strftime_now" in ids:
        imports.insert(0, "import re\nfrom datetime import datetime\n")
    if own:
        imports.append("from safetensors.torch import load_file")
    auto = "AutoModel" if own else "AutoModelForSequenceClassification"
    imports.append(f"from transformers import {auto}, AutoTokenizer")
    code = SCORING.format(
        imports="\n".join(imports),
        folders=[str(folder.relative_to(folders[0])) for folder in folders],
        ends=sorted(codec.stop_ids),
        auto=auto,
        arguments="conversation" if chat else "prompt, answer",
        ids=ids,
        logits=OWN if own else CLASSIFIER,
    )
    text += f"```python\n{code}\nprint({USE[chat]})\n```\n"
    return _card("text-classification", "reward-model", origin, text)


def _card(pipeline: str, kind: str, origin: Origin, text: str) -> str:
    hub = origin.base.count("/") == 1 and not origin.base.startswith((".", "/", "~")) and not Path(origin.base).exists()
    name = origin.base if hub else Path(origin.base).name
    head = ["library_name: transformers", f"pipeline_tag: {pipeline}", *([f"base_model: {name}"] if hub else [])]
    data = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in origin.data.items())
    lines = [
        "---",
        *head,
        "tags:",
        *(f"- {tag}" for tag in ("assent", kind, origin.objective.replace("_", "-"))),
        "---",
        "",
        f"# {kind.replace('-', ' ').capitalize()} by {origin.objective}",
        "",
        text,
        "## Training",
        "",
        f"- started from: {name}",
        f"- objective: {origin.objective}",
        f"- data: {data}",
        f"- made with: assent {version('assent')}",
    ]
    return "\n".join(lines) + "\n"


def _ids(codec: ChatTokenizer) -> str | None:
    """How a program makes the ids that are scored, as code; None if no short one makes those of assent."""
    prompt = Prompt((Message("user", "Name a bird."),))
    if codec.tokenizer.chat_template is None:
        return _plain(codec)
    try:
        expected = codec.encode(prompt, Completion(ANSWER))
        turns = [*(message.to_dict() for message in prompt.messages), {"role": "assistant", "content": ANSWER}]
        settings = {"chat_template": codec.template(), **codec.rendering.arguments}
        text = str(codec.tokenizer.apply_chat_template(turns, tokenize=False, **settings))
    except AssentError:
        return None
    ids, wanted = codec.tokenizer(text, add_special_tokens=False)["input_ids"], [*expected.prompt, *expected.completion]
    arguments = "".join(f", {name}={value!r}" for name, value in codec.rendering.arguments.items())
    dated = ""
    if codec.rendering.date and codec.template() != codec.tokenizer.get_chat_template():
        dated, arguments = DATED.format(date=codec.rendering.date), f", chat_template=template{arguments}"
    for closing in ([], [wanted[-1]]):
        whole = [*ids, *closing]
        ends = [i for i, token in enumerate(whole) if token in codec.stop_ids]
        if ends and whole[: ends[-1] + 1] == wanted:
            return dated + CHAT.format(
                arguments=arguments, closing=f" + {closing}  # what closes a turn" if closing else ""
            )
    return None


def _plain(codec: ChatTokenizer) -> str | None:
    prompt, answer = "Name a bird:", " a wren."
    expected = codec.encode(Prompt.plain(prompt), Completion(answer))
    texts = [codec.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)]
    begin, end = expected.prompt[0], expected.completion[-1]
    if [begin, *texts[0], *texts[1], end] != [*expected.prompt, *expected.completion]:
        return None
    return PLAIN.format(begin=begin, end=end)
