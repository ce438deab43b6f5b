"""What a model is and what it can be used for: read from its files, and tried on a few tokens."""

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from assent.errors import AssentError
from assent.models.attention import shares
from assent.models.families import compared
from assent.models.forward import blocks
from assent.models.heads import own_head, stored_head
from assent.models.load import LoadedModel, context_of
from assent.models.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BYTES = {"F64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I64": 8}
"""Of the tensor types of safetensors; the rest has one byte."""


POLICY = "a policy: every stage trains it, and 'assent reward' makes a reward model of it"
CLOSE = 1e-3
"""What float32 may differ by."""


class Fact(NamedTuple):
    """One line about a model."""

    name: str
    text: str
    ok: bool = True


class Weights(NamedTuple):
    """What lies in the files of a model."""

    number: int
    size: int  # bytes
    types: tuple[str, ...]  # the most frequent first


def facts(place: str, weights: Weights | None, codec: ChatTokenizer) -> list[Fact]:
    """What the files of a model say, without loading it.

    Args:
        place: its folder or hub id, as `locate` gives it.
        weights: what `weights_in` counts there.

    Raises:
        AssentError: its configuration cannot be read.
    """
    config = _config(place)
    names = ", ".join(config.architectures or [type(config).__name__])
    held = "weights not here" if weights is None else (
        f"{_short(weights.number)} weights in {', '.join(weights.types)}, {weights.size / 1e9:.2f} GB"
    )  # fmt: skip
    rows, tokens = int(config.get_text_config().vocab_size), len(codec.tokenizer)
    limit = context_of(config)
    return [
        Fact("model", f"{names} ({config.model_type}): {held}"),
        Fact("kind", _kind(place, config)),
        Fact("context", f"{limit:,} tokens" if limit < 1 << 30 else "no limit named"),
        Fact("vocabulary", f"{tokens:,} tokens, {rows:,} rows in the embedding"),
        Fact("template", _template(codec)),
        Fact("thoughts", codec.thoughts()),
        Fact("ends", ", ".join(_names(codec, sorted(codec.stop_ids))) or "none"),
        Fact("reward head", _reward_head(place, config)),
    ]


def weights_in(place: str) -> Weights | None:
    """Count the weights in the safetensors files of a folder, by their headers; None: there are none."""
    count, size, types = 0, 0, Counter[str]()
    for path in Path(place).glob("*.safetensors") if Path(place).is_dir() else ():
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                elements = prod(tensor["shape"])
                count, size = count + elements, size + elements * BYTES.get(tensor["dtype"], 1)
                types[tensor["dtype"]] += elements
    return Weights(count, size, tuple(name for name, _ in types.most_common())) if count else None


def tried(language: LoadedModel) -> list[Fact]:
    """What was found out when the model was loaded."""
    packs = shares(language.model.base_model)
    how = (
        "packs: a prompt is read once for all its answers" if packs
        else "rows: each answer is read with its prompt, more slowly"
    )  # fmt: skip
    try:
        layers = f"up to {len(blocks(language.model))}"
    except AssentError as error:
        layers = str(error)
    return [Fact("read as", how), Fact("--trainable-value-layers", layers)]


def measured(language: LoadedModel, plain: Any) -> list[Fact]:
    """How far a policy in float32 differs, as it is read here, from the same model as transformers loads it."""
    gap = compared(language.model, plain)
    return [
        Fact(
            "log-probabilities",
            f"at most {gap.logprobs:.0e} nats from transformers' own forward pass",
            gap.logprobs < CLOSE,
        ),
        Fact("gradients", f"at most {gap.gradients:.0e} of the largest from its own", gap.gradients < CLOSE),
    ]


def _config(place: str) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 (a broken file makes libraries raise any kind)
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise AssentError(f"cannot read the configuration of {place}: {line}") from None
    return config


def is_reward(place: str) -> bool:
    """Whether a model is a reward model, or another classifier."""
    return _kind(place, _config(place)) != POLICY


def _kind(place: str, config: "PreTrainedConfig") -> str:
    head = stored_head(place) if Path(place).is_dir() else None
    if head is not None:
        return f"a reward model with {len(head)} head{'' if len(head) == 1 else 's'}, for --reward and --judge"
    if any("SequenceClassification" in name for name in config.architectures or ()):
        return f"a classifier of {config.num_labels} labels"
    return POLICY


def _reward_head(place: str, config: "PreTrainedConfig") -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

    if own_head(place) or type(config) not in CLASSIFIERS:
        return "of assent, beside the body"
    classifier: Any = CLASSIFIERS[type(config)]
    return f"of transformers ({classifier.__name__})"


def _template(codec: ChatTokenizer) -> str:
    if codec.tokenizer.chat_template is None:
        return "none: it continues text, and takes no conversations"
    try:
        dated = ", writes the date (--date)" if codec.template() != codec.tokenizer.get_chat_template() else ""
    except AssentError as error:
        return str(error)
    reads = f"reads {', '.join(sorted(codec.arguments))} (--template-args)" if codec.arguments else "takes no arguments"
    return f"{reads}{dated}"


def _names(codec: ChatTokenizer, ids: list[int]) -> list[str]:
    return [str(codec.tokenizer.convert_ids_to_tokens(token)) for token in ids]


def _short(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
